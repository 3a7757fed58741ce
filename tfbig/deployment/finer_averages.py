"""Averages over a whole image, in integer files: taken in parts, of which the layer behind makes one.

LiteRT's AVERAGE_POOL_2D gives the scale that it takes. An average has a far smaller range than what it is of,
so it is rounded to a few steps. Here each half of the height and the width is averaged by itself, and the dense layer
behind reads all parts, each with the same weights: their rounding errors differ and cancel in part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.deployment.packing import kind_of

# The dense layer's kernel grows; more than this share of all weights is not paid.
_MOST_GROWTH = 0.05
_DIVISORS = (2, 3)
_LARGEST_BIAS = 2**31 - 1


@dataclass(frozen=True)
class _Average:
    """An average over the whole of what it takes, and the dense layer that alone reads it."""

    graph: Any
    pool: Any
    dense: Any
    between: Any  # a RESHAPE that flattens, or None

    @property
    def kernel(self) -> Any:
        return self.graph.tensors[self.dense.inputs[1]]

    def parts(self) -> tuple[int, int]:
        """Into how many parts height and width are cut."""
        options = self.pool.builtinOptions
        sizes = options.filterHeight, options.filterWidth
        rows, columns = (next((d for d in _DIVISORS if size % d == 0), 1) for size in sizes)
        return rows, columns


def take_averages_in_parts(model: Any) -> None:
    """Changes averages over whole images that a dense layer reads, where that makes the file little larger.

    The numbers stay exactly those of before, but for what the averages are rounded to.

    Args:
        model: The unpacked file, a `schema_py_generated.ModelT`, in int8 or float32. It is changed in place.
    """
    weights = _count_weights(model)
    for average in list(_averages(model)):
        rows, columns = average.parts()
        growth = (rows * columns - 1) * int(np.prod(average.kernel.shape))
        if 0 < growth <= _MOST_GROWTH * weights and _repeat_kernel(model, average, rows * columns):
            _cut(average, rows, columns)


def _averages(model: Any) -> Iterator[_Average]:
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    for graph in model.subgraphs:
        for pool in graph.operators:
            if kind_of(model, pool) != kinds.AVERAGE_POOL_2D or not _of_all(graph, pool, schema):
                continue
            between, reader = None, _only_reader(graph, pool.outputs[0])
            if reader is not None and kind_of(model, reader) == kinds.RESHAPE:
                between, reader = reader, _only_reader(graph, reader.outputs[0])
            if reader is not None and kind_of(model, reader) == kinds.FULLY_CONNECTED:
                average = _Average(graph, pool, reader, between)
                if _plain(model, average, schema):
                    yield average


def _of_all(graph: Any, pool: Any, schema: Any) -> bool:
    """Whether one window covers all that is given."""
    options, given = pool.builtinOptions, graph.tensors[pool.inputs[0]]
    return (
        tuple(given.shape[1:3]) == (options.filterHeight, options.filterWidth)
        and tuple(graph.tensors[pool.outputs[0]].shape[1:3]) == (1, 1)
        and options.padding == schema.Padding.VALID
        and options.fusedActivationFunction == schema.ActivationFunctionType.NONE
        and given.type in (schema.TensorType.INT8, schema.TensorType.FLOAT32)
    )


def _plain(model: Any, average: _Average, schema: Any) -> bool:
    """Whether the dense layer reads a kernel of its own, one column for each channel."""
    graph, dense, kernel = average.graph, average.dense, average.kernel
    options = dense.builtinOptions
    channels = graph.tensors[average.pool.outputs[0]].shape[-1]
    return (
        kernel.type == graph.tensors[average.pool.inputs[0]].type
        and tuple(kernel.shape[1:]) == (channels,)
        and kernel.sparsity is None
        and not options.keepNumDims
        and options.weightsFormat == schema.FullyConnectedOptionsWeightsFormat.DEFAULT
        and all(_is_own(model, graph, place) for place in dense.inputs[1:] if place >= 0)
    )


def _is_own(model: Any, graph: Any, place: int) -> bool:
    """Whether a tensor is constant, and nobody else reads it or its values."""
    buffer = graph.tensors[place].buffer
    sharers = [tensor for other in model.subgraphs for tensor in other.tensors if tensor.buffer == buffer]
    return model.buffers[buffer].data is not None and len(sharers) == 1 and bool(_only_reader(graph, place))


def _repeat_kernel(model: Any, average: _Average, count: int) -> bool:
    """Gives each part the kernel, divided by their count; says whether it could be done."""
    from ai_edge_litert import schema_py_generated as schema

    kernel, biases = average.kernel, [place for place in average.dense.inputs[2:] if place >= 0]
    dtype = np.dtype(np.float32 if kernel.type == schema.TensorType.FLOAT32 else np.int8)
    values = _values(model, kernel, dtype).reshape(kernel.shape)
    if dtype == np.float32:
        values = values / np.float32(count)
    else:
        # The integers stay: what they stand for is divided. So the biases, which have the same scale, are multiplied.
        for bias in (average.graph.tensors[place] for place in biases):
            steps = _values(model, bias, np.dtype(np.int32)).astype(np.int64) * count
            if np.abs(steps).max() > _LARGEST_BIAS:
                return False
            _store(model, bias, steps.astype(np.int32))
            bias.quantization.scale = np.asarray(bias.quantization.scale, np.float32) / np.float32(count)
        kernel.quantization.scale = np.asarray(kernel.quantization.scale, np.float32) / np.float32(count)
    _store(model, kernel, np.tile(values, (1, count)))
    kernel.shape = np.array([kernel.shape[0], count * kernel.shape[1]], np.int32)
    return True


def _cut(average: _Average, rows: int, columns: int) -> None:
    options, result = average.pool.builtinOptions, average.graph.tensors[average.pool.outputs[0]]
    options.filterHeight //= rows
    options.filterWidth //= columns
    options.strideH, options.strideW = options.filterHeight, options.filterWidth
    for name in ("shape", "shapeSignature"):
        shape = getattr(result, name)
        if shape is not None:
            setattr(result, name, np.array([shape[0], rows, columns, shape[3]], np.int32))
    if average.between is not None:  # a dense layer flattens what it is given
        average.dense.inputs = np.array([*average.pool.outputs, *average.dense.inputs[1:]], np.int32)
        average.graph.operators.remove(average.between)


def _only_reader(graph: Any, place: int) -> Any:
    """The operator that alone reads a tensor; None where others do, or it is a result."""
    readers = [op for op in graph.operators if place in op.inputs]
    return readers[0] if len(readers) == 1 and place not in graph.outputs else None


def _count_weights(model: Any) -> int:
    """How many weights there are in kernels, which is the same in files of any dtype."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors if tensor.shape is not None]
    kernels = [t for t in tensors if len(t.shape) > 1 and model.buffers[t.buffer].data is not None]
    return sum(int(np.prod(kernel.shape)) for kernel in kernels)


def _values(model: Any, tensor: Any, dtype: np.dtype) -> np.ndarray:
    return np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(dtype)


def _store(model: Any, tensor: Any, values: np.ndarray) -> None:
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
