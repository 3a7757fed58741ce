"""Folds trained in this process, or dealt out by joblib to others, on this machine or on several.

joblib's engines start the processes, send them their work and, where they can (Dask), replace one that dies. What
arrives there is a group of folds, so that folds may train together in each process.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np

from tfbig.errors import InvalidOption
from tfbig.evaluation.fold_runner import FoldRunner
from tfbig.evaluation.fold_scoring import FoldScorer, Scored
from tfbig.evaluation.fold_training import Fold

# Two groups of folds that an engine runs in threads of one process take turns: seeds are the process's.
_ONE_AT_A_TIME = threading.Lock()


@dataclass
class Job:
    """What is to be done with every fold, without the folds.

    Attributes:
        build: The builder.
        x: All inputs.
        y: All targets.
        options: Of `fit`.
        scorers: scikit-learn scorers by name.
        finish: From model and training rows to what is shipped, or None.
        error_score: "raise", or the score of a fold that fails.
        train_too: Whether training rows are scored as well.
        how: "auto", "together" or "sequential".
        max_memory: Bytes for the folds that train at once in one process, or None.
        share: The part of the free memory that one process may count on.
        task: What the models' head and all of y make of it; known once the job has begun.
    """

    build: Any
    x: Any
    y: np.ndarray
    options: dict[str, Any]
    scorers: Any
    finish: Any
    error_score: Any
    train_too: bool
    how: str
    max_memory: int | None
    share: float = 1.0
    task: str | None = None
    runner: FoldRunner | None = field(default=None, repr=False)

    def begin(self, first: Fold) -> None:
        """Builds the model of the first fold, which is what the others are compared with."""
        self.runner = FoldRunner(
            self.build, self.x, self.y, self.options, keep_optimizer=self.finish is not None
        )
        self.task = self.runner.begin(first)

    def run(self, folds: Sequence[Fold], take: Callable[[Scored], None]) -> tuple[str, str | None]:
        """Trains folds in this process and hands on each one's scores; returns how, and why not together."""
        assert self.runner is not None
        score = FoldScorer(
            self.x, self.y, self.task, self.scorers, self.error_score, self.finish, self.train_too
        )
        for fold in self.runner.run(folds, self.how, self.max_memory, self.share):
            take(score(fold))
        return self.runner.mode, self.runner.fallback


def process_count(n_jobs: Any) -> int:
    """Returns how many processes joblib would use.

    Raises:
        InvalidOption: `n_jobs` is no whole number, or 0.
    """
    if n_jobs is not None and (
        isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer) or not n_jobs
    ):
        raise InvalidOption(
            f"n_jobs must be None or a whole number other than 0, such as 2, or -1 for all cores; got {n_jobs!r}."
        )
    return joblib.effective_n_jobs(n_jobs)


def train(
    job: Job, folds: Sequence[Fold], take: Callable[[Scored], None], processes: int
) -> tuple[str, str | None]:
    """Trains folds in this process, or in several others in groups as even as can be.

    Args:
        job: Which has begun.
        folds: To be trained.
        take: Is given each fold's scores.
        processes: How many are to work at once.

    Returns:
        "together" if any folds trained together, else "sequential"; and why not, if some did not.
    """
    if processes == 1:
        return job.run(folds, take)
    first = _without_model(folds[0])
    groups = [
        [_without_model(folds[k]) for k in part]
        for part in np.array_split(np.arange(len(folds)), min(processes, len(folds)))
    ]
    sent = Job(**{**vars(job), "runner": None, "share": job.share / len(groups)})
    made = joblib.Parallel(n_jobs=processes)(joblib.delayed(_work)(sent, first, group) for group in groups)
    for scores, _, _ in made:
        for scored in scores:
            take(scored)
    modes, reasons = {mode for _, mode, _ in made}, [reason for _, _, reason in made if reason]
    return "together" if "together" in modes else "sequential", reasons[0] if reasons else None


def _work(job: Job, first: Fold, folds: list[Fold]) -> tuple[list[Scored], str, str | None]:
    """Runs in the other process. Its model of the first fold is the same as everywhere: it has the same seed."""
    with _ONE_AT_A_TIME:
        if folds[0].number == first.number:
            first = folds[0]
        job = Job(**vars(job))  # an engine of threads gives all groups this very object
        task = job.task
        job.begin(first)
        job.task = task
        found: list[Scored] = []
        mode, reason = job.run(folds, found.append)
        return found, mode, reason


def _without_model(fold: Fold) -> Fold:
    return Fold(fold.number, fold.train, fold.test, fold.seed)
