"""SavedModel folders as TensorFlow Serving takes them, whole or not at all, and the way back to a Keras model."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tfbig.backend import keras, tf
from tfbig.errors import OutputExists, OutputNotWritable
from tfbig.files import make_room, sync_folder

# A SavedModel's place for what TensorFlow does not read.
KERAS_FILE = Path("assets.extra") / "model.keras"


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a SavedModel."""
    return (folder / "saved_model.pb").is_file()


def versions(folder: Path) -> list[int]:
    """Returns the versions under a folder that TensorFlow Serving would see, ascending."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal() and is_saved_model(entry)
    )


def check_folder(target: Path, overwrite: bool) -> None:
    """Checks, before work starts, that a SavedModel can be put at `target`, and makes the folder around it.

    Raises:
        OutputExists: A SavedModel is there and `overwrite` is false.
        OutputNotWritable: Something else is there, or the folder around it cannot be written.
    """
    if versions(target):
        raise OutputNotWritable(
            f"{str(target)!r} holds the versions {', '.join(map(str, versions(target)))} of a model. "
            f"Write the next beside them: {str(target / str(versions(target)[-1] + 1))!r}."
        )
    if target.name.isdecimal() and is_saved_model(target.parent):
        raise OutputNotWritable(
            f"{str(target.parent)!r} is a SavedModel itself, so it cannot hold versions. Choose another folder."
        )
    if target.exists():
        empty = target.is_dir() and not any(target.iterdir())
        if not is_saved_model(target) and not empty:
            raise OutputNotWritable(f"{str(target)!r} is there and is no SavedModel; it is not touched.")
        if not overwrite and not empty:
            raise OutputExists(
                f"{str(target)!r} exists already. Pass overwrite=True to replace it, or write a new version."
            )
    make_room(target)


def write_folder(model: Any, target: Path) -> None:
    """Writes a model as a SavedModel, with its `.keras` file inside, and moves it into place once it is on disk.

    A folder cannot replace another in one step: whoever is killed between the two renames finds the old one in
    the hidden folder beside. A new version has no such moment.
    """
    hidden = None
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        staged, before = hidden / target.name, hidden / "before"
        _write_signature(model, staged)
        (staged / KERAS_FILE).parent.mkdir()
        model.save(staged / KERAS_FILE)
        _flush(staged)
        if target.exists():
            os.rename(target, before)
        try:
            os.rename(staged, target)
        except OSError:
            if before.exists():
                os.rename(before, target)
            raise
        sync_folder(target.parent)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputNotWritable(
            f"{str(target)!r} could not be written ({reason}). What was there before is unchanged."
        ) from error
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)


def _write_signature(model: Any, folder: Path) -> None:
    """Writes the model's inference under the name that TensorFlow Serving asks for, inputs and outputs by name."""
    specs = [
        keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=tensor.name) for tensor in model.inputs
    ]
    names = output_names(model)

    def serve(*rows: Any) -> dict[str, Any]:
        outputs = model(as_given(model, list(rows)), training=False)
        return dict(zip(names, keras.tree.flatten(outputs), strict=True))

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serve, input_signature=specs)
    archive.write_out(str(folder), verbose=False)


def as_given(model: Any, rows: list[Any]) -> Any:
    """Returns inputs, listed as in `model.inputs`, in the structure that the model was made with."""
    return rows[0] if len(rows) == 1 else keras.tree.pack_sequence_as(model.input, rows)


def output_names(model: Any) -> list[str]:
    """Returns a name for each of the model's outputs: the key of a dict, else the layer it comes from, each once."""
    outputs = getattr(model, "outputs", None) or [None]  # a Sequential has none before it was called
    if isinstance(model, keras.Sequential):
        given = [model.layers[-1].name] * len(outputs)
    elif isinstance(model.output, dict) and len(model.output) == len(outputs):
        given = sorted(model.output)
    else:
        given = model.output_names
    names: list[str] = []
    for name in given:
        repeats = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
        names.append(next(new for new in repeats if new not in names))
    return names


def _flush(folder: Path) -> None:
    """Waits until a folder and all in it are on disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
