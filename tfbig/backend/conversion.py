"""Settings of TensorFlow's LiteRT converter that have no public name yet."""

import contextlib
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def calibration_changed_by(change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Has what calibration found changed, in the block, before the converter quantizes by it.

    Args:
        change: Takes and gives a LiteRT file in float, whose tensors hold the least and the largest value seen.
    """
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    calibrate, quantize = Calibrator.calibrate, Calibrator.calibrate_and_quantize

    def changed(self: Any, rows: Any) -> bytes:
        return change(bytes(calibrate(self, rows)))

    # For 16-bit activations calibration and quantizing are one call. Of a file that holds ranges, and no rows, it takes
    # the ranges.
    def quantize_changed(self: Any, rows: Any, *args: Any, **options: Any) -> bytes:
        again = Calibrator(changed(self, rows))
        again._feed_tensors = lambda *args, **options: None
        return quantize(again, rows, *args, **options)

    Calibrator.calibrate, Calibrator.calibrate_and_quantize = changed, quantize_changed
    try:
        yield
    finally:
        Calibrator.calibrate, Calibrator.calibrate_and_quantize = calibrate, quantize
