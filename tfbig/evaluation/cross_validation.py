"""K-fold cross-validation: a fresh model for each fold, fitted on that fold's training rows alone."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.checking import check_pair
from tfbig.data.splitting import is_labels
from tfbig.errors import InvalidData, InvalidModel, InvalidOption
from tfbig.evaluation.evaluate import Scores, evaluate
from tfbig.evaluation.metrics import HEADLINE
from tfbig.evaluation.predicting import outputs_of
from tfbig.options import checked, positive_int
from tfbig.records import Record
from tfbig.training import checks
from tfbig.training.building import is_builder
from tfbig.training.fit import fit
from tfbig.training.objectives import infer_task


@dataclass(frozen=True, eq=False)
class CrossValidation(Record):
    """What K-fold cross-validation found.

    Attributes:
        task: "binary", "multiclass", "multilabel" or "regression".
        scores: Metric name to its value on each fold's held-out rows.
        finished_scores: The same for what `finish` made of each fold's model; None without `finish`.
        predictions: Outputs for every row, by the model that had not seen it: shape (rows, outputs), aligned to
            the rows of x; NaN where no fold held the row out.
        seconds: Wall time of each fold.
    """

    task: str
    scores: Mapping[str, tuple[float, ...]]
    finished_scores: Mapping[str, tuple[float, ...]] | None
    predictions: np.ndarray
    seconds: tuple[float, ...]

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

    def summary(self) -> str:
        """Returns a line per metric: mean ± standard deviation over the folds."""
        mean, std = self.mean, self.std
        width = max(map(len, self.scores))
        lines = [f"{name:{width}}  {mean[name]:.4f} ± {std[name]:.4f}" for name in self.scores]
        return "\n".join([f"{len(self.seconds)} folds in {sum(self.seconds):.1f} s", *lines])

    def __str__(self) -> str:
        return self.summary()

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the main metric of each fold with mean and deviation; returns the figure, `path` saves it."""
        from tfbig import plots

        return plots.saved(plots.folds(self.headline, self.scores[self.headline]), path)


@checked(passes_on_to=fit)
def cross_validate(
    build: Callable[..., Any],
    x: Any,
    y: Any,
    *,
    cv: Any = 5,
    groups: Any = None,
    finish: Callable[[Any, np.ndarray, np.ndarray], Any] | None = None,
    **fit_options: Any,
) -> CrossValidation:
    """Trains a fresh model on each fold's training rows and scores it on the rows held out.

    Args:
        build: The builder, called anew for each fold. One with parameters, `build(x_train, y_train)`, is given
            that fold's training rows, so that a normalizer is fitted inside the fold.
        x: Inputs of shape (rows, ...).
        y: Targets of shape (rows,) or (rows, outputs).
        cv: A number of folds (stratified for labels, shuffled by `seed`), a scikit-learn splitter, or a list of
            (train indices, test indices).
        groups: Group of each row, shape (rows,), for scikit-learn's group splitters.
        finish: `finish(model, x_train, y_train)` turns each fold's model into what will be shipped, for example
            prunes and exports it; what it returns is scored too.
        **fit_options: As in `fit`. `sample_weight` is cut to each fold's rows.

    Returns:
        A `CrossValidation`: `.scores`, `.mean`, `.std`, `.predictions`, `.summary()`.

    Raises:
        InvalidData: More folds than rows or than members of a class; x, y or groups of different lengths.
        InvalidOption: A cv that is no number, splitter or list of pairs.
        InvalidModel: The builder returns no Keras model, or one that does not fit y.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.random.default_rng(0).normal(size=(60, 4)); y = (x[:, 0] > 0).astype(int)
        >>> cv = tfbig.cross_validate(lambda: tfbig.models.mlp((4,), 2), x, y, cv=3, epochs=2, verbose=0)
        >>> len(cv.scores["accuracy"]), cv.predictions.shape
        (3, (60, 2))
    """
    x, y = check_pair(x, y)
    if not is_builder(build):
        raise InvalidModel(
            "cross_validate needs a builder, so that each fold starts with a fresh model; got "
            f"{type(build).__name__}. Pass a function that makes the model: lambda: tfbig.models.mlp(...)."
        )
    folds = split_folds(x, y, cv, groups, fit_options.get("seed"))
    options, weights, fresh_optimizer = _per_fold(fit_options, len(x))
    held_out, finished, seconds = [], [], []
    predictions: np.ndarray | None = None
    model = None
    for train, test in folds:
        began = time.perf_counter()
        part = None if weights is None else weights[train]
        run = fit(build, x[train], y[train], sample_weight=part, optimizer=fresh_optimizer(), **options)
        if run.model is model:
            raise InvalidModel(
                "The builder returned the same model twice: the second fold would start from the first one's "
                "weights. Build the model inside the function."
            )
        model = run.model
        task = _task(model, y)
        outputs = outputs_of(model, x[test])
        if predictions is None:
            predictions = np.full((len(x), *outputs.shape[1:]), np.nan, np.float32)
        predictions[test] = outputs
        held_out.append(evaluate(_Given(outputs), x[test], y[test], task=task))
        if finish is not None:
            finished.append(evaluate(finish(model, x[train], y[train]), x[test], y[test], task=task))
        seconds.append(time.perf_counter() - began)
    assert predictions is not None
    return CrossValidation(
        task=held_out[0].task,
        scores=_by_metric(held_out),
        finished_scores=_by_metric(finished) if finish is not None else None,
        predictions=predictions,
        seconds=tuple(seconds),
    )


