"""What a LiteRT file holds, read from its flatbuffer without running it. Loads no TensorFlow."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tfbig.errors import UnreadableFile

# Every LiteRT file carries this at byte 4: the identifier of its flatbuffer schema.
IDENTIFIER = b"TFL3"
# Operators that change a dtype; whatever they give, they compute nothing.
# What tfbig.normalizer and tfbig.encoder become.
_FRONT = {"ADD", "SUB", "MUL", "DIV", "GATHER", "EQUAL", "NOT_EQUAL", "SELECT_V2", "CAST", "CONCATENATION"}
_CHANGE_DTYPE = {"QUANTIZE", "DEQUANTIZE", "CAST"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
        name: Its name in the file.
        dtype: In NumPy's words, such as "int8"; also "string", "int4" and others that NumPy lacks.
        constant: Whether the file holds its values.
        shape: As stored; an axis that the file leaves open counts 1.
        bytes: Of its values in the file; 0 if it is not constant. Tensors may share them.
        scales: How many quantization scales it has: 0, 1, or one per channel.
        scale: The scale where there is one for all of it, else 0.0.
        zero_point: The integer that stands for 0.0 at that scale.
        sparse: Whether its values are stored without their zeros.
        variable: Whether it keeps its values from one run to the next, as an LSTM's state does.
    """

    name: str
    dtype: str
    constant: bool
    shape: tuple[int, ...] = ()
    bytes: int = 0
    scales: int = 0
    scale: float = 0.0
    zero_point: int = 0
    sparse: bool = False
    variable: bool = False


@dataclass(frozen=True)
class Operation:
    """One operator of a graph.

    Attributes:
        name: Such as "CONV_2D"; the name it was given, such as "FlexErfinv", if it is none of LiteRT's own.
        inputs: Indices into `Graph.tensors`; -1 is an input left out.
        outputs: Likewise.
        custom: Whether it is none of LiteRT's own.
        bodies: Indices into `Contents.graphs`: what a WHILE, IF or CALL_ONCE runs.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: bool = False
    bodies: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """One graph of a file: the main one, another signature's, or the body of a WHILE, IF or CALL_ONCE.

    Attributes:
        tensors: Every tensor, by index.
        operations: The operators in the order they run.
        inputs: Indices of the tensors that are given.
        outputs: Indices of the tensors that are the results.
    """

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def dtype(self, op: Operation) -> str:
        """Returns the dtype of an operator's first result; "none" where it has none."""
        return self.tensors[op.outputs[0]].dtype if op.outputs else "none"


@dataclass(frozen=True)
class Signature:
    """One function that a file offers: the graph it runs, and its inputs and outputs by name to their tensors."""

    graph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True)
class Contents:
    """What a LiteRT file holds.

    Attributes:
        graphs: All of them; the first is the main one.
        signatures: Key to `Signature`, the default one first. A file without any has one under "", made of the
            main graph's tensors.
        metadata: Name to bytes, as `with_metadata` adds them.
    """

    graphs: tuple[Graph, ...]
    signatures: dict[str, Signature]
    metadata: dict[str, bytes]

    @property
    def default(self) -> Signature:
        """The first signature."""
        return next(iter(self.signatures.values()))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the default signature's graph, by index."""
        return self.graphs[self.default.graph].tensors

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operators of the default signature's graph, in the order they run; bodies of loops are not in it."""
        return self.graphs[self.default.graph].operations

    @property
    def inputs(self) -> dict[str, int]:
        """Name of each input of the default signature to the index of its tensor."""
        return self.default.inputs

    @property
    def outputs(self) -> dict[str, int]:
        """Name of each output of the default signature to the index of its tensor."""
        return self.default.outputs

    def count_ops(self) -> dict[str, int]:
        """Returns operator and dtype of its result, such as "CONV_2D int8", to the number of such operators.

        Those in the bodies of loops and branches are counted too, once each.
        """
        return dict(Counter(f"{op.name} {graph.dtype(op)}" for graph, op in self._everything()))

    def float_ops(self) -> tuple[str, ...]:
        """Returns the operators that compute in float; changing to or from float is not computing."""
        names = {op.name for graph, op in self._everything() if graph.dtype(op).startswith("float")}
        return tuple(sorted(names - _CHANGE_DTYPE))

    def custom_ops(self) -> tuple[str, ...]:
        """Returns the operators that are not LiteRT's own, such as "FlexErfinv", which runs only inside TensorFlow."""
        return tuple(sorted({op.name for _, op in self._everything() if op.custom}))

    def elementwise_front(self) -> tuple[str, ...]:
        """Returns what is made of an input and constants by arithmetic alone: a normalizer's results, an encoder's."""
        reached, names = set(self.inputs.values()), []
        for op in self.operations:
            takes = {i for i in op.inputs if i >= 0 and not self.tensors[i].constant}
            if op.name in _FRONT and takes <= reached:
                reached.update(op.outputs)
                names += [self.tensors[i].name for i in op.outputs]
        return tuple(names)

    def _everything(self) -> Iterator[tuple[Graph, Operation]]:
        return ((graph, op) for graph in self.graphs for op in graph.operations)


