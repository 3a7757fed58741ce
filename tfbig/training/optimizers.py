"""Optimizers by name, and fresh ones from used ones."""

from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice


def get_optimizer(optimizer: Any) -> Any:
    """Returns an optimizer that no model has used yet.

    Args:
        optimizer: One of Keras's names, such as "adam" or "sgd", or an optimizer. One that already belongs to a
            model is copied without its state: it cannot serve a second model.

    Returns:
        A `keras.optimizers.Optimizer`.

    Raises:
        InvalidOption: No optimizer has that name; the nearest one is named.
    """
    if isinstance(optimizer, str):
        known = optimizer_names()
        if optimizer.lower() not in known:
            raise unknown_choice("optimizer", optimizer, known)
        return known[optimizer.lower()]()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise InvalidOption(f"optimizer must be a name or a keras.optimizers.Optimizer; got {optimizer!r}.")
    return optimizer.__class__.from_config(optimizer.get_config()) if optimizer.built else optimizer


def optimizer_names() -> dict[str, type]:
    """Returns Keras's optimizers by lower-case name."""
    base = keras.optimizers.Optimizer
    candidates = {name: getattr(keras.optimizers, name) for name in dir(keras.optimizers)}
    wrappers = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
    return {
        name.lower(): kind
        for name, kind in candidates.items()
        if isinstance(kind, type) and issubclass(kind, base) and name not in wrappers
    }
