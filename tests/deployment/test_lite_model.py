import hashlib
import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfbig
from tfbig.deployment import lite_model
from tfbig.deployment.lite_model import report_path
from tfbig.deployment.metadata import LABELS, with_metadata
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption, UnreadableFile


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


def test_a_closed_model_says_so_and_still_knows_its_file(digits, digits_lite):
    with tfbig.LiteModel(digits_lite.path) as lite:
        expected = lite.predict(digits.x_test[:2])
    assert lite.ops == digits_lite.ops
    assert lite.inputs == digits_lite.inputs
    for use in (lambda: lite.predict(digits.x_test), lite.benchmark):
        with pytest.raises(InvalidModel, match="closed. Load it again"):
            use()
    assert np.array_equal(pickle.loads(pickle.dumps(lite)).predict(digits.x_test[:2]), expected)


def test_a_file_without_labels_has_none(digits_lite, tmp_path):
    labels = [f"digit {i}" for i in range(10)]
    path = tmp_path / "labelled.tflite"
    path.write_bytes(with_metadata(digits_lite.path.read_bytes(), {LABELS: json.dumps(labels).encode()}))
    assert tfbig.LiteModel(path).labels == tuple(labels)
    assert tfbig.LiteModel(digits_lite.path).labels is None


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_are_counted(digits_lite, threads):
    with pytest.raises(InvalidOption, match="threads must be a whole number"):
        tfbig.LiteModel(digits_lite.path, threads=threads)


def test_a_misspelt_option_is_named(digits_lite):
    with pytest.raises(UnknownOption, match="Did you mean 'threads'"):
        tfbig.LiteModel(digits_lite.path, thread=2)


@pytest.fixture
def reported(digits_lite, tmp_path):
    """A copy of the file, and a function that writes the report beside it with a digest."""
    path = tmp_path / "m.tflite"
    path.write_bytes(digits_lite.path.read_bytes())

    def report(digest):
        values = {**digits_lite.report.to_dict(), "sha256": digest}
        report_path(path).write_text(json.dumps(values))

    return path, report


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tried(monkeypatch):
    """The names of files that are tried from here on."""
    names = []
    monkeypatch.setattr(lite_model, "check_runs", lambda content, name: names.append(name))
    return names


def test_a_file_is_tried_unless_its_report_vouches_for_it_or_the_caller_does(reported, monkeypatch):
    path, report = reported
    names = tried(monkeypatch)
    tfbig.LiteModel(path, trusted=True)
    assert names == []
    tfbig.LiteModel(path)
    assert names == [repr(str(path))]
    report(digest(path))
    tfbig.LiteModel(path)
    assert len(names) == 1


@pytest.mark.parametrize("trusted", [False, True])
def test_a_file_that_is_not_the_reported_one_is_refused(reported, trusted):
    path, report = reported
    report(digest(path))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(
        UnreadableFile, match=r"is not the file that m\.report\.json describes.*Export it again"
    ):
        tfbig.LiteModel(path, trusted=trusted)


def test_rows_beyond_the_calibration_are_said_once(digits, digits_lite):
    lite = tfbig.LiteModel(digits_lite.path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lite.predict(digits.x_test)
        lite.predict(digits.x_test[:8] * 100)  # too few to tell
    with pytest.warns(
        UserWarning, match=r"100% of the rows of input .* was calibrated with \(0 to .*clips them"
    ):
        lite.predict(digits.x_test * 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lite.predict(digits.x_test * 100)
