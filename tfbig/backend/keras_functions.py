"""Keras's own functions on tensors, and how to have others called in their places.

A layer's activation may be named, given as a function, called inside a layer's code or be an operation of the graph;
all end in one function of the backend. Keras has no public way to have another one there.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_NN, _NUMPY, _OPS = (
    "keras.src.backend.tensorflow.nn",
    "keras.src.backend.tensorflow.numpy",
    "keras.src.ops.nn",
)
_PLACES = {
    **{name: (_NN, name) for name in ("elu", "selu", "celu", "softplus", "log_sigmoid", "moments")},
    **{name: (_NUMPY, name) for name in ("sum", "square", "negative", "var")},
    "logsumexp": ("keras.src.backend.tensorflow.math", "logsumexp"),
    "normalize": (_OPS, "_normalize"),
    "rms_normalization": (_OPS, "_rms_normalization"),
}


def keras_function(name: str) -> Callable[..., Any]:
    """Returns one of Keras's functions on tensors."""
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)  # fails where Keras renamed it


@contextlib.contextmanager
def keras_functions(others: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Has other functions called in the places of Keras's in the block.

    Args:
        others: Name, of those above, to the function.
    """
    before = {name: keras_function(name) for name in others}
    try:
        for name, function in others.items():
            module, attribute = _PLACES[name]
            setattr(importlib.import_module(module), attribute, function)
        yield
    finally:
        for name, function in before.items():
            module, attribute = _PLACES[name]
            setattr(importlib.import_module(module), attribute, function)
