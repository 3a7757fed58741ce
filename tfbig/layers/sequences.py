"""Layers of sequences that round what they compute on the way: positions, and averages of steps that count."""

from typing import Any

from tfbig.backend import keras, tf
from tfbig.layers.rounding import RoundedInside, rounded_constant

# Of the steps, those that count: about the first of 256 levels, so that nothing is divided by 0.
_SMALLEST_SHARE = 1 / 256


@keras.saving.register_keras_serializable(package="tfbig")
class QuantizedPositions(RoundedInside):
    """Adds to each step the vector of its position, from a table that is rounded."""

    def call(self, inputs: Any, place: int = 0) -> Any:
        """Adds the table of the layer inside to `inputs` of shape (batch, steps, features)."""
        table = rounded_constant(self.layer.table)
        return tf.cast(inputs, tf.float32) + table[: keras.ops.shape(inputs)[1]]


@keras.saving.register_keras_serializable(package="tfbig")
class QuantizedAverage(RoundedInside):
    """Averages the steps that are not padding, as a ratio of two means; a sequence of padding alone gives zeros."""

    def parts(self) -> tuple[str, ...]:
        """Names of the intermediate values."""
        return "mean", "kept", "share"

    def call(self, inputs: Any, training: bool = False, mask: Any = None, place: int = 0) -> Any:
        """Averages `inputs` of shape (batch, steps, features) where `mask` (batch, steps) is True."""
        inputs, rounding = tf.cast(inputs, tf.float32), self.rounding(training, place)
        keepdims = getattr(self.layer, "keepdims", False)
        if mask is None:
            return tf.reduce_mean(inputs, 1, keepdims)
        mask = tf.cast(mask, tf.bool)[..., None]
        # Selected, not multiplied: so it keeps the range of the inputs, and nothing has to become a float.
        mean = rounding("mean", tf.reduce_mean(tf.where(mask, inputs, 0.0), 1, keepdims))
        share = tf.reduce_mean(rounding("kept", tf.where(mask, 1.0, 0.0)), 1, keepdims)
        return mean / rounding("share", tf.maximum(rounding("share", share), _SMALLEST_SHARE))
