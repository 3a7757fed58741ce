"""Ranges of what was 0 on all rows of calibration. Loads no TensorFlow.

The converter gives such a tensor, as behind ReLU units that never fired, steps of 8e-9. Scales so far apart LiteRT's
delegate refuses to compute with, and a bias in steps of the layer behind it does not fit its integers.
"""

import numpy as np

# 0 is exact in any steps; with these a bias behind it keeps three digits, and a unit that wakes up can be seen.
_LARGEST = 1.0
# What the converter's calibration begins its search for the largest value with.
_SMALLEST = float(np.finfo(np.float32).tiny)


def widen_dead_ranges(content: bytes) -> bytes:
    """Returns a calibrated file in which no tensor's range is from 0 to 0.

    Args:
        content: A LiteRT file in float, with the least and the largest value of each tensor in calibration.
    """
    from ai_edge_litert import schema_py_generated as schema

    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    graphs = [model.Subgraphs(place) for place in range(model.SubgraphsLength())]
    for graph in graphs:
        for place in range(graph.TensorsLength()):
            seen = graph.Tensors(place).Quantization()
            if seen is None or not seen.MinLength() or not seen.MaxLength():
                continue
            least, largest = seen.MinAsNumpy(), seen.MaxAsNumpy()
            if max(np.abs(least).max(), np.abs(largest).max()) <= _SMALLEST:
                largest[:] = _LARGEST  # where it lies in the file
    return bytes(changed)
