import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.data.augmentation import augmentation
from tfbig.errors import InvalidOption, UnknownOption

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 12, 12, 3)).astype(np.float32)
KINDS = {
    "flip": {"flip": "vertical"},
    "rotation": {"flip": None, "rotation": 0.1},
    "shift": {"flip": None, "shift": 0.2},
    "zoom": {"flip": None, "zoom": 0.2},
    "contrast": {"flip": None, "contrast": 0.5},
    "brightness": {"flip": None, "brightness": 0.3},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_each_kind_changes_images_in_training_only(options):
    layers = augmentation(**options, seed=1)
    assert len(layers.layers) == 1
    np.testing.assert_array_equal(layers(IMAGES, training=False), IMAGES)
    changed = np.asarray(layers(IMAGES, training=True))
    assert changed.shape == IMAGES.shape
    assert np.abs(changed - IMAGES).max() > 1


def test_pixels_stay_in_their_range():
    changed = np.asarray(
        augmentation(brightness=1.0, contrast=1.0, value_range=(0, 1))(IMAGES / 255, training=True)
    )
    assert 0 <= changed.min() <= changed.max() <= 1


def test_the_same_seed_changes_images_in_the_same_way():
    first, again, other = (
        np.asarray(augmentation(rotation=0.2, seed=seed)(IMAGES, training=True)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_it_trains_in_a_model_and_is_not_in_the_file(digits, tmp_path):
    def build(x):
        model = tfbig.models.cnn((8, 8, 1), 10, filters=(8,), normalizer=tfbig.normalizer(x))
        layers = augmentation(flip=None, shift=0.1, rotation=0.02, value_range=(0, 16), fill="constant")
        return model, keras.Sequential([keras.Input((8, 8, 1), name="x"), layers, *model.layers])

    x, y = digits.x_train[:512], digits.y_train[:512]
    plain, changing = build(x)
    run = tfbig.fit(changing, x, y, epochs=3, seed=0, verbose=0)
    assert run.history["loss"][-1] < run.history["loss"][0]
    files = [tfbig.export(m, tmp_path / f"{m.name}.tflite", calibration=x) for m in (plain, changing)]
    assert files[0].ops == files[1].ops
    np.testing.assert_allclose(
        files[1].predict(x[:32]), plain.predict(x[:32], verbose=0), atol=1e-4
    )  # the layers are shared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": "left"}, "flip must be one of 'horizontal', 'vertical'"),
        ({"fill": "black"}, "fill must be one of 'nearest'"),
        ({"rotation": 90}, r"rotation must be a number in \[0, 1\]; got 90"),
        ({"zoom": 1}, r"zoom must be a number in \[0, 1\)"),
        ({"value_range": (1, 0)}, "value_range must be the smallest and the largest value"),
        ({"flip": None}, "Nothing is to be changed"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        augmentation(**options)


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(UnknownOption, match="Did you mean 'rotation'"):
        augmentation(rotaton=0.1)
