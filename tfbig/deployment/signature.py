"""From a Keras model to a SavedModel with one signature: the form the converter reads."""

from pathlib import Path
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidModel


def input_names(model: Any) -> list[str]:
    """Returns the names of the model's inputs, in order.

    Raises:
        InvalidModel: The model is not built, so its inputs are unknown.
    """
    return [tensor.name for tensor in _inputs(model)]


def input_shapes(model: Any) -> dict[str, tuple[tuple[int | None, ...], str]]:
    """Returns each input's name with its shape, without the batch axis, and its dtype."""
    return {tensor.name: (tuple(tensor.shape[1:]), str(tensor.dtype)) for tensor in _inputs(model)}


def write_saved_model(model: Any, folder: Path, batch_size: int | None) -> None:
    """Writes the model's inference as a SavedModel.

    A fixed batch spares the file the shape arithmetic that microcontroller runtimes reject.

    Args:
        model: A built Keras model.
        folder: Where to write.
        batch_size: Rows per prediction; None leaves it open.
    """
    signature = [
        keras.InputSpec(shape=(batch_size, *shape), dtype=dtype, name=name)
        for name, (shape, dtype) in input_shapes(model).items()
    ]
    nested = signature[0] if len(signature) == 1 else signature
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", lambda *x: model(x[0], training=False), input_signature=[nested])
    archive.write_out(str(folder), verbose=False)


def _inputs(model: Any) -> list[Any]:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise InvalidModel(
            f"The model {model.name!r} does not know its inputs. Build it, or begin it with keras.Input; "
            "a subclassed model can be wrapped: keras.Model(inputs, model(inputs))."
        )
    return list(inputs)
