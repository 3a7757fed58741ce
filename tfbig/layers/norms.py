"""Normalization layers in the form that integer files can compute: the mean is subtracted once, and all else follows.

LiteRT has no 16-bit SQUARED_DIFFERENCE, which Keras's variance becomes, and no integer NEG; and a difference of two
large products would be rounded twice.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.layers.rounding import RoundedInside, Rounding, as_it_is, rounded_constant

_L = keras.layers
NORMS = (_L.LayerNormalization, _L.RMSNormalization, _L.GroupNormalization)


def has_integer_form(layer: Any) -> bool:
    """Whether `normalized` computes what the layer does; of a class of the user's own, if it calls Keras's."""
    kind = next((kind for kind in NORMS if isinstance(layer, kind)), None)
    if kind is None or type(layer).call is not kind.call:
        return False
    if kind is _L.GroupNormalization:
        return layer.axis in (-1, layer.input_spec.ndim - 1)
    return not getattr(layer, "rms_scaling", False)


def normalized(
    layer: Any,
    inputs: Any,
    rounding: Rounding = as_it_is,
    constant: Callable[[Any], Any] = lambda values: tf.cast(values, tf.float32),
    inverse: Callable[[Any], Any] = tf.math.rsqrt,
) -> Any:
    """Returns what a normalization layer gives, in float32 as Keras does.

    Args:
        layer: One that has such a form, built. Of a group normalization the other axes must not be open.
        inputs: What it is called on.
        rounding: Of the intermediate values, by the names of `parts_of`.
        constant: What becomes of factors, offsets and the layer's epsilon.
        inverse: From the variance to what the difference is multiplied by.
    """
    x = tf.cast(inputs, tf.float32)
    axes, inside, shape = _taken_apart(layer, x)
    x = x if inside is None else tf.reshape(x, inside)
    if _centers(layer):
        x = rounding("apart", x - rounding("mean", tf.reduce_mean(x, axes, keepdims=True)))
    # Multiplied by itself: a square may become SQUARED_DIFFERENCE again.
    square = rounding("mean_square", tf.reduce_mean(rounding("square", x * x), axes, keepdims=True))
    x = x * rounding("inverse", inverse(rounding("variance", square + constant(layer.epsilon))))
    for part, weight, combine in _factors(layer):
        x = combine(rounding(part, x), tf.reshape(constant(weight), shape))
    return x if inside is None else tf.reshape(x, [inside[0], *inputs.shape[1:]])


def parts_of(layer: Any) -> tuple[str, ...]:
    """Returns the names of the intermediate values of a layer's `normalized`, in their order."""
    center = ("mean", "apart") if _centers(layer) else ()
    factors = [part for part, _, _ in _factors(layer)]
    return *center, "square", "mean_square", "variance", "inverse", *factors


def _taken_apart(layer: Any, x: Any) -> tuple[list[int], list[int] | None, list[int]]:
    """The axes that are averaged over; the shape to do so in, None for the inputs' own; and that of the factors."""
    if isinstance(layer, _L.GroupNormalization):
        rows, *between, channels = x.shape
        groups = [layer.groups, channels // layer.groups]
        return [1, 3], [rows or -1, math.prod(between), *groups], [1, 1, *groups]
    axes = [axis % len(x.shape) for axis in np.ravel(layer.axis)]
    return axes, None, [size if place in axes else 1 for place, size in enumerate(x.shape)]


def _centers(layer: Any) -> bool:
    return not isinstance(layer, _L.RMSNormalization)


def _factors(layer: Any) -> list[tuple[str, Any, Callable[..., Any]]]:
    """What the normalized values are moved by: the name of the value before, the weight, and how."""
    if isinstance(layer, _L.RMSNormalization):
        return [("normalized", layer.scale, tf.multiply)]
    given = [(layer.gamma, tf.multiply), (layer.beta, tf.add)]
    kept = [(weight, combine) for weight, combine in given if weight is not None]
    return [(part, *factor) for part, factor in zip(("normalized", "scaled"), kept, strict=False)]


@keras.saving.register_keras_serializable(package="tfbig")
class QuantizedNormalization(RoundedInside):
    """A layer, RMS or group normalization that rounds every value on its way as an integer file does."""

    def parts(self) -> tuple[str, ...]:
        """Names of the intermediate values."""
        return parts_of(self.layer)

    def call(self, inputs: Any, training: bool = False, place: int = 0) -> Any:
        """Normalizes `inputs`; the result has their shape."""
        inverse = self._inverse(place) if training else tf.math.rsqrt
        return normalized(self.layer, inputs, self.rounding(training, place), rounded_constant, inverse)

    def _inverse(self, place: int) -> Callable[[Any], Any]:
        """From the rounded variance, while training: of 0 it is that of the smallest variance above.

        LiteRT gives the largest value of the range there, and so does rounding infinity, which has no gradient.
        """
        lowest, highest = self.range_of("variance", place).limits()
        step = (highest - lowest) / 255.0
        return lambda variance: tf.math.rsqrt(tf.where(variance > 0.0, variance, step))
