"""K-fold cross-validation: a fresh model for each fold, fitted on that fold's training rows alone."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tfbig.data.checking import check_pair
from tfbig.errors import InvalidModel, InvalidOption, unknown_choice
from tfbig.evaluation.fold_collecting import FoldCollection
from tfbig.evaluation.fold_results import CrossValidation
from tfbig.evaluation.fold_spread import Job, process_count, train
from tfbig.evaluation.fold_training import Fold
from tfbig.evaluation.scoring import get_scorers
from tfbig.evaluation.splitting_folds import NotStratified, fold_seed, split_folds
from tfbig.options import checked, positive_int
from tfbig.training.building import is_builder
from tfbig.training.fit import fit

_HOW = ("auto", "together", "sequential")


@checked(passes_on_to=fit)
def cross_validate(
    build: Callable[..., Any],
    x: Any,
    y: Any,
    *,
    cv: Any = 5,
    groups: Any = None,
    scoring: Any = None,
    folds: str = "auto",
    finish: Callable[[Any, np.ndarray, np.ndarray], Any] | None = None,
    return_train_scores: bool = False,
    error_score: float | str = "raise",
    max_memory: int | None = None,
    n_jobs: int | None = None,
    **fit_options: Any,
) -> CrossValidation:
    """Trains a fresh model on each fold's training rows and scores it on the rows held out.

    Folds can train together, in one compiled step whose weights are stacked along a fold axis, each with its own
    batches, dropout, batch statistics, learning rate and early stop. Apart from float rounding the answer is that
    of training them one after another. "auto" takes a few steps of one fold: if all of it would be done in 4 s,
    folds train one after another; else it takes a few steps together as well, and the faster way wins.

    Args:
        build: The builder, called anew for each fold. One with parameters, `build(x_train, y_train)`, is given
            that fold's training rows, so that a normalizer is fitted inside the fold.
        x: Inputs of shape (rows, ...), or a dict of such arrays by the name of the model's input.
        y: Targets of shape (rows,) or (rows, outputs).
        cv: A number of folds (stratified for labels and shuffled by `seed`; with `groups`, of whole groups), a
            scikit-learn splitter, or a list of (train indices, test indices).
        groups: Group of each row, shape (rows,), for scikit-learn's group splitters.
        scoring: scikit-learn scorers beside tfbig's own metrics: a name, a callable `scorer(estimator, x, y)`, a
            list or a dict.
        folds: "together" in one graph, "sequential", or "auto". What cannot train together (a train step of the
            model's own, a callback that may change the model) is trained one after another, and the result says
            why in `.fallback`.
        finish: `finish(model, x_train, y_train)` turns each fold's model into what will be shipped, for example
            prunes and exports it; what it returns is scored too.
        return_train_scores: Score the training rows as well.
        error_score: "raise", or the score that a fold gets whose model gives NaN, whose scorer or `finish` fails,
            or whose training rows lack a class; the result's `.failures` names it.
        max_memory: Bytes that folds may take while they train together; groups are made to fit. Half of what is
            free by default.
        n_jobs: Processes that folds are spread over by joblib: as in scikit-learn, -1 takes all cores, and None one
            process or what `joblib.parallel_config` says, which also names an engine for several machines:
            `joblib.parallel_config("dask")` with a `dask.distributed.Client`. A worker that Dask loses is replaced
            and its folds trained again, with the same result. `build` and `finish` must be picklable (functions of
            a script and lambdas are).
        **fit_options: As in `fit`. `sample_weight` is cut to each fold's rows. EarlyStopping, ReduceLROnPlateau,
            LearningRateScheduler and TerminateOnNaN (which acts at the end of the epoch) are copied, one for each
            fold. Fold k is seeded by a number that is drawn from `seed` and k.

    Returns:
        A `CrossValidation`: `.scores`, `.mean`, `.std`, `.interval()`, `.predictions`, `.summary()`.

    Raises:
        InvalidData: More folds than rows or than members of a class; x, y or groups of different lengths; a fold
            whose training rows lack a class, or whose model gives NaN.
        InvalidOption: A cv that is no number, splitter or list of pairs; no such scorer.
        InvalidModel: The builder returns no Keras model, one that does not fit y, or another architecture for
            another fold.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.random.default_rng(0).normal(size=(60, 4)); y = (x[:, 0] > 0).astype(int)
        >>> cv = tfbig.cross_validate(lambda: tfbig.models.mlp((4,), 2), x, y, cv=3, epochs=2, verbose=0)
        >>> len(cv.scores["accuracy"]), cv.predictions.shape
        (3, (60, 2))
    """
    x, y = check_pair(x, y, missing=True)
    if not is_builder(build):
        raise InvalidModel(
            "cross_validate needs a builder, so that each fold starts with a fresh model; got "
            f"{type(build).__name__}. Pass a function that makes the model: lambda: tfbig.models.mlp(...)."
        )
    if folds not in _HOW:
        raise unknown_choice("folds", folds, _HOW)
    if error_score != "raise" and (isinstance(error_score, bool) or not isinstance(error_score, int | float)):
        raise InvalidOption(f'error_score must be "raise" or a number; got {error_score!r}.')
    memory = None if max_memory is None else positive_int("max_memory", max_memory)
    options = _checked_options(fit_options)
    processes = process_count(n_jobs)
    began = time.perf_counter()
    job = Job(
        build, x, y, options, get_scorers(scoring), finish, error_score, return_train_scores, folds, memory
    )
    planned = _planned(job, cv, groups, options.get("seed"))
    collection = FoldCollection(y, error_score, finish is not None, return_train_scores)
    trainable = collection.trainable(planned, job.task)
    outcome = train(job, trainable, collection.add, processes)
    return collection.result(planned, *outcome, time.perf_counter() - began, min(processes, len(trainable)))


def _planned(job: Job, cv: Any, groups: Any, seed: int | None) -> list[Fold]:
    """The folds; the first one has its model, which says what task all of them are."""
    base = random.randrange(2**32) if seed is None else int(seed)

    def planned(pairs: list[Any]) -> list[Fold]:
        return [
            Fold(k, np.asarray(train), np.asarray(test), fold_seed(base, k))
            for k, (train, test) in enumerate(pairs)
        ]

    try:
        folds = planned(split_folds(job.x, job.y, cv, groups, seed))
        job.begin(folds[0])
    except NotStratified:
        # Whole numbers need no classes: for a model of values they are counts or years, split as other values are.
        folds = planned(split_folds(job.x, job.y, cv, groups, seed, stratify=False))
        job.begin(folds[0])
        if job.task != "regression":
            raise
    return folds


def _checked_options(given: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"verbose": 0, **given}
    for name in ("epochs", "batch_size"):
        if name in options:
            options[name] = positive_int(name, options[name])
    if options.get("steps_per_execution", "auto") != "auto":
        positive_int("steps_per_execution", options["steps_per_execution"])
    seed = options.get("seed")
    if seed is not None and positive_int("seed", seed, minimum=0) >= 2**32:
        raise InvalidOption(f"seed must be below 2**32, NumPy's limit; got {seed!r}.")
    for name in ("callbacks", "metrics"):
        if isinstance(options.get(name), Iterator):  # would be empty after the first fold
            options[name] = list(options[name])
    if isinstance(options.get("metrics"), str) or not isinstance(options.get("metrics"), Iterable | None):
        options["metrics"] = [options["metrics"]]
    return options
