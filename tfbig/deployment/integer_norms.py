"""Which normalization layers are traced in the form that integer files can compute (`tfbig.layers.norms`)."""

from collections.abc import Callable
from typing import Any

from tfbig.backend import keras, tf
from tfbig.layers.norms import has_integer_form, normalized


def normalizing_form(layer: Any) -> Callable[..., Any] | None:
    """Returns what stands in for the `call` of a layer, or None where its own will do.

    RMS normalization's own is Keras's function, which has a form by itself (`integer_functions.py`).
    """
    if isinstance(layer, keras.layers.RMSNormalization) or not has_integer_form(layer):
        return None
    original = layer.call

    def call(inputs: Any) -> Any:
        if isinstance(layer, keras.layers.GroupNormalization) and None in inputs.shape[1:-1]:
            return original(inputs)
        return tf.cast(normalized(layer, inputs), layer.compute_dtype)

    return call
