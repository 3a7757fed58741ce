"""Ranges of what was 0 on all rows of calibration. Loads no TensorFlow.

The converter gives such a tensor, as behind ReLU units that never fired, steps of 8e-9. Scales so far apart LiteRT's
delegate refuses to compute with, and a bias in steps of the layer behind it does not fit its integers.
"""

from typing import Any

import numpy as np

from tfbig.deployment.packing import repacked

# 0 is exact in any steps; with these a bias behind it keeps three digits, and a unit that wakes up can be seen.
_LARGEST = 1.0
# What the converter's calibration begins its search for the largest value with.
_SMALLEST = float(np.finfo(np.float32).tiny)


def widen_dead_ranges(content: bytes) -> bytes:
    """Returns a calibrated file in which no tensor's range is from 0 to 0.

    Args:
        content: A LiteRT file in float, with the least and the largest value of each tensor in calibration.
    """
    return repacked(content, _widen)


def _widen(model: Any) -> None:
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            seen = tensor.quantization
            if seen is None or seen.min is None or seen.max is None or not len(seen.min):
                continue
            if max(np.abs(seen.min).max(), np.abs(seen.max).max()) <= _SMALLEST:
                seen.max = np.full(len(seen.max), _LARGEST, np.float32)
