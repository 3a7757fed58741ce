"""Which rows each fold trains on and which it holds out."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfbig.data.splitting import is_labels
from tfbig.errors import InvalidData, InvalidOption
from tfbig.options import positive_int


class NotStratified(InvalidData):
    """y holds whole numbers, and some of them too rarely for each fold to have its share."""


def split_folds(
    x: Any, y: np.ndarray, cv: Any, groups: Any, seed: int | None, stratify: bool = True
) -> list[Any]:
    """Returns the folds as (train indices, test indices) pairs.

    Args:
        x: Inputs; only splitters of the user's own look at them.
        y: Targets, one row each.
        cv: A number of folds, a scikit-learn splitter, or an iterable of pairs of indices or of masks.
        groups: Group of each row, or None.
        seed: Of the shuffle for a number of folds.
        stratify: Whether a number of folds are stratified, where y holds labels.

    Raises:
        NotStratified: They cannot be.
        InvalidData: The rows cannot be split so.
        InvalidOption: A cv that is no number, splitter or list of pairs.
    """
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    rows, shown_y = len(y), y
    if groups is not None and len(groups) != rows:
        raise InvalidData(f"groups must have one entry per row of x, {rows}; got {len(groups)}.")
    if isinstance(cv, int | np.integer):
        count = positive_int("cv", cv, minimum=2)
        if groups is not None:
            labels = _labels(y)
            stratified = labels is not None and np.unique(labels, return_counts=True)[1].min() >= count
            kind = StratifiedGroupKFold if stratified else GroupKFold
            _check_group_count(count, groups)
        else:
            labels = _labels(y) if stratify else None
            _check_fold_count(count, y, labels)
            kind = KFold if labels is None else StratifiedKFold
        cv = kind(count, shuffle=True, random_state=seed)
        shown_y = y if labels is None else labels
    if hasattr(cv, "split") and not isinstance(cv, str):
        shown = np.zeros(rows) if isinstance(x, dict) else x
        try:
            folds = list(cv.split(shown, shown_y, groups))
        except ValueError as error:
            raise InvalidData(f"{type(cv).__name__} cannot split these {rows} rows: {error}") from error
    elif isinstance(cv, Iterable) and not isinstance(cv, str):
        pairs = list(cv)
        if not all(isinstance(pair, tuple | list | np.ndarray) for pair in pairs):
            raise InvalidOption(f"cv must hold pairs of index arrays; got {pairs[0]!r}.")
        folds = [tuple(_numbers(indices, rows) for indices in pair) for pair in pairs]
    else:
        raise InvalidOption(
            f"cv must be a number of folds, a scikit-learn splitter or a list of index pairs; got {cv!r}."
        )
    if not folds or any(len(pair) != 2 or not len(pair[0]) or not len(pair[1]) for pair in folds):
        raise InvalidOption("cv must give at least one pair of non-empty train and test indices.")
    for indices in (indices for pair in folds for indices in pair):
        if indices.min() < 0 or indices.max() >= rows:
            raise InvalidOption(f"cv names row {indices.max()}; x has {rows} rows, from 0.")
    return folds


def fold_seed(seed: int, fold: int) -> int:
    """Returns the seed of one fold's weights, dropout and batches: the same however the folds are trained.

    Example:
        >>> fold_seed(0, 1) == fold_seed(0, 1), fold_seed(0, 1) == fold_seed(0, 2)
        (True, False)
    """
    # Below 2³¹, so that layers may count on from it.
    return int(np.random.SeedSequence((seed, fold)).generate_state(1)[0]) >> 1


def missing_class(y: np.ndarray, train: np.ndarray) -> Any:
    """Returns a label that y holds and the training rows do not, or None.

    Args:
        y: Labels of shape (rows,), (rows, 1) or one-hot (rows, classes).
        train: Row numbers.
    """
    labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y))
    missing = np.setdiff1d(labels, labels[train])
    return missing[0].item() if len(missing) else None


def _numbers(indices: Sequence[Any], rows: int) -> np.ndarray:
    array = np.asarray(indices)
    if array.dtype == bool:
        if len(array) != rows:
            raise InvalidOption(f"A mask in cv must have one entry per row of x, {rows}; got {len(array)}.")
        return np.flatnonzero(array)
    if array.size and array.dtype.kind not in "iu":
        raise InvalidOption(f"cv must hold row numbers; got {array.dtype} values such as {array.flat[0]!r}.")
    # From the end, as NumPy counts.
    return np.where(array < 0, array + rows, array).astype(np.int64)


def _labels(y: np.ndarray) -> np.ndarray | None:
    """One label per row: y as it is, its only column, or the column of a one-hot row; None for values."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.reshape(len(y))
    if y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        return y.argmax(axis=1)
    return y if is_labels(y) else None


def _check_fold_count(count: int, y: np.ndarray, classes: np.ndarray | None) -> None:
    if count > len(y):
        raise InvalidData(f"{count} folds need at least {count} rows; got {len(y)}.")
    if classes is not None:
        labels, members = np.unique(classes, return_counts=True)
        if members.min() < count:
            rare = labels[members.argmin()]
            raise NotStratified(
                f"{count} stratified folds need {count} rows of each class; class {rare} has {members.min()}. "
                "Use fewer folds, or pass cv=sklearn.model_selection.KFold(...)."
            )


def _check_group_count(count: int, groups: Any) -> None:
    found = len(np.unique(np.asarray(groups)))
    if found < count:
        raise InvalidData(
            f"GroupKFold cannot split these {len(groups)} rows: {count} folds need {count} groups; "
            f"the number of groups: {found}."
        )
