"""The scores of one trained fold, without its model: what is kept, and what a worker sends back."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend.seeds import seeded
from tfbig.data.checking import take_rows
from tfbig.errors import InvalidData, InvalidModel
from tfbig.evaluation.fold_training import Fold
from tfbig.evaluation.predicting import outputs_of
from tfbig.evaluation.scoring import fold_scores


@dataclass(frozen=True)
class Scored:
    """What is known of a fold once it is trained and scored.

    Attributes:
        number: Of the fold.
        task: As the scores see it; None if there are none.
        history: Metric name to its value after each epoch.
        seconds: Wall time of training and scoring.
        held_out: Metric name to value on the rows held out; None where the fold failed.
        predictions: Outputs for the rows held out, in their order; None likewise.
        trained: The scores on the training rows, if asked for.
        finished: The scores of what `finish` made, if there is one and it did not fail.
        failure: Why there are no scores, or none of what was finished; else None.
    """

    number: int
    task: str | None
    history: Mapping[str, Any]
    seconds: float
    held_out: Mapping[str, float] | None = None
    predictions: np.ndarray | None = None
    trained: Mapping[str, float] | None = None
    finished: Mapping[str, float] | None = None
    failure: str | None = None


class FoldScorer:
    """Scores trained folds.

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
        self.task = task
        self._x, self._y, self._scorers = x, y, scorers
        self._error_score, self._finish, self._train_too = error_score, finish, train_too

    def __call__(self, fold: Fold) -> Scored:
        """Returns the fold's scores.

        Raises:
            InvalidData: The fold fails and `error_score` is "raise".
        """
        began = time.perf_counter()
        found: dict[str, Any] = {}
        try:
            known = self._known_outputs(fold, fold.test)
            found["held_out"] = self._scored(fold, fold.test, known)
            found["predictions"] = known
            if self._train_too:
                found["trained"] = self._scored(fold, fold.train, self._known_outputs(fold, fold.train))
            if self._finish is not None:
                found["finished"] = self._finished_scores(fold)
        except InvalidData as error:
            reason = str(error).rstrip(".")
            if self._error_score == "raise":
                raise InvalidData(
                    f"Fold {fold.number}: {reason}. error_score=numpy.nan would go on without this fold."
                ) from error
            found["failure"] = reason
        seconds = fold.seconds + time.perf_counter() - began
        return Scored(fold.number, self.task, fold.history, seconds, **found)

    def _known_outputs(self, fold: Fold, rows: np.ndarray) -> np.ndarray:
        x = take_rows(self._x, rows)
        known = outputs_of(fold.model, x) if fold.outputs is None else fold.outputs(rows)
        if known.ndim not in (1, 2):
            raise InvalidModel(
                f"Expected outputs of shape (rows,) or (rows, outputs) for {len(rows)} rows; got {known.shape}."
            )
        return known

    def _scored(self, fold: Fold, rows: np.ndarray, known: np.ndarray) -> dict[str, float]:
        x, y = take_rows(self._x, rows), self._y[rows]
        scores, self.task = fold_scores(
            lambda asked: known if asked is x else outputs_of(fold.model, asked),
            x,
            y,
            self.task,
            self._scorers,
        )
        return scores

    def _finished_scores(self, fold: Fold) -> dict[str, float]:
        assert self._finish is not None
        try:
            with seeded(fold.seed):  # it may train, and the same seed is to give the same scores
                made = self._finish(fold.model, take_rows(self._x, fold.train), self._y[fold.train])
        except Exception as error:
            if self._error_score == "raise":
                raise
            raise InvalidData(f"finish failed: {type(error).__name__}: {error}") from error
        x, y = take_rows(self._x, fold.test), self._y[fold.test]
        return fold_scores(lambda asked: outputs_of(made, asked), x, y, self.task, self._scorers)[0]
