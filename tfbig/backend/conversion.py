"""Settings of TensorFlow's LiteRT converter that have no public name yet."""

from typing import Any

_DENSE_PER_TENSOR = "_experimental_disable_per_channel_quantization_for_dense_layers"


def one_scale_per_dense_kernel(converter: Any) -> None:
    """Lets the converter store dense kernels with one scale each; convolutions keep one per channel.

    Publicly the converter of TensorFlow 2.21 stores every kernel with a scale per output channel, which takes 8
    bytes a unit: 15% of MLPerf Tiny's autoencoder.

    Raises:
        AttributeError: This TensorFlow's converter has no such setting.
    """
    if not hasattr(converter, _DENSE_PER_TENSOR):
        raise AttributeError(f"TensorFlow's converter has no setting {_DENSE_PER_TENSOR!r} any more.")
    setattr(converter, _DENSE_PER_TENSOR, True)
