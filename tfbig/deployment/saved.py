"""Keras models to `.keras` files and back."""

import os
import zipfile
from pathlib import Path
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidModel, UnreadableFile
from tfbig.files import check_output, written_whole
from tfbig.options import checked


@checked()
def save_model(model: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes a model, with its compile settings and optimizer state, to a `.keras` file, whole or not at all.

    Args:
        model: A built Keras model.
        path: Where; ends in ".keras".
        overwrite: Whether a file that is already there may be replaced.

    Returns:
        The path.

    Raises:
        InvalidModel: It is no Keras model, or not built.
        OutputExists, OutputNotWritable: The path cannot be had.

    Example:
        >>> import tempfile, tfbig
        >>> path = tfbig.save_model(tfbig.models.mlp((4,), 3), tempfile.mkdtemp() + "/model.keras")
        >>> tfbig.load_model(path).output_shape
        (None, 3)
    """
    if not isinstance(model, keras.Model):
        raise InvalidModel(f"Expected a keras.Model; got {type(model).__name__}.")
    if not model.built:
        raise InvalidModel(
            f"The model {model.name!r} has no weights yet: build it, or call it on a batch, first."
        )
    target = check_output(path, suffix=".keras", overwrite=overwrite)
    with written_whole(target) as staged:
        model.save(staged)
    return target


def load_model(path: str | os.PathLike[str]) -> Any:
    """Reads a model from a `.keras` file. No code stored in the file is run (Keras's `safe_mode`).

    Args:
        path: A `.keras` file.

    Returns:
        The Keras model, compiled if it was.

    Raises:
        UnreadableFile: There is no such file, it is of another kind, broken, or asks to run code.

    Example:
        >>> import tempfile, tfbig
        >>> path = tempfile.mkdtemp() + "/model.keras"
        >>> _ = tfbig.save_model(tfbig.models.mlp((4,), 3), path)
        >>> load_model(path).name
        'mlp'
    """
    source = Path(path)
    if not source.exists():
        raise UnreadableFile(f"There is no file {str(source)!r}.")
    if source.suffix != ".keras" or not zipfile.is_zipfile(source):
        raise UnreadableFile(f"Expected a Keras 3 file (.keras, a zip archive); {str(source)!r} is not one.")
    # Models from quantize_aware hold these; Keras finds them once they are imported.
    import tfbig.layers.kernels
    import tfbig.layers.ranges  # noqa: F401

    try:
        return keras.saving.load_model(source, safe_mode=True)
    except Exception as error:  # Keras lets whatever went wrong inside through: KeyError, zip and HDF5 errors
        raise UnreadableFile(f"{str(source)!r} cannot be loaded: {error}") from error
