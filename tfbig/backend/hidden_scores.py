"""The score that attention gives to steps it may not see, made small enough for an 8-bit range.

Keras writes the largest negative float in their place (-2e38). Softmax makes it 0 either way; but a range that reaches
so far has 256 levels 1e36 apart, and all scores that count fall on one. There is no public option.
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

# exp(-20) is 2e-9. A lower score would leave the others fewer levels; a higher one would show hidden steps.
HIDDEN = -20.0
_PLACES = (
    ("keras.src.backend.tensorflow.nn", "_get_large_negative"),
    ("keras.src.layers.activations.softmax", "_large_negative_number"),
)


@contextlib.contextmanager
def bounded_hidden_scores() -> Iterator[None]:
    """Lets models traced inside give hidden steps a score of -20."""
    modules = [(importlib.import_module(module), name) for module, name in _PLACES]
    before: list[Any] = [getattr(module, name) for module, name in modules]  # fails where Keras renamed one
    try:
        for module, name in modules:
            setattr(module, name, lambda dtype: HIDDEN)
        yield
    finally:
        for (module, name), function in zip(modules, before, strict=True):
            setattr(module, name, function)
