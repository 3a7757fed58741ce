"""`compare`: whether two models differ by more than chance on the same rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.errors import InvalidData, unknown_choice
from tfbig.evaluation.answering import answers_of
from tfbig.evaluation.bootstrap import check_confidence, check_seed, percentile_interval, resamples
from tfbig.evaluation.measures import ALL, ERRORS, Answers, measure
from tfbig.options import checked, positive_int
from tfbig.records import Record

_DEFAULT = {
    "binary": "accuracy",
    "multiclass": "accuracy",
    "multilabel": "f1",
    "regression": "mae",
    "sequence": "accuracy",
}
# Metrics that are a mean over rows: a resample's is the mean of its rows' own, without another look at them.
_OF_A_ROW = {
    "accuracy": lambda a: (a.targets == a.predicted).reshape(len(a.targets), -1).all(axis=1).astype(float),
    "mae": lambda a: np.abs(a.targets - a.predicted).mean(axis=1, dtype=np.float64),
    "mse": lambda a: np.square(a.targets - a.predicted, dtype=np.float64).mean(axis=1),
}


@dataclass(frozen=True)
class Comparison(Record):
    """The difference of two models on the same rows.

    Attributes:
        metric: What was compared.
        scores: Of the first and the second model.
        difference: The first's score minus the second's.
        interval: Lower and upper end of the difference, by the paired bootstrap.
        confidence: Of the interval.
        p_value: How often chance alone would make a difference at least as large between models that are alike.
        test: "McNemar's exact test" or "paired bootstrap": what the p-value is from.
        only_first_right: Rows that only the first model has right; None for a regression.
        only_second_right: Rows that only the second model has right; None for a regression.
        rows: How many rows were compared.
    """

    metric: str
    scores: tuple[float, ...]
    difference: float
    interval: tuple[float, ...]
    confidence: float
    p_value: float
    test: str
    only_first_right: int | None
    only_second_right: int | None
    rows: int

    @property
    def differ(self) -> bool:
        """Whether the p-value is below 1 - confidence."""
        return self.p_value < 1 - self.confidence

    @property
    def better(self) -> str | None:
        """Which model is better where they differ, "first" or "second"; else None."""
        if not self.differ:
            return None
        return "first" if (self.difference > 0) != (self.metric in ERRORS) else "second"

    def __str__(self) -> str:
        low, high = self.interval
        found = (
            f"{self.metric} {self.scores[0]:.4f} and {self.scores[1]:.4f}, a difference of {self.difference:+.4f} "
            f"({self.confidence:.0%}: {low:+.4f} to {high:+.4f}); {self.test} on {self.rows} rows, "
            f"p = {self.p_value:.3g}."
        )
        verdict = f"The {self.better} model is better" if self.differ else "No difference beyond chance"
        return f"{verdict}: {found}"


@checked()
def compare(
    a: Any,
    b: Any,
    x: Any,
    y: Any,
    *,
    task: str | None = None,
    metric: str | None = None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int | None = 0,
) -> Comparison:
    """Says whether two models differ on rows that neither has seen.

    For accuracy the p-value is that of McNemar's test, the exact one: of the rows that just one model has right, each
    is as likely the first's as the second's if the models are alike (Dietterich, "Approximate Statistical Tests for
    Comparing Supervised Classification Learning Algorithms", Neural Computation 10, 1998). For other metrics it is
    that of the paired bootstrap: twice the share of resamples in which the difference has the other sign (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993). Neither speaks of other models from the same training with
    another seed; `tfbig.cross_validate` does.

    Args:
        a: A Keras model, a `LiteModel`, a fitted estimator, or anything with `predict`.
        b: Another, of the same kind or not.
        x: Inputs of shape (rows, ...), or a dict of such arrays.
        y: Targets of shape (rows,) or (rows, outputs).
        task: "binary", "multiclass", "multilabel", "regression" or "sequence"; by default seen from the outputs and y.
        metric: Any that `evaluate` gives; by default accuracy, "f1" for several labels a row, "mae" for a regression.
        bootstrap: How many times to draw the rows anew.
        confidence: Of the interval, in (0, 1); a p-value below 1 - confidence makes a difference.
        seed: Of the drawing; None for other rows every time.

    Returns:
        A `Comparison`.

    Raises:
        InvalidData: x and y do not fit each other or a model; or the metric is undefined on these rows.
        InvalidModel: A model has no `predict`.
        InvalidOption: An option makes no sense.

    Example:
        >>> import numpy as np
        >>> from sklearn.dummy import DummyClassifier
        >>> x, y = np.zeros((40, 1)), np.repeat([0, 1], [30, 10])
        >>> zeros, ones = (DummyClassifier(strategy="constant", constant=c).fit(x, y) for c in (0, 1))
        >>> found = compare(zeros, ones, x, y)
        >>> found.difference, found.better, round(found.p_value, 4)
        (0.5, 'first', 0.0022)
    """
    draws = positive_int("bootstrap", bootstrap, minimum=100)
    confidence, seed = check_confidence(confidence), check_seed(seed)
    first, _ = answers_of(a, x, y, task)
    second, _ = answers_of(b, x, y, task)
    if first.task != second.task or first.targets.shape != second.targets.shape:
        raise InvalidData(
            f"The models answer different questions: {first.task} and {second.task}. Pass task=, or models for the "
            "same targets."
        )
    metric = _DEFAULT[first.task] if metric is None else metric
    if metric not in ALL[first.task]:
        raise unknown_choice("metric", metric, ALL[first.task])
    scores = tuple(measure(one, [metric]).get(metric, np.nan) for one in (first, second))
    if not np.isfinite(scores).all():
        raise InvalidData(f"{metric} is undefined on these rows; it may need rows of every class.")
    differences = _differences(first, second, metric, draws, seed)
    counts: tuple[int | None, int | None] = (None, None)
    if first.task != "regression":
        right = [_OF_A_ROW["accuracy"](one) > 0 for one in (first, second)]
        counts = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    # The steps of a sequence are not independent, which McNemar's test wants of its rows.
    by_mcnemar = metric == "accuracy" and first.steps == 1
    return Comparison(
        metric=metric,
        scores=scores,
        difference=scores[0] - scores[1],
        interval=percentile_interval(differences, confidence),
        confidence=confidence,
        p_value=mcnemar(*counts) if by_mcnemar else _bootstrap_p(differences),  # type: ignore[arg-type]
        test="McNemar's exact test" if by_mcnemar else "paired bootstrap",
        only_first_right=counts[0],
        only_second_right=counts[1],
        rows=len(first.targets) // first.steps,
    )


def mcnemar(only_first_right: int, only_second_right: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test; 1 where no row tells the models apart.

    Example:
        >>> mcnemar(10, 0)
        0.001953125
    """
    from scipy.stats import binomtest

    rows = only_first_right + only_second_right
    return float(binomtest(only_first_right, rows).pvalue) if rows else 1.0


def _differences(first: Answers, second: Answers, metric: str, draws: int, seed: int | None) -> np.ndarray:
    """The difference of the scores in every resample; both models are scored on the same rows."""
    drawn = resamples(first, draws, seed)
    if metric in _OF_A_ROW and first.steps == 1:
        gaps = _OF_A_ROW[metric](first) - _OF_A_ROW[metric](second)
        return np.array([gaps[rows].mean() for rows in drawn])
    pairs = ([measure(one.take(rows), [metric]) for one in (first, second)] for rows in drawn)
    # A resample without some label leaves a few metrics undefined.
    return np.array(
        [one[metric] - other[metric] for one, other in pairs if metric in one and metric in other]
    )


def _bootstrap_p(differences: np.ndarray) -> float:
    """Twice the smaller tail beyond zero; the differences found count as one resample more, so that it is never 0."""
    tails = [(1 + int(tail.sum())) / (1 + len(differences)) for tail in (differences <= 0, differences >= 0)]
    return min(1.0, 2 * min(tails))
