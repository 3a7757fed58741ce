import keras
import numpy as np

from tfbig.layers.ranges import FakeQuant
from tfbig.layers.sequences import QuantizedAverage, QuantizedPositions
from tfbig.models.step_layers import AverageOfSteps, Positions

L = keras.layers


def rows(batch=64, steps=6, features=4):
    return np.random.default_rng(0).normal(size=(batch, steps, features)).astype("float32")


def test_positions_are_those_of_the_layer_but_for_rounding():
    for kind in ("learned", "sinusoidal"):
        inside = Positions(kind)
        inside.build((None, 6, 4))
        got, want = QuantizedPositions(inside)(rows()), inside(rows())
        step = np.ptp(np.asarray(inside.table)) / 255
        assert 0 < np.abs(got - want).max() <= step
        # A model of open length gets as many as its rows have.
        assert np.array_equal(QuantizedPositions(inside)(rows()[:, :3]), got[:, :3])


def test_averages_leave_padding_out():
    x, lengths = rows(), np.arange(64) % 7
    mask = np.arange(6) < lengths[:, None]
    for inside in (AverageOfSteps(), L.GlobalAveragePooling1D(), L.GlobalAveragePooling1D(keepdims=True)):
        layer = QuantizedAverage(inside)
        for _ in range(3):
            layer(x, training=True, mask=mask)
        got = np.asarray(layer(x, mask=mask)).reshape(64, 4)
        want = np.array([row[:n].mean(0) if n else np.zeros(4) for row, n in zip(x, lengths, strict=True)])
        # The sum over few steps is small beside its range: of one step in six the error is six times as large.
        assert np.abs(got - want).max() <= 6 * 4 / 255
        assert np.abs(got - want).mean() <= 0.01
        assert np.array_equal(got[lengths == 0], np.zeros((10, 4)))
        assert np.array_equal(layer(x), inside(x))


def test_they_pass_no_mask_on_and_save_and_load_equal(tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    steps = L.Embedding(9, 4, mask_zero=True)(tokens)
    average = QuantizedAverage(AverageOfSteps(), name="average")(FakeQuant()(steps))
    assert getattr(average, "_keras_mask", None) is None
    model = keras.Model(tokens, average)
    x = np.random.default_rng(0).integers(0, 9, (32, 5))
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    assert np.array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))
