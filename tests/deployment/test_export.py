import json
import os

import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment import export as export_module
from tfbig.deployment.reports import ExportReport
from tfbig.errors import (
    ConversionCrashed,
    InvalidData,
    InvalidModel,
    InvalidOption,
    OutputExists,
    OutputNotWritable,
    ProofFailed,
    UnknownOption,
)


@pytest.fixture(scope="module")
def model():
    return tfbig.models.mlp((4,), 3, hidden=(16,))


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(100, 4)).astype("float32")


# Mean error allowed as a share of the output range, and size as a share of the float32 file. The model has
# 24 kB of weights, so the graph's own bytes, which no mode shrinks, weigh more here than in a real model.
@pytest.mark.parametrize(
    ("mode", "error", "size"),
    [(None, 1e-6, 1.0), ("float16", 1e-3, 0.6), ("dynamic", 1e-2, 0.4), ("int8", 1e-2, 0.4)],
)
def test_every_mode_gives_the_models_answers_and_its_size(digits, digits_model, tmp_path, mode, error, size):
    lite = tfbig.export(digits_model, tmp_path / "m.tflite", quantize=mode, calibration=digits.x_train)
    expected = np.asarray(digits_model(digits.x_test, training=False))
    got = lite.predict(digits.x_test)
    assert np.abs(got - expected).mean() / np.ptp(expected) <= error
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.99
    float_bytes = 4 * digits_model.count_params()
    assert lite.report.bytes <= size * float_bytes + 10_000
    assert lite.report.bytes == os.path.getsize(lite.path)


def test_int8_is_integer_throughout(digits_lite):
    assert set(digits_lite.inputs.values()) | set(digits_lite.outputs.values()) == {"int8"}
    assert digits_lite.report.float_ops == ()
    # int32: older Keras computes the shape that Flatten reshapes to.
    assert all(name.endswith(("int8", "int32")) for name in digits_lite.ops)


@pytest.mark.parametrize("edge", ["float32", "uint8", "int8"])
def test_the_edges_are_the_ones_asked_for(digits, digits_model, tmp_path, edge):
    lite = tfbig.export(
        digits_model, tmp_path / "m.tflite", quantize="int8", calibration=digits.x_train, input_type=edge
    )
    assert list(lite.inputs.values()) == [edge]
    assert list(lite.outputs.values()) == [edge]


def test_features_of_different_units_stay_accurate_in_int8(tmp_path):
    data = tfbig.load_dataset("wine")  # columns from 0.1 to 1,680
    x_train, x_test, y_train, y_test = tfbig.split(data.x, data.y, seed=0)

    def build(x):
        return tfbig.models.mlp((13,), 3, hidden=(32,), normalizer=tfbig.normalizer(x))

    model = tfbig.fit(build, x_train, y_train, epochs=30, batch_size=16, seed=0, verbose=0).model
    lite = tfbig.export(model, tmp_path / "wine.tflite", quantize="int8", calibration=x_train)
    assert lite.report.float_ops == ("MUL", "SUB")
    assert "FULLY_CONNECTED int8" in lite.ops
    assert list(lite.inputs.values()) == ["float32"]
    expected = np.asarray(model(x_test)).argmax(1)
    assert (lite.predict(x_test).argmax(1) == expected).mean() >= 0.97  # one of 36 rows


def test_the_same_model_with_one_scale_for_all_units_fails_its_proof(tmp_path):
    data = tfbig.load_dataset("wine")

    def build(x):
        return tfbig.models.mlp((13,), 3, hidden=(32,), normalizer=tfbig.normalizer(x))

    model = tfbig.fit(build, data.x, data.y, epochs=10, seed=0, verbose=0).model
    path = tmp_path / "wine.tflite"
    options = {"quantize": "int8", "calibration": data.x, "input_type": "int8"}
    with pytest.raises(
        ProofFailed, match=r'mean error .* allowed 0.05.*input_type="float32".*Nothing was written'
    ):
        tfbig.export(model, path, **options)
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(UserWarning, match="The file's answers are not the model's"):
        lite = tfbig.export(model, path, verify="warn", **options)
    assert not lite.report.proof.holds


def test_the_report_stands_beside_the_file_and_comes_back_with_it(digits_lite):
    beside = digits_lite.path.with_name("digits.report.json")
    report = ExportReport.from_json(beside)
    assert report == digits_lite.report == tfbig.LiteModel(digits_lite.path).report
    assert report.quantize == "int8"
    assert report.proof.inputs == "calibration"
    assert report.proof.agreement >= 0.99
    assert 0 < report.latency.median_us <= report.latency.p95_us
    assert report.gzip_bytes < report.bytes


def test_a_proof_without_real_rows_says_so(model, tmp_path):
    assert tfbig.export(model, tmp_path / "m.tflite").report.proof.inputs == "synthetic"


def test_an_open_batch_is_open(model, rows, tmp_path):
    lite = tfbig.export(model, tmp_path / "m.tflite", batch_size=None)
    assert np.allclose(lite.predict(rows), model(rows), atol=1e-5)  # float rounding of logits near 1


