"""Keras's own functions on tensors, and how to have others called in their places.

A layer's activation may be named, given as a function, called inside a layer's code or be an operation of the graph;
all end in one function of the backend. Keras has no public way to have another one there.
"""

import contextlib
import contextvars
import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_NN, _NUMPY, _MATH, _OPS = (
    "keras.src.backend.tensorflow.nn",
    "keras.src.backend.tensorflow.numpy",
    "keras.src.backend.tensorflow.math",
    "keras.src.ops.nn",
)
PLACES = {
    **{name: (_NN, name) for name in ("elu", "selu", "celu", "softplus", "log_sigmoid", "moments")},
    **{name: (_NN, name) for name in ("squareplus", "soft_shrink", "sparse_plus")},
    **{name: (_NUMPY, name) for name in ("sum", "square", "negative", "var")},
    "add": (_NUMPY, "add"),
    "logsumexp": (_MATH, "logsumexp"),
    "normalize": (_OPS, "_normalize"),
    "rms_normalization": (_OPS, "_rms_normalization"),
    # The score of steps that attention and the softmax layer may not see.
    "hidden score of attention": (_NN, "_get_large_negative"),
    "hidden score of softmax": ("keras.src.layers.activations.softmax", "_large_negative_number"),
}
# What the thread that is in a block calls; others go on with Keras's own.
_others: contextvars.ContextVar[Mapping[str, Callable[..., Any]] | None] = contextvars.ContextVar(
    "others", default=None
)
_lock = threading.Lock()
_originals: dict[str, Callable[..., Any]] = {}
_blocks = 0


def keras_function(name: str) -> Callable[..., Any]:
    """Returns one of Keras's functions on tensors, also where another one is called in its place."""
    module, attribute = PLACES[name]
    return _originals.get(name) or getattr(importlib.import_module(module), attribute)


@contextlib.contextmanager
def keras_functions(others: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Has other functions called in the places of Keras's in the block, by the thread that is in it.

    Args:
        others: Name, of those above, to the function.

    Raises:
        AttributeError: Keras has renamed one of its functions.
    """
    _enter()
    token = _others.set({**(_others.get() or {}), **others})
    try:
        yield
    finally:
        _others.reset(token)
        _leave()


def _enter() -> None:
    global _blocks
    with _lock:
        if not _blocks:
            originals = {name: keras_function(name) for name in PLACES}
            _originals.update(originals)
            for name, original in originals.items():
                _put(name, _chosen(name, original))
        _blocks += 1


def _leave() -> None:
    global _blocks
    with _lock:
        _blocks -= 1
        if not _blocks:
            for name, original in _originals.items():
                _put(name, original)
            _originals.clear()


def _chosen(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return (_others.get() or {}).get(name, original)(*args, **options)

    return call


def _put(name: str, function: Callable[..., Any]) -> None:
    module, attribute = PLACES[name]
    setattr(importlib.import_module(module), attribute, function)
