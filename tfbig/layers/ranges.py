"""Rounding of activations: a layer that learns the range of what passes through it, and rounds to that range."""

from typing import Any

from tfbig.backend import keras, tf

RANGES = ("moving_average", "learned")
# The share of the old range that a batch leaves, once a hundred have been seen (as in TFMOT); before that, the mean.
_DECAY = 0.99
# Learned ranges start from the mean over so many batches.
_FIRST_BATCHES = 20
# Functions of known range; LiteRT fixes the scale of their results, 1/256 of the width, whatever the model says.
KNOWN_RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0)}


def holding_zero(lowest: Any, highest: Any, bits: int = 8) -> tuple[Any, Any]:
    """Returns the ends of the range for values between these: it holds 0, and for 16 bits is symmetric."""
    # An end at 0 has no gradient: learned ranges of what is never negative keep all levels above 0.
    lowest = tf.where(lowest < 0.0, lowest, 0.0)
    highest = tf.where(highest > 0.0, highest, 0.0)
    if bits == 16:
        largest = tf.maximum(-lowest, highest)
        lowest, highest = -largest, largest * (32767 / 32768)
    # Of nothing but 0, any range will do; one without width has no levels.
    return lowest, tf.where(highest > lowest, highest, lowest + 1.0)


@keras.saving.register_keras_serializable(package="tfbig")
class FakeQuant(keras.layers.Layer):
    """Rounds what passes through to the levels that an integer file will have, and learns their range in training.

    The gradient passes rounding as if it were not there (Jacob et al., 2018, https://arxiv.org/abs/1712.05877).
    """

    def __init__(
        self,
        *,
        bits: int = 8,
        ranges: str = "moving_average",
        delay: int = 0,
        activation: str | None = None,
        **options: Any,
    ):
        """Makes the layer.

        Args:
            bits: 8 for 256 levels anywhere; 16 for levels that are symmetric around 0.
            ranges: "moving_average" of the smallest and largest value per batch; or "learned" by gradient, after
                starting from such an average (LSQ: Esser et al., 2020, https://arxiv.org/abs/1902.08153).
            delay: Gradient steps that watch the range and round nothing yet.
            activation: "sigmoid", "softmax" or "tanh" for results of these: their range is known and has no
                weights. These are not rounded in training, where 0 would stop a loss that takes the logarithm.
            **options: As every Keras layer has.
        """
        super().__init__(**{"dtype": "float32", **options})
        self.bits, self.ranges, self.delay = bits, ranges, delay
        self.activation = None if activation is None else keras.activations.get(activation)
        self.known_range = KNOWN_RANGES.get(activation) if activation else None
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Makes room for the range and the number of batches that it comes from."""
        if self.known_range is not None:
            return
        learned = self.ranges == "learned"
        # Of replicas, "mean" is what batch normalization takes for its moving averages too.
        shared = {"shape": (), "autocast": False, "aggregation": "mean"}
        self.min = self.add_weight(name="min", initializer="zeros", trainable=learned, **shared)
        self.max = self.add_weight(name="max", initializer="zeros", trainable=learned, **shared)
        self.seen = self.add_weight(name="seen", initializer="zeros", trainable=False, **shared)

    def call(self, inputs: Any, observe: bool = True, training: bool = False) -> Any:
        """Rounds `inputs`.

        Args:
            inputs: Values of any shape.
            observe: Whether the range follows these values in training; False for results that share the range
                of what they are made from, such as averages.
            training: Whether the range is being learned.
        """
        if self.known_range is not None:
            return inputs if training else self._rounded(inputs, *self.known_range_as_levels())
        training = training and self.trainable
        if training and observe:
            self._watch(inputs)
        lowest, highest = self.limits()
        if not training:
            return self._rounded(inputs, lowest, highest)
        if self.ranges == "learned":
            rounded = self._rounded_with_gradients(inputs, lowest, highest)
        else:
            rounded = self._rounded(inputs, lowest, highest)
        if not self.delay:
            return rounded
        return tf.where(tf.convert_to_tensor(self.seen) > self.delay, rounded, inputs)

    def limits(self) -> tuple[Any, Any]:
        """Returns the smallest and largest value of the range, which always holds 0."""
        return holding_zero(tf.convert_to_tensor(self.min), tf.convert_to_tensor(self.max), self.bits)

    def known_range_as_levels(self) -> tuple[float, float]:
        """Returns the known range with its top level taken off: 256 levels, 1/256 of the width apart."""
        assert self.known_range is not None
        lowest, highest = self.known_range
        if self.bits == 16:  # symmetric: 1/32768
            return -1.0, 32767 / 32768
        return lowest, highest - (highest - lowest) / 2**self.bits

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer is made again from."""
        activation = None if self.activation is None else self.activation.__name__
        own = {"bits": self.bits, "ranges": self.ranges, "delay": self.delay, "activation": activation}
        return {**super().get_config(), **own}

    def _watch(self, inputs: Any) -> None:
        """Moves the range towards that of this batch."""
        seen = tf.convert_to_tensor(self.seen)
        keep = tf.minimum(seen / (seen + 1.0), _DECAY)
        if self.ranges == "learned":
            keep = tf.where(seen < _FIRST_BATCHES, keep, 1.0)
        values = tf.stop_gradient(tf.cast(inputs, tf.float32))
        for weight, value in ((self.min, tf.reduce_min(values)), (self.max, tf.reduce_max(values))):
            weight.assign(keep * tf.convert_to_tensor(weight) + (1.0 - keep) * value)
        self.seen.assign(seen + 1.0)

    def _rounded(self, inputs: Any, lowest: Any, highest: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_vars(inputs, lowest, highest, num_bits=self.bits)

    def _rounded_with_gradients(self, inputs: Any, lowest: Any, highest: Any) -> Any:
        """The same rounding, written so that the rounding error too has a gradient for the range, as in LSQ."""
        levels = float(2**self.bits - 1)
        scale = (highest - lowest) / levels
        # LSQ's factor: keeps the step of a range in proportion to those of the weights.
        factor = tf.math.rsqrt(tf.cast(tf.size(inputs), tf.float32) * levels)
        scale = tf.stop_gradient(scale * (1.0 - factor)) + scale * factor
        zero = tf.stop_gradient(tf.round(-lowest / scale))
        codes = tf.clip_by_value(inputs / scale + zero, 0.0, levels)
        codes = codes + tf.stop_gradient(tf.round(codes) - codes)
        return (codes - zero) * scale
