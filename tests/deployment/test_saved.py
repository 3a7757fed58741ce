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
    with pytest.raises(OutputNotWritable, match="must end in '.keras'"):
        tfbig.save_model(tfbig.models.mlp((4,), 3), tmp_path / "m.h5")


def test_a_missing_or_foreign_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableFile, match="There is no file"):
        tfbig.load_model(tmp_path / "none.keras")
    (tmp_path / "m.keras").write_text("not a zip archive")
    with pytest.raises(UnreadableFile, match="Expected a Keras 3 file"):
        tfbig.load_model(tmp_path / "m.keras")


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
