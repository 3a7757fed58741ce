import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import tfbig
from tfbig.errors import InvalidModel, OutputExists, OutputNotWritable, UnreadableFile


@pytest.fixture(scope="module")
def model():
    return tfbig.models.mlp((4,), 3, normalizer=tfbig.normalizer(np.arange(8.0).reshape(2, 4)))


def test_a_model_comes_back_with_its_normalizer_and_answers(model, tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    again = tfbig.load_model(tfbig.save_model(model, tmp_path / "m.keras"))
    assert np.array_equal(again(x), model(x))


def test_training_goes_on_where_it_stopped(model, blobs, tmp_path):
    tfbig.fit(model, *blobs, epochs=2, seed=0, verbose=0)
    again = tfbig.load_model(tfbig.save_model(model, tmp_path / "m.keras"))
    for one in (model, again):
        tfbig.fit(one, *blobs, epochs=1, seed=1, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))


def test_an_existing_file_is_kept_unless_overwrite_is_given(model, tmp_path):
    path = tfbig.save_model(model, tmp_path / "m.keras")
    with pytest.raises(OutputExists, match="Pass overwrite=True"):
        tfbig.save_model(model, path)
    tfbig.save_model(model, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_a_failed_save_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(self, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Sequential, "save", fail)
    with pytest.raises(OutputNotWritable, match="No space left on device"):
        tfbig.save_model(model, tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(InvalidModel, match="Expected a keras.Model; got list"):
        tfbig.save_model([], tmp_path / "m.keras")
    with pytest.raises(InvalidModel, match="has no weights yet"):
        tfbig.save_model(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "m.keras")
    with pytest.raises(OutputNotWritable, match="must end in '.keras', or have no ending"):
        tfbig.save_model(tfbig.models.mlp((4,), 3), tmp_path / "m.h5")


def test_a_missing_or_foreign_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableFile, match="There is no file"):
        tfbig.load_model(tmp_path / "none.keras")
    (tmp_path / "m.keras").write_text("not a zip archive")
    with pytest.raises(UnreadableFile, match="Expected a Keras file"):
        tfbig.load_model(tmp_path / "m.keras")
    with pytest.raises(UnreadableFile, match="is no SavedModel"):
        tfbig.load_model(tmp_path)


def test_the_content_decides_not_the_ending(model, tmp_path):
    path = tfbig.save_model(model, tmp_path / "m.keras").rename(tmp_path / "m.h5")
    assert tfbig.load_model(path).name == model.name


def test_a_zip_that_is_no_model_is_unreadable(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UnreadableFile, match="cannot be loaded"):
        tfbig.load_model(tmp_path / "m.keras")


def test_code_in_a_file_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnreadableFile, match="Lambda"):
        tfbig.load_model(tmp_path / "m.keras")


def rewritten(path, target, change):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**parts, **change(parts)}.items():
            archive.writestr(name, content)
    return target


def test_a_wrong_checksum_is_found(model, tmp_path):
    path = tfbig.save_model(model, tmp_path / "m.keras")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        content[archive.getinfo("model.weights.h5").header_offset + 3000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="checksum of its part 'model.weights.h5'"):
        tfbig.load_model(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parts: {"../outside.txt": b"x"}, "points outside"),
        (lambda parts: {"zeros": bytes(2**27)}, "would unpack to"),
        (lambda parts: {"model.weights.h5": parts["model.weights.h5"][:2000]}, "cannot be loaded"),
        (lambda parts: {"config.json": b"[]"}, "holds no model"),
    ],
    ids=["path", "bomb", "cut", "config"],
)
def test_hostile_archives_are_refused(model, tmp_path, change, words):
    path = tfbig.save_model(model, tmp_path / "m.keras")
    with pytest.raises(UnreadableFile, match=words):
        tfbig.load_model(rewritten(path, tmp_path / "bad.keras", change))


@pytest.fixture(scope="module")
def two_ends():
    a, b = keras.Input((3,), name="left"), keras.Input((2,), name="right", dtype="int32")
    y = keras.layers.Concatenate()([a, keras.layers.Rescaling(0.5)(b)])
    outputs = [keras.layers.Dense(1, name="price")(y), keras.layers.Dense(4, name="logits")(y)]
    return keras.Model([a, b], outputs, name="two_ends")


def test_a_path_without_ending_becomes_what_tensorflow_serving_takes(two_ends, tmp_path):
    folder = tfbig.save_model(two_ends, tmp_path / "served" / "1")
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    rows = {"left": np.ones((5, 3), "float32"), "right": np.ones((5, 2), "int32")}
    code = f"""
import numpy as np, tensorflow as tf
serve = tf.saved_model.load({str(folder)!r}).signatures["serving_default"]
_, inputs = serve.structured_input_signature
print(sorted(inputs), sorted(serve.structured_outputs))
outputs = serve(left=tf.ones((5, 3)), right=tf.ones((5, 2), tf.int32))
np.savez({str(tmp_path / "y.npz")!r}, **{{name: y.numpy() for name, y in outputs.items()}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['left', 'right'] ['logits', 'price']"
    with np.load(tmp_path / "y.npz") as got:
        for name, expected in zip(("price", "logits"), two_ends(list(rows.values())), strict=True):
            np.testing.assert_allclose(got[name], expected, rtol=1e-6)
    again = tfbig.load_model(folder)
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), two_ends.get_weights(), strict=True))


def test_versions_stand_beside_each_other(model, tmp_path):
    tfbig.save_model(model, tmp_path / "m" / "1")
    tfbig.save_model(model, tmp_path / "m" / "3")
    with pytest.raises(UnreadableFile, match=r"versions of a model, 1, 3. Load one of them: '.*/m/3'"):
        tfbig.load_model(tmp_path / "m")
    with pytest.raises(OutputNotWritable, match=r"the versions 1, 3 .*the next beside them: '.*/m/4'"):
        tfbig.save_model(model, tmp_path / "m", overwrite=True)
    with pytest.raises(OutputExists, match="or write a new version"):
        tfbig.save_model(model, tmp_path / "m" / "3")
    before = (tmp_path / "m" / "3" / "fingerprint.pb").read_bytes()
    tfbig.save_model(model, tmp_path / "m" / "3", overwrite=True)
    assert (tmp_path / "m" / "3" / "fingerprint.pb").read_bytes() != before
    with pytest.raises(OutputNotWritable, match="is a SavedModel itself"):
        tfbig.save_model(model, tmp_path / "m" / "3" / "1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputNotWritable, match="is not touched"):
        tfbig.save_model(model, tmp_path / "mine", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "3"]


def test_a_failed_folder_leaves_what_was_there(model, tmp_path, monkeypatch):
    folder = tfbig.save_model(model, tmp_path / "m")
    before = (folder / "fingerprint.pb").read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputNotWritable, match="No space left on device"):
        tfbig.save_model(model, folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (folder / "fingerprint.pb").read_bytes() == before


def test_a_folder_killed_midway_is_not_there(tmp_path):
    code = f"""
import os, signal, tfbig
from tfbig.deployment import serving
serving._flush = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
tfbig.save_model(tfbig.models.mlp((4,), 3), {str(tmp_path / "m" / "1")!r})
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    assert not (tmp_path / "m" / "1").exists()
    # What is left is hidden, and no version to a server.
    assert all(path.name.startswith(".1.") for path in (tmp_path / "m").iterdir())
