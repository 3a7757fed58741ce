"""Outputs of anything that predicts, brought to one form. Knows neither Keras nor LiteRT by import."""

import sys
from typing import Any

import numpy as np

from tfbig.data.checking import row_count, rows_fit, take_rows
from tfbig.errors import InvalidData, InvalidModel

# Below this many rows a traced predict function costs more than it saves.
_EAGER_ROWS, _BATCH = 4096, 128


def outputs_of(model: Any, x: Any) -> np.ndarray:
    """Returns the model's raw outputs for x, shape (rows,) or (rows, outputs).

    Args:
        model: A Keras model, a `LiteModel`, or anything with `predict`.
        x: Inputs of shape (rows, ...), or a dict of such arrays.

    Returns:
        A NumPy array of floats.

    Raises:
        InvalidModel: It has no `predict`, or gives something else than one number or one row of numbers per row.
    """
    rows = row_count(x)
    if _is_keras(model):
        outputs = _keras_outputs(model, x)
    elif hasattr(model, "predict"):
        outputs = model.predict(x)
    else:
        raise InvalidModel(f"Expected a model with predict; got {type(model).__name__}.")
    try:
        outputs = np.asarray(outputs)
    except ValueError as error:
        raise InvalidModel(
            f"Expected outputs of shape (rows,) or (rows, outputs) for {rows} rows; got several: {error}."
        ) from error
    if outputs.dtype.kind in "biu" or outputs.dtype.name == "bfloat16":
        outputs = outputs.astype(np.float32)
    if outputs.dtype.kind != "f" or outputs.ndim not in (1, 2, 3) or len(outputs) != rows:
        raise InvalidModel(
            f"Expected outputs of shape (rows,) or (rows, outputs) for {rows} rows; got {outputs.dtype} values "
            f"of shape {outputs.shape}."
        )
    return outputs


def _is_keras(model: Any) -> bool:
    # A process without Keras holds no Keras model, and scoring a LiteRT file must not load it.
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def _keras_outputs(model: Any, x: Any) -> Any:
    shape = getattr(model, "input_shape", None) if model.built else None
    if isinstance(shape, tuple) and not isinstance(x, dict) and not rows_fit(shape[1:], x):
        raise InvalidData(
            f"The model {model.name!r} takes rows of shape {shape[1:]}; x has rows of shape {x.shape[1:]}."
        )
    rows = row_count(x)
    if rows > _EAGER_ROWS:
        return model.predict(x, batch_size=_BATCH, verbose=0)
    starts = range(0, rows, _BATCH)
    parts = [model(take_rows(x, slice(start, start + _BATCH)), training=False) for start in starts]
    if isinstance(parts[0], list | tuple | dict):
        raise InvalidModel(
            f"Expected outputs of shape (rows,) or (rows, outputs); {model.name!r} gives {len(parts[0])} outputs."
        )
    return np.concatenate([np.asarray(part) for part in parts])
