"""Second layers with the weights of the first: what a rebuilt model is made of, so that the first stays as it is."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of
from tfbig.backend.internals import every_layer
from tfbig.backend.remaking import remade
from tfbig.errors import InvalidModel
from tfbig.layers.kernels import kernel_of


def again(op: Any) -> Any:
    """Returns a second operation of the same settings, and weights if it is a layer. It computes in float32.

    Raises:
        InvalidModel: A custom layer cannot be made from its own `get_config`.
    """
    try:
        if not isinstance(op, keras.layers.Layer):
            return remade(op)
        layer = remade(op, {**op.get_config(), "dtype": "float32"})
        if not layer.built and op.built:
            layer.build_from_config(op.get_build_config() or {})
        layer.set_weights(op.get_weights())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidModel(
            f"The layer {op.name!r} cannot be made a second time: {error}. A custom layer needs a get_config() "
            "that names all arguments of its __init__."
        ) from error
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    carry_trainable(op, layer)
    return layer


def carry_trainable(source: Any, layer: Any) -> None:
    """Freezes in a second layer, and inside it, what is frozen in the first; of a model, the model itself."""
    if not isinstance(source, keras.layers.Layer):  # an operation of keras.ops has nothing to train
        return
    layer.trainable = source.trainable
    if graph_of(source) is None:
        for mine, theirs in zip(every_layer(layer), every_layer(source), strict=True):
            mine.trainable = theirs.trainable


def linear(layer: Any, bias: np.ndarray | None = None, use_bias: bool = True) -> Any:
    """Returns a second layer with the same kernel and no activation; with `bias` in place of its own, or with none.

    It has no activity regularizer either, which is about what the activation gives.
    """
    config = {**layer.get_config(), "dtype": "float32"}
    config.pop("activity_regularizer", None)
    if "activation" in config:
        config["activation"] = "linear"
    if bias is None and use_bias:
        bias = getattr(layer, "bias", None)
    else:
        # What was asked of the layer's own bias was not asked of this one.
        config |= {"use_bias": use_bias, "bias_regularizer": None, "bias_constraint": None}
    weights = [kernel_of(layer)] if bias is None else [kernel_of(layer), bias]
    copy = type(layer).from_config(config)
    copy.build_from_config(layer.get_build_config())
    copy.set_weights([np.asarray(weight) for weight in weights])
    copy.trainable = layer.trainable
    return copy


def adopt(layer: Any, weights: list[Any], channels: int) -> None:
    """Builds a layer of `keras.layers` for inputs of so many channels and gives it these weights."""
    ranks = {"Dense": 2, "Conv1D": 3, "DepthwiseConv1D": 3}
    rank = ranks.get(type(layer).__name__, 4)
    # Sizes of steps and pixels do not matter to the weights; build asks that they fit the window.
    size = max(np.shape(weights[0]))
    layer.build((None, *(max(size, 1),) * (rank - 2), channels))
    layer.set_weights([np.asarray(weight) for weight in weights])
