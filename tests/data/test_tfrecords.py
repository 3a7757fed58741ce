import gzip

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.data.streams import row_errors_named
from tfbig.data.tfrecords import stream_tfrecord
from tfbig.errors import InvalidData, InvalidOption, UnreadableFile

FEATURES = {
    "x": tf.io.FixedLenFeature((2,), tf.float32),
    "label": tf.io.FixedLenFeature((), tf.int64),
}


def floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def whole(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def texts(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def good(i):
    return example(x=floats(i, i / 2), label=whole(i % 3))


def written(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.fixture
def folder(tmp_path):
    for part in range(3):
        written(tmp_path / f"{part}.tfrecord", map(good, range(100 * part, 100 * (part + 1))))
    return tmp_path


def stream(path, **options):
    return stream_tfrecord(path, **{"features": FEATURES, "target": "label", "shuffle_buffer": 0, **options})


def test_examples_come_in_the_order_of_the_files(folder):
    batches = list(stream(folder / "*.tfrecord", batch_size=64).as_numpy_iterator())
    assert [len(y) for _, y in batches] == [64, 64, 64, 64, 44]
    x = np.concatenate([x for x, _ in batches])
    np.testing.assert_array_equal(x, np.stack([np.arange(300), np.arange(300) / 2], axis=1))
    y = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(y, np.arange(300) % 3)
    assert (x.dtype, y.dtype) == ("float32", "int64")


def test_the_seed_decides_the_order_and_every_example_comes_once(folder):
    def order(seed):
        shuffled = stream(folder / "*.tfrecord", shuffle_buffer=500, seed=seed)
        return np.concatenate([x[:, 0] for x, _ in shuffled.as_numpy_iterator()])

    np.testing.assert_array_equal(order(1), order(1))
    assert not np.array_equal(order(1), order(2))
    assert sorted(order(1)) == list(range(300))


def test_several_features_are_a_dictionary_that_a_model_takes_by_name(tmp_path):
    records = [example(a=floats(i), b=floats(2 * i), y=floats(3 * i)) for i in range(8)]
    one = tf.io.FixedLenFeature((1,), tf.float32)
    named = stream(
        written(tmp_path / "f.tfrecord", records), features={"a": one, "b": one, "y": one}, target="y"
    )
    x, _ = next(iter(named))
    assert {name: value.shape for name, value in x.items()} == {"a": (8, 1), "b": (8, 1)}
    inputs = [keras.Input((1,), name=name) for name in "ab"]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(inputs)))
    assert len(tfbig.fit(model, named, loss="mse", epochs=1, verbose=0).history["loss"]) == 1


def test_stored_texts_are_decoded_by_map(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    png = tf.io.encode_png(pixels).numpy()
    path = written(tmp_path / "f.tfrecord", [example(image=texts(png), label=whole(1))])
    features = {"image": tf.io.FixedLenFeature((), tf.string), "label": FEATURES["label"]}
    decoded = stream(path, features=features).map(
        lambda x, y: (tf.map_fn(tf.io.decode_png, x, fn_output_signature=tf.uint8), y)
    )
    np.testing.assert_array_equal(next(iter(decoded))[0][0], pixels)


def test_packed_files_and_defaults_and_ragged_features(tmp_path):
    plain = written(tmp_path / "plain", [example(x=floats(1, 2), label=whole(0)), example(x=floats(3, 4))])
    (tmp_path / "f.tfrecord.gz").write_bytes(gzip.compress(plain.read_bytes()))
    features = {**FEATURES, "label": tf.io.FixedLenFeature((), tf.int64, default_value=7)}
    features["tags"] = tf.io.VarLenFeature(tf.string)
    ((x, y),) = stream(tmp_path / "f.tfrecord.gz", features=features)
    np.testing.assert_array_equal(y, [0, 7])
    assert x["tags"].dense_shape.numpy().tolist() == [2, 0]
    np.testing.assert_array_equal(x["x"], [[1, 2], [3, 4]])


BAD_RECORDS = {
    "a feature is missing": (example(x=floats(1, 2)), "record 2, Feature: label .*could not be found"),
    "too many values": (example(x=floats(1, 2, 3), label=whole(0)), "record 2, Key: x.*Values size: 3"),
    "another dtype": (example(x=whole(1, 2), label=whole(0)), "record 2, .*x.*Data types don't match"),
    "NaN": (example(x=floats(1, np.nan), label=whole(0)), "record 2: feature x holds NaN or infinity$"),
    "no example": (b"junk", "record 2"),
}


@pytest.mark.parametrize(("record", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_an_example_that_cannot_be_read_is_named(tmp_path, record, message):
    path = written(tmp_path / "f.tfrecord", [good(0), good(1), record, good(3)])
    with pytest.raises(InvalidData, match=message) as caught, row_errors_named():
        list(stream(path))
    assert str(caught.value).startswith(f"Cannot read {path}, record 2")


def test_a_damaged_file_is_an_error_with_the_place(tmp_path):
    path = written(tmp_path / "f.tfrecord", map(good, range(20)))
    damaged = bytearray(path.read_bytes())
    damaged[-8] ^= 0xFF
    path.write_bytes(damaged)
    message = r"damaged: corrupted record at \d+ bytes\. Write it again"
    with pytest.raises(UnreadableFile, match=message), row_errors_named():
        list(stream(path))


def other(**features):
    return {"features": {**FEATURES, **features}}


BAD_FILES = {
    "no match": (None, {}, UnreadableFile, "No file matches"),
    "nothing": ([], {}, UnreadableFile, "holds nothing"),
    "no examples": ([b"junk"], {}, UnreadableFile, "is no TFRecord file of tf.train.Examples"),
    "no such feature": (
        [good(0)],
        {"features": {"x": FEATURES["x"], "labl": FEATURES["label"]}, "target": "labl"},
        InvalidOption,
        r"has no feature 'labl'\. Did you mean 'label'\? It has: label, x",
    ),
    "another dtype": (
        [good(0)],
        other(label=tf.io.FixedLenFeature((), tf.float32)),
        InvalidOption,
        "'label' is stored as int64 in .*; features asks for float32",
    ),
    "another shape": (
        [good(0)],
        other(x=tf.io.FixedLenFeature((2, 2), tf.float32)),
        InvalidOption,
        r"'x' holds 2 values in .*; features asks for shape \(2, 2\), 4",
    ),
    "no target": ([good(0)], {"target": "labels"}, InvalidOption, "target must be .*Did you mean 'label'"),
    "target alone": (
        [good(0)],
        {"features": {"label": FEATURES["label"]}},
        InvalidOption,
        "got the target alone",
    ),
}


@pytest.mark.parametrize(("records", "options", "error", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_cannot_be_streamed_is_refused_at_once(tmp_path, records, options, error, message):
    path = tmp_path / "f.tfrecord"
    if records is not None:
        written(path, records)
    with pytest.raises(error, match=message):
        stream(path, **options)


def test_a_file_that_is_no_tfrecord_is_refused(tmp_path):
    (tmp_path / "f.tfrecord").write_text("a,b\n1,2\n" * 10)
    with pytest.raises(UnreadableFile, match="is no TFRecord file"):
        stream(tmp_path / "f.tfrecord")
