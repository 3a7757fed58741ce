"""Keras's functions in the forms that integer files can compute.

For activations see `tfbig.layers.functions`. Besides, SUM keeps, in 16 bits, the scale of its terms, and LiteRT has no
16-bit SQUARED_DIFFERENCE.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.graph import nodes_inside, operation_name
from tfbig.backend.internals import every_layer
from tfbig.backend.keras_functions import PLACES, keras_function
from tfbig.layers.functions import FORMS

_L = keras.layers
# The float32 before 1: a factor that the converter does not take for none, and whose product has a scale of its own.
_NEARLY_ONE = 1 - 2**-24
# Activations that Keras computes by a function of their own.
_FORMS = {name: form for name, form in FORMS.items() if name in PLACES}
# Which of Keras's layers and operations come to a function below.
_LAYERS = (_L.ELU, _L.UnitNormalization, _L.RMSNormalization, _L.AdditiveAttention, _L.Lambda)
_OPERATIONS = {
    *(
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "LogSigmoid",
        "Mish",
        "Squareplus",
        "SoftShrink",
        "SparsePlus",
        "Square",
        "Negative",
        "Var",
        "Moments",
    ),
    *("Sum", "Logsumexp", "Normalize", "RMSNorm"),
}
_ACTIVATIONS = {*_FORMS, "mish"}  # which calls softplus


def integer_functions(wide: bool) -> dict[str, Callable[..., Any]]:
    """Returns what stands in for Keras's functions, by name (see `keras_functions`).

    Args:
        wide: Whether activations have 16 bits.
    """
    functions: dict[str, Callable[..., Any]] = {
        **_FORMS,
        "square": _square,
        "negative": _negative,
        "logsumexp": _logsumexp,
        "var": _var,
        "moments": _moments,
        "normalize": _normalize_or(keras_function("normalize")),
        "rms_normalization": _rms_normalization,
    }
    return {**functions, "sum": _sum_of(keras_function("sum"))} if wide else functions


def calls_such(model: Any) -> bool:
    """Returns whether a model may call one of the functions; a class that is not Keras's may call any."""
    return any(_may_call(layer) for layer in every_layer(model)) or any(
        operation_name(node.operation) in _OPERATIONS for node in nodes_inside(model)
    )


def _may_call(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    own = not type(layer).__module__.startswith(("keras.", "tfbig."))
    return own or isinstance(layer, _LAYERS) or getattr(activation, "__name__", None) in _ACTIVATIONS


def with_own_scale(x: Any) -> Any:
    """Returns floats such that the converter gives them a scale of their own; anything else as it is."""
    return x * _NEARLY_ONE if tf.is_tensor(x) and x.dtype.is_floating else x


def _negative(x: Any) -> Any:
    x = tf.convert_to_tensor(x)
    return x * -1 if x.dtype.is_floating else -x


def _logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    x = tf.convert_to_tensor(x)
    largest = tf.reduce_max(x, axis, keepdims=True)
    # Keras's sum: in 16 bits another one stands in for it.
    total = tf.math.log(keras.ops.sum(tf.exp(with_own_scale(x) - largest), axis, keepdims=True)) + largest
    return total if keepdims else tf.squeeze(total, axis)


def _square(x: Any) -> Any:
    x = tf.convert_to_tensor(x)
    return x * x


def _var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    x = tf.convert_to_tensor(x)
    apart = x - tf.reduce_mean(x, axis, keepdims=True)
    return tf.reduce_mean(apart * apart, axis, keepdims)


def _moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    return tf.reduce_mean(x, axes, keepdims), _var(x, axes, keepdims)


def _normalize_or(original: Callable[..., Any]) -> Callable[..., Any]:
    def normalize(x: Any, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Any:
        x = tf.convert_to_tensor(x)
        size = _size(x, axis)
        if order != 2 or size is None:
            return original(x, axis=axis, order=order, epsilon=epsilon)
        smallest = keras.config.epsilon() if epsilon is None else epsilon
        mean = tf.reduce_mean(x * x, axis, keepdims=True)
        # Of zeros it is zeros, as in Keras.
        return x * (tf.math.rsqrt(tf.maximum(mean, smallest**2 / size)) * (1 / math.sqrt(size)))

    return normalize


def _rms_normalization(x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None) -> Any:
    x = tf.convert_to_tensor(x)
    epsilon = keras.config.epsilon() if epsilon is None else epsilon
    x = x * tf.math.rsqrt(tf.reduce_mean(x * x, axis, keepdims=True) + epsilon)
    return x if scale is None else x * tf.cast(scale, x.dtype)


def _sum_of(original: Callable[..., Any]) -> Callable[..., Any]:
    def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        x = tf.convert_to_tensor(x)
        size = _size(x, axis)
        if size is None or not x.dtype.is_floating:
            return original(x, axis=axis, keepdims=keepdims)
        return tf.reduce_mean(x, axis, keepdims) * float(size)

    return sum


def _size(x: Any, axis: Any) -> int | None:
    """How many values are taken together, or None where that is open."""
    axes = range(len(x.shape)) if axis is None else np.ravel(axis)
    sizes = [x.shape[int(place)] for place in axes]
    return None if None in sizes else math.prod(sizes)
