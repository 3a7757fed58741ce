"""Every metric by name, computed by scikit-learn from what was true, what was predicted and how likely it was."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

# The few that a table of folds or of files shows.
MAIN = {
    "binary": ("accuracy", "f1", "precision", "recall", "log_loss", "roc_auc"),
    "multiclass": ("accuracy", "f1", "precision", "recall", "log_loss"),
    "multilabel": ("accuracy", "f1", "precision", "recall"),
    "regression": ("r2", "mae", "mse", "rmse"),
    "sequence": ("accuracy", "f1", "precision", "recall", "log_loss"),
}
_AVERAGED = tuple(
    f"{name}_{average}" for average in ("micro", "weighted") for name in ("f1", "precision", "recall")
)
_MORE = {
    "binary": ("balanced_accuracy", "average_precision", "calibration_error", "f1_macro", *_AVERAGED),
    "multiclass": ("balanced_accuracy", "roc_auc", "average_precision", "calibration_error", *_AVERAGED),
    "multilabel": ("roc_auc", "average_precision", "log_loss", "calibration_error", *_AVERAGED),
    "regression": (),
    "sequence": ("balanced_accuracy", "calibration_error", *_AVERAGED),
}
ALL = {task: (*MAIN[task], *_MORE[task]) for task in MAIN}
# Of these, less is better.
ERRORS = ("log_loss", "calibration_error", "mae", "mse", "rmse")

# The label of a step that is not scored, such as padding.
IGNORED = -1
_BINS = 15


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers beside the truth.

    Attributes:
        task: "binary", "multiclass", "multilabel", "regression" or "sequence".
        targets: Labels of shape (rows,), or (rows, labels) of 0 and 1, or values of shape (rows, outputs). -1 of steps
            that do not count.
        predicted: The same of the model.
        likely: Probabilities: (rows,) of a binary task, else (rows, classes). Of a regression its values.
        steps: How many answers in turn make a row: those of a sequence.
    """

    task: str
    targets: np.ndarray
    predicted: np.ndarray
    likely: np.ndarray
    steps: int = 1

    @property
    def counted(self) -> "Answers":
        """Those that are scored: of a sequence the steps that count, in which rows are no longer told apart."""
        kept = self.targets != IGNORED if self.task == "sequence" else np.True_
        if kept.all():
            return self
        return replace(
            self,
            targets=self.targets[kept],
            predicted=self.predicted[kept],
            likely=self.likely[kept],
            steps=1,
        )

    @property
    def kind(self) -> str:
        """The task of a single answer: that of a step of a sequence is "multiclass"."""
        return "multiclass" if self.task == "sequence" else self.task

    def take(self, rows: np.ndarray) -> "Answers":
        """Returns the answers to these rows, which may repeat."""
        if self.steps > 1:
            rows = (rows[:, None] * self.steps + np.arange(self.steps)).ravel()
        return replace(
            self, targets=self.targets[rows], predicted=self.predicted[rows], likely=self.likely[rows]
        )

    @cached_property
    def averages(self) -> dict[str, dict[str, float]]:
        """Averages over classes that were computed already; f1, precision and recall cost as much as one of them."""
        return {}


def measure(answers: Answers, names: Iterable[str]) -> dict[str, float]:
    """Returns metrics by name; those that the rows leave undefined, such as a ROC AUC of one class, are left out.

    Args:
        answers: What was true and predicted.
        names: From `ALL` of the task.

    Example:
        >>> bits = np.array([0, 1, 1, 0])
        >>> measure(Answers("binary", bits, bits, bits * 0.8 + 0.1), ["accuracy", "log_loss"])
        {'accuracy': 1.0, 'log_loss': 0.10536051565782628}
    """
    answers = answers.counted
    if not len(answers.targets):  # a resample of padding alone
        return {}
    values = {name: _MEASURES[name](answers) for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}


def per_class(answers: Answers) -> dict[str, tuple[float, ...]]:
    """Returns precision, recall, f1 and the number of rows, each with a value per class or label."""
    from sklearn.metrics import precision_recall_fscore_support

    if answers.kind == "regression":
        return {}
    answers = answers.counted
    count = 2 if answers.kind == "binary" else answers.likely.shape[1]
    columns = precision_recall_fscore_support(
        answers.targets, answers.predicted, labels=list(range(count)), zero_division=0.0
    )
    names = ("precision", "recall", "f1", "rows")
    return {name: tuple(column.tolist()) for name, column in zip(names, columns, strict=True)}


