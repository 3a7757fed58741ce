"""From a Keras model to a SavedModel with one signature: the form the converter reads."""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.plain_sums import plain_sums
from tfbig.deployment.full_precision import in_float32
from tfbig.deployment.integer_forms import has_integer_forms, integer_forms
from tfbig.deployment.recurrent import has_own_form, lowered
from tfbig.deployment.serving import as_given
from tfbig.deployment.wide_islands import islands
from tfbig.errors import InvalidModel

# A model has other forms while it is traced, so threads that export or call one take turns.
TURNS = threading.RLock()


def input_shapes(model: Any) -> dict[str, tuple[tuple[int | None, ...], str]]:
    """Returns each input's name with its shape, without the batch axis, and its dtype: of any floats, float32.

    Raises:
        InvalidModel: The model does not know its inputs, or one is text.
    """
    shapes = {}
    for tensor in _inputs(model):
        dtype = str(tensor.dtype)
        if dtype == "string":
            raise InvalidModel(
                f"The input {tensor.name!r} of {model.name!r} is text, which a LiteRT file does not take. Turn text "
                "into numbers before the model (tfbig.clean and tfbig.tokenizer do), and begin the model with these."
            )
        shapes[tensor.name] = tuple(tensor.shape[1:]), "float32" if "float" in dtype else dtype
    return shapes


def has_own_trace(model: Any, quantize: str | None, float_forms: Mapping[str, str]) -> bool:
    """Returns whether a mode needs a SavedModel of its own, and cannot share the one for float32.

    Args:
        model: A built Keras model.
        quantize: The mode.
        float_forms: The forms of recurrent layers in the one for float32.
    """
    return has_integer_forms(model, quantize) or has_own_form(model, quantize, float_forms)


def write_saved_model(
    model: Any,
    folder: Path,
    batch_size: int | None,
    quantize: str | None = None,
    *,
    trained_for: str | None = None,
) -> dict[str, str]:
    """Writes the model's inference as a SavedModel, whose outputs are named by their places.

    A fixed batch spares the file the shape arithmetic that microcontroller runtimes reject.

    Args:
        model: A built Keras model.
        folder: Where to write.
        batch_size: Rows per prediction; None leaves it open.
        quantize: The mode it is for, by which the form of recurrent layers is chosen.
        trained_for: The mode whose ranges the model brings along; `quantize` is None then, and layers stay as trained.

    Returns:
        Name of each recurrent layer to the form it took; see `recurrent.lowered`.

    Raises:
        InvalidModel: The model cannot be a file, as it is stateful or looks values up in a table.
    """
    specs = [
        tf.TensorSpec((batch_size, *shape), dtype, name)
        for name, (shape, dtype) in input_shapes(model).items()
    ]

    def serve(*rows: Any) -> dict[str, Any]:
        outputs = keras.tree.flatten(model(as_given(model, list(rows)), training=False))
        # Equally long numbers: TensorFlow sorts the names.
        return {f"output_{place:04d}": output for place, output in enumerate(outputs)}

    fuse = trained_for is None
    apart = islands(model) if trained_for == "int16x8" else contextlib.nullcontext()
    with (
        TURNS,
        in_float32(model),
        lowered(model, quantize, fuse=fuse) as forms,
        integer_forms(model, quantize),
        plain_sums(),
        apart,
    ):
        traced = tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()
    # Not by keras.export.ExportArchive: it traces the model three times, and stores all layers' functions beside.
    module = tf.Module()
    module.held = list(traced.variables)
    try:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": traced})
    except AssertionError as error:  # of a resource that is no variable
        raise InvalidModel(
            f"The model {model.name!r} looks values up in a table (StringLookup, IntegerLookup, TextVectorization), "
            "for which a LiteRT file has no place. Look them up before the model, and begin it with their numbers."
        ) from error
    return forms


def _inputs(model: Any) -> list[Any]:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise InvalidModel(
            f"The model {model.name!r} does not know its inputs. Build it, or begin it with keras.Input; "
            "a subclassed model can be wrapped: keras.Model(inputs, model(inputs))."
        )
    return list(inputs)
