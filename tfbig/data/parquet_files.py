"""Parquet files as a stream of batches."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from tfbig.backend import tf
from tfbig.data.streams import matching_files, stream_of_batches, unreadable
from tfbig.errors import InvalidOption, UnreadableFile, did_you_mean
from tfbig.options import checked


@checked()
def stream_parquet(
    pattern: Any,
    *,
    target: str | Sequence[str],
    features: Sequence[str] | None = None,
    classes: Sequence[Any] | None = None,
    batch_size: int = 32,
    shuffle_buffer: int = 10_000,
    seed: int | None = None,
) -> "tf.data.Dataset":
    """Returns the rows of Parquet files as a stream of batches, for data that does not fit into memory.

    Needs pyarrow: `pip install "tfbig[parquet]"`. Only the columns asked for are read, one row group at a time (of up
    to eight files when shuffled), so memory follows from the size of the groups and not from that of the files.

    Args:
        pattern: A path or pattern such as "data/part-*.parquet", or a list of them, on a local disk.
        target: Column of y, or several.
        features: Columns of x, in this order; None takes all but the target, in the files' order.
        classes: Values of the target column in the order of their labels; None expects numbers there.
        batch_size: Rows of a batch; the last one of an epoch may hold fewer.
        shuffle_buffer: Rows to draw the next one from; 0 keeps the files' order, as validation data should be.
        seed: Makes the order of rows the same in each run; it differs from epoch to epoch. Without one, `tfbig.fit`
            lends its own.

    Returns:
        A `tf.data.Dataset` of (x, y): x is float32 of shape (batch, features), y float32 of shape (batch,) or (batch,
        targets), or int64 labels of shape (batch,) with `classes`.

    Raises:
        ImportError: pyarrow is not installed.
        UnreadableFile: No file matches; one is no Parquet file or empty; two have different columns.
        InvalidOption: There is no such column, or it holds no numbers.
        InvalidData: From `tfbig.fit`, when it comes to a missing value, or to a label that is not among the classes:
            the message names file and row. A bare `model.fit` raises TensorFlow's error with that text.

    Example:
        >>> stream = stream_parquet("part-*.parquet", target="kind", classes=["a", "b"])  # doctest: +SKIP
        >>> run = tfbig.fit(model, stream, epochs=3)  # doctest: +SKIP
    """
    _parquet()
    files = matching_files(pattern)
    targets = [target] if isinstance(target, str) else list(target)
    numeric = _columns(files)
    inputs = [name for name in numeric if name not in targets] if features is None else list(features)
    for name in (*targets, *inputs):
        if name not in numeric:
            raise InvalidOption(
                f"{files[0]} has no column {name!r}.{did_you_mean(name, numeric)} Its columns: {', '.join(numeric)}."
            )
        if not numeric[name] and (name in inputs or classes is None):
            raise InvalidOption(
                f"Column {name!r} of {files[0]} holds no numbers. Name the features= without it"
                + (", or give the target's classes=." if name in targets else ".")
            )
    if not targets or not inputs:
        raise InvalidOption("x and y need at least one column each; got none for one of them.")
    if classes is not None and len(targets) > 1:
        raise InvalidOption(f"classes are for one target column; got {len(targets)} targets.")
    labels = None if classes is None else {value: code for code, value in enumerate(classes)}
    width = () if isinstance(target, str) else (len(targets),)
    y_dtype = tf.float32 if classes is None else tf.int64

    def group(path: bytes, place: np.int64) -> tuple[np.ndarray, np.ndarray]:
        x, y = _read(path.decode(), int(place), inputs, targets, labels)
        return x, y if width else y[:, 0]

    def rows_of(path: Any, kind: Any) -> Any:
        def read(place: Any) -> tuple[Any, Any]:
            x, y = tf.numpy_function(group, [path, place], [tf.float32, y_dtype])
            return tf.ensure_shape(x, (None, len(inputs))), tf.ensure_shape(y, (None, *width))

        count = tf.numpy_function(_groups, [path], tf.int64)
        return tf.data.Dataset.range(tf.ensure_shape(count, ())).map(read).unbatch()

    return stream_of_batches(
        files,
        rows_of,
        lambda path, x, y: (x, y),
        batch_size=batch_size,
        shuffle_buffer=shuffle_buffer,
        seed=seed,
        contents={"x": inputs, "y": targets, "classes": None if classes is None else list(classes)},
    )


def _parquet() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError('Parquet files need pyarrow: pip install "tfbig[parquet]".') from error


def _groups(path: bytes) -> np.int64:
    return np.int64(_parquet().ParquetFile(path.decode()).metadata.num_row_groups)


def _columns(files: Sequence[str]) -> dict[str, bool]:
    """Each column to whether it holds numbers."""
    pyarrow = import_module("pyarrow")
    kinds: dict[str, bool] = {}
    for path in files:
        try:
            file = _parquet().ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise UnreadableFile(f"{path} is no Parquet file that can be read: {error}") from error
        if not file.metadata.num_rows:
            raise UnreadableFile(f"{path} holds no rows.")
        types = pyarrow.types
        found = {
            field.name: bool(
                types.is_integer(field.type) or types.is_floating(field.type) or types.is_boolean(field.type)
            )
            for field in file.schema_arrow
        }
        kinds = kinds or found
        if found != kinds:
            raise UnreadableFile(
                f"All files must have the same columns: {files[0]} has {', '.join(kinds)}, and {path} has "
                f"{', '.join(found)}, or they differ in type."
            )
    return kinds


def _read(
    path: str, place: int, inputs: Sequence[str], targets: Sequence[str], labels: dict[Any, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """One row group as x and y."""
    file = _parquet().ParquetFile(path)
    table = file.read_row_group(place, columns=[*inputs, *targets])
    before = sum(file.metadata.row_group(earlier).num_rows for earlier in range(place))

    def numbers(name: str) -> np.ndarray:
        values = table.column(name).to_numpy().astype(np.float32)
        bad = ~np.isfinite(values)
        if bad.any():
            row = before + int(bad.argmax())
            raise unreadable(
                f"{path}, row {row}: column {name} has a missing, NaN or infinite value (rows from 0)"
            )
        return values

    x = np.stack([numbers(name) for name in inputs], axis=1)
    if labels is None:
        return x, np.stack([numbers(name) for name in targets], axis=1)
    codes = [labels.get(value) for value in table.column(targets[0]).to_pylist()]
    if None in codes:
        row = codes.index(None)
        found = table.column(targets[0])[row].as_py()
        raise unreadable(
            f"{path}, row {before + row}: expected one of {', '.join(map(repr, labels))} in {targets[0]}; got "
            f"{found!r} (rows from 0)"
        )
    return x, np.array(codes, np.int64)[:, None]
