"""Which rows each fold trains on and which it holds out."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfbig.data.splitting import is_labels
from tfbig.errors import InvalidData, InvalidOption
from tfbig.options import positive_int


def split_folds(x: Any, y: np.ndarray, cv: Any, groups: Any, seed: int | None) -> list[Any]:
    """Returns the folds as (train indices, test indices) pairs.

    Args:
        x: Inputs; only splitters of the user's own look at them.
        y: Targets, one row each.
        cv: A number of folds, a scikit-learn splitter, or an iterable of pairs of indices or of masks.
        groups: Group of each row, or None.
        seed: Of the shuffle for a number of folds.

    Raises:
        InvalidData: The rows cannot be split so.
        InvalidOption: A cv that is no number, splitter or list of pairs.
    """
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    rows = len(y)
    if groups is not None and len(groups) != rows:
        raise InvalidData(f"groups must have one entry per row of x, {rows}; got {len(groups)}.")
    if isinstance(cv, int | np.integer):
        count = positive_int("cv", cv, minimum=2)
        if groups is not None:
            stratified = is_labels(y) and np.unique(y, return_counts=True)[1].min() >= count
            cv = StratifiedGroupKFold(count) if stratified else GroupKFold(count)
            _check_group_count(count, groups)
        else:
            _check_fold_count(count, y)
            kind = StratifiedKFold if is_labels(y) else KFold
            cv = kind(count, shuffle=True, random_state=seed)
    if hasattr(cv, "split") and not isinstance(cv, str):
        shown = np.zeros(rows) if isinstance(x, dict) else x
        try:
            folds = list(cv.split(shown, y, groups))
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


def _check_group_count(count: int, groups: Any) -> None:
    found = len(np.unique(np.asarray(groups)))
    if found < count:
        raise InvalidData(
            f"GroupKFold cannot split these {len(groups)} rows: {count} folds need {count} groups; "
            f"the number of groups: {found}."
        )
