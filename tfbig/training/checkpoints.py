"""Checkpoint files: whole or not at all, known to be intact when read, and of this training or refused."""

import contextlib
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.data.mapped import from_file
from tfbig.data.row_reading import read_rows
from tfbig.errors import InvalidOption, OutputNotWritable
from tfbig.files import sync_folder

# The newest, and the one before it, should the newest turn out to be torn.
_KEPT = 2
_NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.npz")
_FACTS = "facts"
# Arrays in memory up to here are known by every row; of larger ones, so much is read.
_WHOLE_BYTES, _READ_BYTES = 256 << 20, 32 << 20
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """What a training was at one moment.

    Attributes:
        facts: Plain values: the position, the history, what identifies the training.
        arrays: Variables by name.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


class CheckpointFolder:
    """A folder of checkpoints of one training. A file's name holds its content's digest, so that damage shows."""

    def __init__(self, path: str | os.PathLike[str]):
        """Makes the folder where it does not exist.

        Raises:
            OutputNotWritable: The path is a file, or the folder cannot be made.
        """
        self.path = Path(path)
        self._damaged: set[Path] = set()
        if self.path.exists() and not self.path.is_dir():
            raise OutputNotWritable(f"checkpoint_dir must be a folder; {str(path)!r} is a file.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputNotWritable(
                f"checkpoint_dir {str(path)!r} cannot be made ({error.strerror or error})."
            ) from error

    def save(self, checkpoint: Checkpoint, step: int) -> Path:
        """Writes a checkpoint and drops those before the last; returns its path.

        Args:
            checkpoint: What to write.
            step: Gradient steps done since the training began, which order the checkpoints.

        Raises:
            OutputNotWritable: The disk is full or the folder gone; the checkpoints before are unchanged.
        """
        content = _packed(checkpoint)
        target = self.path / f"step-{step:09d}-{_digest(content)}.npz"
        staged = self.path / f".{target.name}.{os.getpid()}"
        try:
            with open(staged, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # on the disk before it gets its name, should the power go
            if target.is_dir():  # in the way, and not ours to remove
                target.rename(target.with_name(f"aside-{target.name}"))
            os.replace(staged, target)
            sync_folder(self.path)
        except OSError as error:
            staged.unlink(missing_ok=True)
            raise OutputNotWritable(
                f"The checkpoint {str(target)!r} could not be written ({error.strerror or error}). "
                "The last good one is unchanged."
            ) from error
        self._damaged.discard(target)  # which was written anew
        whole = [path for _, path in self._files() if path not in self._damaged]
        for old in (*whole[_KEPT:], *self._damaged):
            with contextlib.suppress(OSError):  # a folder in a checkpoint's place is not ours to remove
                old.unlink()
        return target

    def load(self) -> Checkpoint | None:
        """Returns the newest intact checkpoint; warns of each that is damaged. None where there is none."""
        for left in self.path.glob(".step-*"):
            left.unlink(missing_ok=True)  # of a process that was killed while it wrote
        for digest, path in self._files():
            try:
                content = path.read_bytes()
                if _digest(content) == digest:
                    return _unpacked(content)
            except OSError:
                pass
            self._damaged.add(path)
            warnings.warn(
                f"The checkpoint {str(path)!r} is damaged and is passed over; the one before it is used, or else "
                "the training begins anew.",
                stacklevel=2,
            )
        return None

    def _files(self) -> list[tuple[str, Path]]:
        """(digest, path) of every checkpoint, the newest first."""
        found = [(match, path) for path in self.path.iterdir() if (match := _NAME.fullmatch(path.name))]
        ordered = sorted(found, key=lambda pair: (int(pair[0][1]), pair[1].lstat().st_mtime_ns), reverse=True)
        return [(match[2], path) for match, path in ordered]


def check_same_training(mine: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    """Raises `InvalidOption` where a checkpoint is of another training, and names each difference."""
    mine = json.loads(json.dumps(mine, default=str))  # tuples become lists, as they did in the file
    names = sorted({*mine, *theirs})
    differences = [
        "{}: {} there, {} here".format(*_narrowed(name, theirs.get(name), mine.get(name)))
        for name in names
        if mine.get(name) != theirs.get(name)
    ]
    if differences:
        raise InvalidOption(
            f"checkpoint_dir {str(path)!r} holds another training. {'; '.join(differences)}. "
            "Give this training a folder of its own, or remove that one."
        )


def _narrowed(name: str, theirs: Any, mine: Any) -> tuple[str, Any, Any]:
    """Goes down to where two values differ, as long as they do in one place only: optimizer[1].learning_rate."""
    if isinstance(theirs, dict) and isinstance(mine, dict) and theirs.keys() == mine.keys():
        places = [(f"{name}.{key}", theirs[key], mine[key]) for key in mine]
    elif isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        places = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(theirs, mine, strict=True))]
    else:
        places = []
    different = [place for place in places if place[1] != place[2]]
    return _narrowed(*different[0]) if len(different) == 1 else (name, theirs, mine)


def fingerprint(*arrays: np.ndarray | None) -> list[Any]:
    """Returns what identifies data: shape, dtype and a digest.

    The digest is of all rows where an array is in memory and up to 256 MiB; else of up to 1,024 rows, evenly spread,
    of which at most 32 MiB are read from all arrays together (and one row of each).
    """
    given = [array for array in arrays if array is not None]
    return [
        [list(array.shape), str(array.dtype), _digest_of_rows(array, _READ_BYTES // len(given))]
        for array in given
    ]


def _digest_of_rows(array: np.ndarray, most_bytes: int) -> str:
    each = max(1, array.nbytes // max(1, len(array)))
    if array.nbytes <= _WHOLE_BYTES and not from_file(array):
        rows = np.arange(len(array))
    else:
        rows = np.linspace(0, len(array) - 1, min(len(array), 1024, max(1, most_bytes // each))).astype(
            np.int64
        )
    at_once = max(1, _PIECE_BYTES // each)
    digest = hashlib.sha256()
    for start in range(0, len(rows), at_once):
        digest.update(np.ascontiguousarray(read_rows(array, rows[start : start + at_once])).tobytes())
    return digest.hexdigest()[:16]


def _packed(checkpoint: Checkpoint) -> bytes:
    arrays = {f"array:{name}": value for name, value in checkpoint.arrays.items()}
    arrays[_FACTS] = np.frombuffer(json.dumps(checkpoint.facts, default=str).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpacked(content: bytes) -> Checkpoint:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {
            name.removeprefix("array:"): stored[name] for name in stored.files if name.startswith("array:")
        }
        return Checkpoint(json.loads(stored[_FACTS].tobytes()), arrays)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
