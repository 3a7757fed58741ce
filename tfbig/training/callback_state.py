"""What a callback remembers, as plain values and arrays, and back: EarlyStopping's best weights, a plateau's count."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras, tf

# Not memory: which model and which run the callback belongs to, and (CSVLogger) whether the file that it found has a
# header, which the new process sets itself.
_SET_BY_KERAS = ("_model", "model", "params", "append_header")
_SKIPPED = object()


def state_of(callback: Any, keep: Callable[[str, np.ndarray], None]) -> dict[str, Any]:
    """Returns the callback's attributes that are plain values, arrays or variables, as JSON values.

    Args:
        callback: A Keras callback.
        keep: Is given a name and an array for each array found.

    Returns:
        Attribute name to a JSON value. Attributes of other kinds (functions, open files) are not in it.
    """
    state = {}
    for name, value in vars(callback).items():
        encoded = _SKIPPED if name in _SET_BY_KERAS else _encoded(value, name, keep)
        if encoded is not _SKIPPED:
            state[name] = encoded
    return state


def restore(callback: Any, state: dict[str, Any], kept: Callable[[str], np.ndarray]) -> None:
    """Gives the callback the attributes that `state_of` returned; `kept` finds an array by its name."""
    for name, encoded in state.items():
        setattr(callback, name, _decoded(encoded, kept, vars(callback).get(name)))


def _encoded(value: Any, name: str, keep: Callable[[str, np.ndarray], None]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, keras.Variable | tf.Variable):
        value = np.asarray(value.numpy())  # of a scalar, numpy() is no array
    if isinstance(value, np.ndarray) and value.dtype != object:
        keep(name, value)
        return {"array": name}
    called = getattr(value, "__name__", "")
    if callable(value) and getattr(keras.ops, called, None) is value:
        return {"op": called}  # how Keras's callbacks compare: with it set, they do not set up again
    if isinstance(value, list | tuple):
        parts = [_encoded(part, f"{name}/{i}", keep) for i, part in enumerate(value)]
        if any(part is _SKIPPED for part in parts):
            return _SKIPPED
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        named = {key: _encoded(part, f"{name}/{key}", keep) for key, part in value.items()}
        return _SKIPPED if any(part is _SKIPPED for part in named.values()) else {"dict": named}
    return _SKIPPED


def _decoded(encoded: Any, kept: Callable[[str], np.ndarray], current: Any = None) -> Any:
    """The value; variables that stand in its place keep it and take the value, for others may hold them too."""
    if not isinstance(encoded, dict):
        return encoded
    ((kind, content),) = encoded.items()
    if kind == "array":
        if isinstance(current, keras.Variable | tf.Variable):
            current.assign(kept(content))
            return current
        return kept(content)
    if kind == "op":
        return getattr(keras.ops, content)
    if kind == "dict":
        named = current if isinstance(current, dict) else {}
        return {key: _decoded(part, kept, named.get(key)) for key, part in content.items()}
    held = (
        current
        if isinstance(current, list | tuple) and len(current) == len(content)
        else [None] * len(content)
    )
    parts = [_decoded(part, kept, there) for part, there in zip(content, held, strict=True)]
    return tuple(parts) if kind == "tuple" else parts
