import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment import workroom
from tfbig.deployment.contents import read_contents
from tfbig.deployment.reports import ExportReport
from tfbig.errors import (
    ConversionCrashed,
    ExportFailed,
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


def test_calibration_with_an_unknown_token_is_refused_before_the_converter_starts(tmp_path):
    model = tfbig.models.rnn((5,), 2, vocabulary=10, units=(4,))
    with pytest.raises(InvalidData, match="knows the tokens 0 to 9; row 1 holds 10"):
        tfbig.export(model, tmp_path / "m.tflite", calibration=np.array([[1] * 5, [10] * 5]))


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
    original = workroom.run_job
    monkeypatch.setattr(
        workroom, "run_job", lambda job, timeout, **_: original({**job, "do": "crash"}, timeout)
    )
    with pytest.raises(ConversionCrashed, match="nothing was written"):
        tfbig.export(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_not_written(model, rows, tmp_path, monkeypatch):
    wrong = [np.asarray(model(rows)) * 1.01]
    monkeypatch.setattr(workroom.Workroom, "_expected", wrong)
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
    original = workroom.run_job
    monkeypatch.setattr(
        workroom, "run_job", lambda job, timeout, **_: original({**job, "do": "crash"}, timeout)
    )
    with pytest.raises(ConversionCrashed):
        tfbig.export(model, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]
    assert path.read_text() == "precious"


def test_a_path_that_cannot_be_written_is_refused_before_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(workroom, "run_job", lambda *_, **__: pytest.fail("work started"))
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
        ({"quantize": "int8", "calibration": np.ones((9, 4))}, InvalidData, "All calibration values of input 'x' are"),
        ({"quantize": []}, InvalidOption, "quantize must be one of"),
        ({"quantize": ["int8", "int8"]}, InvalidOption, "a list of different ones"),
        ({"quantize": "int16x8", "input_type": "int8", "calibration": np.eye(4)}, InvalidOption, "take float32"),
        ({"strict": True}, InvalidOption, 'for quantize="int8" and "int16x8"'),
        ({"compact": True}, InvalidOption, 'for "int8" and "int16x8"'),
        ({"labels": ["a", "b"]}, InvalidOption, "each of the 3 classes; got 2 names"),
        ({"tolerance": 2}, InvalidOption, r"in \(0, 1\); got 2"),
        ({"calibration_rows": 0}, InvalidOption, "calibration_rows must be a whole number of at least 1"),
        ({"calibration": iter([])}, InvalidData, "the stream is empty"),
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
    assert "of the float32 file's" in text
    assert "on a microcontroller" in text
    assert json.loads(digits_lite.report.to_json())["proof"]["rows"] == 512


def test_the_report_sets_the_file_beside_the_float_one(digits_lite):
    report = digits_lite.report
    assert report.float_file.bytes > 2 * report.bytes
    assert report.float_file.latency.median_us > 0
    assert 0.99 < report.proof.cosine <= 1
    assert report.sha256 == hashlib.sha256(digits_lite.path.read_bytes()).hexdigest()
    assert report.converter_mib > 100  # TensorFlow alone takes more
    assert (
        report.ranges["x" if "x" in report.ranges else next(iter(report.ranges))][0] == 0
    )  # digits are not negative
    if (os.cpu_count() or 1) > 1:
        assert report.latency_all_threads.threads == os.cpu_count()


def test_sixteen_bits_for_activations(digits, digits_model, tmp_path):
    lite = tfbig.export(digits_model, tmp_path / "m.tflite", quantize="int16x8", calibration=digits.x_train)
    expected = np.asarray(digits_model(digits.x_test, training=False))
    assert np.abs(lite.predict(digits.x_test) - expected).mean() <= 5e-3 * np.ptp(
        expected
    )  # weights have 8 bits
    assert any(name.endswith("int16") for name in lite.ops)


def test_several_modes_make_a_file_each(model, rows, tmp_path):
    files = tfbig.export(model, tmp_path / "m.tflite", quantize=["int8", None, "dynamic"], calibration=rows)
    assert {mode: lite.path.name for mode, lite in files.items()} == {
        "int8": "m.int8.tflite",
        None: "m.float32.tflite",
        "dynamic": "m.dynamic.tflite",
    }
    assert all(lite.report.proof.holds for lite in files.values())
    assert files["int8"].report.float_file.bytes == pytest.approx(files[None].report.bytes, abs=64)  # padding


def test_several_modes_appear_all_or_none(model, rows, tmp_path):
    options = {"quantize": [None, "int8"], "calibration": rows, "tolerance": 1e-5}
    with pytest.raises(ProofFailed, match="allowed 1e-05"):
        tfbig.export(model, tmp_path / "m.tflite", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refused", [None, "int8"])
def test_what_one_of_several_conversions_refuses_is_said_and_nothing_written(
    model, rows, tmp_path, monkeypatch, refused
):
    original = workroom.Workroom._job

    def job(self, plan, output):
        made = original(self, plan, output)
        return {**made, "saved_model": str(tmp_path / "none")} if plan.mode == refused else made

    monkeypatch.setattr(workroom.Workroom, "_job", job)
    with pytest.raises(ExportFailed, match="SavedModel file does not exist"):
        tfbig.export(model, tmp_path / "m.tflite", quantize=[None, "int8"], calibration=rows)
    assert list(tmp_path.iterdir()) == []


def test_auto_keeps_the_smallest_that_is_close_enough(digits, digits_model, tmp_path):
    options = {"quantize": "auto", "calibration": digits.x_train}
    loose = tfbig.export(digits_model, tmp_path / "loose.tflite", **options)
    assert loose.report.quantize in ("int8", "int16x8", "dynamic")
    assert {trial.quantize for trial in loose.report.tried} == {None, "float16", "dynamic", "int8", "int16x8"}
    smaller = [trial for trial in loose.report.tried if trial.bytes and trial.bytes < loose.report.bytes]
    assert all(trial.refused == "not close enough" for trial in smaller)
    # Beyond what 8-bit weights can give.
    close = tfbig.export(digits_model, tmp_path / "close.tflite", tolerance=4e-4, **options)
    assert close.report.quantize == "float16"
    assert "tried     dynamic" in str(close.report)


def test_auto_without_calibration_tries_no_integers(model, tmp_path):
    tried = tfbig.export(model, tmp_path / "m.tflite", quantize="auto").report.tried
    assert {trial.quantize for trial in tried} == {None, "float16", "dynamic"}


def test_compact_is_kept_where_it_is_smaller(tmp_path):
    wide = tfbig.models.mlp((64,), 10, hidden=(512,))
    rows = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    options = {"quantize": "int8", "calibration": rows}
    plain = tfbig.export(wide, tmp_path / "plain.tflite", **options)
    compact = tfbig.export(wide, tmp_path / "compact.tflite", compact=True, **options)
    assert compact.report.compact
    # A scale and a zero point of each of 512 units: 4 + 8 bytes.
    assert plain.report.bytes - compact.report.bytes >= 512 * 12


@pytest.mark.parametrize("mode", [None, "int8"])
def test_images_of_any_size(mode, tmp_path):
    layers = [
        keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
        keras.layers.Conv2D(4, 5),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential([keras.Input((None, None, 2)), *layers])
    rows = np.random.default_rng(0).normal(size=(64, 20, 24, 2)).astype("float32")
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=rows if mode else None)
    assert lite.report.proof.holds
    for shape in ((4, 24, 30, 2), (2, 40, 21, 2)):  # averages over smaller images leave the calibrated range
        x = np.random.default_rng(1).normal(size=shape).astype("float32")
        assert np.abs(lite.predict(x) - model(x)).max() <= (0.03 if mode else 1e-5)
    assert tfbig.LiteModel(tmp_path / "m.tflite").benchmark(seconds=0.01).runs  # of what has run nothing yet


def test_zeros_are_left_out_where_that_is_smaller(tmp_path):
    model = tfbig.models.mlp((64,), 10, hidden=(256, 256))
    generator = np.random.default_rng(0)
    for layer in [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][:-1]:
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel * (generator.random(kernel.shape) < 0.1), bias])
    rows = generator.normal(size=(64, 64)).astype("float32")
    lite = tfbig.export(model, tmp_path / "m.tflite", calibration=rows)
    assert lite.report.sparse
    assert lite.report.bytes <= 0.5 * 4 * model.count_params()
    assert np.allclose(lite.predict(rows), model(rows), atol=1e-5)


def test_strict_refuses_what_is_left_in_float(digits, digits_model, tmp_path):
    options = {"quantize": "int8", "calibration": digits.x_train, "strict": True}
    assert tfbig.export(digits_model, tmp_path / "whole.tflite", **options).report.float_ops == ()
    both = tfbig.export(digits_model, tmp_path / "both.tflite", **{**options, "quantize": [None, "int8"]})
    assert both[None].report.float_ops  # strict is about the integer file
    data = tfbig.load_dataset("wine")
    model = tfbig.models.mlp((13,), 3, normalizer=tfbig.normalizer(data.x))
    with pytest.raises(ExportFailed, match="left are MUL, SUB"):
        tfbig.export(model, tmp_path / "m.tflite", **{**options, "calibration": data.x})
    assert not (tmp_path / "m.tflite").exists()


def test_names_labels_and_the_normalizers_constants_are_in_the_file(tmp_path):
    data = tfbig.load_dataset("wine")
    model = tfbig.models.mlp((13,), 3, normalizer=tfbig.normalizer(data.x))
    lite = tfbig.export(model, tmp_path / "m.tflite", labels=["barolo", "grignolino", "barbera"])
    assert lite.labels == ("barolo", "grignolino", "barbera")
    assert list(lite.outputs) == [model.layers[-1].name]
    constants = json.loads(read_contents(lite.path.read_bytes()).metadata["tfbig.normalization"])
    assert np.allclose(constants["mean"], data.x.mean(0), rtol=1e-5)


def test_more_than_ten_outputs_keep_their_order(tmp_path):
    x = keras.Input((3,))
    model = keras.Model(x, [keras.layers.Dense(2, name=f"head_{i}")(x) for i in range(12)])
    rows = np.ones((2, 3), "float32")
    lite = tfbig.export(model, tmp_path / "m.tflite")
    assert list(lite.outputs) == [f"head_{i}" for i in range(12)]
    for got, expected in zip(lite.predict(rows), model(rows), strict=True):
        assert np.allclose(got, expected, atol=1e-6)


def test_token_inputs_are_proven_on_tokens_of_the_table(tmp_path):
    x = keras.Input((5,), dtype="int32")
    table = keras.layers.Embedding(50, 4)
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(table(x))))
    report = tfbig.export(model, tmp_path / "m.tflite").report
    low, high = next(iter(report.ranges.values()))
    assert 0 <= low < 10
    assert 40 < high < 50


