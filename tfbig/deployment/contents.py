"""What a LiteRT file holds, read from its flatbuffer without running it. Loads no TensorFlow."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tfbig.errors import UnreadableFile

# Every LiteRT file carries this at byte 4: the identifier of its flatbuffer schema.
_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph: its name, its dtype in NumPy's words, and whether the file holds its values."""

    name: str
    dtype: str
    constant: bool


@dataclass(frozen=True)
class Operation:
    """One operator of the graph, such as CONV_2D, with indices into `Contents.tensors`."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """The main graph of a LiteRT file.

    Attributes:
        tensors: Every tensor, by index.
        operations: The operators in the order they run.
        inputs: Name of each input to the index of its tensor.
        outputs: Name of each output to the index of its tensor.
    """

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    inputs: dict[str, int]
    outputs: dict[str, int]

    def count_ops(self) -> dict[str, int]:
        """Returns operator and dtype of its result, such as "CONV_2D int8", to the number of such operators."""
        return dict(Counter(f"{op.name} {self._dtype(op)}" for op in self.operations))

    def float_ops(self) -> tuple[str, ...]:
        """Returns the operators that compute in float; changing to or from float is not computing."""
        names = {op.name for op in self.operations if self._dtype(op).startswith("float")}
        return tuple(sorted(names - {"QUANTIZE", "DEQUANTIZE", "CAST"}))

    def elementwise_front(self) -> tuple[str, ...]:
        """Returns the tensors made from an input and constants by arithmetic alone: a normalizer's results."""
        reached, names = set(self.inputs.values()), []
        for op in self.operations:
            takes = {i for i in op.inputs if i >= 0 and not self.tensors[i].constant}
            if op.name in ("ADD", "SUB", "MUL", "DIV") and takes <= reached:
                reached.update(op.outputs)
                names += [self.tensors[i].name for i in op.outputs]
        return tuple(names)

    def _dtype(self, op: Operation) -> str:
        return self.tensors[op.outputs[0]].dtype if op.outputs else "none"


def read_contents(content: bytes) -> Contents:
    """Reads the main graph of a LiteRT file.

    Args:
        content: The file's bytes.

    Returns:
        Its `Contents`.

    Raises:
        UnreadableFile: The bytes are no LiteRT file, or a broken one.
    """
    if content[4:8] != _IDENTIFIER:
        raise UnreadableFile(
            f"This is not a LiteRT (.tflite) file: bytes 4 to 8 must be {_IDENTIFIER!r}; got {content[4:8]!r}."
        )
    from ai_edge_litert import schema_py_generated as schema

    op_names = _names_by_value(schema.BuiltinOperator)
    dtypes = {value: name.lower() for value, name in _names_by_value(schema.TensorType).items()}
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        graph = model.subgraphs[0]
        tensors = tuple(
            Tensor(
                name=tensor.name.decode(),
                dtype=dtypes[tensor.type],
                constant=model.buffers[tensor.buffer].data is not None,
            )
            for tensor in graph.tensors
        )
        operations = tuple(
            Operation(
                _op_name(model.operatorCodes[op.opcodeIndex], op_names), _ints(op.inputs), _ints(op.outputs)
            )
            for op in graph.operators
        )
        inputs, outputs = _signature(model, graph)
    except Exception as error:  # a broken flatbuffer fails anywhere: struct, index, decode, attribute
        raise UnreadableFile(f"This LiteRT file is broken: {type(error).__name__}: {error}.") from error
    return Contents(tensors, operations, inputs, outputs)


def _signature(model, graph) -> tuple[dict[str, int], dict[str, int]]:
    """Inputs and outputs by the names of the first signature, or of their tensors where there is none."""
    if model.signatureDefs:
        first = model.signatureDefs[0]
        return (
            {item.name.decode(): int(item.tensorIndex) for item in first.inputs},
            {item.name.decode(): int(item.tensorIndex) for item in first.outputs},
        )
    return (
        {graph.tensors[i].name.decode(): int(i) for i in graph.inputs},
        {graph.tensors[i].name.decode(): int(i) for i in graph.outputs},
    )


def _op_name(code, names: dict[int, str]) -> str:
    # Codes below 127 were once stored in another field; the larger of the two is the real one.
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = names.get(builtin, f"UNKNOWN_{builtin}")
    return code.customCode.decode() if name == "CUSTOM" and code.customCode else name


def _ints(indices: Iterable[int] | None) -> tuple[int, ...]:
    return tuple(int(i) for i in indices) if indices is not None else ()


def _names_by_value(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}
