"""Splits of the data into training and held-out rows."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from tfbig.data.checking import check_pair, take_rows
from tfbig.errors import InvalidData, InvalidOption, unknown_choice
from tfbig.options import checked, fraction


class Split(NamedTuple):
    """What `split` returns; unpacks in scikit-learn's order."""

    x_train: Any
    x_test: Any
    y_train: np.ndarray
    y_test: np.ndarray


@checked()
def split(x: Any, y: Any, *, test_size: float = 0.2, stratify: bool | str = "auto", seed: int = 0) -> Split:
    """Splits the rows once, each class in the same proportions on both sides.

    Args:
        x: Numbers of shape (rows, ...), or a dict of such arrays by the name of the model's input.
        y: Targets of shape (rows,) or (rows, outputs).
        test_size: Share of the rows to hold out, in (0, 1).
        stratify: "auto" keeps class proportions when y holds whole-number labels; True and False decide.
        seed: Of the shuffle; the same seed gives the same split.

    Returns:
        `Split(x_train, x_test, y_train, y_test)`.

    Raises:
        InvalidData: A class has too few rows to stand on both sides.

    Example:
        >>> x_train, x_test, y_train, y_test = split([[0], [1], [2], [3]], [0, 1, 0, 1], test_size=0.5)
        >>> sorted(y_test.tolist())
        [0, 1]
    """
    x, y = check_pair(x, y)
    test_size = fraction("test_size", test_size)
    if test_size == 0:
        raise InvalidOption("test_size must be above 0; got 0.")
    if not isinstance(stratify, bool) and stratify != "auto":
        raise unknown_choice("stratify", stratify, ("auto", True, False))
    labels = y if stratify is True or (stratify == "auto" and is_labels(y)) else None
    try:
        train, test = train_test_split(
            np.arange(len(y)), test_size=test_size, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise InvalidData(f"These {len(y)} rows cannot be split: {error}") from error
    return Split(take_rows(x, train), take_rows(x, test), y[train], y[test])


def is_labels(y: np.ndarray) -> bool:
    """Whether y holds one whole-number class label per row."""
    return y.ndim == 1 and y.dtype.kind in "biu"
