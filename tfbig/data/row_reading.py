"""Rows of arrays that are mapped from files (`np.memmap`), read without mapping them into memory."""

import mmap
import os
from typing import Any, NamedTuple

import numpy as np

from tfbig.errors import UnreadableFile


class _Place(NamedTuple):
    """Where an array's rows stand in a file: the first one's position, and the bytes from each to the next."""

    path: str
    first: int
    stride: int


def read_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns `array[rows]`; from an array that is mapped from a file the rows are read, not mapped.

    A row that is touched in a mapping can bring its whole surroundings into the process's resident memory: 512
    random rows of 4 KiB took 818 MiB on ext4, which keeps its cache in pieces of up to 2 MiB. Reading takes the
    rows alone. Other arrays, and mappings that are private or whose rows are not in one piece, are indexed as usual.

    Args:
        array: Of shape (rows, ...).
        rows: Row numbers from 0, an array of integers.

    Returns:
        A new array of shape (len(rows), ...) and the same dtype.

    Raises:
        UnreadableFile: The file has become shorter than the array.
    """
    rows = np.asarray(rows)
    place = _place(array)
    if place is None or not len(rows) or rows.min() < 0 or rows.max() >= len(array):
        return array[rows]
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    size = out.nbytes // len(rows)
    into = out.reshape(-1).view(np.uint8).data
    # Rows that follow each other in the file are read at once.
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1 if place.stride == size else np.arange(1, len(rows))
    file = os.open(place.path, os.O_RDONLY)
    try:
        for start, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True):
            position = place.first + int(rows[start]) * place.stride
            _read_whole(file, into[start * size : stop * size], position, place.path)
    finally:
        os.close(file)
    return out


def _read_whole(file: int, into: memoryview, position: int, path: str) -> None:
    while into:
        count = os.preadv(file, [into], position)
        if count == 0:
            raise UnreadableFile(
                f"{path} ends before byte {position}, where the array that is mapped from it goes on."
            )
        into, position = into[count:], position + count


def _place(array: np.ndarray) -> _Place | None:
    root = _root(array)
    path = getattr(root, "filename", None)
    if root is None or path is None or getattr(root, "mode", "c") == "c" or not hasattr(os, "preadv"):
        return None  # with copy-on-write, changes live in this process's pages only
    one = array[0] if len(array) and array.ndim > 1 else None
    if (one is not None and not one.flags["C_CONTIGUOUS"]) or array.dtype.hasobject or not array.nbytes:
        return None
    apart = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return _Place(os.fspath(path), root.offset + apart, array.strides[0])


def _root(array: Any) -> Any:
    """The `np.memmap` that holds the mapping itself, of which the array is a view; None for other arrays."""
    while array is not None:
        base = getattr(array, "base", None)
        if isinstance(base, mmap.mmap):
            return array if isinstance(array, np.memmap) else None
        array = base
    return None
