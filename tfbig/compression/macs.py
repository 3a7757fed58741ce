"""Multiply-accumulate operations of one prediction, layer by layer."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, run_graph
from tfbig.backend.internals import layers_inside
from tfbig.layers.kernels import QuantizedLayer
from tfbig.layers.ranges import FakeQuant
from tfbig.layers.rounding import RoundedInside
from tfbig.models.step_layers import Positions

_L = keras.layers
Shape = tuple[int | None, ...]


class _Unknown(Exception):
    """An axis has no fixed length, so there is nothing to count."""


@dataclass(frozen=True)
class Work:
    """What a layer does for one example.

    Attributes:
        macs: Its multiply-accumulates, over all its calls; None for a layer with weights that is not known, or where
            a length is not fixed.
        output_shape: Of its first call, with the batch axis.
    """

    macs: int | None
    output_shape: Shape


def count_macs(model: Any) -> dict[int, Work]:
    """Returns the work of each layer by its id, at any depth; nothing for a model without a graph to follow.

    Products with kernels and, in attention, of positions with each other are counted. Sums, normalization, pooling and
    activations are not.
    """
    counts: dict[int, Work] = {}

    def visit(layer: Any, args: tuple, kwargs: dict, outputs: list[Any]) -> Any:
        # In the order of the call's signature, whether given by place or by name.
        given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
        shapes = [value for value in keras.tree.flatten(list(given.values())) if isinstance(value, _Shape)]
        nested = graph_of(layer)
        if nested is not None:
            return run_graph(nested, shapes, visit)
        output = tuple(outputs[0].shape)
        before = counts.get(id(layer), Work(0, output))
        macs = _sum([before.macs, macs_of(layer, [shape.sizes for shape in shapes], output)])
        counts[id(layer)] = Work(macs, before.output_shape)
        return [_Shape(tuple(tensor.shape)) for tensor in outputs]

    graph = graph_of(model)
    if graph is not None:
        run_graph(graph, [_Shape(tuple(tensor.shape)) for tensor in graph.inputs], visit)
    return counts


def macs_of(layer: Any, inputs: list[Shape], output: Shape) -> int | None:
    """Returns the multiply-accumulates of one call of a layer for one example.

    Args:
        layer: A built Keras layer.
        inputs: Shapes of its inputs, with the batch axis.
        output: Shape of its first output, with the batch axis.
    """
    if isinstance(layer, QuantizedLayer | RoundedInside):
        return macs_of(layer.layer, inputs, output)
    rule = _RULES.get(type(layer))
    if rule is None:
        return 0 if type(layer) in _WITHOUT_KERNELS or not getattr(layer, "weights", ()) else None
    try:
        return rule(layer, inputs, output)
    except _Unknown:
        return None


class _Shape:
    """A shape that `keras.tree` takes for one value."""

    def __init__(self, sizes: Shape):
        self.sizes = sizes


def _product(sizes: Any) -> int:
    if None in sizes:
        raise _Unknown
    return int(np.prod(sizes, dtype=np.int64))


def _size(variable: Any) -> int:
    return _product(tuple(variable.shape))


def _sides(layer: Any, shape: Shape) -> int:
    """Positions of an image, a sequence or a volume."""
    return _product(shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _dense(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return _product(output[1:-1]) * _size(layer.kernel)


def _convolution(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return _sides(layer, output) * _size(layer.kernel)


def _transposed(layer: Any, inputs: list[Shape], output: Shape) -> int:
    # Each input position is multiplied by the whole kernel and spread over the output.
    return _sides(layer, inputs[0]) * _size(layer.kernel)


def _separable(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return _sides(layer, output) * (_size(layer.depthwise_kernel) + _size(layer.pointwise_kernel))


def _einsum(layer: Any, inputs: list[Shape], output: Shape) -> int:
    given, kernel, _ = layer.equation.replace("->", ",").split(",")
    new = [length for letter, length in zip(kernel, layer.kernel.shape, strict=True) if letter not in given]
    return _product(inputs[0][1:]) * _product(new)


def _recurrent(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return _product(inputs[0][1:2]) * (_size(layer.cell.kernel) + _size(layer.cell.recurrent_kernel))


def _bidirectional(layer: Any, inputs: list[Shape], output: Shape) -> int | None:
    return _sum(macs_of(one, inputs, output) for one in (layer.forward_layer, layer.backward_layer))


def _time_distributed(layer: Any, inputs: list[Shape], output: Shape) -> int | None:
    step = macs_of(layer.layer, [(None, *inputs[0][2:])], (None, *output[2:]))
    return None if step is None else _product(inputs[0][1:2]) * step


def _attention(layer: Any, inputs: list[Shape], output: Shape) -> int:
    parts = {part.name: part for part in layers_inside(layer)}
    query, value = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    key = inputs[2] if len(inputs) > 2 else value
    asked, seen = _product(query[1:-1]), _product(key[1:-1])
    projections = [
        ("query", asked),
        ("gate", asked),
        ("key", seen),
        ("value", seen),
        ("attention_output", asked),
    ]
    per_head = layer.key_dim + layer.value_dim
    return sum(n * _size(parts[name].kernel) for name, n in projections if name in parts) + (
        layer.num_heads * asked * seen * per_head
    )


def _sum(counts: Any) -> int | None:
    listed = list(counts)
    return None if None in listed else sum(listed)


_RULES: dict[type, Callable[[Any, list[Shape], Shape], int | None]] = {
    _L.Dense: _dense,
    **dict.fromkeys((_L.Conv1D, _L.Conv2D, _L.Conv3D), _convolution),
    **dict.fromkeys((_L.DepthwiseConv1D, _L.DepthwiseConv2D), _convolution),
    **dict.fromkeys((_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose), _transposed),
    **dict.fromkeys((_L.SeparableConv1D, _L.SeparableConv2D), _separable),
    _L.EinsumDense: _einsum,
    **dict.fromkeys((_L.LSTM, _L.GRU, _L.SimpleRNN), _recurrent),
    _L.Bidirectional: _bidirectional,
    _L.TimeDistributed: _time_distributed,
    _L.MultiHeadAttention: _attention,
}
_WITHOUT_KERNELS = (
    *(_L.BatchNormalization, _L.GroupNormalization, _L.LayerNormalization, _L.RMSNormalization),
    *(_L.Normalization, _L.Embedding, _L.PReLU, Positions, FakeQuant),
)
