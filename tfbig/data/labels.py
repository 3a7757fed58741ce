"""Targets as arrays, and labels as whole numbers from 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbig.errors import InvalidData


def read_targets(y: Any) -> np.ndarray:
    """Returns targets as an array of shape (rows,) or (rows, outputs), with missing values as they were given."""
    if y is None:
        raise InvalidData("y is missing: every row of x needs its target.")
    array = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if array.dtype.kind == "U" and not hasattr(y, "dtype"):
        array = np.asarray(y, object)  # NumPy would turn NaN into the text "nan", and 1 into "1"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array


def missing_targets(y: np.ndarray) -> np.ndarray:
    """Returns which rows lack a target, as bools."""
    if y.dtype.kind != "O":
        return rows_where(np.isnan, y)
    flat = y.reshape(len(y), -1)
    return np.array([any(map(is_missing, row)) for row in flat], bool)


def infinite_targets(y: np.ndarray) -> np.ndarray:
    """Returns which rows have an infinite target, as bools."""
    if y.dtype.kind != "O":
        return rows_where(np.isinf, y)
    flat = y.reshape(len(y), -1)
    return np.array([any(isinstance(v, float) and abs(v) == np.inf for v in row) for row in flat], bool)


def rows_where(test: Any, array: np.ndarray) -> np.ndarray:
    """Returns the rows of an array of floats in which any value passes the test."""
    if array.dtype.kind != "f":
        return np.zeros(len(array), bool)
    return test(array).any(axis=tuple(range(1, array.ndim)))


def encode_labels(
    y: np.ndarray, known: Sequence[Any] | None = None
) -> tuple[np.ndarray, tuple[Any, ...] | None]:
    """Returns labels as 0 … n - 1 with what they stand for; numbers that are no labels, as they are, and None.

    Args:
        y: Targets, none missing.
        known: The labels that 0 … n - 1 stand for already, from the training rows; () where those were numbers that
            stay what they are.

    Raises:
        InvalidData: Text mixed with numbers, text in several columns, or a label that is not among the known ones.
    """
    if y.dtype == object and not any(isinstance(value, str | bytes) for value in y.flat):
        y = np.array(y.tolist())  # Objects only because a value was missing: numbers again without it.
    if known:
        return _encode_by(known, y), tuple(known)
    is_text = y.dtype.kind in "OUS"
    is_whole = y.dtype.kind in "biu" and y.ndim == 1
    if known is not None and is_text:
        raise InvalidData(
            "y holds text, and the targets of the training rows were numbers. Give the same targets."
        )
    if known is not None and is_whole:
        return y.astype(np.int64), None
    if not is_text and not is_whole:
        return y.astype(np.float32) if y.dtype == np.float64 else y, None
    try:
        classes, codes = np.unique(y, return_inverse=True)
    except TypeError as error:
        raise InvalidData(f"y mixes text and numbers: {error}. Give every label one type.") from error
    if y.ndim != 1:
        raise InvalidData(f"Text labels must have shape (rows,); got shape {y.shape}.")
    unchanged = is_whole and np.array_equal(classes, np.arange(len(classes)))
    return codes.astype(np.int64), None if unchanged else tuple(classes.tolist())


def _encode_by(known: Sequence[Any], y: np.ndarray) -> np.ndarray:
    codes = {label: code for code, label in enumerate(known)}
    if y.ndim != 1:
        raise InvalidData(f"Labels must have shape (rows,); got shape {y.shape}.")
    unknown = sorted({repr(label) for label in y.tolist() if label not in codes})
    if unknown:
        listed = ", ".join(map(repr, known))
        raise InvalidData(
            f"y holds labels that the training rows did not: {', '.join(unknown[:5])}. The model knows {listed}. Drop "
            "these rows, or train on rows that have such labels."
        )
    return np.array([codes[label] for label in y.tolist()], np.int64)


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas.NA."""
    # Only NaN differs from itself; None is what lists use for missing text.
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA does not say whether it differs
        return True
