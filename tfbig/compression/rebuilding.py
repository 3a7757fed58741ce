"""A smaller model of a larger one: the same layers with smaller settings, and the weights that stay."""

import copy
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, input_name, inputs_of, run_graph
from tfbig.backend.remaking import remade
from tfbig.compression.channels import Slice, Trace
from tfbig.compression.fresh import carry_trainable
from tfbig.errors import InvalidModel
from tfbig.training.replicas import carry_compile_settings


def rebuild(model: Any, found: Trace, alive: np.ndarray) -> Any:
    """Returns a new model without the channels that go: the same layer names, the weights that stay, compiled alike.

    Args:
        model: The model that was traced. It is not changed.
        found: Where its channels stand.
        alive: Which channels stay, by their numbers.

    Raises:
        InvalidModel: A layer cannot be made anew from its configuration.
    """
    made: dict[int, tuple[Any, Any]] = {}
    try:
        smaller = _rebuilt_model(model, found, alive, made)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise InvalidModel(
            f"The model {model.name!r} cannot be made anew: {error}. Every layer must come back from its get_config(); "
            "decorate your own with @keras.saving.register_keras_serializable()."
        ) from error
    for old, new in made.values():
        if graph_of(old) is None and getattr(old, "weights", None):
            new.set_weights([_what_stays(found.slices.get(id(v)), v, alive) for v in old.weights])
            if hasattr(new, "finalize_state"):  # what an adapted layer works with is made of its weights
                new.finalize_state()
    # Freezing a model freezes what is inside: the outer ones come first, so that each layer has the last word.
    for old, new in [(model, smaller), *reversed(made.values())]:
        carry_trainable(old, new)
    carry_compile_settings(model, smaller)
    return smaller


def masked(model: Any, found: Trace, alive: np.ndarray) -> Any:
    """Returns a copy in which every kernel that reads a channel that goes has zeros there.

    This is what a shrunk model must equal: a channel that nobody reads has no effect, whatever its value.

    Args:
        model: The model that was traced. It is not changed.
        found: Where its channels stand.
        alive: Which channels stay, by their numbers.
    """
    whole = rebuild(model, found, np.ones_like(alive))
    for old, new in zip(model.weights, whole.weights, strict=True):
        part = found.slices.get(id(old))
        if part is not None and part.reads is not None:
            values = np.moveaxis(np.array(old.numpy()), part.reads, 0)
            values[~alive[part.axes[part.reads]]] = 0
            new.assign(np.moveaxis(values, 0, part.reads))
    return whole


def _rebuilt_model(model: Any, found: Trace, alive: np.ndarray, made: dict[int, tuple[Any, Any]]) -> Any:
    graph = graph_of(model)
    channels = found.inputs.get(id(model), [None] * len(graph.inputs))
    inputs = [_input(tensor, ids, alive) for tensor, ids in zip(graph.inputs, channels, strict=True)]

    def again(layer: Any) -> Any:
        if id(layer) not in made:
            nested = graph_of(layer) is not None
            new = _rebuilt_model(layer, found, alive, made) if nested else _rebuilt_layer(layer, found, alive)
            made[id(layer)] = (layer, new)
        return made[id(layer)][1]

    if type(model) is keras.Sequential:
        return keras.Sequential([inputs[0], *map(again, model.layers)], name=model.name)
    given = keras.tree.pack_sequence_as(inputs_of(graph), inputs)
    outputs = run_graph(graph, inputs, lambda layer, args, kwargs, _: again(layer)(*args, **kwargs))
    return keras.Model(given, outputs, name=model.name)


def _input(tensor: Any, ids: Any, alive: np.ndarray) -> Any:
    shape = tuple(tensor.shape)
    if ids is not None and len(ids):
        shape = (*shape[:-1], int(alive[ids].sum()))
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=input_name(tensor))


def _rebuilt_layer(layer: Any, found: Trace, alive: np.ndarray) -> Any:
    config = copy.deepcopy(layer.get_config())
    for path, setting in found.settings.get(id(layer), {}).items():
        *outer, last = path
        place = config
        for name in outer:
            place = place[name]
        place[last] = setting.form(int(alive[setting.ids].sum()))
    return remade(layer, _without_shapes(config))


def _without_shapes(config: Any) -> Any:
    """The configuration without what would build a layer in its old shape: build_config, and initial arrays."""
    if isinstance(config, list | tuple):
        return type(config)(map(_without_shapes, config))
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "Constant" and not isinstance(config["config"].get("value"), int | float):
        config = {**config, "config": {**config["config"], "value": 0.0}}
    return {key: _without_shapes(value) for key, value in config.items() if key != "build_config"}


def _what_stays(part: Slice | None, variable: Any, alive: np.ndarray) -> np.ndarray:
    values = variable.numpy()
    for axis, ids in enumerate(part.axes if part else ()):
        if ids is not None:
            values = np.compress(alive[ids], values, axis=axis)
    return values
