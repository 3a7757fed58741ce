"""Rows for calibration and for the proof: checked against what the model takes, and sampled."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbig.data.checking import check_array, rows_fit
from tfbig.errors import InvalidData

InputShapes = Mapping[str, tuple[tuple[int | None, ...], str]]


def check_calibration(data: Any, inputs: InputShapes, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns up to `rows` of the given rows, by input name, in the model's dtypes.

    Args:
        data: An array of shape (rows, ...) for one input; a dict by input name, or a list, for several.
        inputs: Each input's name with its shape (without the batch axis) and dtype.
        rows: How many rows to keep; they are drawn without replacement.
        seed: Of the draw.

    Returns:
        Input name to array.

    Raises:
        InvalidData: An input is missing or unknown; a shape or dtype does not fit; values are NaN or infinite.
    """
    columns = {
        name: _check_column(name, values, *inputs[name]) for name, values in _by_name(data, inputs).items()
    }
    lengths = {name: len(values) for name, values in columns.items()}
    total = next(iter(lengths.values()))
    if set(lengths.values()) != {total}:
        raise InvalidData(f"Calibration inputs must have the same number of rows; got {lengths}.")
    if total > rows:
        kept = np.sort(np.random.default_rng(seed).choice(total, rows, replace=False))
        columns = {name: values[kept] for name, values in columns.items()}
    return columns


def synthetic_rows(
    inputs: InputShapes,
    rows: int,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float] | None] | None = None,
) -> dict[str, np.ndarray]:
    """Returns random rows for a model whose user gave none: normal floats, and zeros for whole-number inputs.

    Args:
        inputs: Each input's name with its shape (without the batch axis) and dtype.
        rows: How many.
        seed: Of the draw.
        ranges: Smallest and largest value of inputs whose range is known: these are drawn evenly from it, whole
            numbers below its end.
    """
    generator = np.random.default_rng(seed)
    columns = {}
    for name, (shape, dtype) in inputs.items():
        full = (rows, *(1 if size is None else size for size in shape))
        known = (ranges or {}).get(name)
        is_float = np.dtype(dtype).kind == "f"
        if known is not None:
            draw = generator.uniform(*known, size=full)
            draw = draw if is_float else np.floor(draw)
        else:
            draw = generator.normal(size=full) if is_float else np.zeros(full)
        columns[name] = draw.astype(dtype)
    return columns


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


def _check_column(name: str, values: Any, shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
    array = check_array(values, "calibration")
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
