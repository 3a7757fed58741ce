"""Named bytes inside a LiteRT file: labels, a version, whatever belongs to the model. Loads no TensorFlow.

LiteRT has a place for them (`Model.metadata` in its schema) and does not read it when it runs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfbig.deployment.contents import Contents
from tfbig.deployment.packing import repacked
from tfbig.errors import UnreadableFile

# Under this name a file holds the names of its classes, as a list in JSON.
LABELS = "tfbig.labels"


def with_metadata(
    content: bytes,
    entries: Mapping[str, bytes],
    outputs: Sequence[str] | None = None,
    changes: Sequence[Callable[[Any], None]] = (),
) -> bytes:
    """Returns a LiteRT file with named bytes added; an entry of the same name is replaced.

    Args:
        content: The file's bytes.
        entries: Name to bytes, read back by `read_contents(...).metadata`.
        outputs: New names for the outputs of the first signature, in its order; None leaves them.
        changes: What else to change in the same pass, see `repacked`.

    Returns:
        The new file's bytes. Without further changes it computes the same.

    Raises:
        UnreadableFile: The bytes are no LiteRT file, or a broken one.
        InvalidModel: The file is beyond 2 GB, where values stand behind the flatbuffer.
    """

    def add(model: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        model.metadata = model.metadata or []
        places = {entry.name.decode(): entry.buffer for entry in model.metadata}
        for name, values in entries.items():
            if name not in places:
                places[name] = len(model.buffers)
                model.metadata.append(schema.MetadataT(name=name, buffer=places[name]))
                model.buffers.append(schema.BufferT())
            model.buffers[places[name]].data = _array(values)
        for output, name in zip(
            model.signatureDefs[0].outputs if outputs else (), outputs or (), strict=True
        ):
            output.name = name

    return repacked(content, add, *changes)


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
