"""From a Keras model to a SavedModel with one signature: the form the converter reads."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, nodes
from tfbig.backend.hidden_scores import bounded_hidden_scores
from tfbig.backend.internals import every_layer
from tfbig.deployment.modes import is_integer
from tfbig.deployment.recurrent import has_own_form, lowered
from tfbig.errors import InvalidModel

_ATTENTION = (keras.layers.Attention, keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def input_shapes(model: Any) -> dict[str, tuple[tuple[int | None, ...], str]]:
    """Returns each input's name with its shape, without the batch axis, and its dtype."""
    return {tensor.name: (tuple(tensor.shape[1:]), str(tensor.dtype)) for tensor in _inputs(model)}


def output_names(model: Any) -> list[str] | None:
    """Returns the names of the model's outputs, in order; None where it gives none, or not each its own."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    names = list(getattr(model, "output_names", None) or [])
    return names if names and len(set(names)) == len(names) == len(model.outputs) else None


def index_ranges(model: Any) -> dict[str, tuple[float, float] | None]:
    """Returns the range of each input of whole numbers that a table is read by: from 0 to its number of rows."""
    ranges: dict[str, tuple[float, float] | None] = {}
    if graph_of(model) is None:
        return ranges
    for node in nodes(model):
        if isinstance(node.operation, keras.layers.Embedding):
            for tensor in model.inputs:
                if any(x is tensor for x in node.inputs):
                    ranges[tensor.name] = (0, node.operation.input_dim)
    return ranges


def has_own_trace(model: Any, quantize: str | None, float_forms: Mapping[str, str]) -> bool:
    """Returns whether a mode needs a SavedModel of its own, and cannot share the one for float32.

    Args:
        model: A built Keras model.
        quantize: The mode.
        float_forms: The forms of recurrent layers in the one for float32.
    """
    attends = any(isinstance(layer, _ATTENTION) for layer in every_layer(model))
    return (is_integer(quantize) and attends) or has_own_form(model, quantize, float_forms)


def write_saved_model(
    model: Any,
    folder: Path,
    batch_size: int | None,
    quantize: str | None = None,
    *,
    fuse: bool = True,
) -> dict[str, str]:
    """Writes the model's inference as a SavedModel, whose outputs are named by their places.

    A fixed batch spares the file the shape arithmetic that microcontroller runtimes reject.

    Args:
        model: A built Keras model.
        folder: Where to write.
        batch_size: Rows per prediction; None leaves it open.
        quantize: The mode it is for, by which the form of recurrent layers is chosen.
        fuse: Whether an LSTM may become one operator.

    Returns:
        Name of each recurrent layer to the form it took; see `recurrent.lowered`.
    """
    signature = [
        keras.InputSpec(shape=(batch_size, *shape), dtype=dtype, name=name)
        for name, (shape, dtype) in input_shapes(model).items()
    ]
    nested = signature[0] if len(signature) == 1 else signature

    def serve(*x: Any) -> dict[str, Any]:
        outputs = keras.tree.flatten(model(x[0], training=False))
        # Equally long numbers: TensorFlow sorts the names.
        return {f"output_{place:04d}": output for place, output in enumerate(outputs)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    hidden = bounded_hidden_scores() if is_integer(quantize) else contextlib.nullcontext()
    with lowered(model, quantize, fuse=fuse) as forms, hidden:
        archive.add_endpoint("serve", serve, input_signature=[nested])
        archive.write_out(str(folder), verbose=False)
    return forms


def _inputs(model: Any) -> list[Any]:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise InvalidModel(
            f"The model {model.name!r} does not know its inputs. Build it, or begin it with keras.Input; "
            "a subclassed model can be wrapped: keras.Model(inputs, model(inputs))."
        )
    return list(inputs)
