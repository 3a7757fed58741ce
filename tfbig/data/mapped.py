"""Arrays that live in files (`np.memmap`): recognizing them, and handing back the memory that reading them took."""

import mmap
from typing import Any

import numpy as np


def from_file(array: np.ndarray) -> bool:
    """Whether the array, or what it is a view of, is mapped from a file."""
    return _mapping(array) is not None


def release_pages(array: np.ndarray) -> None:
    """Lets the system take back the pages of a mapped file that were read; other arrays are left alone.

    Pages that were touched count as this process's memory until then. Nothing is lost: they are read again, and
    changes to a shared mapping go to the file. A private copy-on-write mapping is left alone.
    """
    mapping = _mapping(array)
    if mapping is not None and not _copy_on_write(array) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _owners(array: Any) -> Any:
    while array is not None:
        yield array
        array = getattr(array, "base", None)


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    return next((owner for owner in _owners(array) if isinstance(owner, mmap.mmap)), None)


def _copy_on_write(array: np.ndarray) -> bool:
    modes = [getattr(owner, "mode", None) for owner in _owners(array) if isinstance(owner, np.memmap)]
    # Without NumPy's word for it the mapping may be private, and then its changes live in these pages only.
    return not any(modes) or "c" in modes
