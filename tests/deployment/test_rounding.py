import types

import keras
import numpy as np
import pytest

from tfbig.deployment.integer_graph import Layer
from tfbig.deployment.rounding import by_products, few_values, nearest, patches, products

EVERY = 10_000


def layer_of(kind, weights, strides=1, dilation=1, padding="same"):
    options = types.SimpleNamespace(
        strideH=strides,
        strideW=strides,
        dilationHFactor=dilation,
        dilationWFactor=dilation,
        padding=("same", "valid").index(padding),
    )
    units = weights.shape[3 if kind == "DEPTHWISE_CONV_2D" else 0]
    axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
    return Layer(0, kind, 0, 1, 2, 3, 0, weights, np.zeros(units), options, axis)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_patches_times_the_kernel_are_the_convolution(padding, strides, dilation):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("float32")
    conv = keras.layers.Conv2D(4, (3, 2), strides, padding, dilation_rate=dilation)
    expected = np.asarray(conv(x)).reshape(-1, 4)
    kernel = np.asarray(conv.kernel).transpose(3, 0, 1, 2)
    layer = layer_of("CONV_2D", kernel, strides, dilation, padding)
    found = patches(layer, x, EVERY, 0)
    assert np.allclose(found @ kernel.reshape(4, -1).T, expected, atol=1e-5)
    assert np.allclose(products(layer, kernel, found.mean(0)), expected.mean(0), atol=1e-5)


def test_depthwise_means_are_the_convolutions():
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("float32")
    conv = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")
    expected = np.asarray(conv(x)).mean((0, 1, 2))
    kernel = np.asarray(conv.kernel).reshape(1, 3, 3, 6)
    layer = layer_of("DEPTHWISE_CONV_2D", kernel)
    means = patches(layer, x, EVERY, 0).mean(0)
    assert np.allclose(products(layer, kernel, means), expected, atol=1e-5)


def test_a_sample_is_the_same_for_the_same_seed():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    layer = layer_of("FULLY_CONNECTED", np.zeros((2, 6)))
    assert patches(layer, x, 10, 1).shape == (10, 6)
    assert np.array_equal(patches(layer, x, 10, 1), patches(layer, x, 10, 1))
    assert not np.array_equal(patches(layer, x, 10, 1), patches(layer, x, 10, 2))


def test_products_are_closer_than_those_of_the_nearest_integers():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(2000, 4)) @ generator.normal(size=(4, 24))  # they move together
    weights = generator.normal(size=(8, 24))
    scales = np.abs(weights).max(1) / 7
    gram = inputs.T @ inputs / len(inputs)
    rounded = by_products(weights, scales, gram)
    plain = nearest(weights, scales[:, None])
    errors = [np.square((whole * scales[:, None] - weights) @ inputs.T).mean() for whole in (rounded, plain)]
    assert errors[0] < 0.2 * errors[1]
    assert np.array_equal(rounded, np.round(rounded))
    assert np.abs(rounded).max() <= 127


def test_weights_that_are_zero_stay_zero():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(500, 3)) @ generator.normal(size=(3, 12))
    weights = generator.normal(size=(4, 12)) * (generator.random((4, 12)) > 0.5)
    rounded = by_products(weights, np.full(4, 0.1), inputs.T @ inputs / 500)
    assert (rounded[weights == 0] == 0).all()


def test_clustered_weights_are_known():
    weights = np.random.default_rng(0).normal(size=(20, 20))
    assert not few_values(weights)
    assert few_values(np.round(weights))
