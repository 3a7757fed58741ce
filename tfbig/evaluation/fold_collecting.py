"""The folds' scores as they come in, from this process or another, and the record of all of them."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.errors import InvalidData
from tfbig.evaluation.fold_results import CrossValidation
from tfbig.evaluation.fold_scoring import Scored
from tfbig.evaluation.fold_training import Fold
from tfbig.evaluation.splitting_folds import missing_class


class FoldCollection:
    """Collects the folds' scores.

    Args:
        y: All targets.
        error_score: "raise", or the score of a fold that fails.
        finishing: Whether there is a `finish`.
        train_too: Whether training rows are scored as well.
    """

    def __init__(self, y: np.ndarray, error_score: Any, finishing: bool, train_too: bool):
        self._y, self._error_score = y, error_score
        self._finishing, self._train_too = finishing, train_too
        self._scored: dict[int, Scored] = {}
        self._failures: dict[int, str] = {}

    def trainable(self, folds: Sequence[Fold], task: str | None) -> list[Fold]:
        """Returns the folds whose training rows hold every class; the others have failed.

        Raises:
            InvalidData: A fold lacks a class and `error_score` is "raise"; or all folds do.
        """
        if task not in ("binary", "multiclass"):
            return list(folds)
        kept = []
        for fold in folds:
            missing = missing_class(self._y, fold.train)
            if missing is None:
                kept.append(fold)
                continue
            reason = f"its training rows hold no row of class {missing:g}, which its model could not learn"
            if self._error_score == "raise":
                raise InvalidData(
                    f"Fold {fold.number}: {reason}. Use a stratified cv; error_score=numpy.nan leaves the fold out."
                )
            self._failures[fold.number] = reason
        if not kept:
            raise InvalidData(f"No fold can be trained. Fold 0: {self._failures[0]}.")
        return kept

    def add(self, scored: Scored) -> None:
        """Takes a fold's scores."""
        self._scored[scored.number] = scored
        if scored.failure is not None:
            self._failures[scored.number] = scored.failure

    def result(
        self, folds: Sequence[Fold], mode: str, fallback: str | None, seconds: float, workers: int
    ) -> CrossValidation:
        """Returns the record of all folds; warns of those that failed.

        Args:
            folds: All of them, as they were planned.
            mode: "together" or "sequential".
            fallback: Why not together, or None.
            seconds: Wall time of it all.
            workers: Processes that trained folds.
        """
        numbers = [fold.number for fold in folds]
        if not any(scored.held_out for scored in self._scored.values()):
            raise InvalidData(f"Every fold failed. Fold 0: {self._failures[0]}.")
        if self._failures:
            warnings.warn(
                f"{len(self._failures)} of {len(folds)} folds failed and score {self._error_score}: "
                f"{', '.join(map(str, sorted(self._failures)))}. The result's .failures says why.",
                stacklevel=4,
            )
        task = next(scored.task for scored in self._scored.values() if scored.task is not None)
        histories = (self._scored[k].history if k in self._scored else {} for k in numbers)
        return CrossValidation(
            task=task,
            scores=self._by_metric("held_out", numbers),
            finished_scores=self._by_metric("finished", numbers) if self._finishing else None,
            predictions=self._predictions(folds),
            seconds=tuple(self._scored[k].seconds if k in self._scored else 0.0 for k in numbers),
            train_scores=self._by_metric("trained", numbers) if self._train_too else None,
            histories=tuple({name: tuple(series) for name, series in one.items()} for one in histories),
            train_rows=tuple(len(fold.train) for fold in folds),
            test_rows=tuple(len(fold.test) for fold in folds),
            mode=mode,
            fallback=fallback,
            failures={str(k): self._failures[k] for k in sorted(self._failures)},
            total_seconds=seconds,
            workers=workers,
        )

    def _predictions(self, folds: Sequence[Fold]) -> np.ndarray:
        known = [(fold.test, self._scored[fold.number].predictions) for fold in folds if self._has(fold)]
        predictions = np.full((len(self._y), *known[0][1].shape[1:]), np.nan, np.float32)  # type: ignore[union-attr]
        for rows, outputs in known:
            predictions[rows] = outputs
        return predictions

    def _has(self, fold: Fold) -> bool:
        return fold.number in self._scored and self._scored[fold.number].predictions is not None

    def _by_metric(self, kind: str, numbers: Sequence[int]) -> dict[str, Any]:
        by_fold: dict[int, Mapping[str, float]] = {
            k: getattr(scored, kind)
            for k, scored in self._scored.items()
            if getattr(scored, kind) is not None
        }
        # Where nothing could be finished, its scores are named as those of the models are.
        named = by_fold or {k: scored.held_out or {} for k, scored in self._scored.items()}
        names = list(dict.fromkeys(name for k in numbers if k in named for name in named[k]))

        def value(fold: int, name: str) -> float:
            if fold not in by_fold:
                return float(self._error_score)
            # None such as ROC AUC where the held-out rows are of one class.
            return by_fold[fold].get(name, float("nan"))

        return {name: tuple(value(fold, name) for fold in numbers) for name in names}
