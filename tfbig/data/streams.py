"""What streams from files share: the files, the order, and errors that name the row.

Only the shuffle buffer and a few batches are in memory, whatever the size of the files.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tfbig.backend import tf
from tfbig.data.stream_order import StreamOrder, keeping, shuffled_by
from tfbig.errors import InvalidData, UnreadableFile
from tfbig.options import positive_int

# Begins every message about a row, so that `row_errors_named` knows it in what TensorFlow wraps around it.
UNREADABLE = "Cannot read "
_END = " [end of row]"
_FILES_AT_ONCE = 8
_ROWS_AT_ONCE = 256


def matching_files(pattern: Any) -> list[str]:
    """Returns the files of a pattern, sorted.

    Args:
        pattern: A path or pattern such as "data/part-*.csv" (also on the remote file systems that TensorFlow knows),
            or a list of them.

    Raises:
        UnreadableFile: A pattern matches no file.
    """
    patterns = [pattern] if isinstance(pattern, str | os.PathLike) else list(pattern)
    found = []
    for given in patterns:
        one = os.fspath(given)
        files = [path for path in tf.io.gfile.glob(one) if not tf.io.gfile.isdir(path)]
        if not files:
            raise UnreadableFile(f"No file matches {one!r} (looked from {os.getcwd()}).")
        found += files
    if not found:
        raise UnreadableFile("Expected a path, a pattern or a list of them; got an empty list.")
    return sorted(set(found))


def compression(path: str) -> str:
    """Returns TensorFlow's name of a file's compression, which its ending tells."""
    return "GZIP" if path.endswith(".gz") else ""


def stream_of_batches(
    files: Sequence[str],
    rows_of: Callable[[Any, Any], Any],
    parsed: Callable[[Any, Any, Any], Any],
    *,
    batch_size: int,
    shuffle_buffer: int,
    seed: int | None,
    contents: Mapping[str, Any],
) -> Any:
    """Returns batches of rows from files, in an order that seed and epoch decide.

    Shuffled, files come in a new order in each epoch, eight are read in turns, and rows are drawn from a buffer; else
    rows come as they stand, file after file.

    Args:
        files: Paths.
        rows_of: From a path and its compression to a dataset of (number, row), strings as they stand in the file.
        parsed: From a path, the numbers and the rows of a piece to (x, y).
        batch_size: Rows of a batch.
        shuffle_buffer: Rows to draw from; 0 keeps the order.
        seed: Of both shuffles; None draws another each time.
        contents: Plain values that say what a row is made of.
    """
    batch_size = positive_int("batch_size", batch_size)
    buffer = positive_int("shuffle_buffer", shuffle_buffer, minimum=0)

    def parsed_pieces(path: Any, kind: Any) -> Any:
        # Many rows in one call: called for each row, TensorFlow takes longer to call than to parse.
        pieces = rows_of(path, kind).batch(_ROWS_AT_ONCE)
        return pieces.map(lambda numbers, rows: parsed(path, numbers, rows))

    def named_files() -> Any:
        return tf.data.Dataset.from_tensor_slices((list(files), [compression(path) for path in files]))

    def rows_by(drawn: Any) -> Any:
        stream = named_files()
        if len(files) > 1:
            stream = stream.shuffle(len(files), seed=drawn, reshuffle_each_iteration=False)
        stream = stream.interleave(parsed_pieces, cycle_length=min(len(files), _FILES_AT_ONCE))
        return stream.unbatch().shuffle(buffer, seed=drawn, reshuffle_each_iteration=False)

    contents = {**contents, "batch_size": batch_size, "shuffle_buffer": buffer}
    order = StreamOrder(seed, files, contents)
    if buffer:
        stream = shuffled_by(order, rows_by).batch(batch_size)
    else:
        stream = keeping(order, named_files()).interleave(parsed_pieces, cycle_length=1).rebatch(batch_size)
    return stream.prefetch(tf.data.AUTOTUNE)


def fails_where(bad: Any, messages: Any) -> Any:
    """Returns the op that stops the stream, with the message of the first row that is bad.

    Args:
        bad: bool of shape (rows,).
        messages: What to say of each row: strings of shape (rows,).
    """
    first = tf.strings.reduce_join(tf.boolean_mask(messages, bad)[:1])  # "" where none is bad
    return tf.debugging.Assert(
        tf.logical_not(tf.reduce_any(bad)), [tf.strings.join([UNREADABLE, first, _END])]
    )


def unreadable(message: str) -> InvalidData:
    """Returns what a Python function inside of a stream raises for a row, with its file and number in the message."""
    return InvalidData(f"{UNREADABLE}{message}{_END}")


@contextlib.contextmanager
def row_errors_named() -> Iterator[None]:
    """Turns TensorFlow's error about a row into an `InvalidData` that says which row and why, and nothing else.

    Raises:
        InvalidData: A row of `stream_csv` or `stream_tfrecord` cannot be read.
        UnreadableFile: A TFRecord file is damaged.
    """
    try:
        yield
    except tf.errors.DataLossError as error:
        where = re.search(r"corrupted record at \d+", str(error))
        found = f"{where.group()} bytes" if where else str(error)
        raise UnreadableFile(
            f"A file of the stream is damaged: {found}. Write it again, or leave it out."
        ) from error
    except tf.errors.InvalidArgumentError as error:
        said = re.search(f"{UNREADABLE}.*?(?={re.escape(_END)}|\n|$)", str(error))
        if said is None:
            raise
        raise InvalidData(_unescaped(said.group())) from None


def _unescaped(text: str) -> str:
    """The text of an assertion, in which TensorFlow writes quotes and letters beyond ASCII as C does."""
    if "\\" not in text or not text.isascii():
        return text
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
