"""The metrics of each task, computed by scikit-learn."""

from typing import Any

import numpy as np

from tfbig.errors import InvalidData, unknown_choice

TASKS = ("binary", "multiclass", "multilabel", "regression")
# The one number that a table shows when there is room for one.
HEADLINE = {"binary": "accuracy", "multiclass": "accuracy", "multilabel": "f1", "regression": "r2"}


def infer_task(outputs: np.ndarray, y: np.ndarray) -> str:
    """Returns the task that outputs of this shape and targets like `y` make.

    Args:
        outputs: Shape (rows,) or (rows, outputs).
        y: Targets, shape (rows,) or (rows, outputs).

    Raises:
        InvalidData: They do not fit each other.
    """
    columns = 1 if outputs.ndim == 1 else outputs.shape[1]
    targets = 1 if y.ndim == 1 else y.shape[1]
    whole = y.dtype.kind in "biu"
    if columns > 1 and targets == 1:
        if not whole and not np.all(y == np.round(y)):
            raise InvalidData(
                f"The model gives {columns} outputs per row; y holds one value per row, not a label."
            )
        return "multiclass"
    if columns != targets:
        raise InvalidData(f"The model gives {columns} outputs per row and y has {targets} columns.")
    if not whole or not set(np.unique(y).tolist()) <= {0, 1}:
        return "regression"
    if columns == 1:
        return "binary"
    return "multiclass" if (y.sum(axis=1) == 1).all() else "multilabel"


def score(task: str, outputs: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Scores outputs against targets.

    Args:
        task: "binary", "multiclass", "multilabel" or "regression".
        outputs: Logits, probabilities or values. Outputs outside [0, 1] are taken for logits.
        y: Targets.

    Returns:
        Metric name to value, the targets, and what was predicted for them: labels or values.

    Raises:
        InvalidOption: An unknown task.
        InvalidData: Outputs that are NaN, or labels outside the classes.
    """
    if task not in TASKS:
        raise unknown_choice("task", task, TASKS)
    if not np.isfinite(outputs).all():
        bad = (
            int((~np.isfinite(outputs)).any(axis=-1).sum())
            if outputs.ndim == 2
            else int((~np.isfinite(outputs)).sum())
        )
        raise InvalidData(f"The model gives NaN or infinite outputs for {bad} of {len(outputs)} rows.")
    columns = 1 if outputs.ndim == 1 else outputs.shape[1]
    targets = 1 if y.ndim == 1 else y.shape[1]
    if task == "multiclass" and columns < 2:
        raise InvalidData("A multiclass task has an output per class; the model gives 1 output per row.")
    if task == "binary" and columns != 1:
        raise InvalidData(f"A binary task has 1 output per row; the model gives {columns} outputs.")
    if columns != targets and not (task == "multiclass" and targets == 1):
        raise InvalidData(f"The model gives {columns} outputs per row and y has {targets} columns.")
    if task == "regression":
        return _regression(outputs.reshape(len(y), -1), y.reshape(len(y), -1))
    if task == "multiclass":
        return _multiclass(outputs, y.argmax(axis=1) if targets > 1 else y.reshape(len(y)))
    return _zero_or_one(task, outputs.reshape(len(y), -1), y.reshape(len(y), -1))


def probabilities(task: str, outputs: np.ndarray) -> np.ndarray:
    """Returns outputs as probabilities: those outside [0, 1] are logits and go through softmax or sigmoid."""
    outputs = outputs.astype(np.float64)
    inside = outputs.min() >= 0 and outputs.max() <= 1
    if task == "multiclass":
        # 8-bit probabilities add up to 1 only nearly; logits that all lie in [0, 1] do not add up to 1 at all.
        if inside and np.allclose(outputs.sum(axis=1), 1, atol=0.05):
            return outputs / outputs.sum(axis=1, keepdims=True)
        exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)
    return outputs if inside else 0.5 * (1 + np.tanh(outputs / 2))


def _multiclass(outputs: np.ndarray, y: np.ndarray) -> Any:
    from sklearn import metrics

    classes = outputs.shape[1]
    if not np.all(y == np.round(y)):
        raise InvalidData(f"Labels of {classes} classes must be whole numbers from 0 to {classes - 1}.")
    y = y.astype(np.int64)
    if y.min() < 0 or y.max() >= classes:
        raise InvalidData(
            f"Labels of {classes} classes run from 0 to {classes - 1}; y holds {y.min()} to {y.max()}."
        )
    predicted, labels = outputs.argmax(axis=1), list(range(classes))
    average = {"average": "macro", "zero_division": 0.0, "labels": np.unique(y).tolist()}
    return (
        {
            "accuracy": float(metrics.accuracy_score(y, predicted)),
            "f1": float(metrics.f1_score(y, predicted, **average)),
            "precision": float(metrics.precision_score(y, predicted, **average)),
            "recall": float(metrics.recall_score(y, predicted, **average)),
            "log_loss": float(metrics.log_loss(y, probabilities("multiclass", outputs), labels=labels)),
        },
        y,
        predicted,
    )


def _zero_or_one(task: str, outputs: np.ndarray, y: np.ndarray) -> Any:
    from sklearn import metrics

    if not np.isin(y, (0, 1)).all():
        raise InvalidData(f"Labels of a {task} task are 0 and 1; y holds {np.unique(y)[:5].tolist()}.")
    likely = probabilities(task, outputs)
    y, predicted = y.astype(np.int64), (likely > 0.5).astype(np.int64)
    if task == "binary":
        y, predicted, likely = y[:, 0], predicted[:, 0], likely[:, 0]
    average = {"average": "binary" if task == "binary" else "macro", "zero_division": 0.0}
    scores = {
        "accuracy": float(metrics.accuracy_score(y, predicted)),
        "f1": float(metrics.f1_score(y, predicted, **average)),
        "precision": float(metrics.precision_score(y, predicted, **average)),
        "recall": float(metrics.recall_score(y, predicted, **average)),
    }
    if task == "binary":
        scores["log_loss"] = float(metrics.log_loss(y, likely, labels=[0, 1]))
        if len(np.unique(y)) == 2:
            scores["roc_auc"] = float(metrics.roc_auc_score(y, likely))
    return scores, y, predicted


def _regression(outputs: np.ndarray, y: np.ndarray) -> Any:
    from sklearn import metrics

    scores = {
        "r2": float(metrics.r2_score(y, outputs)) if len(y) > 1 else float("nan"),
        "mae": float(metrics.mean_absolute_error(y, outputs)),
        "mse": float(metrics.mean_squared_error(y, outputs)),
        "rmse": float(metrics.root_mean_squared_error(y, outputs)),
    }
    return scores, y, outputs
