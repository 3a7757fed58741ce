"""Outliers by rule: the fences of each column of numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfbig.data.tables import NUMBER, Column

# Multiples of the interquartile range beyond the quartiles, and standard deviations from the mean.
_RANGES, _DEVIATIONS = 1.5, 3.0
RULES = ("iqr", "zscore")


def find_fences(columns: Sequence[Column], rule: str) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest number of each column that is no outlier.

    A column of which more than half holds one value has an interquartile range of 0, so that "iqr" would call all
    others outliers; columns without spread get no fences.

    Args:
        columns: Of the training rows.
        rule: One of `RULES`.
    """
    fences = {}
    for column in columns:
        if column.kind != NUMBER:
            continue
        values = column.values[np.isfinite(column.values)]
        if not len(values):
            continue
        if rule == "iqr":
            first, third = np.quantile(values, (0.25, 0.75))
            reach = _RANGES * (third - first)
            low, high = first - reach, third + reach
        else:
            mean, reach = values.mean(), _DEVIATIONS * values.std()
            low, high = mean - reach, mean + reach
        if reach > 0:
            fences[column.name] = (float(low), float(high))
    return fences


def outliers_of(column: Column, fences: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """Returns which values of a column lie beyond its fences; missing ones do not."""
    if column.name not in fences:
        return np.zeros(len(column.values), bool)
    low, high = fences[column.name]
    finite = np.isfinite(column.values)
    return finite & ((column.values < low) | (column.values > high))