def calibration_error(likely: np.ndarray, right: np.ndarray, bins: int = _BINS) -> float:
    """Returns the expected calibration error: how far confidence is from the share of right answers, on average.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3 (https://arxiv.org/abs/1706.04599).

    Args:
        likely: The confidence in each answer, in [0, 1].
        right: Whether it was right.
        bins: Of equal width, into which answers are sorted by confidence.

    Example:
        >>> float(round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 3))
        0.4
    """
    place = np.minimum((likely * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=likely, minlength=bins) - np.bincount(
        place, weights=right, minlength=bins
    )
    return float(np.abs(gaps).sum() / len(likely))


def _confidence(a: Answers) -> tuple[np.ndarray, np.ndarray]:
    if a.kind == "multiclass":
        return a.likely.max(axis=1), a.predicted == a.targets
    return np.maximum(a.likely, 1 - a.likely).ravel(), (a.predicted == a.targets).ravel()


def _every_class_is_there(a: Answers) -> bool:
    if a.kind == "multilabel":
        return bool(((a.targets.min(axis=0) == 0) & (a.targets.max(axis=0) == 1)).all())
    return len(np.unique(a.targets)) == (2 if a.kind == "binary" else a.likely.shape[1])


def _ranked(name: str) -> Callable[[Answers], Any]:
    def value(a: Answers) -> Any:
        from sklearn import metrics

        if not _every_class_is_there(a):
            return None
        likely, several = a.likely, {"average": "macro"}
        if a.kind == "binary" or (a.kind == "multiclass" and likely.shape[1] == 2):
            likely, several = (likely[:, 1] if likely.ndim == 2 else likely), {}  # of class 1
        elif a.kind == "multiclass" and name == "roc_auc_score":
            several["multi_class"] = "ovr"
        return getattr(metrics, name)(a.targets, likely, **several)

    return value


def _log_loss(a: Answers) -> Any:
    from sklearn.metrics import log_loss

    if a.kind == "multilabel":  # the mean over labels, each a binary task
        return log_loss(a.targets.ravel(), a.likely.ravel(), labels=[0, 1])
    return log_loss(a.targets, a.likely, labels=list(range(2 if a.kind == "binary" else a.likely.shape[1])))


def _three(a: Answers, average: str) -> dict[str, Any]:
    from sklearn.metrics import precision_recall_fscore_support

    if average in a.averages:
        return a.averages[average]
    # A class that no row has lowers no macro average.
    labels = np.unique(a.targets).tolist() if a.kind == "multiclass" and average == "macro" else None
    precision, recall, f1, _ = precision_recall_fscore_support(
        a.targets, a.predicted, average=average, labels=labels, zero_division=0.0
    )
    a.averages[average] = {"precision": precision, "recall": recall, "f1": f1}
    return a.averages[average]


def _averaged(name: str, average: str | None = None) -> Callable[[Answers], Any]:
    return lambda a: _three(a, average or ("binary" if a.kind == "binary" else "macro"))[name]


def _balanced_accuracy(a: Answers) -> Any:
    from sklearn.metrics import recall_score

    # What balanced_accuracy_score computes too, which warns where a class is predicted that no row has.
    labels = np.unique(a.targets).tolist()
    return recall_score(a.targets, a.predicted, average="macro", labels=labels, zero_division=0.0)


def _plain(name: str) -> Callable[[Answers], Any]:
    def value(a: Answers) -> Any:
        from sklearn import metrics

        return getattr(metrics, name)(a.targets, a.predicted)

    return value


def _r2(a: Answers) -> Any:
    return _plain("r2_score")(a) if len(a.targets) > 1 else np.nan


_MEASURES: dict[str, Callable[[Answers], Any]] = {
    "accuracy": _plain("accuracy_score"),
    "balanced_accuracy": _balanced_accuracy,
    "log_loss": _log_loss,
    "roc_auc": _ranked("roc_auc_score"),
    "average_precision": _ranked("average_precision_score"),
    "calibration_error": lambda a: calibration_error(*_confidence(a)),
    "r2": _r2,
    "mae": _plain("mean_absolute_error"),
    "mse": _plain("mean_squared_error"),
    "rmse": _plain("root_mean_squared_error"),
    **{name: _averaged(name) for name in ("f1", "precision", "recall")},
    **{name: _averaged(*name.split("_")) for name in ("f1_macro", *_AVERAGED)},
}
