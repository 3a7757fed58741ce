"""Layers whose result takes several operations: still one layer, in which every value on the way is rounded."""

from collections.abc import Callable
from typing import Any

from tfbig.backend import keras, tf
from tfbig.layers.ranges import KNOWN_RANGES, FakeQuant, holding_zero

# Gives a value rounded to the range that has this name.
Rounding = Callable[[str, Any], Any]


def as_it_is(name: str, value: Any) -> Any:
    """A `Rounding` that rounds nothing."""
    return value


def rounded_constant(values: Any) -> Any:
    """Returns weights that are added or multiplied, rounded to 256 levels over their own range; shape as `values`.

    The gradient passes rounding as if it were not there.
    """
    values = tf.cast(tf.convert_to_tensor(values), tf.float32)
    still = tf.stop_gradient(values)
    lowest, highest = holding_zero(tf.reduce_min(still), tf.reduce_max(still))
    return tf.quantization.fake_quant_with_min_max_vars(values, lowest, highest)


class RoundedInside(keras.layers.Layer):
    """What such layers share: another layer, with whose weights they compute, and a range per intermediate value.

    The result itself is not rounded: a range for it follows, as behind any other layer. There are 256 levels: LiteRT's
    converter takes most of such operations in 8 bits only.
    """

    def __init__(
        self,
        layer: Any,
        *,
        places: int = 1,
        ranges: str = "moving_average",
        delay: int = 0,
        **options: Any,
    ):
        """Makes the layer around another.

        Args:
            layer: The other, with the weights.
            places: In how many places of a model it is called, each with ranges of its own.
            ranges: As `FakeQuant` takes it.
            delay: Likewise.
            **options: As every Keras layer has.
        """
        super().__init__(**{"dtype": "float32", **options})
        self.layer, self.places, self.ranges, self.delay = layer, places, ranges, delay
        self.inner: dict[str, FakeQuant] = {}
        self.supports_masking = layer.supports_masking

    def parts(self) -> tuple[str, ...]:
        """Names of the intermediate values, none here; one that is named for a function of known range has that.

        The layer inside is built when this is asked.
        """
        return ()

    def build(self, input_shape: Any) -> None:
        """Builds the layer inside, and the ranges."""
        if not self.layer.built:
            self.layer.build(input_shape)
        for place in range(self.places):
            for part in self.parts():
                name, known = _in_place(part, place), part if part in KNOWN_RANGES else None
                self.inner[name] = FakeQuant(
                    ranges=self.ranges, delay=self.delay, activation=known, name=name
                )
                self.inner[name].build(())

    def rounding(self, training: bool, place: int) -> Rounding:
        """Returns what rounds the intermediate values of a call in one of the places."""
        return lambda part, value: self.range_of(part, place)(value, training=bool(training))

    def range_of(self, part: str, place: int) -> FakeQuant:
        """Returns the layer that knows the range of an intermediate value."""
        return self.inner[_in_place(part, place)]

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        """As of the layer inside."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """As of the layer inside."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """What the layer is made again from."""
        layer = keras.saving.serialize_keras_object(self.layer)
        own = {"layer": layer, "places": self.places, "ranges": self.ranges, "delay": self.delay}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RoundedInside":
        """Makes the layer again."""
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


def _in_place(part: str, place: int) -> str:
    return f"{part}_{place}" if place else part
