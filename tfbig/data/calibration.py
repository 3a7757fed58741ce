"""Rows for calibration and for the proof: checked against what the model takes, and sampled."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfbig.data.checking import check_array, rows_fit
from tfbig.errors import InvalidData

InputShapes = Mapping[str, tuple[tuple[int | None, ...], str]]


def check_calibration(
    data: Any, inputs: InputShapes, rows: int, seed: int = 0, missing: bool = False
) -> dict[str, np.ndarray]:
    """Returns up to `rows` of the given rows, by input name, in the model's dtypes.

    Args:
        data: An array of shape (rows, ...) for one input; a dict by input name, or a list, for several. Or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or iterator that gives such, in batches or row by row, alone
            or as the first of a tuple; of these the first `rows` are taken.
        inputs: Each input's name with its shape (without the batch axis) and dtype.
        rows: How many rows to keep; they are drawn without replacement.
        seed: Of the draw.
        missing: Whether values may be missing (NaN).

    Returns:
        Input name to array.

    Raises:
        InvalidData: An input is missing or unknown; a shape or dtype does not fit; values are NaN or infinite.
    """
    given = _first_rows(data, inputs, rows) if _is_stream(data) else _by_name(data, inputs)
    columns = {name: _check_column(name, values, *inputs[name], missing) for name, values in given.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    total = next(iter(lengths.values()))
    if set(lengths.values()) != {total}:
        raise InvalidData(f"Calibration inputs must have the same number of rows; got {lengths}.")
    if total > rows:
        kept = np.sort(np.random.default_rng(seed).choice(total, rows, replace=False))
        columns = {name: values[kept] for name, values in columns.items()}
    return columns


def stratified_sample(
    columns: Mapping[str, np.ndarray], rows: int, classes: np.ndarray | None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns so many rows, drawn without replacement, in which each class has its share.

    Args:
        columns: Input name to array.
        rows: How many to keep; fewer than there are.
        classes: A class for each row, or None for a plain draw.
        seed: Of the draw.
    """
    from sklearn.utils import resample

    total = len(next(iter(columns.values())))
    kept = resample(np.arange(total), replace=False, n_samples=rows, stratify=classes, random_state=seed)
    kept = np.sort(kept)
    return {name: values[kept] for name, values in columns.items()}


def check_ranges(columns: Mapping[str, np.ndarray]) -> None:
    """Checks that rows of calibration tell the range of each input.

    Raises:
        InvalidData: All values of an input of floats are the same.
    """
    for name, values in columns.items():
        if values.dtype.kind == "f" and values.size > 1 and np.ptp(values) == 0:
            raise InvalidData(
                f"All calibration values of input {name!r} are {values.flat[0]!r}: they tell no range of it, nor of "
                "the activations. Pass rows as they look in use."
            )


def _is_stream(data: Any) -> bool:
    from tfbig.backend import keras

    return (
        isinstance(data, keras.utils.PyDataset)
        or hasattr(data, "as_numpy_iterator")  # tf.data
        or hasattr(data, "__next__")
    )


def _first_rows(data: Any, inputs: InputShapes, rows: int) -> dict[str, np.ndarray]:
    """The first rows of a stream, by input name; the rest of it is not read."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in inputs}
    count = 0
    for item in _items(data):
        x = item[0] if isinstance(item, tuple) else item
        for name, values in _by_name(x, inputs).items():
            array = np.asarray(values)
            single = array.ndim == len(inputs[name][0])
            parts[name].append(array[None] if single else array)
        count += len(next(iter(parts.values()))[-1])
        if count >= rows:
            break
    if not count:
        raise InvalidData("calibration gave no rows: the stream is empty, or was read to its end before.")
    return {name: np.concatenate(arrays)[:rows] for name, arrays in parts.items()}


def _items(data: Any) -> Iterator[Any]:
    if hasattr(data, "as_numpy_iterator"):
        yield from data.as_numpy_iterator()
    elif hasattr(data, "__next__"):
        yield from data
    else:
        yield from (data[place] for place in range(len(data)))


def _by_name(data: Any, inputs: InputShapes) -> dict[str, Any]:
    if isinstance(data, Mapping):
        given = dict(data)
    elif len(inputs) > 1:
        if not isinstance(data, list | tuple) or len(data) != len(inputs):
            raise InvalidData(
                f"The model has {len(inputs)} inputs, {list(inputs)}: calibration must be a dict by these names "
                f"or a list in this order; got {type(data).__name__}."
            )
        given = dict(zip(inputs, data, strict=True))
    else:
        given = {next(iter(inputs)): data}
    if set(given) != set(inputs):
        raise InvalidData(
            f"Calibration must name the inputs {sorted(inputs)}; got {sorted(map(str, given))}."
        )
    return {name: given[name] for name in inputs}


def _check_column(
    name: str, values: Any, shape: tuple[int | None, ...], dtype: str, missing: bool
) -> np.ndarray:
    array = check_array(values, "calibration", missing=missing)
    if not rows_fit(shape, array):
        raise InvalidData(
            f"Calibration rows for input {name!r} must have shape {shape}; got {array.shape[1:]} "
            f"(an array of shape {array.shape})."
        )
    is_float, wants_float = array.dtype.kind == "f", np.dtype(dtype).kind == "f"
    if is_float != wants_float:
        raise InvalidData(
            f"Calibration rows for input {name!r} must be {dtype}, as the model takes them; got {array.dtype}. "
            "Pass rows as they look in use: same units, same preprocessing."
        )
    if not wants_float:
        cast = array.astype(dtype)
        if not np.array_equal(cast, array):
            raise InvalidData(
                f"Calibration rows for input {name!r} do not fit into {dtype}, which the model takes."
            )
        return cast
    return array.astype(dtype)
