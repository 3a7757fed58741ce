"""`.keras` files, looked at before Keras opens them: whole, of honest size, and pointing nowhere else."""

import json
import zipfile
from pathlib import Path

from tfbig.errors import UnreadableFile

_NEEDED = frozenset({"config.json", "metadata.json", "model.weights.h5"})
# Deflate shrinks zeros about 1030 times; a model that does so is none.
_SHRINKS_AT_MOST, _SMALL = 100, 64 * 2**20


def check_archive(path: Path, source: str) -> str:
    """Checks a `.keras` file and returns the version of Keras that wrote it.

    Args:
        path: The file.
        source: Its name, for messages.

    Returns:
        The version, as "3.15.1".

    Raises:
        UnreadableFile: A checksum fails, a part is missing or twice there, names a path outside of the
            archive, or would unpack to far more than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(archive, source)
            _check_sizes(archive, path.stat().st_size, source)
            broken = archive.testzip()
            if broken is not None:
                raise UnreadableFile(f"{source!r} is damaged: the checksum of its part {broken!r} is wrong.")
            metadata = json.loads(archive.read("metadata.json"))
            config = json.loads(archive.read("config.json"))
            if not isinstance(config, dict):
                raise UnreadableFile(f"{source!r} cannot be loaded: its config.json holds no model.")
            return str(metadata["keras_version"])
    except UnreadableFile:
        raise
    except (
        Exception
    ) as error:  # zipfile and json let much through: BadZipFile, zlib.error, KeyError, EOFError
        raise UnreadableFile(
            f"{source!r} cannot be loaded, it is damaged: {type(error).__name__}: {error}"
        ) from error


def _check_names(archive: zipfile.ZipFile, source: str) -> None:
    names = archive.namelist()
    missing = sorted(_NEEDED - set(names))
    if missing:
        raise UnreadableFile(
            f"{source!r} cannot be loaded: it is a zip archive without {', '.join(missing)}."
        )
    if len(set(names)) < len(names):
        raise UnreadableFile(f"{source!r} cannot be loaded: parts of it have the same name.")
    for info in archive.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        link = (info.external_attr >> 16) & 0o170000 == 0o120000
        if info.filename.startswith("/") or ".." in parts or ":" in parts[0] or link:
            raise UnreadableFile(
                f"{source!r} is not loaded: its part {info.filename!r} points outside of it."
            )


def _check_sizes(archive: zipfile.ZipFile, size: int, source: str) -> None:
    total = sum(info.file_size for info in archive.infolist())
    if total > max(_SMALL, size * _SHRINKS_AT_MOST):
        raise UnreadableFile(f"{source!r} is not loaded: its {size:,} bytes would unpack to {total:,}.")
