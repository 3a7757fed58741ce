import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfbig
from tfbig.deployment.contents import read_contents
from tfbig.errors import InvalidData, UnreadableFile


def test_predictions_are_floats_near_the_models(digits, digits_model, digits_lite):
    got = digits_lite.predict(digits.x_test)
    assert got.dtype == np.float32
    expected = np.asarray(digits_model(digits.x_test, training=False))
    assert np.abs(got - expected).mean() <= 0.01 * np.ptp(expected)  # two steps of 256


def test_rows_predict_the_same_alone_and_together(digits, digits_lite):
    together = digits_lite.predict(digits.x_test[:7])
    alone = [digits_lite.predict(digits.x_test[i : i + 1])[0] for i in range(7)]
    assert np.array_equal(together, alone)


def test_threads_get_their_own_answers(digits, digits_lite):
    expected = digits_lite.predict(digits.x_test)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(digits_lite.predict, np.array_split(digits.x_test, 24)))
    assert np.array_equal(np.concatenate(parts), expected)


def test_pickling_keeps_the_file_and_the_threads(digits, digits_lite):
    lite = tfbig.LiteModel(digits_lite.path, threads=2)
    again = pickle.loads(pickle.dumps(lite))
    assert again.threads == 2
    assert np.array_equal(again.predict(digits.x_test[:3]), lite.predict(digits.x_test[:3]))


def test_the_benchmark_times_predictions(digits_lite):
    latency = digits_lite.benchmark(seconds=0.05)
    assert 0 < latency.median_us <= latency.p95_us
    assert latency.runs >= 10
    assert latency.threads == 1


def test_ops_are_counted_by_kind_and_dtype(digits_lite):
    assert digits_lite.ops["CONV_2D int8"] == 2
    assert digits_lite.ops["FULLY_CONNECTED int8"] == 2


def test_a_file_without_a_report_has_none(digits_lite, tmp_path):
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(digits_lite.path.read_bytes())
    assert tfbig.LiteModel(copy).report is None


@pytest.mark.parametrize("shape", [(5, 64), (5, 8, 8, 3), (8, 8, 1), (0, 8, 8, 1)])
def test_rows_of_another_shape_are_refused(digits_lite, shape):
    with pytest.raises(InvalidData, match=r"takes rows of shape \(8, 8, 1\); got an array of shape"):
        digits_lite.predict(np.zeros(shape, "float32"))


def test_an_input_of_another_name_is_refused(digits_lite):
    with pytest.raises(InvalidData, match=r"takes the inputs \['x'\]; got \['image'\]"):
        digits_lite.predict({"image": np.zeros((1, 8, 8, 1))})


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableFile, match="No such file"):
        tfbig.LiteModel(tmp_path / "none.tflite")


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 64])
def test_a_file_of_another_kind_is_unreadable(tmp_path, content):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="not a LiteRT|broken"):
        tfbig.LiteModel(path)


def test_a_truncated_file_is_unreadable(digits_lite, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(digits_lite.path.read_bytes()[:2000])
    with pytest.raises(UnreadableFile):
        tfbig.LiteModel(path)


def test_contents_name_the_arithmetic_before_the_first_layer(tmp_path):
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model = tfbig.models.mlp((4,), 2, normalizer=tfbig.normalizer(x))
    lite = tfbig.export(model, tmp_path / "m.tflite", calibration=x)
    contents = read_contents(lite.path.read_bytes())
    assert len(contents.elementwise_front()) == 2
    assert contents.float_ops() == ("FULLY_CONNECTED", "MUL", "SUB")
