"""The percentile bootstrap over rows: how far a score would move with other rows of the same kind."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfbig.errors import InvalidOption
from tfbig.evaluation.measures import Answers

# A class of n rows is missing from about exp(-n) of all resamples: 2e-9 for this many.
_RARE = 20


def resamples(answers: Answers, count: int, seed: int | None) -> Iterator[np.ndarray]:
    """Yields row numbers drawn with replacement, as many as there are rows.

    Where a class is so rare that a resample could lose it, each class is drawn from for itself, so that all keep their
    number of rows. Sequences are drawn whole: their steps are not independent.

    Args:
        answers: To the rows.
        count: How many resamples.
        seed: Of the drawing; None for other rows every time.
    """
    generator = np.random.default_rng(seed)
    groups = [np.arange(len(answers.targets) // answers.steps)]
    if answers.task in ("binary", "multiclass"):
        by_class = [np.flatnonzero(answers.targets == label) for label in np.unique(answers.targets)]
        if min(map(len, by_class)) < _RARE:
            groups = by_class
    for _ in range(count):
        yield np.concatenate([generator.choice(group, len(group)) for group in groups])


def intervals(
    draw: Iterator[np.ndarray], measured: Callable[[np.ndarray], Mapping[str, float]], confidence: float
) -> dict[str, tuple[float, float]]:
    """Returns the percentile interval of each number that `measured` gives.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        draw: Row numbers, as `resamples` yields them.
        measured: From row numbers to numbers by name.
        confidence: In (0, 1).

    Example:
        >>> values = np.arange(101.0)
        >>> draw = resamples(Answers("regression", values, values, values), 500, seed=0)
        >>> low, high = intervals(draw, lambda rows: {"mean": values[rows].mean()}, 0.95)["mean"]
        >>> bool(43 < low < 46 < 54 < high < 57)
        True
    """
    found: dict[str, list[float]] = {}
    for rows in draw:
        for name, value in measured(rows).items():
            found.setdefault(name, []).append(value)
    return {name: percentile_interval(np.array(values), confidence) for name, values in found.items()}


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Returns the ends between which the middle share `confidence` of the values lies."""
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def check_confidence(confidence: Any) -> float:
    """Returns the confidence; raises `InvalidOption` unless it lies in (0, 1)."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise InvalidOption(f"confidence must be a number between 0 and 1; got {confidence!r}.")
    return float(confidence)


def check_seed(seed: Any) -> int | None:
    """Returns the seed; raises `InvalidOption` unless it is a whole number of at least 0, or None."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InvalidOption(f"seed must be a whole number of at least 0, or None; got {seed!r}.")
    return int(seed)
