"""`evaluate`: the same scores for a Keras model, for the file made of it, and for an estimator."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.evaluation.answering import answers_of
from tfbig.evaluation.bootstrap import check_confidence, check_seed, intervals, resamples
from tfbig.evaluation.measures import ALL, MAIN, measure, per_class
from tfbig.evaluation.metrics import HEADLINE
from tfbig.options import checked, positive_int
from tfbig.records import Record


@dataclass(frozen=True, eq=False)
class Scores(Record, Mapping[str, float]):
    """Scores by name; reads like a dict: `scores["accuracy"]`.

    Attributes:
        task: "binary", "multiclass", "multilabel", "regression" or "sequence", of which every step counts, but those
            with the label -1.
        metrics: Metric name to value. f1, precision and recall of two classes are those of class 1, of several
            classes and labels macro averages; "f1_micro" and the like are the other averages. Those that the rows leave
            undefined, such as the ROC AUC where a class has no rows, are missing.
        targets: What was true, per row: labels or values.
        predicted: What the model said, per row.
        per_class: "precision", "recall", "f1" and "rows" to a value per class or label.
        classes: Names of the classes of an estimator; () where they are numbers from 0.
        intervals: Metric name to lower and upper end, by the bootstrap; empty where none was asked for.
        confidence: Of the intervals.
    """

    task: str
    metrics: Mapping[str, float]
    targets: np.ndarray
    predicted: np.ndarray
    per_class: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confidence: float = 0.95

    @property
    def headline(self) -> str:
        """The name of the task's main metric."""
        return HEADLINE[self.task]

    @property
    def confusion_matrix(self) -> np.ndarray:
        """Rows of each true class (row) that were named as each class (column); per label, 2 × 2, of several labels.

        A regression has none: shape (0, 0).
        """
        from sklearn import metrics

        if self.task == "regression":
            return np.zeros((0, 0), np.int64)
        if self.task == "multilabel":
            return metrics.multilabel_confusion_matrix(self.targets, self.predicted)
        count = len(self.per_class.get("rows", ())) or int(max(self.targets.max(), self.predicted.max())) + 1
        return metrics.confusion_matrix(self.targets, self.predicted, labels=list(range(count)))

    @property
    def residuals(self) -> np.ndarray:
        """Predicted minus true values of a regression, shape (rows, outputs); empty for a classifier."""
        return self.predicted - self.targets if self.task == "regression" else np.zeros((0, 0))

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Scores):
            return self.to_dict() == other.to_dict()
        return dict(self) == other

    def __str__(self) -> str:
        lines = []
        # The averages over all rows are there by name; in print they would repeat each other.
        more = [name for name in self.metrics if not name.endswith(("_micro", "_weighted"))]
        for names in (MAIN[self.task], [name for name in more if name not in MAIN[self.task]]):
            shown = [self._shown(name) for name in names if name in self.metrics]
            lines += shown if self.intervals else ["  ".join(shown)] * bool(shown)
        return "\n".join([*lines, *_class_table(self.per_class, self.classes)])

    def _shown(self, name: str) -> str:
        if name not in self.intervals:
            return f"{name} {self.metrics[name]:.4f}"
        low, high = self.intervals[name]
        width = max(map(len, self.metrics))
        return f"{name:<{width}} {self.metrics[name]:.4f}  ({self.confidence:.0%}: {low:.4f} to {high:.4f})"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the confusion matrix, or predicted against true values; returns the figure, `path` saves it."""
        from tfbig import plots

        if self.task == "regression":
            return plots.saved(plots.predicted_against_true(self.targets, self.predicted), path)
        return plots.saved(plots.confusion_matrix(self.targets, self.predicted, self.classes), path)


@checked()
def evaluate(
    model: Any,
    x: Any,
    y: Any,
    *,
    task: str | None = None,
    bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int | None = 0,
) -> Scores:
    """Scores a model on rows it has not seen.

    Args:
        model: A Keras model, a `LiteModel`, a fitted estimator, or anything whose `predict` gives logits,
            probabilities or values.
        x: Inputs of shape (rows, ...), or a dict of such arrays by the name of the model's input.
        y: Targets of shape (rows,) or (rows, outputs); for a classifier of scikit-learn's kind its own labels. Of a
            model that answers at every step labels of shape (rows, steps), -1 where a step does not count, such as
            padding: `np.where(tokens == 0, -1, labels)`.
        task: "binary", "multiclass", "multilabel", "regression" or "sequence"; by default seen from outputs and y.
        bootstrap: How many times to draw the rows anew for the intervals of all metrics, such as 1000; 0 for none.
            Each time costs a scoring: 20 to 30 ms for 360 rows of ten classes.
        confidence: Of the intervals, in (0, 1).
        seed: Of the drawing; None for other rows every time.

    Returns:
        `Scores`: of a classifier accuracy, balanced accuracy, f1, precision and recall (and their averages, and per
        class), log loss, ROC AUC, average precision and calibration error; r2, mae, mse and rmse of a regression.

    Raises:
        InvalidData: x and y do not fit each other or the model, or hold NaN; or the model's outputs do.
        InvalidModel: It has no `predict`.
        InvalidOption: An option makes no sense.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.ones((4, 3), "float32")
        >>> scores = tfbig.evaluate(tfbig.models.mlp((3,), 2), x, [0, 1, 0, 1])
        >>> scores["accuracy"]
        0.5
    """
    draws = positive_int("bootstrap", bootstrap, minimum=0)
    confidence, seed = check_confidence(confidence), check_seed(seed)
    answers, classes = answers_of(model, x, y, task)
    names = ALL[answers.task]
    metrics = measure(answers, names)
    drawn = resamples(answers, draws, seed)
    counted = answers.counted
    return Scores(
        answers.task,
        metrics,
        counted.targets,
        counted.predicted,
        per_class(answers),
        classes,
        intervals(drawn, lambda rows: measure(answers.take(rows), metrics), confidence),
        confidence,
    )


def _class_table(per_class: Mapping[str, tuple[float, ...]], classes: tuple[str, ...]) -> list[str]:
    """A line per class of up to 20; more would hide what stands above."""
    count = len(per_class.get("rows", ()))
    if not 0 < count <= 20:
        return []
    names = classes or tuple(map(str, range(count)))
    first = max(len("class"), *map(len, names))
    lines = [f"{'class':<{first}}  precision  recall      f1    rows"]
    columns = (per_class[name] for name in ("precision", "recall", "f1", "rows"))
    for name, precision, recall, f1, rows in zip(names, *columns, strict=True):
        lines.append(f"{name:<{first}}  {precision:9.4f}  {recall:.4f}  {f1:.4f}  {int(rows):6}")
    return lines
