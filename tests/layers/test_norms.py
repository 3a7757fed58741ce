import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.layers.norms import QuantizedNormalization, has_integer_form, normalized, parts_of
from tfbig.layers.ranges import FakeQuant

L = keras.layers
LAYERS = [
    L.LayerNormalization(),
    L.LayerNormalization(axis=(1, 2), center=False),
    L.LayerNormalization(scale=False),
    L.RMSNormalization(),
    L.RMSNormalization(axis=(1, 2)),
    L.GroupNormalization(2),
    L.GroupNormalization(-1, center=False, scale=False),
]


def made(layer):
    """A layer of its own with weights that are not the first ones."""
    layer = type(layer).from_config(layer.get_config())
    layer.build((None, 5, 8))
    generator = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(weight + generator.normal(scale=0.3, size=weight.shape))
    return layer


def rows(batch=32):
    generator = np.random.default_rng(1)
    return (generator.uniform(0.5, 2, (batch, 5, 1)) * generator.normal(size=(batch, 5, 8))).astype("float32")


@pytest.mark.parametrize("layer", LAYERS)
def test_the_form_computes_what_the_layer_does(layer):
    layer, x = made(layer), rows()
    assert has_integer_form(layer)
    seen = []
    got = normalized(layer, x, lambda part, value: seen.append(part) or value)
    assert np.allclose(got, layer(x), atol=1e-5)
    assert tuple(seen) == parts_of(layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_rounded_it_is_near_and_saves_and_loads_equal(layer, tmp_path):
    layer, x = made(layer), rows()
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, FakeQuant()(QuantizedNormalization(layer, name="norm")(inputs)))
    for _ in range(3):
        model(x, training=True)
    got, want = np.asarray(model(x)), np.asarray(layer(x))
    # About eight roundings to 256 levels, two of them of factors that are small for most rows.
    assert np.abs(got - want).mean() <= 0.02 * np.ptp(want)
    assert not np.array_equal(got, want)
    model.save(tmp_path / "norm.keras")
    assert np.array_equal(keras.models.load_model(tmp_path / "norm.keras")(x), got)


def test_what_is_not_normalized_along_the_last_axis_has_no_form():
    with pytest.warns(UserWarning, match="rms_scaling"):
        odd = L.LayerNormalization(rms_scaling=True)
    first = L.GroupNormalization(5, axis=1)
    first.build((None, 5, 8))
    assert not any(has_integer_form(layer) for layer in (odd, first, L.UnitNormalization()))


def test_each_place_has_ranges_of_its_own():
    layer = QuantizedNormalization(made(L.LayerNormalization()), places=2)
    x = rows()
    for _ in range(3):
        small, large = layer(0.01 * x, training=True), layer(100 * x, training=True, place=1)
    highest = [float(layer.range_of("variance", place).limits()[1]) for place in (0, 1)]
    assert highest[1] > 1e6 * highest[0]
    # With one range for both, all of the small ones would have no variance at all.
    assert np.abs(large - layer.layer(100 * x)).mean() < 0.1
    assert np.abs(small - layer.layer(0.01 * x)).mean() < 0.1


def test_rows_whose_variance_rounds_to_nothing_train_and_predict_finite_values():
    layer = QuantizedNormalization(made(L.LayerNormalization(epsilon=1e-9)))
    x = rows()
    x[::2] *= 1e-4
    with tf.GradientTape() as tape:
        tape.watch(inputs := tf.constant(x))
        loss = tf.reduce_sum(layer(inputs, training=True) ** 2)
    gradients = tape.gradient(loss, [inputs, *layer.trainable_weights])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.isfinite(layer(x)).all()
