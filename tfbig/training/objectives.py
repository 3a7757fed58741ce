"""From a model and its targets to the task, and from the task to the loss and metrics."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.splitting import is_labels
from tfbig.errors import InvalidData, InvalidModel
from tfbig.models.heads import LABEL_LOGITS, LOGITS, STEP_LOGITS, VALUES, head_of, kind_of_outputs
from tfbig.training.losses import (
    check_bits,
    check_outputs,
    fits_loss,
    loss_title,
    takes_distribution,
    takes_labels,
)


def infer_task(model: Any, y: np.ndarray) -> str:
    """Returns the task that the model's head and `y` agree on, one of `tfbig.models.heads.TASKS`.

    A head built by `tfbig.models` says by its name whether it gives logits or values, and a softmax or sigmoid
    says it too; elsewhere the shape and dtype of `y` decide.

    Raises:
        InvalidModel: The output's shape does not fit `y`.
    """
    if _head_kind(model) == STEP_LOGITS:
        return _sequence(model, y)
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
    """Returns `y` in the form the model's loss takes: int64 labels, per step too, or float32 of (rows, outputs).

    A model compiled with a loss of distributions, such as categorical focal cross-entropy or one with label smoothing,
    gets its labels one-hot, a byte each.

    Raises:
        InvalidData: A label lies outside the classes.
    """
    one_hot = takes_distribution(getattr(model, "loss", None))
    if task == "sequence":
        _check_labels(y, int(model.output_shape[-1]))
        return _as_one_hot(y, model) if one_hot else y.astype(np.int64)
    outputs = _outputs(model)
    if task == "multiclass":
        labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y))
        _check_labels(labels, outputs)
        return _as_one_hot(labels, model) if one_hot else labels.astype(np.int64)
    if task in ("binary", "multilabel"):
        _check_labels(y, 2)
    return y.reshape(len(y), outputs).astype(np.float32)


def loss_and_metrics(task: str, model: Any) -> tuple[Any, list[Any]]:
    """Returns Keras's loss and metrics for the task, on logits unless the model ends in softmax or sigmoid."""
    from_logits = not _ends_in_probabilities(model)
    if task in ("multiclass", "sequence"):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits), ["accuracy"]
    if task == "regression":
        return keras.losses.MeanSquaredError(), ["mae"]
    threshold = 0.0 if from_logits else 0.5
    accuracy = keras.metrics.BinaryAccuracy(threshold=threshold, name="accuracy")
    return keras.losses.BinaryCrossentropy(from_logits=from_logits), [accuracy]


def task_of_loss(loss: Any, model: Any, y: np.ndarray) -> str | None:
    """Returns the task for whose labels a loss is made, or None where the loss takes y as it is.

    Whole-number labels suit Keras's losses of distributions too: `fit_targets` makes them one-hot.
    """
    if not (takes_labels(loss) or takes_distribution(loss)):
        return None
    try:
        task = infer_task(model, y)
    except InvalidModel:
        return None  # a head that says nothing: Keras decides
    return task if task in ("multiclass", "sequence") else None


def check_loss(model: Any, y: np.ndarray, loss: Any) -> None:
    """Raises `InvalidModel` where the loss cannot fit the model's head or y, and says which would.

    Looks at models with one output and Keras's own losses; of others nothing is said.

    Raises:
        InvalidData: The loss takes 0 and 1, and y holds other values.
    """
    if not isinstance(loss, str | keras.losses.Loss) and not callable(loss):
        return  # one for each of several outputs
    if not fits_loss(model, y, loss):
        outputs = int(model.output_shape[-1])
        raise InvalidModel(
            f"The loss {loss_title(loss)!r} does not fit {model.name!r}, which "
            f"gives {outputs} output{'s' * (outputs != 1)} per row, and y of shape {y.shape}. {_fitting(model, y)}"
        )
    if isinstance(getattr(model, "output_shape", None), tuple):
        check_outputs(model, loss, lambda: _fitting(model, y))
    check_bits(y, loss)


def _fitting(model: Any, y: np.ndarray) -> str:
    try:
        loss, _ = loss_and_metrics(infer_task(model, y), model)
    except InvalidModel as error:
        return str(error)
    options = "".join(f"{key}={value}" for key, value in loss.get_config().items() if key == "from_logits")
    return f"One that fits: keras.losses.{type(loss).__name__}({options}), which is chosen where no loss is given."


def _sequence(model: Any, y: np.ndarray) -> str:
    """The task of a head that answers at every step; `y` holds a label for each."""
    steps, classes = model.output_shape[1:]
    if y.ndim == 2 and y.shape[1] == steps and (y.dtype.kind in "biu" or _whole(y)):
        return "sequence"
    raise InvalidModel(
        f"The model {model.name!r} gives {classes} logits at each of {steps} steps and y has shape {y.shape} and dtype "
        f"{y.dtype}; they do not fit. Needed: a whole-number label per step, shape (rows, {steps})."
    )


def _outputs(model: Any) -> int:
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None:
        raise InvalidModel(
            f"tfbig chooses a loss for models with one output of shape (batch, outputs); {model.name!r} gives "
            f"{shape}. Pass loss= (and metrics=) for others."
        )
    return int(shape[-1])


def _head_kind(model: Any) -> str | None:
    head = head_of(model)
    if getattr(head, "name", None) in (LOGITS, LABEL_LOGITS, STEP_LOGITS, VALUES):
        return head.name
    return LOGITS if _ends_in_probabilities(model) else None


def _ends_in_probabilities(model: Any) -> bool:
    return kind_of_outputs(head_of(model)) == "probabilities"


def _whole(y: np.ndarray) -> bool:
    return bool(np.all(y == np.round(y)))


def _one_hot(y: np.ndarray) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _as_one_hot(labels: np.ndarray, model: Any) -> np.ndarray:
    """Labels of shape (…) as uint8 of (…, classes)."""
    return np.eye(int(model.output_shape[-1]), dtype=np.uint8)[labels.astype(np.int64)]


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
