import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.data.normalization import normalizer
from tfbig.errors import InvalidData, UnknownOption


def normal(*shape, mean=0.0, std=1.0):
    return np.random.default_rng(0).normal(mean, std, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0, 1), (5, 0.1), (-3, 1e4), (2000, 0.5), (101_325, 30)],
    ids=["standard", "narrow", "wide", "far from 0", "pascals"],
)
def test_each_feature_gets_mean_0_and_variance_1(mean, std):
    x = np.stack([normal(1000, mean=mean, std=std), normal(1000)], axis=1)
    # 101,325 needs 17 bits before the point, so float32 keeps it to 0.008: 3e-4 of a std of 30.
    z = normalizer(x)(x).numpy().astype(np.float64)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)


def test_images_are_normalized_by_channel():
    x = np.concatenate([normal(50, 4, 4, 1, mean=3), normal(50, 4, 4, 1, std=9)], axis=-1)
    z = normalizer(x)(x).numpy()
    # Float32 rounding of 800 values.
    np.testing.assert_allclose(z.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_the_statistics_are_those_of_the_rows_it_was_fitted_on():
    layer = normalizer([[0.0], [4.0]])
    assert layer(np.array([[10.0]], np.float32)).numpy().tolist() == [[4.0]]


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, 16777.217, -1e9])
def test_a_constant_feature_is_centred_and_not_scaled(value):
    x = np.full((1000, 1), value, np.float32)
    moved = x + np.float32(1024)
    np.testing.assert_array_equal(normalizer(x)(moved).numpy(), moved - x)


def test_inverting_brings_normalized_values_back():
    y = normal(100, 2, mean=50, std=10)
    back = normalizer(y, invert=True)(normalizer(y)(y)).numpy()
    # Two float32 operations either way.
    np.testing.assert_allclose(back, y, rtol=1e-6)


@pytest.mark.parametrize("x", [[1, 3], [1.0, 3.0], np.array([1, 3], np.uint8)], ids=["int", "float", "uint8"])
def test_one_value_a_row_is_one_feature(x):
    assert normalizer(x)(np.array([[3.0], [5.0]], np.float32)).numpy().tolist() == [[1.0], [3.0]]


def test_the_layer_keeps_its_statistics_through_its_config():
    layer = normalizer([[0.0], [4.0]])
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again(np.array([[10.0]], np.float32)).numpy().tolist() == [[4.0]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([], "x must hold at least one row"),
        ([["red"]], "x must hold numbers"),
        ([[1.0], [np.nan]], r"x must be finite; got 1 .* index \(1, 0\)"),
    ],
)
def test_rows_that_have_no_statistics_are_refused(x, message):
    with pytest.raises(InvalidData, match=message):
        normalizer(x)


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(UnknownOption, match="no option 'inverted'. Did you mean 'invert'"):
        normalizer([[1.0]], inverted=True)
