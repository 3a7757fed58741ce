"""Row by row cleaning: nothing here is fitted, so it may come before the split without leaking."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tfbig.errors import InvalidData
from tfbig.records import Record


@dataclass(frozen=True)
class CleaningReport(Record):
    """What `clean` found and did.

    Attributes:
        rows_in: Rows given.
        rows_out: Rows kept.
        missing_rows: Rows dropped because a value was missing (NaN or None).
        infinite_rows: Rows dropped because a value was infinite (and none missing).
        duplicate_rows: Rows dropped because an equal row, with an equal target, came before.
        constant_columns: Columns of a two-dimensional x that hold one value only. They are kept and named.
        classes: For labels that were text or did not run from 0: the label that each number stands for.
    """

    rows_in: int
    rows_out: int
    missing_rows: int
    infinite_rows: int
    duplicate_rows: int
    constant_columns: tuple[int, ...]
    classes: tuple[Any, ...] | None

    def __str__(self) -> str:
        dropped = [
            f"{count} {what}"
            for count, what in (
                (self.missing_rows, "missing"),
                (self.infinite_rows, "infinite"),
                (self.duplicate_rows, "duplicate"),
            )
            if count
        ]
        text = f"{self.rows_out} of {self.rows_in} rows kept"
        return text + (f" (dropped: {', '.join(dropped)})" if dropped else "")


class Cleaned(NamedTuple):
    """What `clean` returns; unpacks as `x, y, report`."""

    x: np.ndarray
    y: np.ndarray
    report: CleaningReport


def clean(x: Any, y: Any) -> Cleaned:
    """Drops rows that cannot be learned from, and turns labels into numbers from 0.

    Each decision looks at one row (or at an equal earlier row), never at statistics of the data, so cleaning
    before the split leaks nothing into the training set.

    Args:
        x: Numbers of shape (rows, ...); arrays, lists or pandas. May hold NaN, None and infinities.
        y: Targets of shape (rows,) or (rows, outputs). Text labels, and whole-number labels that do not run
            from 0, become 0 … classes - 1 in sorted order; `report.classes` maps them back.

    Returns:
        `Cleaned(x, y, report)`: float32 x, y, and a `CleaningReport`.

    Raises:
        InvalidData: x holds text, lengths differ, or no row is left.

    Example:
        >>> x, y, report = clean([[1.0, 2.0], [1.0, 2.0], [float("nan"), 0.0]], ["cat", "cat", "dog"])
        >>> print(report)
        1 of 3 rows kept (dropped: 1 missing, 1 duplicate)
    """
    x, y = _numbers(x), _targets(y)
    if len(x) != len(y):
        raise InvalidData(
            f"x and y must have one row per example each; got {len(x)} rows of x and {len(y)} of y."
        )
    missing = _rows_where(np.isnan, x) | _missing_targets(y)
    infinite = (_rows_where(np.isinf, x) | _infinite_targets(y)) & ~missing
    kept = np.flatnonzero(~missing & ~infinite)
    duplicate = _repeated_rows(x[kept], y[kept])
    kept = kept[~duplicate]
    if not len(kept):
        raise InvalidData(
            f"No row is left of {len(x)}: {int(missing.sum())} had missing and {int(infinite.sum())} infinite "
            "values. Fill them in (scikit-learn's SimpleImputer) before cleaning."
        )
    rows_in = len(x)
    x, (y, classes) = x[kept], _encoded(y[kept])
    constant = tuple(int(i) for i in np.flatnonzero(np.ptp(x, axis=0) == 0)) if x.ndim == 2 else ()
    report = CleaningReport(
        rows_in=rows_in,
        rows_out=len(x),
        missing_rows=int(missing.sum()),
        infinite_rows=int(infinite.sum()),
        duplicate_rows=int(duplicate.sum()),
        constant_columns=constant,
        classes=classes,
    )
    return Cleaned(x, y, report)


def _numbers(x: Any) -> np.ndarray:
    try:
        # pandas.NA is no number; NaN is what it stands for.
        array = x.to_numpy(na_value=np.nan) if hasattr(x, "to_numpy") else np.asarray(x)
    except ValueError as error:
        raise InvalidData(f"x must be a rectangular array; its rows differ in shape ({error}).") from error
    try:
        if array.dtype.kind in "US" or (
            array.dtype == object and any(isinstance(v, str) for v in array.flat)
        ):
            raise ValueError("text")
        array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidData(
            f"x must hold numbers; got {array.dtype} values ({error}). Encode text columns as numbers first, "
            "for example with scikit-learn's OrdinalEncoder."
        ) from error
    if array.ndim < 2:
        raise InvalidData(
            f"x must have rows and columns; got shape {array.shape}. For one column: x[:, None]."
        )
    return array


def _targets(y: Any) -> np.ndarray:
    if y is None:
        raise InvalidData("y is missing: every row of x needs its target.")
    array = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if array.dtype.kind == "U" and not hasattr(y, "dtype"):
        array = np.asarray(y, object)  # NumPy would turn NaN into the text "nan", and 1 into "1"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array


def _rows_where(test: Any, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return np.zeros(len(array), bool)
    return test(array).any(axis=tuple(range(1, array.ndim)))


def _missing_targets(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind != "O":
        return _rows_where(np.isnan, y)
    flat = y.reshape(len(y), -1)
    return np.array([any(map(_is_missing, row)) for row in flat], bool)


def _is_missing(value: Any) -> bool:
    # Only NaN differs from itself; None is what lists use for missing text.
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA does not say whether it differs
        return True


def _infinite_targets(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind != "O":
        return _rows_where(np.isinf, y)
    flat = y.reshape(len(y), -1)
    return np.array([any(isinstance(v, float) and abs(v) == np.inf for v in row) for row in flat], bool)


def _repeated_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    seen: set[tuple[bytes, Any]] = set()
    repeated = np.zeros(len(x), bool)
    for i, (features, target) in enumerate(zip(x, y, strict=True)):
        key = (features.tobytes(), target.tobytes() if isinstance(target, np.ndarray) else repr(target))
        repeated[i] = key in seen
        seen.add(key)
    return repeated


def _encoded(y: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...] | None]:
    """Labels as 0 … n - 1 with what they stood for; numbers that are no labels as they are."""
    if y.dtype == object and not any(isinstance(value, str | bytes) for value in y.flat):
        y = np.array(y.tolist())  # Objects only because a value was missing: numbers again without it.
    is_text = y.dtype.kind in "OUS"
    is_whole = y.dtype.kind in "biu" and y.ndim == 1
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
