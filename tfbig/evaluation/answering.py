"""The answers of anything that predicts: models and files by their outputs, classifiers by their probabilities."""

import sys
from typing import Any

import numpy as np

from tfbig.data.checking import check_pair, row_count, takes_missing
from tfbig.errors import InvalidData
from tfbig.evaluation.measures import Answers
from tfbig.evaluation.metrics import answers, infer_task
from tfbig.evaluation.predicting import outputs_of


def answers_of(model: Any, x: Any, y: Any, task: str | None) -> tuple[Answers, tuple[str, ...]]:
    """Returns what a model answers to rows, beside the truth.

    Args:
        model: A Keras model, a `LiteModel`, an estimator, or anything with `predict`.
        x: Inputs of shape (rows, ...), or a dict of such arrays.
        y: Targets of shape (rows,) or (rows, outputs); of a classifier the labels it was fitted on, text too.
        task: "binary", "multiclass", "multilabel" or "regression"; None to see it from outputs and y.

    Returns:
        The answers, and the names of the classes; () where they are numbers from 0.

    Raises:
        InvalidData: x, y and the model do not fit each other.
        InvalidModel: It has no `predict`.
    """
    classes = classes_of(model)
    columns = 1 if classes is None or y is None else _columns(y)
    if classes is not None and columns > 1:
        task = task or "multilabel"
    elif classes is not None and y is not None:
        y = _numbered(y, classes)
        task = task or ("binary" if len(classes) == 2 else "multiclass")
    x, y = check_pair(x, y, missing=takes_missing(model))
    check_known_tokens(model, x)
    outputs = likely_of(model, x, labels=columns)
    names = () if classes is None or task == "multilabel" else _names(classes)
    return answers(task or infer_task(outputs, y), outputs, y), names


def likely_of(model: Any, x: Any, labels: int = 1) -> np.ndarray:
    """Returns a model's outputs; of a classifier its probabilities or scores, where it gives any, not its labels.

    Args:
        model: As for `answers_of`.
        x: Inputs of shape (rows, ...).
        labels: How many columns y has: more than one for a task of several labels a row.
    """
    classes = classes_of(model)
    if classes is None:
        return outputs_of(model, x)
    if hasattr(model, "predict_proba"):
        outputs = model.predict_proba(x)
        if labels > 1 and isinstance(outputs, list):  # scikit-learn's forests give a table per label
            outputs = np.stack([table[:, -1] for table in outputs], axis=1)
        outputs = np.asarray(outputs)
        if labels == 1 and len(classes) == 2:
            outputs = outputs[:, 1]
    elif hasattr(model, "decision_function"):
        outputs = np.asarray(model.decision_function(x))
    elif labels > 1:
        outputs = np.asarray(model.predict(x))
    else:  # labels are all it gives
        found = _numbered(model.predict(x), classes)
        outputs = found if len(classes) == 2 else np.eye(len(classes))[found]
    return outputs_of(Given(outputs), np.zeros((row_count(x), 1)))


def check_known_tokens(model: Any, x: Any) -> None:
    """Raises `InvalidData` for a token that a Keras model's embedding does not know; of others nothing is known."""
    keras = sys.modules.get("keras")  # a process without Keras holds no Keras model
    if keras is not None and isinstance(model, keras.Model):
        from tfbig.models.sequences import check_tokens

        check_tokens(model, x)


def classes_of(model: Any) -> np.ndarray | None:
    """Returns the classes that a fitted classifier knows; None for anything else."""
    classes = getattr(model, "classes_", None)
    if isinstance(classes, list):  # of several labels a row
        return np.arange(len(classes))
    return None if classes is None or np.ndim(classes) != 1 or len(classes) < 2 else np.asarray(classes)


def _columns(y: Any) -> int:
    try:
        shape = np.shape(y)
    except ValueError as error:
        raise InvalidData(f"y must be a rectangular array; its rows differ in shape ({error}).") from error
    return shape[1] if len(shape) == 2 else 1


def _numbered(y: Any, classes: np.ndarray) -> np.ndarray:
    """Labels as places in `classes`."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InvalidData(f"Expected y with one label per row; got an array of shape {labels.shape}.")
    places = {label: place for place, label in enumerate(classes.tolist())}
    unknown = [label for label in np.unique(labels).tolist() if label not in places]
    if unknown:
        raise InvalidData(
            f"The classifier knows the classes {classes[:10].tolist()}; y holds {unknown[0]!r} too."
        )
    return np.array([places[label] for label in labels.tolist()])


def _names(classes: np.ndarray | None) -> tuple[str, ...]:
    if classes is None or classes.tolist() == list(range(len(classes))):
        return ()
    return tuple(map(str, classes.tolist()))


class Given:
    """Outputs that were computed already, as something with `predict`."""

    def __init__(self, outputs: np.ndarray):
        self._outputs = outputs

    def predict(self, x: Any) -> np.ndarray:
        """Returns the outputs, whatever x is."""
        return self._outputs
