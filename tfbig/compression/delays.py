"""How long `quantize_aware` leaves activations alone, beside how long a training is."""

import warnings
from collections.abc import Mapping
from typing import Any

from tfbig.data.checking import is_stream, row_count
from tfbig.errors import InvalidOption
from tfbig.layers.ranges import FakeQuant
from tfbig.options import positive_int


def check_delay(delay: int, x: Any, fit_options: Mapping[str, Any]) -> None:
    """Raises `InvalidOption` if a training would end before activations are rounded.

    Args:
        delay: Gradient steps without rounding.
        x: As in `fit`; of a stream of unknown length nothing is said.
        fit_options: As in `fit`.
    """
    batches = _batches(x, fit_options) if delay else None
    if batches is None:
        return
    steps = batches * positive_int("epochs", fit_options.get("epochs", 10))
    if delay >= steps:
        raise InvalidOption(
            f"delay={delay} outlasts this training of {steps} steps: activations would never be rounded. Train "
            "for more epochs or wait for fewer steps."
        )


def _batches(x: Any, fit_options: Mapping[str, Any]) -> int | None:
    """Gradient steps of an epoch; None for a stream that does not say."""
    if not is_stream(x):
        return -(-row_count(x) // positive_int("batch_size", fit_options.get("batch_size", 32)))
    known = x.cardinality() if hasattr(x, "cardinality") else getattr(x, "num_batches", None)
    return None if known is None or int(known) < 0 else int(known)


def warn_of_delay(delay: int, rounded: Any) -> None:
    """Warns where a stream of unknown length, or training that stopped early, has ended before rounding began."""
    ranges = [layer for layer in rounded.layers if isinstance(layer, FakeQuant) and layer.known_range is None]
    steps = max((int(layer.seen.numpy()) for layer in ranges), default=delay + 1)
    if delay and steps <= delay:
        warnings.warn(
            f"Training ended after {steps} steps, before delay={delay}: activations were never rounded in it.",
            stacklevel=4,  # past the check of the options
        )
