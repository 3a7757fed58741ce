"""Files as tf_keras writes them, through the whole road: read in a process of their own, rebuilt, compared."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import tfbig
from tfbig.deployment import legacy
from tfbig.deployment.legacy import share_of_range
from tfbig.deployment.legacy_reading import read_apart
from tfbig.errors import InvalidOption, UnreadableFile

L = tf_keras.layers


def two_towers():
    """Slashes in names, depthwise convolution, a shared nested model, two inputs and two named outputs."""
    inner = tf_keras.Sequential(
        [
            L.Input((6, 6, 2)),
            L.DepthwiseConv2D(3, name="block/depthwise"),
            L.BatchNormalization(name="block/norm"),
            L.Flatten(),
        ],
        name="tower",
    )
    a, b = tf_keras.Input((6, 6, 2), name="a"), tf_keras.Input((6, 6, 2), name="b")
    y = L.Concatenate()([inner(a), inner(b)])
    model = tf_keras.Model([a, b], {"sum": L.Dense(1)(y), "classes": L.Dense(3, activation="softmax")(y)})
    return with_chance_weights(model)


def with_chance_weights(model):
    generator = np.random.default_rng(0)
    model.set_weights([np.abs(generator.normal(size=w.shape)) + 0.1 for w in model.get_weights()])
    return model


def assert_same_outputs(loaded, old, *x):
    expected, got = old(list(x) if len(x) > 1 else x[0]), loaded(list(x) if len(x) > 1 else x[0])
    if not isinstance(expected, dict):
        expected, got = {"y": expected}, {"y": got}
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert share_of_range(np.asarray(value), np.asarray(got[name])) < 1e-5


def test_an_h5_file_becomes_a_model_of_keras_3(tmp_path):
    old = two_towers()
    old.save(tmp_path / "m.h5")
    environment = dict(os.environ)
    loaded = tfbig.load_model(tmp_path / "m.h5")
    assert isinstance(loaded, keras.Model)
    assert loaded.get_layer("tower").get_layer("block_depthwise") is not None
    assert_same_outputs(loaded, old, *np.random.default_rng(1).normal(size=(2, 5, 6, 6, 2)).astype("float32"))
    assert dict(os.environ) == environment
    with pytest.raises(InvalidOption, match="has its own"):
        tfbig.load_model(tmp_path / "m.h5", weights=tmp_path / "m.h5")


def test_json_and_weights_of_a_recurrent_model(tmp_path):
    layers = [
        L.Masking(),
        L.Bidirectional(L.LSTM(3, recurrent_activation="hard_sigmoid", implementation=1)),
        L.Dense(2),
    ]
    old = with_chance_weights(tf_keras.Sequential([L.Input((5, 2)), *layers]))
    (tmp_path / "m.json").write_text(old.to_json())
    old.save_weights(tmp_path / "w.h5")
    with pytest.raises(InvalidOption, match="weights="):
        tfbig.load_model(tmp_path / "m.json")
    with pytest.raises(UnreadableFile, match="There is no file"):
        tfbig.load_model(tmp_path / "m.json", weights=tmp_path / "none.h5")
    loaded = tfbig.load_model(tmp_path / "m.json", weights=tmp_path / "w.h5")
    x = np.random.default_rng(1).normal(size=(4, 5, 2)).astype("float32")
    assert_same_outputs(loaded, old, x)
    # The hard sigmoid that Keras 3 does not have survives a file of its own.
    again = tfbig.load_model(tfbig.save_model(loaded, tmp_path / "new.keras"))
    assert np.array_equal(again(x), loaded(x))


def test_a_saved_model_folder(tmp_path):
    old = two_towers()
    old.save(tmp_path / "folder")
    loaded = tfbig.load_model(tmp_path / "folder")
    assert_same_outputs(loaded, old, *np.random.default_rng(1).normal(size=(2, 5, 6, 6, 2)).astype("float32"))


def test_a_keras_file_of_tf_keras(tmp_path):
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        old = tf_keras.Sequential([L.Input((4,)), L.Dense(8, activation="relu"), L.Dense(2)])
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    old.save(tmp_path / "m.keras")
    loaded = tfbig.load_model(tmp_path / "m.keras")
    assert loaded.layers[0].compute_dtype == "float16"
    assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), old.get_weights(), strict=True))


def test_outputs_that_differ_are_an_error(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu")])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    y = np.asarray(model(x))
    np.savez(tmp_path / "inputs.npz", x0=x)
    for share, fits in ((0.9e-5, True), (1.1e-5, False)):
        changed = y.astype("float64")
        changed[changed.argmin(0)[0], 0] += share * np.ptp(y)
        np.savez(tmp_path / "outputs.npz", y0=changed)
        with (
            nullcontext()
            if fits
            else pytest.raises(UnreadableFile, match="differs from the legacy model's own")
        ):
            legacy._compare(model, tmp_path, "m.h5")


def test_weights_alone_and_programs_are_told_from_models(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    with pytest.raises(UnreadableFile, match="holds weights, not a model"):
        tfbig.load_model(tmp_path / "w.h5")
    model.export(tmp_path / "program", verbose=False)
    with pytest.raises(UnreadableFile, match="TFSMLayer"):
        tfbig.load_model(tmp_path / "program")


def test_files_that_point_elsewhere_or_claim_too_much_are_refused(tmp_path):
    for name, options in {
        "elsewhere": {"external": [("/etc/hostname", 0, 16)]},
        "huge": {"chunks": (2**20,)},
    }.items():
        shape = (4,) if name == "elsewhere" else (2**38,)
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": []}})
            file.create_dataset("w", shape, "f4", **options)
    with pytest.raises(UnreadableFile, match="points to other files"):
        tfbig.load_model(tmp_path / "elsewhere.h5")
    with pytest.raises(UnreadableFile, match="claims 1,099,511,627,776 bytes"):
        tfbig.load_model(tmp_path / "huge.h5")


def test_a_crash_or_hang_of_the_reader_is_an_exception(tmp_path):
    for name in ("crash", "hang"):
        (tmp_path / name).mkdir()
    with pytest.raises(UnreadableFile, match=r"(?s)crashed .*SIGSEGV.*the reader's last words"):
        read_apart({"do": "crash", "source": "m.h5"}, tmp_path / "crash", timeout=60)
    with pytest.raises(UnreadableFile, match="timeout=1 seconds"):
        read_apart({"do": "hang", "source": "m.h5", "seconds": 30}, tmp_path / "hang", timeout=1)


def test_importing_the_reader_loads_nothing_heavy():
    heavy = "{'tensorflow', 'keras', 'h5py'}"
    code = f"import sys, tfbig.deployment.legacy_process; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_share_of_range():
    a = np.array([0.0, 2.0, np.nan, np.inf])
    assert share_of_range(a, a) == 0
    assert share_of_range(a, a + np.array([0.0, 0.1, 0.0, 0.0])) == pytest.approx(0.05)
    assert share_of_range(a, np.zeros(4)) == np.inf
    assert share_of_range(a, a[:3]) == np.inf
    assert share_of_range(np.full(3, 5.0), np.full(3, 5.5)) == pytest.approx(0.1)
