"""Splits of the data into training and held-out rows: by class, by group or by time."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from tfbig.data.checking import row_count, take_rows
from tfbig.data.labels import is_missing
from tfbig.data.mapped import from_file
from tfbig.errors import InvalidData, InvalidOption, unknown_choice
from tfbig.options import checked, fraction


class Split(NamedTuple):
    """What `split` returns; unpacks in scikit-learn's order."""

    x_train: Any
    x_test: Any
    y_train: np.ndarray
    y_test: np.ndarray


@checked()
def split(
    x: Any,
    y: Any,
    *,
    test_size: float = 0.2,
    stratify: bool | str = "auto",
    groups: Any = None,
    time: Any = None,
    seed: int = 0,
) -> Split:
    """Splits the rows once: each class in the same proportions on both sides, or whole groups, or past from future.

    Rows are taken as they are: text, dates and missing values too, so that what `clean` learns can be learned from the
    training rows alone.

    Args:
        x: Rows of shape (rows, ...), a pandas frame, or a dict of arrays by the name of the model's input.
        y: Targets of shape (rows,) or (rows, outputs).
        test_size: Share of the rows to hold out, in (0, 1); of the groups, where there are groups.
        stratify: "auto" keeps class proportions when y holds text or whole-number labels, and there are neither groups
            nor times; True and False decide.
        groups: What each row belongs to, such as a patient: no group stands on both sides. Shape (rows,).
        time: When each row was, as numbers or dates of shape (rows,), or True for rows that stand in order of time: the
            latest are held out, and none of them is of the same time as a training row. Both sides come in order.
        seed: Of the shuffle; the same seed gives the same split. Nothing is shuffled by time.

    Returns:
        `Split(x_train, x_test, y_train, y_test)`. Frames stay frames; arrays of float64 become float32.

    Raises:
        InvalidData: A class has too few rows to stand on both sides, there are fewer than two groups or times, or
            lengths differ.
        InvalidOption: Options are out of range or at odds.

    Example:
        >>> x_train, x_test, y_train, y_test = split([[0], [1], [2], [3]], [0, 1, 0, 1], test_size=0.5)
        >>> sorted(y_test.tolist())
        [0, 1]
        >>> split([[0], [1], [2], [3]], [0, 1, 0, 1], time=[3, 1, 2, 0], test_size=0.25).x_test.tolist()
        [[0]]
    """
    x, y = _rows(x, "x"), _targets(y)
    _same_length("x and y", row_count(x), len(y))
    test_size = fraction("test_size", test_size)
    if test_size == 0:
        raise InvalidOption("test_size must be above 0; got 0.")
    if not isinstance(stratify, bool) and stratify != "auto":
        raise unknown_choice("stratify", stratify, ("auto", True, False))
    if groups is not None and time is not None:
        raise InvalidOption("Rows are split by groups or by time; got both.")
    if stratify is True and (groups is not None or time is not None):
        raise InvalidOption("Rows split by groups or by time cannot be stratified: leave stratify out.")
    if time is not None:
        train, test = _by_time(time, len(y), test_size)
    elif groups is not None:
        train, test = _by_group(groups, len(y), test_size, seed)
    else:
        train, test = _by_class(y, test_size, stratify, seed)
    return Split(_taken(x, train), _taken(x, test), y[train], y[test])


def is_labels(y: np.ndarray) -> bool:
    """Whether y holds one whole-number class label per row."""
    return y.ndim == 1 and y.dtype.kind in "biu"


