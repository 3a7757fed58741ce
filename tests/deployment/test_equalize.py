import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.equalize import Channels, gains, shared_channels, shared_scales
from tfbig.deployment.integer_graph import IntegerGraph, layers_of


def build():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Conv2D(6, 3, activation="relu6")(x)
    x = keras.layers.AveragePooling2D(6)(x)
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(x)))
    generator = np.random.default_rng(0)
    for weight in model.weights:  # biases of zeros are left out of a file
        weight.assign(weight + generator.normal(scale=0.01, size=weight.shape))
    return model


@pytest.fixture(scope="module")
def taken_apart(tmp_path_factory):
    rows = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    path = tmp_path_factory.mktemp("equalize") / "m.tflite"
    exported = tfbig.export(build(), path, quantize=[None, "int8"], calibration=rows)
    integers, floats = (IntegerGraph(exported[mode].path.read_bytes()) for mode in ("int8", None))
    return integers, floats, layers_of(integers, floats)


def test_every_layer_is_found_with_its_float_kernel(taken_apart):
    integers, _, layers = taken_apart
    assert [layer.kind for layer in layers] == ["CONV_2D"] * 3 + ["FULLY_CONNECTED"]
    for layer in layers:
        scales = integers.scales(layer.kernel).reshape(-1, *[1] * (layer.weights.ndim - 1))
        assert (np.abs(integers.constant(layer.kernel) * scales - layer.weights) <= 0.51 * scales).all()


def test_layers_of_another_model_are_not_taken(taken_apart, tmp_path):
    integers, *_ = taken_apart
    keras.utils.set_random_seed(9)
    other = tfbig.export(build(), tmp_path / "other.tflite").path.read_bytes()
    assert layers_of(integers, IntegerGraph(other)) == []


def test_an_average_shares_the_scale_of_what_it_reads(taken_apart):
    integers, _, layers = taken_apart
    groups = shared_scales(integers, layers)
    (pool,) = [op for op in integers.operations if op.name == "AVERAGE_POOL_2D"]
    (group,) = [group for group in groups if pool.inputs[0] in group]
    assert pool.outputs[0] in group


def test_scales_at_the_edges_are_left(taken_apart):
    integers, _, layers = taken_apart
    movable = {index for group in shared_scales(integers, layers) for index in group}
    contents = integers.contents
    assert movable
    assert not movable & {*contents.inputs.values(), *contents.outputs.values()}


def test_channels_are_tied_by_additions_and_not_behind_relu6(taken_apart):
    integers, _, layers = taken_apart
    groups = shared_channels(integers, layers, shared_scales(integers, layers))
    (add,) = [op for op in integers.operations if op.name == "ADD"]
    assert groups == [Channels(tuple(sorted({*add.inputs, *add.outputs})), 4)]


def test_a_layer_that_is_not_known_keeps_its_scales(taken_apart):
    integers, _, layers = taken_apart
    movable = {index for group in shared_scales(integers, layers[1:]) for index in group}
    assert layers[0].result not in movable
    assert layers[1].result in movable


def test_gains_bring_quiet_channels_up_and_no_range_grows():
    group = Channels((0, 1), 3)
    highest = {0: np.array([1.0, 4.0, 0.001]), 1: np.array([2.0, 2.0, 0.0])}
    lowest = {index: np.zeros(3) for index in highest}
    found = gains(group, lowest, highest, 1.0)
    assert np.allclose(found, [1.0, 1.0, 16.0])
    assert np.allclose(gains(group, lowest, highest, 0.5), [1.0, 1.0, 4.0])
    alone = gains(Channels((0,), 3), lowest, highest, 1.0)
    assert np.allclose(alone * highest[0], [4.0, 4.0, 0.016])
