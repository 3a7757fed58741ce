"""Checks of x and y before work starts. Needs NumPy only."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.data.mapped import from_file, release_pages
from tfbig.errors import InvalidData

# Finite-ness is checked in slices of about this many values, so that a memory-mapped array stays on disk.
_SLICE_VALUES = 1 << 24


def is_stream(x: Any) -> bool:
    """Whether `x` yields batches itself (tf.data, PyDataset, a generator) instead of being an array."""
    is_generator = hasattr(x, "__next__")
    is_dataset = hasattr(x, "element_spec") or hasattr(x, "num_batches")
    return is_generator or is_dataset


def check_array(x: Any, name: str = "x", *, missing: bool = False) -> np.ndarray:
    """Returns `x` as a numeric array of at least one row, all values finite.

    Args:
        x: An array, nested lists, a pandas frame or series, or an eager tensor; shape (rows, ...).
        name: What messages call it.
        missing: Whether values may be missing (NaN), as for a model of which `takes_missing` is true.

    Returns:
        The array. float64 becomes float32, which is what Keras trains in, but for arrays mapped from a file, which are
        not copied; other dtypes stay.

    Raises:
        InvalidData: Text where numbers belong, no rows, rows of different lengths, NaN or infinite values.
    """
    array = _to_array(x, name)
    if array.ndim == 0 or len(array) == 0 or array.size == 0:
        raise InvalidData(f"{name} must hold at least one row; got an empty array of shape {array.shape}.")
    if array.dtype == np.float64 and not from_file(array):
        array = array.astype(np.float32)
    _check_finite(array, name, missing)
    return array


def takes_missing(model: Any) -> bool:
    """Whether rows of a model may hold NaN: it says so, or a layer in it, such as `tfbig.encoder`, fills them in.

    Where there are several inputs, it is said of all of them.
    """
    return bool(getattr(model, "takes_missing", False)) or any(
        map(takes_missing, getattr(model, "layers", ()))
    )


def check_filled(model: Any, x: Any, name: str = "x") -> None:
    """Raises `InvalidData` where rows have missing values (NaN) and nothing in the Keras model fills them in."""
    if takes_missing(model):
        return
    for key, part in x.items() if isinstance(x, Mapping) else [(None, x)]:
        _check_finite(part, name if key is None else f"{name}[{key!r}]")


def rows_fit(wanted: Sequence[int | None], array: np.ndarray) -> bool:
    """Whether the rows of `array` have the shape `wanted`, in which None and -1 stand for any size."""
    return array.ndim == len(wanted) + 1 and all(
        want in (None, -1, got) for want, got in zip(wanted, array.shape[1:], strict=True)
    )


def check_pair(
    x: Any, y: Any, x_name: str = "x", y_name: str = "y", *, missing: bool = False
) -> tuple[Any, np.ndarray]:
    """Returns `x` and `y` checked as by `check_array`, and of the same number of rows; x may be a dict of inputs."""
    if y is None:
        raise InvalidData(f"{y_name} is missing: {x_name} is an array, so its targets must be given too.")
    if isinstance(x, Mapping):
        if not x:
            raise InvalidData(f"{x_name} must hold at least one input; got an empty dict.")
        parts = {
            str(name): check_pair(part, y, f"{x_name}[{name!r}]", y_name, missing=missing)[0]
            for name, part in x.items()
        }
        return parts, check_array(y, y_name)
    x, y = check_array(x, x_name, missing=missing), check_array(y, y_name)
    if len(x) != len(y):
        raise InvalidData(
            f"{x_name} and {y_name} must have one row per example each; got {len(x)} rows of {x_name} and "
            f"{len(y)} of {y_name}."
        )
    return x, y


def row_count(x: Any) -> int:
    """Returns the rows of an array, or of each array in a dict of inputs."""
    return len(next(iter(x.values()))) if isinstance(x, Mapping) else len(x)


def take_rows(x: Any, rows: Any) -> Any:
    """Returns those rows of an array, or of each array in a dict of inputs.

    Example:
        >>> take_rows({"a": np.arange(4), "b": np.zeros((4, 2))}, slice(2))["a"].tolist()
        [0, 1]
    """
    return {name: part[rows] for name, part in x.items()} if isinstance(x, Mapping) else x[rows]


def _to_array(x: Any, name: str) -> np.ndarray:
    if hasattr(x, "to_numpy"):  # pandas
        x = x.to_numpy()
    if isinstance(x, Mapping):
        raise InvalidData(
            f"{name} must be one array; got a dict of {', '.join(map(repr, x))}. For a model of several outputs pass a "
            "stream of pairs (inputs, targets), such as a tf.data.Dataset."
        )
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InvalidData(
            f"{name} must be a rectangular array; its rows differ in shape ({error})."
        ) from error
    if array.dtype == object and not any(isinstance(value, str) for value in array.flat):
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        example = array.flat[0] if array.size else ""
        found = next((value for value in array.flat if isinstance(value, str)), example)
        raise InvalidData(
            f"{name} must hold numbers; got {array.dtype} values such as {found!r}. Encode text as numbers "
            "first: tfbig.clean(x, y) does it for labels."
        )
    return array


def _check_finite(array: np.ndarray, name: str, missing: bool = False) -> None:
    if array.dtype.kind != "f":
        return
    rows_per_slice = max(1, _SLICE_VALUES * len(array) // array.size)
    bad, first = 0, None
    for start in range(0, len(array), rows_per_slice):
        part = array[start : start + rows_per_slice]
        part = np.isinf(part) if missing else ~np.isfinite(part)
        if part.any():
            bad += int(part.sum())
            if first is None:
                position = np.argwhere(part)[0]
                first = (start + int(position[0]), *map(int, position[1:]))
        release_pages(array)
    if bad:
        raise InvalidData(
            f"{name} must be finite; got {bad} {'' if missing else 'NaN or '}infinite value{'s' * (bad > 1)}, the "
            f"first at index {first}. tfbig.clean(x, y) drops such rows"
            f"{'.' if missing else '; a model that begins with tfbig.encoder takes NaN.'}"
        )
