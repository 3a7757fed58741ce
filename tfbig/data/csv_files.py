"""CSV files as a stream of batches."""

import csv
import re
from collections.abc import Sequence
from typing import Any

from tfbig.backend import tf
from tfbig.data.streams import compression, fails_where, matching_files, stream_of_batches
from tfbig.errors import InvalidOption, UnreadableFile, did_you_mean
from tfbig.options import checked

# RE2, as tf.strings matches it: one pass over a line decides whether all its fields can be read.
_NUMBER = r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*"
_ANYTHING = r'(?:"(?:[^"]|"")*"|[^"{delimiter}]*)'
# A longer line is cut in a message.
_SHOWN = 200


@checked()
def stream_csv(
    pattern: Any,
    *,
    target: str | Sequence[str],
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    batch_size: int = 32,
    shuffle_buffer: int = 10_000,
    seed: int | None = None,
    delimiter: str = ",",
) -> "tf.data.Dataset":
    r"""Returns the rows of CSV files as a stream of batches, for data that does not fit into memory.

    Files are read anew in each epoch by TensorFlow's own readers, a few batches ahead. The first line of each holds
    the names of the columns. Lines that are blank are passed over; a field cannot hold a line break.

    Args:
        pattern: A path or pattern such as "data/part-*.csv", or a list of them; ".gz" files are unpacked as they are
            read.
        target: Column of y, or several.
        features: Columns of x, in this order; None takes all but the target, in the files' order.
        classes: Texts of the target column in the order of their labels; None expects numbers there.
        batch_size: Rows of a batch; the last one of an epoch may hold fewer.
        shuffle_buffer: Rows to draw the next one from; more shuffles better and takes more memory. 0 keeps the files'
            order, as validation data should be.
        seed: Makes the order of rows the same in each run; it differs from epoch to epoch. Without one, `tfbig.fit`
            lends its own.
        delimiter: Between two fields.

    Returns:
        A `tf.data.Dataset` of (x, y): x is float32 of shape (batch, features), y float32 of shape (batch,) or (batch,
        targets), or int64 labels of shape (batch,) with `classes`. It does not know its length, which
        `stream.apply(tf.data.experimental.assert_cardinality(batches))` can tell it.

    Raises:
        UnreadableFile: No file matches; a file is empty; two have different columns.
        InvalidOption: There is no such column.
        InvalidData: From `tfbig.fit`, when it comes to a row with a missing field or with text where a number belongs:
            the message names file and line. A bare `model.fit` raises TensorFlow's error with that text.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
        >>> _ = path.write_text("length,width,kind\n5.1,3.5,setosa\n6.2,2.9,virginica\n")
        >>> stream = stream_csv(path, target="kind", classes=["setosa", "virginica"], shuffle_buffer=0)
        >>> [(x.numpy().tolist(), y.numpy().tolist()) for x, y in stream]
        [([[5.099999904632568, 3.5], [6.199999809265137, 2.9000000953674316]], [0, 1])]
    """
    if len(delimiter) != 1 or delimiter in '"\n\r':
        raise InvalidOption(f"delimiter must be one character, such as ';'; got {delimiter!r}.")
    files = matching_files(pattern)
    columns = _columns(files, delimiter)
    targets = [target] if isinstance(target, str) else list(target)
    inputs = [name for name in columns if name not in targets] if features is None else list(features)
    for name in (*targets, *inputs):
        if name not in columns:
            listed = ", ".join(columns)
            raise InvalidOption(
                f"{files[0]} has no column {name!r}.{did_you_mean(name, columns)} Its columns: {listed}."
            )
    if not targets or not inputs:
        raise InvalidOption("x and y need at least one column each; got none for one of them.")
    if classes is not None and len(targets) > 1:
        raise InvalidOption(f"classes are for one target column; got {len(targets)} targets.")

    read = [name for name in columns if name in (*targets, *inputs)]
    needed = _line_pattern(columns, read, targets[0], classes, delimiter)
    expected = f"expected {len(columns)} fields, with {_kinds(read, targets[0], classes)}; got: "
    defaults = [
        [""] if classes is not None and name == targets[0] else tf.constant([], tf.float32) for name in read
    ]

    def parsed(path: Any, numbers: Any, lines: Any) -> tuple[Any, Any]:
        written = tf.strings.length(lines) > 0
        numbers, lines = tf.boolean_mask(numbers, written), tf.boolean_mask(lines, written)
        bad = tf.logical_not(tf.strings.regex_full_match(lines, needed))
        shown = tf.strings.substr(lines, 0, _SHOWN)
        messages = tf.strings.join([path, ", line ", tf.strings.as_string(numbers), ": ", expected, shown])
        with tf.control_dependencies([fails_where(bad, messages)]):
            lines = tf.identity(lines)
        values = tf.io.decode_csv(
            lines, defaults, field_delim=delimiter, select_cols=[columns.index(name) for name in read]
        )
        by_name = dict(zip(read, values, strict=True))
        x = tf.stack([by_name[name] for name in inputs], axis=1)
        if classes is not None:
            told = tf.strings.strip(by_name[targets[0]])[:, None] == tf.constant(list(classes))[None]
            return x, tf.argmax(told, axis=1)
        y = tf.stack([by_name[name] for name in targets], axis=1)
        return x, y[:, 0] if isinstance(target, str) else y

    return stream_of_batches(
        files,
        _numbered_lines,
        parsed,
        batch_size=batch_size,
        shuffle_buffer=shuffle_buffer,
        seed=seed,
        contents={"x": inputs, "y": targets, "classes": None if classes is None else list(classes)},
    )


def _numbered_lines(path: Any, kind: Any) -> Any:
    return tf.data.TextLineDataset(path, compression_type=kind).enumerate(1).skip(1)


def _columns(files: Sequence[str], delimiter: str) -> list[str]:
    first: list[str] = []
    for path in files:
        lines = tf.data.TextLineDataset(path, compression_type=compression(path)).take(2)
        try:
            texts = [line.decode() for line in lines.as_numpy_iterator()]
        except (UnicodeDecodeError, tf.errors.OpError) as error:
            raise UnreadableFile(f"{path} cannot be read as CSV text: {error}") from error
        if len(texts) < 2:
            raise UnreadableFile(f"{path} holds {'no rows below its first line' if texts else 'nothing'}.")
        names = [name.strip() for name in next(csv.reader([texts[0].lstrip("\ufeff")], delimiter=delimiter))]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise UnreadableFile(f"{path} has two columns of one name: {', '.join(twice)}.")
        first = first or names
        if names != first:
            raise UnreadableFile(
                f"All files must have the same columns: {files[0]} begins with {', '.join(first)}, and {path} with "
                f"{', '.join(names)}."
            )
    return first


def _line_pattern(
    columns: Sequence[str], read: Sequence[str], target: str, classes: Sequence[str] | None, delimiter: str
) -> str:
    separator = re.escape(delimiter)
    anything = _ANYTHING.replace("{delimiter}", separator)

    def field(name: str) -> str:
        if name not in read:
            return anything
        kind = _NUMBER
        if classes is not None and name == target:
            kind = r"\s*(?:" + "|".join(re.escape(text.replace('"', '""')) for text in classes) + r")\s*"
        return f'(?:"{kind}"|{kind})'

    return separator.join(map(field, columns))


def _kinds(read: Sequence[str], target: str, classes: Sequence[str] | None) -> str:
    numbers = [name for name in read if classes is None or name != target]
    shown = ", ".join(numbers[:10]) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
    if classes is None:
        return f"numbers in {shown}"
    return f"numbers in {shown} and one of {', '.join(map(repr, classes))} in {target}"
