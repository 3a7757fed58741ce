"""The folds' models: what makes them one architecture, and the constants that are no weights."""

import contextlib
import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.distribution import compile_arguments
from tfbig.backend.internals import every_layer
from tfbig.errors import InvalidModel

# What a normalizer holds beside its weights.
_CONSTANTS = ("mean", "variance")
# What a model is compiled with, beside the optimizer.
_COMPILED = ("loss", "loss_weights", "metrics", "weighted_metrics")
# Settings that say how weights start, or how layers are called: they may differ, the weights are the fold's own.
_STARTING = ("name", "seed", "build_config")


def constants_of(model: Any) -> list[Any]:
    """Returns the mean and variance of every normalizer in the model: tensors that are no weights."""
    return [tf.convert_to_tensor(getattr(layer, name)) for layer, name in _normalizing(model)]


@contextlib.contextmanager
def swapped_constants(model: Any, constants: Sequence[Any]) -> Iterator[None]:
    """Lets the model's normalizers compute with other constants, for the block."""
    places = _normalizing(model)
    before = [getattr(layer, name) for layer, name in places]
    try:
        for (layer, name), value in zip(places, constants, strict=True):
            setattr(layer, name, value)
        yield
    finally:
        for (layer, name), value in zip(places, before, strict=True):
            setattr(layer, name, value)


def recurrent_layers(model: Any, most_steps: int) -> list[Any]:
    """Returns the recurrent layers that see at most so many time steps."""
    found = []
    for layer in every_layer(model):
        if isinstance(layer, keras.layers.RNN):
            shape = (layer.get_build_config() or {}).get("input_shape")
            if shape is not None and shape[1] is not None and shape[1] <= most_steps:
                found.append(layer)
    return found


@contextlib.contextmanager
def unrolled(layers: Sequence[Any]) -> Iterator[None]:
    """Lets recurrent layers compute step after step without a loop, for the block."""
    before = [layer.unroll for layer in layers]
    try:
        for layer in layers:
            layer.unroll = True
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.unroll = was


def check_same_architecture(first: Any, other: Any, fold: int) -> None:
    """Raises `InvalidModel` when two folds' models have other layers or weights of other shapes."""
    if other is first:
        raise InvalidModel(
            "The builder returned the same model twice: the second fold would start from the first one's "
            "weights. Build the model inside the function."
        )
    if not other.built:
        return  # its weights come with its first batch
    kinds, shapes = (
        [[type(layer).__name__ for layer in every_layer(model)] for model in (first, other)],
        [
            {v.path.split("/")[-1] + f" {i}": tuple(v.shape) for i, v in enumerate(m.weights)}
            for m in (first, other)
        ],
    )
    found = None
    if kinds[0] != kinds[1]:
        found = f"its layers are {_short(kinds[1])}, those of fold 0 are {_short(kinds[0])}"
    elif shapes[0] != shapes[1]:
        name = next(n for n in [*shapes[0], *shapes[1]] if shapes[0].get(n) != shapes[1].get(n))
        found = f"its weight {name} has shape {shapes[1].get(name)}, that of fold 0 {shapes[0].get(name)}"
    if found:
        raise InvalidModel(
            f"The builder made another architecture for fold {fold}: {found}. Folds are compared, so every call "
            "must build the same layers; only fitted values, such as a normalizer's, may differ."
        )


def settings_difference(first: Any, other: Any) -> str | None:
    """Returns where two models of one architecture differ in what they compute, beside weights and normalizers.

    Args:
        first: The compiled model of one fold.
        other: That of another.

    Returns:
        Such as "dropout.rate: 0.1 against 0.2", or None.
    """
    configs = [_config(model) if _is_graph(model) else None for model in (first, other)]
    known = None not in configs
    pairs = [(configs[0], configs[1], "")] if known else []
    for one, two in zip(every_layer(first), every_layer(other), strict=True):
        pairs.append((_settings(one, known), _settings(two, known), one.name))
    compiled = [compile_arguments(model) for model in (first, other)]
    pairs += [
        (first.optimizer, other.optimizer, "optimizer"),
        *((compiled[0].get(name), compiled[1].get(name), name) for name in _COMPILED),
    ]
    return next(filter(None, (_difference(*pair) for pair in pairs)), None)


def _normalizing(model: Any) -> list[tuple[Any, str]]:
    layers = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.Normalization)]
    return [
        (layer, name) for layer in layers for name in _CONSTANTS if getattr(layer, name, None) is not None
    ]


def _is_graph(model: Any) -> bool:
    return isinstance(model, keras.Sequential) or type(model).__name__ == "Functional"


def _config(layer: Any) -> Any:
    """The layer's config as `_nameless` gives it; None for one of the user's own that has none."""
    try:
        return _nameless(layer.get_config())
    except NotImplementedError:
        return None