def test_c_source_is_written_beside(model, rows, tmp_path):
    tfbig.export(model, tmp_path / "m.tflite", quantize="int8", calibration=rows, c_array=True)
    assert {path.name for path in tmp_path.iterdir()} == {"m.tflite", "m.report.json", "m.c", "m.h"}


def test_c_source_of_what_a_microcontroller_cannot_run_is_refused_before_the_file_appears(tmp_path):
    x = keras.Input((4, 4, 1))
    model = keras.Model(
        x,
        keras.layers.Conv3D(2, (2, 2, 1))(
            keras.layers.Reshape((4, 4, 1, 1))(keras.layers.Activation("relu")(x))
        ),
    )
    with pytest.raises(ExportFailed, match="TensorFlow Lite Micro cannot run this file"):
        tfbig.export(model, tmp_path / "m.tflite", c_array=True)
    assert list(tmp_path.iterdir()) == []


def test_c_source_of_the_users_own_is_kept_unless_overwrite_is_given(model, tmp_path, monkeypatch):
    (tmp_path / "m.c").write_text("precious")
    monkeypatch.setattr(workroom, "run_job", lambda *_, **__: pytest.fail("work started"))
    with pytest.raises(OutputExists, match="exists already"):
        tfbig.export(model, tmp_path / "m.tflite", c_array=True)
    assert (tmp_path / "m.c").read_text() == "precious"


