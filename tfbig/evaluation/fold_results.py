"""What K-fold cross-validation found."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.errors import InvalidData
from tfbig.evaluation.intervals import corrected_interval
from tfbig.evaluation.metrics import HEADLINE
from tfbig.records import Record


@dataclass(frozen=True)
class Difference(Record):
    """The paired difference of two scores over the folds: what was finished minus the float model.

    Attributes:
        mean: Over the folds.
        low: Lower end of the confidence interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True, eq=False)
class CrossValidation(Record):
    """What K-fold cross-validation found.

    Attributes:
        task: "binary", "multiclass", "multilabel" or "regression".
        scores: Metric name to its value on each fold's held-out rows.
        finished_scores: The same for what `finish` made of each fold's model; None without `finish`.
        predictions: Outputs for every row, by the model that had not seen it: shape (rows, outputs), aligned to
            the rows of x; NaN where no fold held the row out, the last fold's where several did.
        seconds: Wall time of each fold's training and scoring; folds that train together share theirs equally.
        train_scores: The scores on each fold's training rows; None unless they were asked for.
        histories: Of each fold: metric name to its value after each epoch.
        train_rows: How many rows each fold trained on.
        test_rows: How many it held out.
        mode: "together" or "sequential".
        fallback: Why folds were not trained together, or why some were not; None if nothing stood in the way.
        failures: Fold number to why it has `error_score` in place of scores of its own; where `finish` failed, in
            place of its finished scores only.
        total_seconds: Wall time of it all, with what folds share: tracing, and measuring which way is faster.
        workers: Processes that trained folds.
    """

    task: str
    scores: Mapping[str, tuple[float, ...]]
    finished_scores: Mapping[str, tuple[float, ...]] | None
    predictions: np.ndarray
    seconds: tuple[float, ...]
    train_scores: Mapping[str, tuple[float, ...]] | None = None
    histories: tuple[Mapping[str, tuple[float, ...]], ...] = ()
    train_rows: tuple[int, ...] = ()
    test_rows: tuple[int, ...] = ()
    mode: str = "sequential"
    fallback: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    total_seconds: float = 0.0
    workers: int = 1

    def __eq__(self, other: object) -> bool:
        # As text, since NaN, for rows that no fold held out, differs from itself.
        return isinstance(other, CrossValidation) and self.to_json() == other.to_json()

    @property
    def headline(self) -> str:
        """The name of the task's main metric."""
        return HEADLINE[self.task]

    @property
    def mean(self) -> dict[str, float]:
        """Metric name to its mean over the folds."""
        return {name: float(np.mean(values)) for name, values in self.scores.items()}

    @property
    def std(self) -> dict[str, float]:
        """Metric name to its standard deviation over the folds (of a sample: divided by folds - 1)."""
        return {
            name: float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            for name, values in self.scores.items()
        }

    def interval(self, confidence: float = 0.95) -> dict[str, tuple[float, float]]:
        """Returns, per metric, the confidence interval of the mean over the folds.

        It accounts for the folds' overlapping training sets: Nadeau and Bengio's corrected variance, see
        `tfbig.evaluation.intervals`. NaN for one fold.
        """
        return {
            name: corrected_interval(values, self._test_per_train, confidence)
            for name, values in self.scores.items()
        }

    def difference(self, confidence: float = 0.95) -> dict[str, Difference]:
        """Returns, per metric, what `finish` changed: the paired difference over the folds and its interval.

        Folds that failed are left out.

        Raises:
            InvalidData: Nothing was finished.
        """
        if self.finished_scores is None:
            raise InvalidData("There is nothing to compare: pass finish= to cross_validate.")
        found = {}
        kept = [k for k in range(len(self.seconds)) if str(k) not in self.failures]
        for name in self.scores.keys() & self.finished_scores.keys() if kept else ():
            pairs = [self.finished_scores[name][k] - self.scores[name][k] for k in kept]
            found[name] = Difference(
                float(np.mean(pairs)), *corrected_interval(pairs, self._test_per_train, confidence)
            )
        return {name: found[name] for name in self.scores if name in found}

    @property
    def _test_per_train(self) -> float:
        if not self.train_rows:  # a record of before these were noted: folds of a K-fold
            return 1 / max(1, len(self.seconds) - 1)
        return float(np.mean(np.divide(self.test_rows, self.train_rows)))

    def summary(self) -> str:
        """Returns a line per metric: mean ± standard deviation over the folds, and the mean's 95% interval."""
        mean, std, interval = self.mean, self.std, self.interval()
        width = max(map(len, self.scores))
        how = "together" if self.mode == "together" else "one after another"
        where = f", in {self.workers} processes" if self.workers > 1 else ""
        lines = [
            f"{len(self.seconds)} folds in {self.total_seconds or sum(self.seconds):.1f} s, {how}{where}"
        ]
        for name in self.scores:
            low, high = interval[name]
            lines.append(
                f"{name:{width}}  {mean[name]:.4f} ± {std[name]:.4f}  (95%: {low:.4f} to {high:.4f})"
            )
        if self.finished_scores is not None:
            lines.append("finished minus float")
            lines += [f"{name:{width}}  {change}" for name, change in self.difference().items()]
        if self.fallback:
            lines.append(f"not together: {self.fallback}" if self.mode != "together" else self.fallback)
        lines += [f"fold {fold}: {reason}" for fold, reason in self.failures.items()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the main metric of each fold with mean and deviation; returns the figure, `path` saves it."""
        from tfbig import plots

        return plots.saved(plots.folds(self.headline, self.scores[self.headline]), path)
