"""An integer file taken apart, so that its kernels, biases and scales can be changed; its operators stay."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.deployment.contents import read_contents
from tfbig.deployment.edges import to_file, to_float

_KERNEL_AXIS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}
# How far an integer of 8 bits may be from its weight, in steps; a file of other weights is further.
_MOST_STEPS = 0.51


@dataclass(frozen=True)
class Layer:
    """One operator with a kernel of which the float values are known.

    Attributes:
        op: Index of the operator.
        kind: Its name: "CONV_2D", "DEPTHWISE_CONV_2D" or "FULLY_CONNECTED".
        source: Index of the tensor that it reads, in the integer file.
        kernel: Of its weights.
        bias: Of its bias; -1 where it has none.
        result: Of what it gives.
        float_source: Index of the tensor that it reads in the float file.
        weights: The kernel before rounding, in the file's layout.
        offset: The bias before rounding, of shape (units,).
        options: Strides, padding and the like, as the file holds them.
        axis: Of the kernel's output channels.
    """

    op: int
    kind: str
    source: int
    kernel: int
    bias: int
    result: int
    float_source: int
    weights: np.ndarray
    offset: np.ndarray
    options: Any
    axis: int


class IntegerGraph:
    """The one graph of a file, its constants, and its scales.

    Attributes:
        contents: What the file holds, by names.
        operations: Its operators, in the order they run.
    """

    def __init__(self, content: bytes):
        from ai_edge_litert import schema_py_generated as schema

        self.contents = read_contents(content)
        self.operations = self.contents.graphs[0].operations
        self._content = content
        self._model = schema.Model.GetRootAs(content, 0)
        self._graph = self._model.Subgraphs(0)

    def constant(self, index: int) -> np.ndarray:
        """Returns the values of a constant tensor."""
        tensor = self.contents.graphs[0].tensors[index]
        return self._data(index).view(tensor.dtype).reshape(tensor.shape)

    def options(self, op: int) -> Any:
        """Returns the options of an operator, as the schema has them; None where it has none."""
        from ai_edge_litert import schema_py_generated as schema

        return schema.OperatorT.InitFromObj(self._graph.Operators(op)).builtinOptions

    def scales(self, index: int) -> np.ndarray:
        """Returns the scales of a tensor, one or one per channel."""
        return np.asarray(self._scales(index), np.float64)

    def users(self, index: int) -> list[int]:
        """Returns the operators that read a tensor."""
        return [place for place, op in enumerate(self.operations) if index in op.inputs]

    def sharers(self, index: int) -> int:
        """Returns how many tensors have the values of a constant one."""
        buffer = self._graph.Tensors(index).Buffer()
        return sum(self._graph.Tensors(i).Buffer() == buffer for i in range(self._graph.TensorsLength()))

    def bytes_with(
        self, constants: dict[int, np.ndarray], scales: dict[int, np.ndarray], zero_points: dict[int, int]
    ) -> bytes:
        """Returns the file with other values of constants, scales and zero points, by tensor.

        They are written where the old ones lie, so that nothing else of the file can change.
        """
        content = bytearray(self._content)
        start = np.frombuffer(self._content, np.uint8).ctypes.data
        places = [
            *((self._data(index), _cast(values, self._dtype(index))) for index, values in constants.items()),
            *((self._scales(index), _cast(values, np.float32)) for index, values in scales.items()),
            *((self._zeros(index), _cast(value, np.int64)) for index, value in zero_points.items()),
        ]
        for old, new in places:
            begin = old.ctypes.data - start
            content[begin : begin + old.nbytes] = new.tobytes()
        return bytes(content)

    def run(
        self,
        columns: Mapping[str, np.ndarray],
        batch: int,
        wanted: Sequence[int],
        content: bytes | None = None,
    ) -> Iterator[list[np.ndarray]]:
        """Runs the file on rows, with one thread, and gives tensors of each batch as floats.

        Args:
            columns: Input name to rows.
            batch: Rows that the file takes at once; what is left over is left out.
            wanted: The tensors.
            content: The file with other numbers, from `bytes_with`.
        """
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings():  # it says that keeping all tensors takes memory
            warnings.simplefilter("ignore")
            interpreter = Interpreter(
                model_content=content or self._content, num_threads=1, experimental_preserve_all_tensors=True
            )
        places = {name: self.contents.inputs[name] for name in columns}
        for name, index in places.items():
            shape = (batch, *columns[name].shape[1:])
            if shape != self.contents.graphs[0].tensors[index].shape:  # an axis is left open
                interpreter.resize_tensor_input(index, shape)
        interpreter.allocate_tensors()
        details = {int(given["index"]): given for given in interpreter.get_tensor_details()}
        ready = [(i, to_file(columns[name], details[i], name)) for name, i in places.items()]
        for start in range(0, len(ready[0][1]) - batch + 1, batch):
            interpreter.reset_all_variables()
            for index, values in ready:
                interpreter.set_tensor(index, values[start : start + batch])
            interpreter.invoke()
            yield [to_float(interpreter.get_tensor(index), details[index]) for index in wanted]

    def _dtype(self, index: int) -> str:
        return self.contents.graphs[0].tensors[index].dtype

    def _data(self, index: int) -> np.ndarray:
        return self._model.Buffers(self._graph.Tensors(index).Buffer()).DataAsNumpy()

    def _scales(self, index: int) -> np.ndarray:
        return self._graph.Tensors(index).Quantization().ScaleAsNumpy()

    def _zeros(self, index: int) -> np.ndarray:
        return self._graph.Tensors(index).Quantization().ZeroPointAsNumpy()


def _cast(values: Any, dtype: Any) -> np.ndarray:
    return np.asarray(values).astype(dtype)


def layers_of(integers: IntegerGraph, floats: IntegerGraph) -> list[Layer]:
    """Returns the layers that both files of a model hold: those of the integer file whose float kernel is found.

    Files list their layers in the same order; a kernel is the other's if rounding explains all differences.
    """
    layers, candidates = [], _with_kernels(floats, "float32")
    for place in _with_kernels(integers, "int8"):
        op = integers.operations[place]
        for position, other in enumerate(candidates):
            twin = floats.operations[other]
            if twin.name == op.name and _rounded(integers, floats, op.inputs[1], twin.inputs[1], op.name):
                layers.append(_layer(integers, floats, place, other))
                del candidates[: position + 1]
                break
    return layers


def _with_kernels(graph: IntegerGraph, dtype: str) -> list[int]:
    """Operators whose kernel and bias are theirs alone, so that changing them changes nothing else."""
    tensors, found = graph.contents.graphs[0].tensors, []
    for place, op in enumerate(graph.operations):
        if op.name not in _KERNEL_AXIS or tensors[op.inputs[0]].constant:
            continue
        own = [index for index in op.inputs[1:] if index >= 0]
        plain = all(tensors[index].constant and not tensors[index].sparse for index in own)
        if dtype == "int8":
            plain = plain and tensors[op.inputs[0]].dtype in ("int8", "int16")
            plain = plain and all(graph.sharers(index) == len(graph.users(index)) == 1 for index in own)
        grouped = op.name == "CONV_2D" and tensors[op.inputs[0]].shape[-1] != tensors[op.inputs[1]].shape[-1]
        if plain and not grouped and tensors[op.inputs[1]].dtype == dtype:
            found.append(place)
    return found


def _rounded(integers: IntegerGraph, floats: IntegerGraph, mine: int, other: int, name: str) -> bool:
    rounded, weights = integers.constant(mine), floats.constant(other)
    if rounded.shape != weights.shape:
        return False
    scales = along(integers.scales(mine), _KERNEL_AXIS[name], weights.ndim)
    return bool((np.abs(weights - rounded * scales) <= _MOST_STEPS * scales + 1e-7).all())


def _layer(integers: IntegerGraph, floats: IntegerGraph, place: int, other: int) -> Layer:
    op, twin = integers.operations[place], floats.operations[other]
    weights = floats.constant(twin.inputs[1]).astype(np.float64)
    axis = _KERNEL_AXIS[op.name]
    bias, theirs = (given.inputs[2] if len(given.inputs) > 2 else -1 for given in (op, twin))
    offset = floats.constant(theirs).astype(np.float64) if theirs >= 0 else np.zeros(weights.shape[axis])
    return Layer(
        place,
        op.name,
        op.inputs[0],
        op.inputs[1],
        bias,
        op.outputs[0],
        twin.inputs[0],
        weights,
        offset,
        integers.options(place),
        axis,
    )


def along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """Returns values of shape (channels,) or (1,) as an array that is laid along one axis of several."""
    return np.reshape(values, [-1 if place == axis else 1 for place in range(ndim)])
