"""Keras models to files and back: `.keras`, SavedModel folders, and what earlier versions of Keras left behind."""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tfbig.backend import keras
from tfbig.deployment.archives import check_archive
from tfbig.deployment.legacy import load_legacy
from tfbig.deployment.legacy_reading import read_apart
from tfbig.deployment.serving import KERAS_FILE, check_folder, is_saved_model, versions, write_folder
from tfbig.deployment.signature import input_shapes
from tfbig.errors import InvalidModel, InvalidOption, OutputNotWritable, UnreadableFile
from tfbig.files import check_output, written_whole
from tfbig.options import checked

_HDF5 = b"\x89HDF\r\n\x1a\n"


@checked()
def save_model(model: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes a model, whole or not at all: to a `.keras` file, or as a SavedModel folder.

    A `.keras` file holds the model with its compile settings and optimizer state. A path without an ending
    becomes a SavedModel folder with the signature "serving_default", whose inputs and outputs have the names of the
    model's; the `.keras` file is in it too, under assets.extra, so that `load_model` gives the model back.

    TensorFlow Serving looks for versions: folders whose name is a whole number. Choose them by the path, as in
    "models/digits/1", then "models/digits/2"; no number is ever made up. The folder appears under its name when
    all of it is on disk, so a server never sees half a version.

    Args:
        model: A built Keras model.
        path: Where; ends in ".keras", or has no ending.
        overwrite: Whether a file, or a SavedModel, that is already there may be replaced.

    Returns:
        The path.

    Raises:
        InvalidModel: It is no Keras model, not built, or (as a SavedModel) does not know its inputs.
        OutputExists, OutputNotWritable: The path cannot be had.

    Example:
        >>> import tempfile, tfbig
        >>> model, folder = tfbig.models.mlp((4,), 3), tempfile.mkdtemp()
        >>> path = tfbig.save_model(model, folder + "/model.keras")
        >>> tfbig.load_model(path).output_shape
        (None, 3)
        >>> tfbig.save_model(model, folder + "/served/1").name
        '1'
    """
    if not isinstance(model, keras.Model):
        raise InvalidModel(f"Expected a keras.Model; got {type(model).__name__}.")
    if not model.built:
        raise InvalidModel(
            f"The model {model.name!r} has no weights yet: build it, or call it on a batch, first."
        )
    target = Path(path)
    if target.suffix == "":
        input_shapes(model)  # refuses a model that does not know its inputs
        check_folder(target, overwrite)
        write_folder(model, target)
        return target
    if target.suffix != ".keras":
        raise OutputNotWritable(
            f"The output path must end in '.keras', or have no ending for a SavedModel folder; got {str(target)!r}."
        )
    target = check_output(target, suffix=".keras", overwrite=overwrite)
    with written_whole(target) as staged:
        model.save(staged)
    return target


@checked()
def load_model(
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    timeout: float = 300.0,
) -> Any:
    """Reads a model from a file of any version of Keras, as a model of Keras 3. No code stored in a file is run.

    What it is shows in the content, not in the ending:

    - `.keras` files of Keras 3, and SavedModel folders of `save_model`: the model, compiled if it was.
    - `.keras`, `.h5` and SavedModel folders of Keras 2 and `tf_keras`; json with weights, of Keras 1 as well; `.h5`
      of Keras 3: the model, brought to Keras 3 and not compiled. Loss, metrics and optimizer state are left behind.

    Legacy files are read in a process of their own. The model is built anew from stock layers of Keras 3, is given
    the weights, and is run on random rows: it is returned only if its outputs are the legacy model's, to 1e-5 of
    their range; models that compute in 16 bits are compared in float32. Slashes in names of layers become
    underscores. The hard sigmoid of Keras 1 and 2 is `tfbig.deployment.legacy_functions.legacy_hard_sigmoid`, since
    Keras 3 computes another function by that name; a model that has one needs tfbig to be loaded again.

    A SavedModel without a Keras model in it, as `model.export` writes, is a program without layers. It is refused;
    `keras.layers.TFSMLayer` runs one.

    Args:
        path: A file, or a SavedModel folder.
        weights: The weights of a model whose architecture is a json file: `.h5`, `.weights.h5`, or the prefix of a
            TensorFlow checkpoint.
        timeout: Seconds that the process that reads the file may take.

    Returns:
        The Keras 3 model.

    Raises:
        InvalidOption: `weights` is given for a file that has its own, or is missing for a json file.
        UnreadableFile: There is no such file, it is of another kind, damaged, asks to run code, holds a custom or
            unknown layer, or the model would not be the same in Keras 3.

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
    kind = _kind(source)
    if (kind == "json") != (weights is not None):
        raise InvalidOption(
            f"{str(source)!r} is an architecture without weights: give them as weights=."
            if kind == "json"
            else f"weights= is for a json file; {str(source)!r} has its own."
        )
    if kind == "saved_model":
        if (source / KERAS_FILE).is_file():
            return _load_keras(source / KERAS_FILE, timeout)
        return load_legacy(kind, str(source), source, source / "variables" / "variables", timeout)
    if kind == "json":
        return load_legacy(kind, str(source), source, _weights_file(Path(str(weights))), timeout)
    return (
        _load_keras(source, timeout)
        if kind == "keras"
        else load_legacy(kind, str(source), source, source, timeout)
    )


def _kind(source: Path) -> str:
    """Tells what a file is by how it begins."""
    if source.is_dir():
        if is_saved_model(source):
            return "saved_model"
        if versions(source):
            newest = source / str(versions(source)[-1])
            raise UnreadableFile(
                f"{str(source)!r} holds versions of a model, {', '.join(map(str, versions(source)))}. Load one of "
                f"them: {str(newest)!r}."
            )
        raise UnreadableFile(f"The folder {str(source)!r} is no SavedModel: it has no saved_model.pb.")
    try:
        with source.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UnreadableFile(f"{str(source)!r} cannot be read ({error.strerror or error}).") from error
    if start.startswith(b"PK"):
        return "keras"
    if start.startswith(_HDF5):
        return "h5"
    if start.lstrip()[:1] in (b"{", b"["):
        return "json"
    raise UnreadableFile(
        f"Expected a Keras file (.keras, a zip archive; .h5, an HDF5 file; .json) or a SavedModel folder; "
        f"{str(source)!r} is neither, whatever its ending says."
    )


def _weights_file(weights: Path) -> Path:
    if not weights.is_file() and not Path(f"{weights}.index").is_file():
        raise UnreadableFile(
            f"There is no file {str(weights)!r}, and no TensorFlow checkpoint of that prefix."
        )
    if weights.is_file():
        with weights.open("rb") as file:
            if not file.read(8).startswith(_HDF5):
                raise UnreadableFile(f"Expected weights in an HDF5 file (.h5); {str(weights)!r} is not one.")
    return weights


def _load_keras(source: Path, timeout: float) -> Any:
    """Loads a `.keras` file of Keras 3, or hands an older one on."""
    version = check_archive(source, str(source))
    if not version.startswith("3"):
        return _load_old_archive(source, timeout)
    # Models from quantize_aware and legacy files hold these; Keras finds them once they are imported.
    import tfbig.data.encoding
    import tfbig.deployment.legacy_functions
    import tfbig.layers.kernels
    import tfbig.layers.ranges
    import tfbig.models.step_layers  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="tfbig-load-") as work:
        job = {"do": "check_weights", "source": str(source), "file": str(source)}
        read_apart(job, Path(work), timeout)
        named = source
        if source.suffix != ".keras":  # Keras goes by the ending
            named = Path(work) / "model.keras"
            named.symlink_to(source.resolve())
        try:
            return keras.saving.load_model(named, safe_mode=True)
        except (
            Exception
        ) as error:  # Keras lets whatever went wrong inside through: KeyError, zip and HDF5 errors
            raise UnreadableFile(f"{str(source)!r} cannot be loaded: {error}") from error


def _load_old_archive(source: Path, timeout: float) -> Any:
    with tempfile.TemporaryDirectory(prefix="tfbig-load-") as work, zipfile.ZipFile(source) as archive:
        weights = Path(archive.extract("model.weights.h5", work))
        return load_legacy("keras", str(source), source, weights, timeout)