def _by_class(
    y: np.ndarray, test_size: float, stratify: bool | str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    is_text = y.ndim == 1 and y.dtype.kind == "O" and any(isinstance(label, str) for label in y)
    labels = y if stratify is True or (stratify == "auto" and (is_labels(y) or is_text)) else None
    if labels is not None and is_text:
        # `clean` drops rows without a label, so they may stand on either side: as those of the largest class do.
        present = Counter(str(label) for label in labels if not is_missing(label))
        largest = present.most_common(1)[0][0]
        labels = np.array([largest if is_missing(label) else str(label) for label in labels])
    try:
        return train_test_split(np.arange(len(y)), test_size=test_size, stratify=labels, random_state=seed)
    except ValueError as error:
        raise InvalidData(f"These {len(y)} rows cannot be split: {error}") from error


def _by_group(groups: Any, rows: int, test_size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    groups = _one_a_row("groups", groups, rows)
    if any(map(is_missing, groups.tolist())):
        raise InvalidData("groups must say of each row what it belongs to; some values are missing.")
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_size, random_state=seed)
    try:
        # As text: NumPy cannot sort the numbers and names that groups may mix.
        return next(splitter.split(np.arange(rows), groups=[repr(group) for group in groups.tolist()]))
    except ValueError as error:
        raise InvalidData(f"These groups cannot be split: {error}") from error


def _by_time(time: Any, rows: int, test_size: float) -> tuple[np.ndarray, np.ndarray]:
    times = np.arange(rows) if time is True else _one_a_row("time", time, rows)
    if times.dtype.kind not in "iufM":
        raise InvalidData(
            f"time must hold numbers or dates (pandas.to_datetime makes them of text); got {times.dtype} values such "
            f"as {times[0]!r}."
        )
    if times.dtype.kind in "fM" and any((times != times).tolist()):
        raise InvalidData("time must say of each row when it was; some values are missing.")
    order = np.argsort(times, kind="stable")
    first = rows - max(1, round(rows * test_size))
    # Rows of one moment stay together, on the side where more of them would be.
    moment = times[order] == times[order[first]]
    begin, end = int(moment.argmax()), int(rows - moment[::-1].argmax())
    cut = begin if begin > 0 and (first - begin <= end - first or end == rows) else end
    if not 0 < cut < rows:
        raise InvalidData("Rows of one time cannot be split by time: there must be earlier and later ones.")
    return order[:cut], order[cut:]


def _rows(x: Any, name: str) -> Any:
    if isinstance(x, Mapping):
        if not x:
            raise InvalidData(f"{name} must hold at least one input; got an empty dict.")
        parts = {str(key): _rows(part, f"{name}[{key!r}]") for key, part in x.items()}
        for key, part in parts.items():
            _same_length(f"{name}[{key!r}] and the other inputs", len(part), row_count(parts))
        return parts
    if hasattr(x, "iloc"):
        return x
    try:
        array = np.asarray(x)
        if array.dtype.kind in "US" and not isinstance(x, np.ndarray):
            return np.array(x, object)  # NumPy would have turned numbers beside text into text
    except ValueError as error:
        raise InvalidData(
            f"{name} must be a rectangular array; its rows differ in shape ({error})."
        ) from error
    if array.ndim == 0 or array.size == 0:
        raise InvalidData(f"{name} must hold at least one row; got an empty array of shape {array.shape}.")
    return array.astype(np.float32) if array.dtype == np.float64 and not from_file(array) else array


def _targets(y: Any) -> np.ndarray:
    if y is None:
        raise InvalidData("y is missing: x is an array, so its targets must be given too.")
    y = _rows(y.to_numpy() if hasattr(y, "to_numpy") else y, "y")
    return y.astype(object) if y.dtype.kind in "US" else y


def _taken(x: Any, rows: np.ndarray) -> Any:
    return x.iloc[rows] if hasattr(x, "iloc") else take_rows(x, rows)


def _one_a_row(name: str, values: Any, rows: int) -> np.ndarray:
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.shape != (rows,):
        raise InvalidData(f"{name} must hold one value for each of the {rows} rows; got shape {array.shape}.")
    return array


def _same_length(what: str, first: int, second: int) -> None:
    if first != second:
        raise InvalidData(
            f"{what} must have one row per example each; got {first} rows of x and {second} of y."
        )
