"""Normalization layers in the form that integer files can compute: the mean is subtracted once, and all else follows.

LiteRT has no 16-bit SQUARED_DIFFERENCE, which Keras's variance becomes, and no integer NEG; and a difference of two
large products would be rounded twice.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras, tf

_L = keras.layers


def normalizing_form(layer: Any) -> Callable[..., Any] | None:
    """Returns what stands in for the `call` of a layer, or None where its own will do."""
    if isinstance(layer, _L.LayerNormalization) and not getattr(layer, "rms_scaling", False):
        return _by_layer(layer)
    if type(layer) is _L.GroupNormalization and layer.axis in (-1, layer.input_spec.ndim - 1):
        return _by_group(layer)
    return None


def _by_layer(layer: Any) -> Callable[..., Any]:
    def call(inputs: Any) -> Any:
        x = tf.cast(inputs, tf.float32)  # as Keras does, whatever the model's precision
        axes = [axis % len(x.shape) for axis in np.ravel(layer.axis)]
        shape = [size if place in axes else 1 for place, size in enumerate(x.shape)]
        return tf.cast(_moved(layer, _normalized(x, axes, layer.epsilon), shape), layer.compute_dtype)

    return call


def _by_group(layer: Any) -> Callable[..., Any]:
    original = layer.call

    def call(inputs: Any) -> Any:
        between, channels = inputs.shape[1:-1], inputs.shape[-1]
        if None in between:
            return original(inputs)
        rows, groups = inputs.shape[0] or -1, [layer.groups, channels // layer.groups]
        x = tf.reshape(tf.cast(inputs, tf.float32), [rows, math.prod(between), *groups])
        x = _moved(layer, _normalized(x, [1, 3], layer.epsilon), [1, 1, *groups])
        return tf.cast(tf.reshape(x, [rows, *between, channels]), layer.compute_dtype)

    return call


def _normalized(x: Any, axes: list[int], epsilon: float) -> Any:
    apart = x - tf.reduce_mean(x, axes, keepdims=True)
    # Multiplied by itself: a square may become SQUARED_DIFFERENCE again.
    return apart * tf.math.rsqrt(tf.reduce_mean(apart * apart, axes, keepdims=True) + epsilon)


def _moved(layer: Any, x: Any, shape: list[int]) -> Any:
    for weight, combine in ((layer.gamma, tf.multiply), (layer.beta, tf.add)):
        if weight is not None:
            x = combine(x, tf.reshape(tf.cast(weight, tf.float32), shape))
    return x
