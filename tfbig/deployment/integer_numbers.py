"""The numbers of an integer file while they are still real, and what they become in the file."""

import numpy as np

from tfbig.deployment.equalize import gains, shared_channels, shared_scales
from tfbig.deployment.integer_graph import IntegerGraph, Layer, along
from tfbig.deployment.rounding import nearest

_STEPS = 255
_MOST_INTEGER = 2**31 - 1


class Numbers:
    """Gains of channels, ranges of activations, biases and rounded kernels of one file.

    Attributes:
        graph: The file as the converter made it.
        layers: Its layers whose float kernels are known.
        gain: Tensor to what each of its channels is multiplied by; a tensor that is not in it has none.
        range: Tensors of one scale to the smallest and largest value that it stands for; others keep their scales.
        whole: Operator to its rounded kernel; others have the nearest integers.
        offset: Operator to its bias, before gains.
        decisive: Tensors of which a softmax is taken: at the upper end of their range, classes would tie.
    """

    def __init__(self, graph: IntegerGraph, layers: list[Layer]):
        self.graph, self.layers = graph, layers
        self.movable = shared_scales(graph, layers)
        self.groups = shared_channels(graph, layers, self.movable)
        self.gain: dict[int, np.ndarray] = {}
        self.range: dict[tuple[int, ...], tuple[float, float]] = {}
        self.whole: dict[int, np.ndarray] = {}
        self.offset = {layer.op: layer.offset for layer in layers}
        ends = {op.inputs[0] for op in graph.operations if op.name == "SOFTMAX"}
        self.decisive = {tensors for tensors in self.movable if ends & set(tensors)}

    def equalize(self, lowest: dict[int, np.ndarray], highest: dict[int, np.ndarray], share: float) -> None:
        """Evens channels out, and gives every scale that may change the range that was seen.

        Args:
            lowest: Tensor to the smallest value of each channel.
            highest: Likewise, the largest.
            share: How far to even out, from 0 to 1.
        """
        for group in self.groups:
            values = gains(group, lowest, highest, share)
            self.gain.update(dict.fromkeys(group.tensors, values))
        for tensors in self.movable:
            low = min(float(self._gained(lowest, index).min()) for index in tensors)
            high = max(float(self._gained(highest, index).max()) for index in tensors)
            if min(low, 0.0) < max(high, 0.0):  # else it was silent, and stays what it is
                self.range[tensors] = min(low, 0.0), max(high, 0.0)

    def _gained(self, values: dict[int, np.ndarray], index: int) -> np.ndarray:
        gain = self.gain.get(index)
        return values[index] if gain is None else values[index].reshape(-1, len(gain)) * gain

    def weights(self, layer: Layer) -> np.ndarray:
        """A layer's kernel for the gains of what it reads and gives."""
        weights = layer.weights
        read, given = self.gain.get(layer.source), self.gain.get(layer.result)
        if read is not None:
            channels = self.graph.contents.graphs[0].tensors[layer.source].shape[-1]
            each = np.tile(read, channels // len(read))
            if layer.kind == "DEPTHWISE_CONV_2D":
                weights = weights / np.repeat(each, weights.shape[-1] // channels)
            else:
                weights = weights / np.tile(each, weights.shape[-1] // channels)
        return weights if given is None else weights * along(given, layer.axis, weights.ndim)

    def scales(self, layer: Layer) -> np.ndarray:
        """Of the kernel: the converter's, changed as much as the largest weight is."""
        scales = self.graph.scales(layer.kernel)
        others = tuple(axis for axis in range(layer.weights.ndim) if axis != layer.axis)
        old, new = (np.abs(values).max(others) for values in (layer.weights, self.weights(layer)))
        if len(scales) == 1:
            old, new = old.max(keepdims=True), new.max(keepdims=True)
        ratios = np.divide(new, old, out=np.ones_like(old), where=old > 0)
        return (scales * ratios).astype(np.float32).astype(np.float64)

    def activation(self, index: int) -> tuple[float, int]:
        """Scale and zero point of a tensor."""
        for tensors, (low, high) in self.range.items():
            if index in tensors:
                scale = float(np.float32((high - low) / _STEPS))
                return scale, int(np.clip(np.round(-128 - low / scale), -128, 127))
        tensor = self.graph.contents.graphs[0].tensors[index]
        return tensor.scale, tensor.zero_point

    def integers(self, layer: Layer) -> np.ndarray:
        """The kernel in the file."""
        if layer.op in self.whole:
            return self.whole[layer.op]
        if layer.source not in self.gain and layer.result not in self.gain:
            return self.graph.constant(layer.kernel)
        return nearest(self.weights(layer), along(self.scales(layer), layer.axis, layer.weights.ndim))

    def content(self) -> bytes:
        """The file."""
        constants, scales, zero_points = {}, {}, {}
        for index in {index for tensors in self.range for index in tensors}:
            scale, zero_points[index] = self.activation(index)
            scales[index] = np.array([scale])
        for layer in self.layers:
            scales[layer.kernel] = self.scales(layer)
            constants[layer.kernel] = self.integers(layer)
            if layer.bias >= 0:
                scales[layer.bias] = scales[layer.kernel] * self.activation(layer.source)[0]
                offset = self.offset[layer.op] * self.gain.get(layer.result, 1.0)
                steps = np.round(offset / scales[layer.bias])
                constants[layer.bias] = np.clip(steps, -_MOST_INTEGER, _MOST_INTEGER)
        return self.graph.bytes_with(constants, scales, zero_points)
