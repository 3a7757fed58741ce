"""What a task is, and a model's outputs as answers to it."""

from dataclasses import replace

import numpy as np

from tfbig.errors import InvalidData, unknown_choice
from tfbig.evaluation.measures import IGNORED, MAIN, Answers, measure

TASKS = ("binary", "multiclass", "multilabel", "regression", "sequence")
# The one number that a table shows when there is room for one.
HEADLINE = {
    "binary": "accuracy",
    "multiclass": "accuracy",
    "multilabel": "f1",
    "regression": "r2",
    "sequence": "accuracy",
}


def infer_task(outputs: np.ndarray, y: np.ndarray) -> str:
    """Returns the task that outputs of this shape and targets like `y` make.

    Args:
        outputs: Shape (rows,) or (rows, outputs); (rows, steps, outputs) of a sequence task.
        y: Targets, shape (rows,) or (rows, outputs).

    Raises:
        InvalidData: They do not fit each other.
    """
    if outputs.ndim == 3:
        return "sequence"
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
        task: One of `TASKS`. Of "sequence" every step counts as a row, but those whose label is -1.
        outputs: Logits, probabilities or values. Outputs outside [0, 1] are taken for logits.
        y: Targets.

    Returns:
        The task's main metrics, the targets, and what was predicted for them: labels or values.

    Raises:
        InvalidOption: An unknown task.
        InvalidData: Outputs that are NaN, or labels outside the classes.
    """
    found = answers(task, outputs, y)
    counted = found.counted
    return measure(found, MAIN[task]), counted.targets, counted.predicted


def answers(task: str, outputs: np.ndarray, y: np.ndarray) -> Answers:
    """Returns what outputs and targets say, in one form for each task.

    Args:
        task: One of `TASKS`. Of "sequence" every step is an answer; labels of -1 stay, for those that do not count.
        outputs: Logits, probabilities or values. Outputs outside [0, 1] are taken for logits.
        y: Targets.

    Returns:
        `Answers`, with labels or values.

    Raises:
        InvalidOption: An unknown task.
        InvalidData: Outputs that are NaN, or labels outside the classes.
    """
    if task not in TASKS:
        raise unknown_choice("task", task, TASKS)
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs)).reshape(len(outputs), -1).any(axis=1).sum())
        raise InvalidData(f"The model gives NaN or infinite outputs for {bad} of {len(outputs)} rows.")
    if (task == "sequence") != (outputs.ndim == 3):
        raise InvalidData(f"The outputs have shape {outputs.shape}, which does not fit task={task!r}.")
    if task == "sequence":
        if y.shape != outputs.shape[:2]:
            raise InvalidData(f"Expected a label per step, shape {outputs.shape[:2]}; y has shape {y.shape}.")
        hidden = (y == IGNORED).reshape(-1)
        if hidden.all():
            raise InvalidData("Every label of y is -1, which stands for a step that does not count.")
        labels = np.where(hidden, 0, y.reshape(-1))
        flat = answers("multiclass", outputs.reshape(-1, outputs.shape[2]), labels)
        with_ignored = np.where(hidden, IGNORED, flat.targets)
        return replace(flat, task=task, targets=with_ignored, steps=outputs.shape[1])
    columns = 1 if outputs.ndim == 1 else outputs.shape[1]
    targets = 1 if y.ndim == 1 else y.shape[1]
    if task == "multiclass" and columns < 2:
        raise InvalidData("A multiclass task has an output per class; the model gives 1 output per row.")
    if task == "binary" and columns != 1:
        raise InvalidData(f"A binary task has 1 output per row; the model gives {columns} outputs.")
    if columns != targets and not (task == "multiclass" and targets == 1):
        raise InvalidData(f"The model gives {columns} outputs per row and y has {targets} columns.")
    if task == "regression":
        values = outputs.reshape(len(y), -1)
        return Answers(task, y.reshape(len(y), -1), values, values)
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


def _multiclass(outputs: np.ndarray, y: np.ndarray) -> Answers:
    classes = outputs.shape[1]
    if not np.all(y == np.round(y)):
        raise InvalidData(f"Labels of {classes} classes must be whole numbers from 0 to {classes - 1}.")
    y = y.astype(np.int64)
    if y.min() < 0 or y.max() >= classes:
        raise InvalidData(
            f"Labels of {classes} classes run from 0 to {classes - 1}; y holds {y.min()} to {y.max()}."
        )
    return Answers("multiclass", y, outputs.argmax(axis=1), probabilities("multiclass", outputs))


def _zero_or_one(task: str, outputs: np.ndarray, y: np.ndarray) -> Answers:
    if not np.isin(y, (0, 1)).all():
        raise InvalidData(f"Labels of a {task} task are 0 and 1; y holds {np.unique(y)[:5].tolist()}.")
    likely = probabilities(task, outputs)
    y, predicted = y.astype(np.int64), (likely > 0.5).astype(np.int64)
    if task == "binary":
        return Answers(task, y[:, 0], predicted[:, 0], likely[:, 0])
    return Answers(task, y, predicted, likely)
