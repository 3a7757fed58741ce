"""From a model and its targets to the task, and from the task to the loss and metrics."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.splitting import is_labels
from tfbig.errors import InvalidData, InvalidModel
from tfbig.models.heads import LABEL_LOGITS, LOGITS, VALUES


def infer_task(model: Any, y: np.ndarray) -> str:
    """Returns "binary", "multiclass", "multilabel" or "regression", whichever the model's head and `y` agree on.

    A head built by `tfbig.models` says by its name whether it gives logits or values, and a softmax or sigmoid
    says it too; elsewhere the shape and dtype of `y` decide.

    Raises:
        InvalidModel: The output's shape does not fit `y`.
    """
    outputs = _outputs(model)
    kind = _head_kind(model)
    columns = 1 if y.ndim == 1 else y.shape[-1]
    is_binary = y.dtype.kind in "biu" and set(np.unique(y).tolist()) <= {0, 1}
    one_label = columns == 1 and kind not in (VALUES, LABEL_LOGITS)
    if y.ndim > 2 or (columns != outputs and not one_label):
        raise InvalidModel(_misfit(model, outputs, y))
    if kind == VALUES:
        return "regression"
    if columns == 1 and outputs > 1:
        if is_labels(y.reshape(len(y))) or _whole(y):
            return "multiclass"
        raise InvalidModel(_misfit(model, outputs, y))
    if kind == LABEL_LOGITS:
        return "multilabel"
    if outputs == 1:
        return "binary" if kind == LOGITS or is_binary else "regression"
    if kind == LOGITS or is_binary:
        return "multiclass" if _one_hot(y) else "multilabel"
    return "regression"


def fit_targets(task: str, model: Any, y: np.ndarray) -> np.ndarray:
    """Returns `y` in the form the task's loss takes: int64 labels, or float32 of shape (rows, outputs).

    Raises:
        InvalidData: A label lies outside the classes.
    """
    outputs = _outputs(model)
    if task == "multiclass":
        labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y))
        _check_labels(labels, outputs)
        return labels.astype(np.int64)
    if task in ("binary", "multilabel"):
        _check_labels(y, 2)
    return y.reshape(len(y), outputs).astype(np.float32)


def loss_and_metrics(task: str, model: Any) -> tuple[Any, list[Any]]:
    """Returns Keras's loss and metrics for the task, on logits unless the model ends in softmax or sigmoid."""
    from_logits = not _ends_in_probabilities(model)
    if task == "multiclass":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits), ["accuracy"]
    if task == "regression":
        return keras.losses.MeanSquaredError(), ["mae"]
    threshold = 0.0 if from_logits else 0.5
    accuracy = keras.metrics.BinaryAccuracy(threshold=threshold, name="accuracy")
    return keras.losses.BinaryCrossentropy(from_logits=from_logits), [accuracy]


def _outputs(model: Any) -> int:
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None:
        raise InvalidModel(
            f"tfbig chooses a loss for models with one output of shape (batch, outputs); {model.name!r} gives "
            f"{shape}. Pass loss= (and metrics=) for others."
        )
    return int(shape[-1])


def _head(model: Any) -> Any:
    """The layer that decides what the outputs mean: the last one that is no rescaling."""
    rescaling = (keras.layers.Normalization, keras.layers.Rescaling)
    head = next((layer for layer in reversed(model.layers) if not isinstance(layer, rescaling)), None)
    return _head(head) if isinstance(head, keras.Model) else head


def _head_kind(model: Any) -> str | None:
    head = _head(model)
    if getattr(head, "name", None) in (LOGITS, LABEL_LOGITS, VALUES):
        return head.name
    return LOGITS if _ends_in_probabilities(model) else None


def _ends_in_probabilities(model: Any) -> bool:
    head = _head(model)
    if isinstance(head, keras.layers.Softmax):
        return True
    activation = getattr(head, "activation", None)
    return activation in (keras.activations.softmax, keras.activations.sigmoid)


def _whole(y: np.ndarray) -> bool:
    return bool(np.all(y == np.round(y)))


def _one_hot(y: np.ndarray) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _check_labels(labels: np.ndarray, classes: int) -> None:
    inside = (labels >= 0) & (labels < classes) & (labels == np.round(labels))
    if not inside.all():
        row = int(np.argwhere(~inside)[0][0])
        raise InvalidData(
            f"Labels of {classes} classes must be whole numbers from 0 to {classes - 1}; row {row} of y holds "
            f"{labels.flat[np.flatnonzero(~inside)[0]]}. tfbig.clean(x, y) renumbers labels."
        )


def _misfit(model: Any, outputs: int, y: np.ndarray) -> str:
    if y.ndim == 1 and outputs > 1 and _head_kind(model) in (VALUES, LABEL_LOGITS):
        needed = f"y of shape (rows, {outputs}), or a model with 1 output"
    elif y.ndim == 1 and outputs > 1:
        needed = "whole-number labels, or a model with 1 output for these values"
    elif y.ndim == 1:
        needed = "1 output"
    else:
        needed = f"{y.shape[-1]} outputs"
    return (
        f"The model {model.name!r} gives {outputs} output{'s' * (outputs != 1)} per row and y has shape {y.shape} "
        f"and dtype {y.dtype}; they do not fit. Needed: {needed}."
    )
