"""`evaluate`: the same scores for a Keras model and for the file made of it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.data.checking import check_pair
from tfbig.evaluation.metrics import HEADLINE, infer_task, score
from tfbig.evaluation.predicting import outputs_of
from tfbig.options import checked
from tfbig.records import Record


@dataclass(frozen=True, eq=False)
class Scores(Record, Mapping[str, float]):
    """Scores by name; reads like a dict: `scores["accuracy"]`.

    Attributes:
        task: "binary", "multiclass", "multilabel" or "regression".
        metrics: Metric name to value. f1, precision and recall of several classes are macro averages.
        targets: What was true, per row: labels or values.
        predicted: What the model said, per row.
    """

    task: str
    metrics: Mapping[str, float]
    targets: np.ndarray
    predicted: np.ndarray

    @property
    def headline(self) -> str:
        """The name of the task's main metric."""
        return HEADLINE[self.task]

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
        return "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the confusion matrix, or predicted against true values; returns the figure, `path` saves it."""
        from tfbig import plots

        if self.task == "regression":
            return plots.saved(plots.predicted_against_true(self.targets, self.predicted), path)
        return plots.saved(plots.confusion_matrix(self.targets, self.predicted), path)


@checked()
def evaluate(model: Any, x: Any, y: Any, *, task: str | None = None) -> Scores:
    """Scores a model on rows it has not seen.

    Args:
        model: A Keras model, a `LiteModel`, or anything whose `predict` gives logits, probabilities or values.
        x: Inputs of shape (rows, ...), or a dict of such arrays by the name of the model's input.
        y: Targets of shape (rows,) or (rows, outputs).
        task: "binary", "multiclass", "multilabel" or "regression"; by default seen from the outputs and y.

    Returns:
        `Scores`: accuracy, f1, precision, recall, log loss (and ROC AUC) of a classifier; r2, mae, mse and rmse
        of a regression.

    Raises:
        InvalidData: x and y do not fit each other or the model, or hold NaN; or the model's outputs do.
        InvalidModel: It has no `predict`.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.ones((4, 3), "float32")
        >>> scores = tfbig.evaluate(tfbig.models.mlp((3,), 2), x, [0, 1, 0, 1])
        >>> scores["accuracy"]
        0.5
    """
    x, y = check_pair(x, y)
    outputs = outputs_of(model, x)
    chosen = task or infer_task(outputs, y)
    values, targets, predicted = score(chosen, outputs, y)
    return Scores(chosen, values, targets, predicted)
