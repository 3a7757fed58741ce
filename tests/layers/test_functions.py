import keras
import numpy as np
import pytest

from tfbig.layers.functions import FORMS, QuantizedFunction, celu, elu
from tfbig.layers.ranges import FakeQuant

L = keras.layers


def rows():
    x = np.random.default_rng(0).normal(scale=2, size=(200, 5)).astype("float32")
    return np.concatenate([x, np.zeros((1, 5), "float32"), 20 * x[:4]])


@pytest.mark.parametrize("name", FORMS)
def test_a_form_computes_what_keras_does(name):
    x = rows()
    assert np.allclose(FORMS[name](x), getattr(keras.activations, name)(x), atol=1e-5)


def test_slopes_are_taken():
    x = rows()
    assert np.allclose(elu(x, 0.5), keras.activations.elu(x, 0.5), atol=1e-5)
    assert np.allclose(celu(x, 2.0), keras.activations.celu(x, 2.0), atol=1e-5)


@pytest.mark.parametrize("layer", [*(L.Activation(name) for name in FORMS), L.ELU(0.3)])
def test_rounded_it_is_near_and_saves_and_loads_equal(layer, tmp_path):
    x = rows()[:200]
    inputs = keras.Input((5,))
    rounded = QuantizedFunction(layer)
    model = keras.Model(inputs, FakeQuant()(rounded(FakeQuant()(inputs))))
    for _ in range(3):
        model(x, training=True)
    assert len(set(rounded.parts())) == len(rounded.parts()) == len(rounded.inner) > 0
    got, want = np.asarray(model(x)), np.asarray(layer(x))
    # Up to seven roundings, each of half a step in 256 of a range that is at most twice that of the result.
    assert np.abs(got - want).max() <= 7 * np.ptp(want) / 255
    assert np.isfinite(got).all()
    model.save(tmp_path / "model.keras")
    assert np.array_equal(keras.models.load_model(tmp_path / "model.keras")(x), got)
