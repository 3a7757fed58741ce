"""TFRecord files of `tf.train.Example`s as a stream of batches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfbig.backend import tf
from tfbig.data.streams import UNREADABLE, compression, fails_where, matching_files, stream_of_batches
from tfbig.errors import InvalidOption, UnreadableFile, did_you_mean
from tfbig.options import checked

_LISTS = {"float_list": "float32", "int64_list": "int64", "bytes_list": "string"}


@checked()
def stream_tfrecord(
    pattern: Any,
    *,
    features: "Mapping[str, tf.io.FixedLenFeature]",
    target: str,
    batch_size: int = 32,
    shuffle_buffer: int = 10_000,
    seed: int | None = None,
) -> "tf.data.Dataset":
    """Returns the examples of TFRecord files as a stream of batches, for data that does not fit into memory.

    Args:
        pattern: A path or pattern such as "data/train-*.tfrecord", or a list of them; ".gz" files are unpacked as they
            are read.
        features: Name of each feature to read, the target among them, to its shape and dtype.
        target: The feature that is y.
        batch_size: Examples of a batch; the last one of an epoch may hold fewer.
        shuffle_buffer: Examples to draw the next one from; 0 keeps the files' order, as validation data should be.
        seed: Makes the order the same in each run; it differs from epoch to epoch. Without one, `tfbig.fit` lends
            its own.

    Returns:
        A `tf.data.Dataset` of (x, y) as the features say: x is one tensor of shape (batch, *shape), or a dictionary of
        them by name when there are several. What is stored as text, such as JPEG images, is decoded by
        `stream.map(…)`. It does not know its length, which
        `stream.apply(tf.data.experimental.assert_cardinality(batches))` can tell it.

    Raises:
        UnreadableFile: No file matches; a file is empty or no TFRecord file of examples.
        InvalidOption: A feature is not in the files, or of another dtype or shape there.
        InvalidData: From `tfbig.fit`, when it comes to an example that lacks a feature, or with NaN: the message names
            file and record. A bare `model.fit` raises TensorFlow's error with that text.

    Example:
        >>> import tempfile, pathlib
        >>> path = str(pathlib.Path(tempfile.mkdtemp()) / "two.tfrecord")
        >>> def number(value): return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        >>> with tf.io.TFRecordWriter(path) as writer:
        ...     for i in (1, 2):
        ...         named = {"a": number(i), "b": number(10 * i)}
        ...         writer.write(tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString())
        >>> scalar = tf.io.FixedLenFeature((), tf.float32)
        >>> stream = stream_tfrecord(path, features={"a": scalar, "b": scalar}, target="b", shuffle_buffer=0)
        >>> [(x.numpy().tolist(), y.numpy().tolist()) for x, y in stream]
        [([1.0, 2.0], [10.0, 20.0])]
    """
    features = dict(features)
    if target not in features:
        raise InvalidOption(
            f"target must be one of features, {', '.join(features)}; got {target!r}.{did_you_mean(target, features)}"
        )
    if len(features) < 2:
        raise InvalidOption("features must name what x is made of besides the target; got the target alone.")
    files = matching_files(pattern)
    for path in files:
        _check_first(path, features)

    def parsed(path: Any, numbers: Any, records: Any) -> tuple[Any, Any]:
        names = tf.strings.join([path, ", record ", tf.strings.as_string(numbers)])
        # What TensorFlow says of an example begins with its name.
        values = tf.io.parse_example(records, features, example_names=tf.strings.join([UNREADABLE, names]))
        checks = [
            fails_where(
                _not_finite(value), tf.strings.join([names, f": feature {name} holds NaN or infinity"])
            )
            for name, value in values.items()
            if isinstance(value, tf.Tensor) and value.dtype.is_floating
        ]
        with tf.control_dependencies(checks):
            values = {name: tf.nest.map_structure(tf.identity, value) for name, value in values.items()}
        y = values.pop(target)
        return (next(iter(values.values())) if len(values) == 1 else values), y

    return stream_of_batches(
        files,
        _numbered_records,
        parsed,
        batch_size=batch_size,
        shuffle_buffer=shuffle_buffer,
        seed=seed,
        contents={"x": [name for name in features if name != target], "y": [target]},
    )


def _numbered_records(path: Any, kind: Any) -> Any:
    return tf.data.TFRecordDataset(path, compression_type=kind).enumerate(0)


def _not_finite(value: Any) -> Any:
    rows = tf.reshape(value, [tf.shape(value)[0], -1])
    return tf.reduce_any(tf.logical_not(tf.math.is_finite(rows)), axis=1)


def _check_first(path: str, features: Mapping[str, Any]) -> None:
    """Raises where the first example of a file is not as the features say."""
    try:
        records = list(
            tf.data.TFRecordDataset(path, compression_type=compression(path)).take(1).as_numpy_iterator()
        )
        stored = tf.train.Example.FromString(records[0]).features.feature if records else {}
    except Exception as error:  # protobuf's own errors have no common public name
        raise UnreadableFile(
            f"{path} is no TFRecord file of tf.train.Examples: {_first_line(error)}"
        ) from error
    if not records:
        raise UnreadableFile(f"{path} holds nothing.")
    for name, feature in features.items():
        optional = getattr(feature, "default_value", None) is not None or not hasattr(feature, "shape")
        if name not in stored:
            if optional:
                continue
            raise InvalidOption(
                f"The first example of {path} has no feature {name!r}.{did_you_mean(name, stored)} It has: "
                f"{', '.join(sorted(stored))}."
            )
        _check_kind(path, name, feature, stored[name])


def _check_kind(path: str, name: str, feature: Any, stored: Any) -> None:
    kind = stored.WhichOneof("kind")
    dtype = getattr(feature, "dtype", None)
    if kind is None or dtype is None:
        return
    if _LISTS[kind] != tf.as_dtype(dtype).name:
        raise InvalidOption(
            f"Feature {name!r} is stored as {_LISTS[kind]} in {path}; features asks for {tf.as_dtype(dtype).name}."
        )
    count = len(getattr(stored, kind).value)
    shape = _shape(feature)
    if shape is not None and math.prod(shape) != count:
        raise InvalidOption(
            f"Feature {name!r} holds {count} values in {path}; features asks for shape {shape}, {math.prod(shape)}."
        )


def _shape(feature: Any) -> Sequence[int] | None:
    if not isinstance(feature, tf.io.FixedLenFeature):
        return None
    return tuple(feature.shape)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