def _per_fold(fit_options: Mapping[str, Any], rows: int) -> tuple[dict[str, Any], Any, Callable[[], Any]]:
    """What every fold's fit is given, the weights to cut, and a function that makes each fold's optimizer."""
    options: dict[str, Any] = {"verbose": 0, **fit_options}
    for name in ("callbacks", "metrics"):
        if isinstance(options.get(name), Iterator):  # would be empty after the first fold
            options[name] = list(options[name])
    weights = checks.sample_weight(options.pop("sample_weight", None), rows)
    optimizer = options.pop("optimizer", None)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return options, weights, lambda: optimizer
    settings = optimizer.get_config()  # now: a schedule or callback may change the learning rate in a fold
    return options, weights, lambda: type(optimizer).from_config(settings)


def _task(model: Any, y: np.ndarray) -> str | None:
    """The task as the model's head and all of y say it; None leaves it to each fold's outputs."""
    try:
        return infer_task(model, y)
    except InvalidModel:
        return None


def split_folds(x: np.ndarray, y: np.ndarray, cv: Any, groups: Any, seed: int | None) -> list[Any]:
    """Returns the folds as (train indices, test indices) pairs.

    Raises:
        InvalidData: The rows cannot be split so.
        InvalidOption: A cv that is no number, splitter or list of pairs.
    """
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    if groups is not None and len(groups) != len(x):
        raise InvalidData(f"groups must have one entry per row of x, {len(x)}; got {len(groups)}.")
    if isinstance(cv, int | np.integer):
        count = positive_int("cv", cv, minimum=2)
        if groups is not None:
            cv = GroupKFold(count)
        else:
            _check_fold_count(count, y)
            kind = StratifiedKFold if is_labels(y) else KFold
            cv = kind(count, shuffle=True, random_state=seed)
    if hasattr(cv, "split") and not isinstance(cv, str):
        try:
            folds = list(cv.split(x, y, groups))
        except ValueError as error:
            raise InvalidData(f"{type(cv).__name__} cannot split these {len(x)} rows: {error}") from error
    elif isinstance(cv, Iterable) and not isinstance(cv, str):
        pairs = list(cv)
        if not all(isinstance(pair, tuple | list | np.ndarray) for pair in pairs):
            raise InvalidOption(f"cv must hold pairs of index arrays; got {pairs[0]!r}.")
        folds = [tuple(np.asarray(indices) for indices in pair) for pair in pairs]
    else:
        raise InvalidOption(
            f"cv must be a number of folds, a scikit-learn splitter or a list of index pairs; got {cv!r}."
        )
    if not folds or any(len(pair) != 2 or not len(pair[0]) or not len(pair[1]) for pair in folds):
        raise InvalidOption("cv must give at least one pair of non-empty train and test indices.")
    for indices in (indices for pair in folds for indices in pair):
        if indices.dtype.kind in "iu" and (indices.min() < -len(x) or indices.max() >= len(x)):
            raise InvalidOption(f"cv names row {indices.max()}; x has {len(x)} rows, from 0.")
    return folds


class _Given:
    """Outputs that were computed already, as something with `predict`."""

    def __init__(self, outputs: np.ndarray):
        self._outputs = outputs

    def predict(self, x: Any) -> np.ndarray:
        return self._outputs


def _check_fold_count(count: int, y: np.ndarray) -> None:
    if count > len(y):
        raise InvalidData(f"{count} folds need at least {count} rows; got {len(y)}.")
    if is_labels(y):
        labels, members = np.unique(y, return_counts=True)
        if members.min() < count:
            rare = labels[members.argmin()]
            raise InvalidData(
                f"{count} stratified folds need {count} rows of each class; class {rare} has {members.min()}. "
                "Use fewer folds, or pass cv=sklearn.model_selection.KFold(...)."
            )


def _by_metric(scores: list[Scores]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(fold.get(name, math.nan) for fold in scores) for name in scores[0]}
