"""What a model from `quantize_aware` says about its edges, also from inside another model."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.trained_ranges import trained_ranges
from tfbig.errors import InvalidModel, InvalidOption

L = keras.layers
OPTIONS = {"epochs": 1, "seed": 0, "verbose": 0}


@pytest.fixture(scope="module")
def rows():
    x = np.random.default_rng(0).uniform(-1, 3, (64, 4)).astype("float32")
    return x, (x[:, 0] > 1).astype(int)


@pytest.fixture(scope="module")
def rounded(rows):
    """A small quantized model. Shared by tests: none may change it."""
    model = keras.Sequential(
        [keras.Input((4,), name="x"), L.Dense(8, activation="relu"), L.Dense(2, name="logits")]
    )
    return tfbig.quantize_aware(model, *rows, **OPTIONS)


def wrapped(model, *, before=(), after=()):
    """The model between other layers, two levels down."""
    x = keras.Input((4,), name="outer")
    y = x
    for layer in before:
        y = layer(y)
    y = keras.Sequential([keras.Input((4,)), model], name="middle")(y)
    for layer in after:
        y = layer(y)
    return keras.Model(x, y, name="whole")


def test_ranges_at_the_edges_are_those_of_training(rows, rounded):
    x, _ = rows
    found = trained_ranges(rounded, "int8", None)
    assert found.reach_the_edges
    ((lowest, highest),) = found.inputs.values()
    # The means of the smallest and largest value of two batches of 32: inside of the whole's.
    assert x.min() <= lowest < -0.5
    assert 2.5 < highest <= x.max()


def test_a_nested_model_brings_its_ranges_along(rows, rounded, tmp_path):
    whole = wrapped(rounded)
    found, inner = (trained_ranges(model, "int8", None) for model in (whole, rounded))
    assert found.reach_the_edges
    assert list(found.inputs.values()) == list(inner.inputs.values())
    assert list(found.inputs) == [whole.inputs[0].name]
    lite = tfbig.export(whole, tmp_path / "whole.tflite", quantize="int8")
    assert set(lite.inputs.values()) == set(lite.outputs.values()) == {"int8"}
    assert lite.report.float_ops == ()
    step = np.ptp(tfbig.quantization(rounded).ranges["logits"]) / 255
    assert (
        np.abs(lite.predict(rows[0]) - np.asarray(whole(rows[0]))).max() <= step * 1.001
    )  # one level, in float32


def test_layers_around_a_nested_model_have_no_ranges(rounded):
    for whole in (wrapped(rounded, before=[L.Rescaling(1.0)]), wrapped(rounded, after=[L.Softmax()])):
        assert not trained_ranges(whole, "int8", None).reach_the_edges
        with pytest.raises(InvalidOption, match="'whole' begins or ends in float"):
            trained_ranges(whole, "int8", "int8")


def test_a_nested_model_is_known_to_be_quantized(rows, rounded):
    whole = wrapped(rounded)
    with pytest.raises(InvalidModel, match="'whole' is quantized already"):
        tfbig.quantize_aware(whole, *rows)
    with pytest.raises(InvalidOption, match=r'was trained for quantize="int8"; got quantize=None'):
        trained_ranges(whole, None, None)
    report, own = tfbig.quantization(whole), tfbig.quantization(rounded)
    assert [layer.name for layer in report.layers] == [
        f"middle/{rounded.name}/{layer.name}" for layer in own.layers
    ]
    assert list(report.ranges.values()) == list(own.ranges.values())
    assert report.in_float == {}


def test_models_that_were_not_trained_so_have_none(rounded):
    assert trained_ranges(tfbig.models.mlp((4,), 2), "int8", None) is None

    class Around(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = rounded

        def call(self, x):
            return self.inner(x)

    around = Around()
    around(np.zeros((1, 4), "float32"))
    with pytest.raises(InvalidModel, match="is subclassed, so its calls cannot be followed"):
        tfbig.quantization(around)


def test_indices_have_the_range_of_their_table(rows):
    layers = [L.Embedding(9, 4), L.Flatten(), L.Dense(2, name="logits")]
    model = keras.Sequential([keras.Input((4,), dtype="int32", name="x"), *layers])
    rounded = tfbig.quantize_aware(model, np.abs(rows[0]).astype("int32"), rows[1], **OPTIONS)
    found = trained_ranges(rounded, "int8", None)
    assert list(found.inputs.values()) == [(0, 9)]
    assert found.reach_the_edges
