"""Files that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfbig.errors import OutputExists, OutputNotWritable, TfbigError


def check_output(path: str | os.PathLike[str], *, suffix: str, overwrite: bool) -> Path:
    """Checks, before work starts, that a file can be written at `path`, and makes its folder.

    Args:
        path: Where the file is to appear.
        suffix: The ending it must have, with the dot.
        overwrite: Whether a file that is already there may be replaced.

    Returns:
        The path.

    Raises:
        OutputNotWritable: It has another ending, is a folder, or its folder cannot be made or written.
        OutputExists: It exists and `overwrite` is false.
    """
    target = Path(path)
    if target.suffix != suffix:
        raise OutputNotWritable(f"The output path must end in {suffix!r}; got {str(target)!r}.")
    if os.path.isdir(target):
        raise OutputNotWritable(f"The output path must be a file; {str(target)!r} is a folder.")
    if os.path.exists(target) and not overwrite:
        raise OutputExists(f"{str(target)!r} exists already. Pass overwrite=True to replace it.")
    make_room(target)
    return target


def make_room(target: Path) -> None:
    """Makes the folder that is to hold `target`, and checks that `target` can be written there.

    Raises:
        OutputNotWritable: It cannot.
    """
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Asking the file system beats reading permission bits: root, read-only mounts and full disks lie.
        # The name is tried too, as `written_whole` will use it: it may be too long.
        os.rmdir(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
    except OSError as error:
        raise OutputNotWritable(
            f"Nothing can be written in {str(folder)!r} ({error.strerror or error}). "
            "Choose another folder or change its permissions."
        ) from error


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields a path beside `target` to write to; moves it into place only if the block ends well.

    The temporary path keeps the ending of `target`, since writers choose a format by it. Whatever happens,
    nothing half-written stays behind.
    """
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        staged = folder / target.name
        yield staged
        os.replace(staged, target)
    except TfbigError:
        raise
    except OSError as error:
        raise OutputNotWritable(
            f"{str(target)!r} could not be written ({error.strerror or error}). "
            "What was there before is unchanged."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
