"""Plain values that losses, metrics, optimizers and callbacks are known by, the same in every process."""

import functools
import inspect
import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.training.checkpoints import fingerprint

# A parameter that changes what is printed and nothing else.
_SAYS_NOTHING = ("self", "verbose")
_MISSING = object()
_FIRST_SEEN: "weakref.WeakKeyDictionary[Any, list[Any]]" = weakref.WeakKeyDictionary()


def described(value: Any) -> Any:
    """Returns JSON values that are equal for two things that do the same.

    Keras's objects are known by kind and settings without names, which Keras numbers through the life of a process;
    losses by what they hold besides, for not every `get_config` has all; functions by name, with what
    `functools.partial` binds; anything else by kind, for its repr may hold an address.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if isinstance(value, functools.partial):
        return ["partial", described(value.func), described(value.args), described(value.keywords)]
    if isinstance(value, keras.losses.Loss):
        return _described_loss(value)
    if isinstance(value, type) or not hasattr(value, "get_config"):
        return getattr(value, "__name__", type(value).__name__)
    config = _config_of(value)
    return type(value).__name__ if config is None else [type(value).__name__, config]


def _config_of(thing: Any) -> Any:
    """What `get_config` says, without names; None of what cannot be written down."""
    try:
        return without_names(described(thing.get_config()))
    except (NotImplementedError, TypeError, ValueError):  # of the user's own
        return None


def _described_loss(loss: Any) -> list[Any]:
    """A loss's kind and settings, and all else it holds: Keras's own Huber leaves its delta out of `get_config`."""
    config = _config_of(loss) or {}
    held = {name.lstrip("_"): _described_part(part) for name, part in vars(loss).items()}
    return [type(loss).__name__, {**_beyond(config, without_names(held)), **config}]


def _beyond(config: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    """What is held that the settings do not say, so that a difference is in one place only, which is then named."""
    left = {name: _beyond(config, part) if isinstance(part, dict) else part for name, part in held.items()}
    return {name: part for name, part in left.items() if name not in config or config[name] != part}


def _described_part(part: Any) -> Any:
    if isinstance(part, tf.Tensor | np.ndarray) and hasattr(part, "__array__"):
        return fingerprint(np.asarray(part))
    if isinstance(part, list | tuple):
        return [_described_part(inner) for inner in part]
    if isinstance(part, Mapping):
        return {str(key): _described_part(inner) for key, inner in part.items()}
    if isinstance(part, keras.layers.Layer | keras.Variable | tf.Variable):
        return type(part).__name__  # what they are now is state, and layers' settings hold names
    return described(part)


def without_names(config: Any) -> Any:
    """Returns JSON values without whatever is called "name" at any depth."""
    if isinstance(config, dict):
        return {key: without_names(value) for key, value in config.items() if key != "name"}
    return [without_names(part) for part in config] if isinstance(config, list) else config


def described_callback(callback: Any) -> list[Any]:
    """Returns a callback's kind and what it was made with: the plain values among its arguments that it keeps.

    Training changes some of them (`EarlyStopping` its min_delta), so they are looked at once, the first time.
    """
    if callback not in _FIRST_SEEN:
        _FIRST_SEEN[callback] = [type(callback).__name__, _made_with(callback)]
    return _FIRST_SEEN[callback]


def same_callbacks(mine: list[Any], theirs: list[Any]) -> list[int | None]:
    """Returns, for each of my described callbacks, which one of theirs it is; None where it is none of them."""
    left = list(enumerate(theirs))
    found: list[int | None] = []
    for callback in mine:
        place = next((i for i, (_, other) in enumerate(left) if other == callback), None)
        found.append(None if place is None else left[place][0])
        left = left if place is None else left[place + 1 :]
    return found


def _made_with(callback: Any) -> dict[str, Any]:
    kept = vars(callback)
    made_with = {}
    for name in inspect.signature(type(callback).__init__).parameters:
        value = kept.get(name, kept.get(f"_{name}", _MISSING))
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if name not in _SAYS_NOTHING and _is_plain(value):
            made_with[name] = described(value)
    return made_with


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return value is None or isinstance(value, bool | int | float | str | np.generic)
