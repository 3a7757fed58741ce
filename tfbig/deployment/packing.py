"""LiteRT files unpacked, changed and packed again, in as few bytes as their format allows. Loads no TensorFlow."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.deployment.contents import IDENTIFIER, read_contents
from tfbig.errors import InvalidModel

# LiteRT computes on the values where they lie in the file, so its schema asks for this (`force_align: 16`).
_ALIGNMENT = 16


def repacked(content: bytes, *changes: Callable[[Any], None]) -> bytes:
    """Returns a LiteRT file after changes.

    What is written several times in most files (names, shapes, a zero point for every channel of a kernel) stands in it
    once. Values that nothing reads any more are left out.

    Args:
        content: The file's bytes.
        changes: Each is given the unpacked file, a `schema_py_generated.ModelT`, and changes it in place.

    Returns:
        The new file's bytes.

    Raises:
        UnreadableFile: The bytes are no LiteRT file, or a broken one.
        InvalidModel: The file is beyond 2 GB, where values stand behind the flatbuffer.
    """
    read_contents(content)  # broken files are refused here, with a message
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class AlignedBuffer(schema.BufferT):
        """A buffer that packs to an aligned place, which flatbuffers' own Python code does not see to."""

        def Pack(self, builder: Any) -> Any:
            if self.data is not None:
                builder.Prep(_ALIGNMENT, len(self.data))
            return super().Pack(builder)

    class SharingBuilder(flatbuffers.Builder):
        """Writes equal texts and equal lists of whole numbers once.

        Single numbers and scales are written each time: `refine` changes them where they lie.
        """

        def __init__(self, size: int):
            super().__init__(size)
            self.written: dict[Any, Any] = {}

        def CreateString(self, s: Any, *args: Any) -> Any:
            text = s if isinstance(s, bytes) else s.encode()
            if text not in self.written:
                self.written[text] = super().CreateString(text, *args)
            return self.written[text]

        def CreateNumpyVector(self, x: Any) -> Any:
            if x.dtype not in (np.int32, np.int64) or x.size == 1:
                return super().CreateNumpyVector(x)
            key = x.dtype.str, x.tobytes()
            if key not in self.written:
                self.written[key] = super().CreateNumpyVector(x)
            return self.written[key]

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    if any(buffer.offset > 1 for buffer in model.buffers):
        raise InvalidModel("A file beyond 2 GB cannot be changed; keep metadata in a file beside.")
    for change in changes:
        change(model)
    read = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    read |= {entry.buffer for entry in model.metadata or ()}
    model.buffers = [
        AlignedBuffer(data=buffer.data if place in read else None)
        for place, buffer in enumerate(model.buffers)
    ]
    builder = SharingBuilder(len(content) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def kind_of(model: Any, op: Any) -> int:
    """Returns which of LiteRT's operators one in an unpacked file is, by its number in the schema."""
    code = model.operatorCodes[op.opcodeIndex]
    # Files from before there were more than 127 operators hold it in the other place.
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def shorten_names(model: Any) -> None:
    """Names each inner tensor by the first operation it comes from.

    Where the converter fuses operations it writes the names of all of them, which makes a tenth of a small file.
    Inputs and outputs keep their names.

    Args:
        model: The unpacked file, a `schema_py_generated.ModelT`. It is changed in place.
    """
    for graph in model.subgraphs:
        edges = {*map(int, graph.inputs), *map(int, graph.outputs)}
        taken = Counter({graph.tensors[place].name: 1 for place in edges})
        for place, tensor in enumerate(graph.tensors):
            if place in edges or not tensor.name:
                continue
            name = tensor.name.split(b";")[0]
            taken[name] += 1
            tensor.name = name if taken[name] == 1 else name + b"_%d" % (taken[name] - 1)
