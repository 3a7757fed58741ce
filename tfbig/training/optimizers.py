"""Optimizers by name, fresh ones from used ones, and the same one at another learning rate."""

from typing import Any

from tfbig.backend import keras
from tfbig.backend.internals import settings_of
from tfbig.errors import InvalidOption, unknown_choice

# What the field calls an optimizer of its own and Keras an argument of SGD.
_VARIANTS = {"momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9, "nesterov": True}}
# What names cannot make, since other optimizers go inside.
_WRAPPERS = {
    "lossscaleoptimizer": "keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), with the optimizer itself "
    'inside and not its name; or pass precision="mixed_float16", which scales the loss of the optimizer named here',
    "multioptimizer": "a keras.optimizers.MultiOptimizer made with them",
}


def get_optimizer(optimizer: Any, learning_rate: Any = None) -> Any:
    """Returns an optimizer that no model has used yet.

    Args:
        optimizer: One of Keras's names in any case, such as "adam" or "sgd"; "momentum" or "nesterov", which are
            SGD with a momentum of 0.9; or an optimizer. One that already belongs to a model is copied without
            its state: it cannot serve a second model.
        learning_rate: A number or `keras.optimizers.schedules.LearningRateSchedule` in place of the optimizer's
            own; an optimizer that is passed is then copied. None keeps its own.

    Returns:
        A `keras.optimizers.Optimizer`.

    Raises:
        InvalidOption: No optimizer has that name; the nearest one is named.

    Example:
        >>> get_optimizer("nesterov", 0.1).momentum
        0.9
    """
    if isinstance(optimizer, str):
        known = optimizer_names()
        name = optimizer.lower()
        if name in _WRAPPERS:
            raise InvalidOption(
                f"optimizer={optimizer!r} wraps other optimizers, so its name is not enough: pass {_WRAPPERS[name]}."
            )
        if name not in known:
            raise unknown_choice("optimizer", optimizer, known)
        given = {} if learning_rate is None else {"learning_rate": learning_rate}
        return known[name](**_VARIANTS.get(name, {}), **given)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise InvalidOption(f"optimizer must be a name or a keras.optimizers.Optimizer; got {optimizer!r}.")
    if learning_rate is not None:
        return _at_another_rate(optimizer, learning_rate)
    return optimizer.__class__.from_config(settings_of(optimizer)) if optimizer.built else optimizer


def optimizer_names() -> dict[str, type]:
    """Returns Keras's optimizers by lower-case name, with "momentum" and "nesterov" for SGD's variants."""
    base = keras.optimizers.Optimizer
    candidates = {name: getattr(keras.optimizers, name) for name in dir(keras.optimizers)}
    own = {
        name.lower(): kind
        for name, kind in candidates.items()
        if isinstance(kind, type)
        and issubclass(kind, base)
        and kind is not base
        and name.lower() not in _WRAPPERS
    }
    return {**own, **dict.fromkeys(_VARIANTS, keras.optimizers.SGD)}


def _at_another_rate(optimizer: Any, learning_rate: Any) -> Any:
    """A copy without state; Keras lets no number take a schedule's place in the optimizer itself."""
    kind = optimizer.__class__
    if kind.__name__ == "MultiOptimizer":
        raise InvalidOption("A MultiOptimizer has several learning rates: set each inner optimizer's own.")
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        config = optimizer.get_config()
        config["inner_optimizer"] = keras.optimizers.serialize(
            _at_another_rate(optimizer.inner_optimizer, learning_rate)
        )
        return kind.from_config(config)
    return kind.from_config({**settings_of(optimizer), "learning_rate": learning_rate})