def test_outputs_of_one_layer_get_names_of_their_own(tmp_path):
    a, b, head = keras.Input((3,), name="a"), keras.Input((3,), name="b"), keras.layers.Dense(2, name="head")
    model = keras.Model([a, b], [head(a), head(b)])
    lite = tfbig.export(model, tmp_path / "m.tflite")
    assert list(lite.outputs) == ["head", "head_1"]
    x = {"a": np.zeros((2, 3), "float32"), "b": np.ones((2, 3), "float32")}
    for got, expected in zip(lite.predict(x), model([x["a"], x["b"]]), strict=True):
        assert np.allclose(got, expected, atol=1e-6)


def test_inputs_in_a_dict_are_given_as_the_model_takes_them(tmp_path):
    inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((3,), name="a")}
    hidden = keras.layers.Concatenate()([inputs["b"], inputs["a"]])
    model = keras.Model(inputs, {"y": keras.layers.Dense(2)(hidden), "x": keras.layers.Dense(1)(hidden)})
    lite = tfbig.export(model, tmp_path / "m.tflite")
    rows = {"b": np.ones((2, 2), "float32"), "a": np.zeros((2, 3), "float32")}
    expected = model(rows)
    assert list(lite.outputs) == ["x", "y"]
    for name, got in zip(lite.outputs, lite.predict(rows), strict=True):
        assert np.allclose(got, expected[name], atol=1e-6)