def _nameless(config: Any) -> Any:
    """A model's config with layers by number in place of name, and without what says how weights start."""
    numbers: dict[str, str] = {}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("name"), str):
                numbers.setdefault(value["name"], f"layer {len(numbers)}")
            for item in value.values():
                collect(item)
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)

    def renamed(value: Any, normalizer: bool = False) -> Any:
        if isinstance(value, dict):
            inside = normalizer or value.get("class_name") == "Normalization"
            return {
                key: renamed(item, inside)
                for key, item in value.items()
                if key not in _STARTING
                and not key.endswith("_initializer")
                and not (inside and key in _CONSTANTS)
            }
        if isinstance(value, list | tuple):
            return [renamed(item, normalizer) for item in value]
        return numbers.get(value, value) if isinstance(value, str) else value

    collect(config)
    return renamed(config)


def _settings(layer: Any, config_known: bool) -> Any:
    """What a layer computes with, beside its weights."""
    if not type(layer).__module__.startswith("keras.") or isinstance(layer, keras.layers.Lambda):
        return _own_values(layer)
    if hasattr(layer, "adapt") and not isinstance(layer, keras.layers.Normalization):
        # What was learned from data stands in no config.
        if hasattr(layer, "get_vocabulary") and getattr(layer, "output_mode", None) != "tf_idf":
            return list(layer.get_vocabulary())
        return getattr(layer, "bin_boundaries", _Learned())
    return None if config_known or isinstance(layer, keras.Model) else _config(layer)


class _Learned:
    """Stands for what was learned and cannot be looked at, such as how rare each word is; unlike any other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "learned values"


def _own_values(layer: Any) -> dict[str, Any]:
    """What a layer of the user's own holds, beside what every layer holds."""
    common = vars(keras.layers.Layer())
    hidden = (keras.layers.Layer, keras.Variable, keras.KerasTensor, keras.random.SeedGenerator)
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in common
        and not name.startswith(("_tf", "_self"))
        and not isinstance(value, hidden)
        and not (isinstance(value, list | tuple) and any(isinstance(item, hidden) for item in value))
        and not (isinstance(layer, keras.Model) and name.startswith("_"))
        and name not in ("optimizer", "loss", "history")
    }


def _difference(one: Any, two: Any, where: str, depth: int = 0) -> str | None:
    """Where two values differ, or None. What cannot be compared counts as different."""
    if one is two:
        return None
    if isinstance(one, np.ndarray | tf.Tensor) and isinstance(two, np.ndarray | tf.Tensor):
        same = one.shape == two.shape and np.array_equal(np.asarray(one), np.asarray(two))
        return None if same else f"{where}: other numbers"
    if type(one) is not type(two):
        return f"{where}: {one!r} against {two!r}"
    if isinstance(one, dict):
        if set(one) != set(two):
            return f"{where}: {sorted(map(str, one))} against {sorted(map(str, two))}"
        parts = [(f"{where}.{key}".lstrip("."), one[key], two[key]) for key in one]
    elif isinstance(one, list | tuple):
        if len(one) != len(two):
            return f"{where}: {len(one)} against {len(two)} entries"
        parts = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(one, two, strict=True))]
    elif isinstance(one, types.MethodType):
        parts = [(where, one.__func__, two.__func__), (where, one.__self__, two.__self__)]
    elif isinstance(one, types.FunctionType):
        if one.__code__ != two.__code__:
            return f"{where}: other functions"
        ours, theirs = ([cell.cell_contents for cell in f.__closure__ or ()] for f in (one, two))
        parts = [(where, ours, theirs), (where, one.__defaults__, two.__defaults__)]
        parts.append((where, one.__kwdefaults__, two.__kwdefaults__))
    elif isinstance(one, functools.partial):
        parts = [
            (where, one.func, two.func),
            (where, one.args, two.args),
            (where, one.keywords, two.keywords),
        ]
    elif hasattr(one, "get_config") and not isinstance(one, type):
        parts = [(where, _nameless(one.get_config()), _nameless(two.get_config()))]
        if isinstance(one, keras.optimizers.Optimizer):
            for _, a, b in parts:  # the rate is a value of the fold's own, unless a schedule decides it
                if isinstance(a.get("learning_rate"), float) and isinstance(b.get("learning_rate"), float):
                    a["learning_rate"] = b["learning_rate"]
        if getattr(one, "fn", None) is not None:
            parts.append((where, one.fn, two.fn))  # a loss around a function of the user's
    elif isinstance(one, int | float | complex | str | bytes | type | types.BuiltinFunctionType) or depth > 8:
        same = one == two or (one != one and two != two)
        return None if same else f"{where}: {one!r} against {two!r}"
    else:
        parts = [(where, vars(one), vars(two))] if hasattr(one, "__dict__") else []
        if not parts and one != two:
            return f"{where}: {one!r} against {two!r}"
    return next(filter(None, (_difference(a, b, path, depth + 1) for path, a, b in parts)), None)


def _short(kinds: list[str]) -> str:
    return ", ".join(kinds[1:])
