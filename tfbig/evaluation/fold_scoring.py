"""The folds' scores as they come in, and the record of all of them."""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.errors import InvalidData, InvalidModel
from tfbig.evaluation.fold_results import CrossValidation
from tfbig.evaluation.fold_runner import take
from tfbig.evaluation.fold_training import Fold
from tfbig.evaluation.predicting import outputs_of
from tfbig.evaluation.scoring import fold_scores
from tfbig.evaluation.splitting_folds import missing_class


class FoldScoring:
    """Scores trained folds, one by one, and keeps nothing of their models.

    Args:
        x: All inputs.
        y: All targets.
        task: What the model's head and all of y make of it; None leaves it to a fold's outputs.
        scorers: scikit-learn scorers by name.
        error_score: "raise", or the score of a fold that fails.
        finish: From model and training rows to what is shipped, or None.
        train_too: Whether training rows are scored as well.
    """

    def __init__(
        self,
        x: Any,
        y: np.ndarray,
        task: str | None,
        scorers: Any,
        error_score: Any,
        finish: Any,
        train_too: bool,
    ):
        self._x, self._y, self._task, self._scorers = x, y, task, scorers
        self._error_score, self._finish, self._train_too = error_score, finish, train_too
        self._held_out: dict[int, dict[str, float]] = {}
        self._finished: dict[int, dict[str, float]] = {}
        self._trained: dict[int, dict[str, float]] = {}
        self._failures: dict[int, str] = {}
        self._seconds: dict[int, float] = {}
        self._histories: dict[int, Any] = {}
        self._predictions: np.ndarray | None = None

    def trainable(self, folds: Sequence[Fold]) -> list[Fold]:
        """Returns the folds whose training rows hold every class; the others have failed."""
        if self._task not in ("binary", "multiclass"):
            return list(folds)
        kept = []
        for fold in folds:
            missing = missing_class(self._y, fold.train)
            if missing is None:
                kept.append(fold)
            else:
                reason = (
                    f"its training rows hold no row of class {missing:g}, which its model could not learn"
                )
                self._fail(
                    fold.number, reason, "Use a stratified cv; error_score=numpy.nan leaves the fold out."
                )
        if not kept:
            raise InvalidData(f"No fold can be trained. Fold 0: {self._failures[0]}.")
        return kept

    def add(self, fold: Fold) -> None:
        """Scores a trained fold."""
        began = time.perf_counter()
        self._histories[fold.number] = fold.history
        try:
            self._held_out[fold.number] = self._scored(fold, fold.test, predictions=True)
            if self._train_too:
                self._trained[fold.number] = self._scored(fold, fold.train)
            if self._finish is not None:
                self._finished[fold.number] = self._finished_scores(fold)
        except InvalidData as error:
            advice = "error_score=numpy.nan would go on without this fold."
            self._fail(fold.number, str(error).rstrip("."), advice, error)
        self._seconds[fold.number] = fold.seconds + time.perf_counter() - began

    def result(self, folds: Sequence[Fold], mode: str, fallback: str | None) -> CrossValidation:
        """Returns the record of all folds."""
        numbers = [fold.number for fold in folds]
        if len(self._failures) == len(folds):
            raise InvalidData(f"Every fold failed. Fold 0: {self._failures[0]}.")
        if self._failures:
            warnings.warn(
                f"{len(self._failures)} of {len(folds)} folds failed and score {self._error_score}: "
                f"{', '.join(map(str, self._failures))}. The result's .failures says why.",
                stacklevel=4,
            )
        assert self._task is not None
        assert self._predictions is not None
        histories = (self._histories.get(k, {}) for k in numbers)
        return CrossValidation(
            task=self._task,
            scores=self._by_metric(self._held_out, numbers),
            finished_scores=self._by_metric(self._finished, numbers) if self._finish is not None else None,
            predictions=self._predictions,
            seconds=tuple(self._seconds.get(k, 0.0) for k in numbers),
            train_scores=self._by_metric(self._trained, numbers) if self._train_too else None,
            histories=tuple({name: tuple(series) for name, series in one.items()} for one in histories),
            train_rows=tuple(len(fold.train) for fold in folds),
            test_rows=tuple(len(fold.test) for fold in folds),
            mode=mode,
            fallback=fallback,
            failures={str(k): reason for k, reason in self._failures.items()},
        )

    def _scored(self, fold: Fold, rows: np.ndarray, predictions: bool = False) -> dict[str, float]:
        x, y = take(self._x, rows), self._y[rows]
        known = _outputs(fold.model, x) if fold.outputs is None else fold.outputs(rows)
        if known.ndim not in (1, 2):
            raise InvalidModel(
                f"Expected outputs of shape (rows,) or (rows, outputs) for {len(rows)} rows; got {known.shape}."
            )
        if predictions:
            if self._predictions is None:
                self._predictions = np.full((len(self._y), *known.shape[1:]), np.nan, np.float32)
            self._predictions[rows] = known
        scores, self._task = fold_scores(
            lambda asked: known if asked is x else _outputs(fold.model, asked),
            x,
            y,
            self._task,
            self._scorers,
        )
        return scores

    def _finished_scores(self, fold: Fold) -> dict[str, float]:
        assert self._finish is not None
        try:
            made = self._finish(fold.model, take(self._x, fold.train), self._y[fold.train])
        except Exception as error:
            if self._error_score == "raise":
                raise
            raise InvalidData(f"finish failed: {type(error).__name__}: {error}") from error
        x, y = take(self._x, fold.test), self._y[fold.test]
        return fold_scores(lambda asked: _outputs(made, asked), x, y, self._task, self._scorers)[0]

    def _fail(self, fold: int, reason: str, advice: str, cause: Exception | None = None) -> None:
        if self._error_score == "raise":
            raise InvalidData(f"Fold {fold}: {reason}. {advice}") from cause
        self._failures[fold] = reason

    def _by_metric(self, by_fold: Mapping[int, dict[str, float]], numbers: Sequence[int]) -> dict[str, Any]:
        names = list(dict.fromkeys(name for scores in by_fold.values() for name in scores))

        def value(fold: int, name: str) -> float:
            if fold in self._failures:
                return float(self._error_score)
            # None such as ROC AUC where the held-out rows are of one class.
            return by_fold[fold].get(name, float("nan"))

        return {name: tuple(value(fold, name) for fold in numbers) for name in names}


def _outputs(model: Any, x: Any) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return outputs_of(model, x)
    return np.asarray(model.predict(x, **({"verbose": 0} if hasattr(model, "fit") else {})))
