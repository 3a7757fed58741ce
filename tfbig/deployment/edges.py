"""From floats to what a LiteRT file takes, and back from what it gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbig.errors import InvalidData


def to_file(values: Any, detail: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns values in the dtype of a file's input.

    Args:
        values: Numbers in the user's units, any dtype and shape.
        detail: What LiteRT says of the input.
        name: What messages call it.

    Returns:
        Quantized, where the input has a scale. Integers without one, such as token ids, stay what they are.

    Raises:
        InvalidData: They are no numbers, NaN where the file takes integers, or not whole or out of range where it
            takes them as they are.
    """
    dtype = np.dtype(detail["dtype"])
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biuf":
            given = given.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidData(
            f"Input {name!r} takes numbers; these are not, or of uneven shape: {error}."
        ) from error
    scale, zero_point = detail["quantization"]
    if dtype.kind in "iu" and scale:
        given = _quantized(given, dtype, scale, zero_point, name)
    elif dtype.kind in "iub" and given.dtype != dtype:
        given = _whole(given, dtype, name)
    return np.ascontiguousarray(given, dtype)


def to_float(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Returns a file's output as float32 where it stands for real numbers; class ids and booleans stay."""
    scale, zero_point = detail["quantization"]
    if values.dtype.kind in "iu" and scale:
        return (values.astype(np.float32) - zero_point) * np.float32(scale)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _quantized(values: np.ndarray, dtype: np.dtype, scale: float, zero_point: int, name: str) -> np.ndarray:
    steps = np.round(values / np.float32(scale)) + zero_point
    if np.isnan(steps).any():
        raise InvalidData(
            f"Input {name!r} holds NaN, which the {dtype} that this file takes cannot stand for."
        )
    limits = np.iinfo(dtype)
    return np.clip(steps, limits.min, limits.max)


def _whole(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """The values, if casting them to integers or booleans changes none."""
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, which then differs
        cast = values.astype(dtype)
    changed = cast != values
    if changed.any():
        raise InvalidData(f"Input {name!r} takes {dtype} values as they are; got {values[changed].flat[0]}.")
    return cast
