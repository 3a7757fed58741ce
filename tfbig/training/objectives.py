"""From a model and its targets to the task, and from the task to the loss and metrics."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.splitting import is_labels
from tfbig.errors import InvalidData, InvalidModel
from tfbig.models.heads import LABEL_LOGITS, LOGITS, STEP_LOGITS, VALUES

# Which losses can be right, by the model's outputs and the columns of y. Keras broadcasts what does not fit.
_WANTED = {
    "sparse_categorical_crossentropy": lambda outputs, columns: outputs > 1 and columns == 1,
    "categorical_crossentropy": lambda outputs, columns: outputs == columns and outputs > 1,
    **dict.fromkeys(
        ("binary_crossentropy", "mean_squared_error", "mean_absolute_error", "huber_loss", "log_cosh"),
        lambda outputs, columns: outputs == columns,
    ),
}


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
    """Returns `y` in the form the task's loss takes: int64 labels, per step too, or float32 of (rows, outputs).

    Raises:
        InvalidData: A label lies outside the classes.
    """
    if task == "sequence":
        _check_labels(y, int(model.output_shape[-1]))
        return y.astype(np.int64)
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
    if task in ("multiclass", "sequence"):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits), ["accuracy"]
    if task == "regression":
        return keras.losses.MeanSquaredError(), ["mae"]
    threshold = 0.0 if from_logits else 0.5
    accuracy = keras.metrics.BinaryAccuracy(threshold=threshold, name="accuracy")
    return keras.losses.BinaryCrossentropy(from_logits=from_logits), [accuracy]


def check_loss(model: Any, y: np.ndarray, loss: Any) -> None:
    """Raises `InvalidModel` where the loss cannot fit the model's head or y, and says which would.

    Looks at models with one output of shape (batch, outputs) and the losses below; of others nothing is said.
    """
    shape = getattr(model, "output_shape", None)
    if not isinstance(loss, str | keras.losses.Loss) and not callable(loss):
        return  # one for each of several outputs
    loss = keras.losses.get(loss)
    name = getattr(loss, "name", getattr(loss, "__name__", None))
    if not isinstance(shape, tuple) or len(shape) != 2 or y.ndim > 2 or name not in _WANTED:
        return
    outputs, columns = int(shape[-1] or 0), 1 if y.ndim == 1 else y.shape[1]
    if outputs and not _WANTED[name](outputs, columns):
        raise InvalidModel(
            f"The loss {name!r} does not fit {model.name!r}, which gives {outputs} output{'s' * (outputs != 1)} "
            f"per row, and y of shape {y.shape}. {_fitting(model, y)}"
        )
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    from_logits = config.get("from_logits", False if "entropy" in name else None)
    probabilities = _ends_in_probabilities(model)
    logits = getattr(_head(model), "name", None) in (LOGITS, LABEL_LOGITS, STEP_LOGITS)
    if (from_logits is True and probabilities) or (from_logits is False and logits and not probabilities):
        given = "probabilities" if probabilities else "logits"
        raise InvalidModel(
            f"The loss {name!r} has from_logits={from_logits}, and the model {model.name!r} gives {given}. "
            f"{_fitting(model, y)}"
        )


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


def _head(model: Any) -> Any:
    """The layer that decides what the outputs mean: the last one that is no rescaling."""
    rescaling = (keras.layers.Normalization, keras.layers.Rescaling)
    head = next((layer for layer in reversed(model.layers) if not isinstance(layer, rescaling)), None)
    return _head(head) if isinstance(head, keras.Model) else head


def _head_kind(model: Any) -> str | None:
    head = _head(model)
    if getattr(head, "name", None) in (LOGITS, LABEL_LOGITS, STEP_LOGITS, VALUES):
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