def test_a_fixed_batch_serves_any_number_of_rows(model, rows, tmp_path):
    lite = tfbig.export(model, tmp_path / "m.tflite", batch_size=8, quantize="int8", calibration=rows)
    one_by_one = np.concatenate([lite.predict(rows[i : i + 1]) for i in range(11)])
    assert np.array_equal(lite.predict(rows[:11]), one_by_one)


def test_several_inputs_and_outputs_keep_their_names_and_order(tmp_path):
    wide, deep = keras.Input((3,), name="wide"), keras.Input((2,), name="deep")
    hidden = keras.layers.Concatenate()([keras.layers.Dense(4)(deep), wide])
    model = keras.Model([wide, deep], [keras.layers.Dense(2)(hidden), keras.layers.Dense(1)(hidden)])
    generator = np.random.default_rng(0)
    columns = {"wide": generator.normal(size=(50, 3)), "deep": 100 * generator.normal(size=(50, 2))}
    columns = {name: values.astype("float32") for name, values in columns.items()}
    for mode in (None, "int8"):
        lite = tfbig.export(model, tmp_path / f"{mode}.tflite", quantize=mode, calibration=columns)
        assert set(lite.inputs) == {"wide", "deep"}
        expected = model([columns["wide"], columns["deep"]])
        for got, wanted in zip(lite.predict(columns), expected, strict=True):
            assert np.abs(got - wanted).mean() <= 0.02 * np.ptp(wanted)  # 8 bits through two layers


def test_a_crash_leaves_the_caller_alive_and_no_file(model, tmp_path, monkeypatch):
    original = export_module.run_job
    monkeypatch.setattr(
        export_module, "run_job", lambda job, timeout: original({**job, "do": "crash"}, timeout)
    )
    with pytest.raises(ConversionCrashed, match="nothing was written"):
        tfbig.export(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_not_written(model, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export_module, "_model_outputs", lambda model, rows: [np.asarray(model(rows["x"])) * 1.01]
    )
    with pytest.raises(ProofFailed, match="please report this model"):
        tfbig.export(model, tmp_path / "m.tflite", calibration=rows)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_overwrite_is_given(model, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_text("precious")
    with pytest.raises(OutputExists, match="exists already. Pass overwrite=True"):
        tfbig.export(model, path)
    assert path.read_text() == "precious"
    assert tfbig.export(model, path, overwrite=True).report.bytes == path.stat().st_size


def test_a_failed_overwrite_keeps_what_was_there(model, tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_text("precious")
    original = export_module.run_job
    monkeypatch.setattr(
        export_module, "run_job", lambda job, timeout: original({**job, "do": "crash"}, timeout)
    )
    with pytest.raises(ConversionCrashed):
        tfbig.export(model, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]
    assert path.read_text() == "precious"


def test_a_path_that_cannot_be_written_is_refused_before_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "run_job", lambda *_: pytest.fail("work started"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritable, match="Nothing can be written in"):
        tfbig.export(model, tmp_path / "file" / "m.tflite")
    with pytest.raises(OutputNotWritable, match="must end in '.tflite'; got"):
        tfbig.export(model, tmp_path / "m.lite")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(OutputNotWritable, match="is a folder"):
        tfbig.export(model, tmp_path / "folder.tflite", overwrite=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantize": "int4"}, InvalidOption, r"one of None, 'float16', 'dynamic', 'int8'.*Did you mean 'int8'"),
        ({"quantize": "int8"}, InvalidData, "needs calibration= rows"),
        ({"quantize": "int8", "calibration": np.zeros((9, 5))}, InvalidData, r"must have shape \(4,\); got \(5,\)"),
        ({"quantize": "int8", "calibration": np.zeros((9, 4), int)}, InvalidData, "must be float32.*got int64"),
        ({"quantize": "int8", "calibration": np.full((9, 4), np.nan)}, InvalidData, "calibration must be finite"),
        ({"calibration": {"y": np.zeros((9, 4))}}, InvalidData, r"must name the inputs \['x'\]; got \['y'\]"),
        ({"calibration": np.zeros((2, 4)), "batch_size": 4}, InvalidData, "at least batch_size=4 rows; got 2"),
        ({"input_type": "int8"}, InvalidOption, "is for quantize=\"int8\""),
        ({"quantize": "int8", "input_type": "int9"}, InvalidOption, "Did you mean 'int8'"),
        ({"batch_size": 0}, InvalidOption, "batch_size must be a whole number of at least 1; got 0"),
        ({"verify": False}, InvalidOption, "No file is written unproven"),
        ({"quantise": "int8"}, UnknownOption, "no option 'quantise'. Did you mean 'quantize'"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_with_their_message(model, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        tfbig.export(model, tmp_path / "m.tflite", **options)
    assert list(tmp_path.iterdir()) == []


def test_something_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InvalidModel, match="Expected a keras.Model; got dict"):
        tfbig.export({}, tmp_path / "m.tflite")
    with pytest.raises(InvalidModel, match="does not know its inputs"):
        tfbig.export(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "m.tflite")


def test_the_report_prints_what_matters(digits_lite):
    text = str(digits_lite.report)
    assert "int8" in text
    assert "of labels agree" in text
    assert json.loads(digits_lite.report.to_json())["proof"]["rows"] == 512
