"""Named bytes inside a LiteRT file: labels, a version, whatever belongs to the model. Loads no TensorFlow.

LiteRT has a place for them (`Model.metadata` in its schema) and does not read it when it runs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfbig.deployment.contents import IDENTIFIER, Contents, read_contents
from tfbig.errors import InvalidModel, UnreadableFile

# LiteRT computes on the values where they lie in the file, so its schema asks for this (`force_align: 16`).
_ALIGNMENT = 16
# Under this name a file holds the names of its classes, as a list in JSON.
LABELS = "tfbig.labels"


def with_metadata(
    content: bytes,
    entries: Mapping[str, bytes],
    outputs: Sequence[str] | None = None,
    mend: Callable[[Any], None] | None = None,
) -> bytes:
    """Returns a LiteRT file with named bytes added; an entry of the same name is replaced.

    Args:
        content: The file's bytes.
        entries: Name to bytes, read back by `read_contents(...).metadata`.
        outputs: New names for the outputs of the first signature, in its order; None leaves them.
        mend: Changes the unpacked file, a `schema_py_generated.ModelT`, in the same pass.

    Returns:
        The new file's bytes. It computes the same.

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

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    if any(buffer.offset > 1 for buffer in model.buffers):
        raise InvalidModel("Metadata cannot be added to a file beyond 2 GB; keep it in a file beside.")
    model.metadata = model.metadata or []
    places = {entry.name.decode(): entry.buffer for entry in model.metadata}
    for name, values in entries.items():
        if name not in places:
            places[name] = len(model.buffers)
            model.metadata.append(schema.MetadataT(name=name, buffer=places[name]))
            model.buffers.append(schema.BufferT())
        model.buffers[places[name]].data = _array(values)
    for output, name in zip(model.signatureDefs[0].outputs if outputs else (), outputs or (), strict=True):
        output.name = name
    if mend:
        mend(model)
    model.buffers = [AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(len(content) + sum(map(len, entries.values())) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def read_labels(contents: Contents) -> tuple[str, ...] | None:
    """Returns the names of the classes that a file holds under `LABELS`, or None.

    Raises:
        UnreadableFile: What stands there is no list in JSON.
    """
    if LABELS not in contents.metadata:
        return None
    try:
        labels = json.loads(contents.metadata[LABELS])
    except ValueError as error:  # not UTF-8, or not JSON
        raise UnreadableFile(
            f"This file's labels ({LABELS!r} in its metadata) are not JSON: {error}."
        ) from error
    if not isinstance(labels, list):
        raise UnreadableFile(f"This file's labels must be a list in JSON; got a {type(labels).__name__}.")
    return tuple(map(str, labels))


def _array(values: bytes) -> Any:
    import numpy as np

    return np.frombuffer(values, np.uint8)