def read_contents(content: bytes) -> Contents:
    """Reads what a LiteRT file holds.

    Args:
        content: The file's bytes.

    Returns:
        Its `Contents`.

    Raises:
        UnreadableFile: The bytes are no LiteRT file, or a broken one.
    """
    if content[4:8] != IDENTIFIER:
        raise UnreadableFile(
            f"This is not a LiteRT (.tflite) file: bytes 4 to 8 must be {IDENTIFIER!r}; got {content[4:8]!r}."
        )
    from ai_edge_litert import schema_py_generated as schema

    op_names = _names_by_value(schema.BuiltinOperator)
    dtypes = {value: name.lower() for value, name in _names_by_value(schema.TensorType).items()}
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        codes = [_op_name(code, op_names) for code in model.operatorCodes or ()]
        graphs = tuple(_graph(graph, codes, model.buffers, dtypes) for graph in model.subgraphs)
        metadata = {
            _text(entry.name): _values(model.buffers[entry.buffer], content) for entry in model.metadata or ()
        }
        contents = Contents(graphs, _signatures(model, graphs), metadata)
        _check_indices(contents)
    except Exception as error:  # a broken flatbuffer fails anywhere: struct, index, decode, attribute
        raise UnreadableFile(f"This LiteRT file is broken: {type(error).__name__}: {error}.") from error
    return contents


def _check_indices(contents: Contents) -> None:
    """Raises an IndexError where something points outside of the file, before anybody follows it."""
    for graph in contents.graphs:
        tensors = range(len(graph.tensors))
        named = [*graph.inputs, *graph.outputs, *(i for op in graph.operations for i in op.outputs)]
        given = [i for op in graph.operations for i in op.inputs if i != -1]
        bodies = [body for op in graph.operations for body in op.bodies]
        if not {*named, *given} <= {*tensors} or not {*bodies} <= {*range(len(contents.graphs))}:
            raise IndexError("an operator names a tensor or a graph that is not there")
    for signature in contents.signatures.values():
        tensors = range(len(contents.graphs[signature.graph].tensors))
        if signature.graph < 0 or not {*signature.inputs.values(), *signature.outputs.values()} <= {*tensors}:
            raise IndexError("a signature names a tensor or a graph that is not there")


def _graph(graph: Any, codes: list[tuple[str, bool]], buffers: list[Any], dtypes: dict[int, str]) -> Graph:
    tensors = tuple(_tensor(tensor, buffers[tensor.buffer], dtypes) for tensor in graph.tensors)
    operations = []
    for op in graph.operators or ():
        name, custom = codes[op.opcodeIndex]
        operations.append(Operation(name, _ints(op.inputs), _ints(op.outputs), custom, _bodies(op)))
    return Graph(tensors, tuple(operations), _ints(graph.inputs), _ints(graph.outputs))


def _bodies(op: Any) -> tuple[int, ...]:
    options = [given for given in (op.builtinOptions, op.builtinOptions2) if given is not None]
    fields = [field for given in options for field in vars(given).items()]
    return tuple(int(value) for name, value in fields if name.endswith("SubgraphIndex"))


def _tensor(tensor: Any, buffer: Any, dtypes: dict[int, str]) -> Tensor:
    quantization = tensor.quantization
    scales = _values_or_empty(quantization.scale) if quantization is not None else []
    zeros = _values_or_empty(quantization.zeroPoint) if quantization is not None else []
    return Tensor(
        name=_text(tensor.name),
        dtype=dtypes[tensor.type],
        constant=buffer.data is not None or buffer.offset > 1,
        shape=_ints(tensor.shape),
        bytes=len(buffer.data) if buffer.data is not None else buffer.size,
        scales=len(scales),
        scale=float(scales[0]) if len(scales) == 1 else 0.0,
        zero_point=int(zeros[0]) if len(scales) == len(zeros) == 1 else 0,
        sparse=tensor.sparsity is not None,
        variable=bool(tensor.isVariable),
    )


def _signatures(model: Any, graphs: tuple[Graph, ...]) -> dict[str, Signature]:
    signatures = {
        _text(given.signatureKey): Signature(
            int(given.subgraphIndex),
            {_text(item.name): int(item.tensorIndex) for item in given.inputs or ()},
            {_text(item.name): int(item.tensorIndex) for item in given.outputs or ()},
        )
        for given in model.signatureDefs or ()
    }
    main = graphs[0]
    return signatures or {"": Signature(0, _named(main, main.inputs), _named(main, main.outputs))}


def _named(graph: Graph, indices: tuple[int, ...]) -> dict[str, int]:
    """Tensors by their own names; one whose name is taken, or empty, gets its position as well."""
    named: dict[str, int] = {}
    for position, index in enumerate(indices):
        name = graph.tensors[index].name
        named[name if name and name not in named else f"{name}_{position}"] = index
    return named


def _op_name(code: Any, names: dict[int, str]) -> tuple[str, bool]:
    """An operator's name, and whether it is none of LiteRT's own."""
    # Codes below 127 were once stored in another field; the larger of the two is the real one.
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = names.get(builtin, f"UNKNOWN_{builtin}")
    custom = name == "CUSTOM"
    return (_text(code.customCode) if custom and code.customCode else name), custom


def _values(buffer: Any, content: bytes) -> bytes:
    # Files beyond 2 GB keep their buffers behind the flatbuffer.
    if buffer.data is None:
        return content[buffer.offset : buffer.offset + buffer.size] if buffer.offset > 1 else b""
    return bytes(bytearray(buffer.data))


def _values_or_empty(values: Any) -> Any:
    return [] if values is None else values


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""


def _ints(indices: Iterable[int] | None) -> tuple[int, ...]:
    return tuple(int(i) for i in indices) if indices is not None else ()


def _names_by_value(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}