def test_text_is_refused(tmp_path):
    x = keras.Input((1,), dtype="string", name="words")
    model = keras.Model(x, keras.layers.StringLookup(vocabulary=["a", "b"])(x))
    with pytest.raises(InvalidModel, match="'words' of .* is text.*Turn text into numbers"):
        tfbig.export(model, tmp_path / "m.tflite")


def test_a_table_of_words_or_numbers_is_refused(tmp_path):
    x = keras.Input((1,), dtype="int64")
    lookup = keras.layers.IntegerLookup(vocabulary=[5, 7])
    model = keras.Model(x, keras.layers.Embedding(4, 2)(lookup(x)))
    with pytest.raises(InvalidModel, match="IntegerLookup"):
        tfbig.export(model, tmp_path / "m.tflite")


def test_threads_may_export_one_model_at_once(tmp_path):
    x = keras.Input((6, 4))
    steps = keras.layers.LSTM(4, return_sequences=True)(keras.layers.LayerNormalization()(x))
    model = keras.Model(x, keras.layers.Dense(3, activation="selu")(keras.layers.Flatten()(steps)))
    rows = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")
    before = np.asarray(model(rows))
    modes = [None, "int8", "int16x8", "int8"]

    def made(place):
        return tfbig.export(model, tmp_path / f"{place}.tflite", quantize=modes[place], calibration=rows)

    with ThreadPoolExecutor(len(modes)) as pool:
        files = list(pool.map(made, range(len(modes))))
    assert [file.report.quantize for file in files] == modes
    assert files[1].path.read_bytes() == files[3].path.read_bytes()
    assert not any("call" in vars(layer) for layer in model.layers)
    assert np.array_equal(model(rows), before)


@pytest.mark.parametrize("features", [5, 6])
@pytest.mark.parametrize("mode", [None, "int8"])
def test_a_term_with_one_value_a_step_is_added_to_every_feature(features, mode, tmp_path):
    x = keras.Input((5, features))
    model = keras.Model(x, keras.layers.Add()([x, keras.ops.max(x, axis=-1, keepdims=True)]))
    rows = np.random.default_rng(0).normal(size=(32, 5, features)).astype("float32")
    lite = tfbig.export(model, tmp_path / "model.tflite", quantize=mode, calibration=rows)
    # In 8 bits: half a step of the result and of each term.
    assert np.abs(lite.predict(rows) - np.asarray(model(rows))).max() <= (
        1e-6 if mode is None else 12 * 1.5 / 255
    )
