"""Confidence intervals of K-fold means, whose training sets overlap."""

import math
from collections.abc import Sequence

import numpy as np

from tfbig.errors import InvalidOption


def corrected_interval(
    values: Sequence[float], test_per_train: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns the confidence interval of the mean of K-fold scores.

    Folds share most of their training rows, so their scores vary less than those of independent samples, and the
    usual interval is too narrow. The variance is therefore multiplied by 1/K + n_test/n_train in place of 1/K, and
    compared with Student's t with K - 1 degrees of freedom: Nadeau and Bengio, "Inference for the Generalization
    Error", Machine Learning 52, 2003 (https://doi.org/10.1023/A:1024068626366).

    Args:
        values: A score, or a difference of scores, per fold.
        test_per_train: Held-out rows per training row.
        confidence: In (0, 1).

    Returns:
        Lower and upper end; NaN with fewer than two folds.

    Raises:
        InvalidOption: The confidence is no number between 0 and 1.

    Example:
        >>> low, high = corrected_interval([0.90, 0.92, 0.94, 0.92], test_per_train=1 / 3)
        >>> round(low, 3), round(high, 3)
        (0.88, 0.96)
    """
    from scipy.stats import t

    if not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise InvalidOption(f"confidence must be a number between 0 and 1; got {confidence!r}.")
    folds = len(values)
    if folds < 2:
        return math.nan, math.nan
    mean, variance = float(np.mean(values)), float(np.var(values, ddof=1))
    reach = float(t.ppf(0.5 + confidence / 2, folds - 1)) * math.sqrt(variance * (1 / folds + test_per_train))
    return mean - reach, mean + reach
