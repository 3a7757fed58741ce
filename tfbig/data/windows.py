"""Windows over a time series, each with what comes after it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfbig.data.checking import check_array
from tfbig.errors import InvalidData, InvalidOption
from tfbig.options import checked, positive_int


class Windows(NamedTuple):
    """What `windows` returns; unpacks as `x, y`."""

    x: np.ndarray
    y: np.ndarray


@checked()
def windows(
    series: Any,
    *,
    length: int,
    horizon: int = 1,
    gap: int = 0,
    stride: int = 1,
    target: int | Sequence[int] | None = None,
    y: Any = None,
) -> Windows:
    """Cuts a series into windows of some steps, each with the steps that follow it as target.

    Split the series by time first and cut each side by itself, so that no held-out step is in a training window.
    Several series are cut one by one, so that no window spans two, and put together by `numpy.concatenate`.

    Args:
        series: Numbers of shape (steps,) or (steps, features), in order of time and evenly spaced.
        length: Steps of a window.
        horizon: Steps to predict.
        gap: Steps between a window and the first that is to be predicted.
        stride: Steps from the beginning of a window to that of the next.
        target: The feature to predict, or several; None for all.
        y: What to predict instead, if it is not in the series: shape (steps,) or (steps, targets). With `horizon=0`,
            a window's target is the y of its last step, as for labels of what a window shows.

    Returns:
        `Windows(x, y)`: x of shape (windows, length, features); y of shape (windows, horizon, targets), without its
        second axis where `horizon` is 0 or 1, and without its third where one target is given as a number or as a
        series of shape (steps,). Both are read-only views of the series, which take no memory of their own.

    Raises:
        InvalidData: The series is shorter than a window and its horizon, or holds text, NaN or infinite values.
        InvalidOption: A size makes no sense, or there is no such feature.

    Example:
        >>> x, y = windows([0.0, 1.0, 2.0, 3.0, 4.0], length=3)
        >>> x[..., 0].tolist(), y.tolist()
        ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [3.0, 4.0])
    """
    length, stride = positive_int("length", length), positive_int("stride", stride)
    horizon, gap = positive_int("horizon", horizon, minimum=0), positive_int("gap", gap, minimum=0)
    values = check_array(series, "series")
    if values.ndim not in (1, 2):
        raise InvalidData(f"series must have shape (steps,) or (steps, features); got {values.shape}.")
    features = values[:, None] if values.ndim == 1 else values
    if horizon == 0 and (y is None or gap):
        raise InvalidOption("horizon=0 takes the y of each window's last step: pass y=, and no gap.")
    if y is not None and target is not None:
        raise InvalidOption("What to predict is a feature of the series or y; got both target= and y=.")
    targets = _targets_of(values, target) if y is None else check_array(y, "y")
    if len(targets) != len(features):
        raise InvalidData(f"y must hold one row for each of the {len(features)} steps; got {len(targets)}.")
    last = len(features) - length - gap - horizon
    if last < 0:
        raise InvalidData(
            f"A window of {length} steps, a gap of {gap} and a horizon of {horizon} need {length + gap + horizon} "
            f"steps; the series has {len(features)}."
        )
    x = _views(features, length)[: last + 1 : stride]
    if horizon == 0:
        ends = targets[length - 1 :][: last + 1 : stride]
        return Windows(x, ends)
    ahead = _views(targets, horizon)[length + gap :][: last + 1 : stride]
    return Windows(x, ahead[:, 0] if horizon == 1 else ahead)


def _targets_of(values: np.ndarray, target: int | Sequence[int] | None) -> np.ndarray:
    if target is None:
        return values
    width = values.shape[1] if values.ndim == 2 else 1
    for column in [target] if np.ndim(target) == 0 else target:  # type: ignore[union-attr]
        if not isinstance(column, int | np.integer) or not 0 <= column < width:
            raise InvalidOption(f"target must be a feature of the series, 0 to {width - 1}; got {column!r}.")
    return values if values.ndim == 1 else values[:, target]


def _views(values: np.ndarray, length: int) -> np.ndarray:
    """All windows of an array over its first axis, (windows, length, ...), without copying."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, length, axis=0), -1, 1)
