import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.sample_rows import sample_rows
from tfbig.deployment.signature import input_shapes
from tfbig.errors import InvalidData

L = keras.layers
COUNT = 2000


def drawn(model, **options):
    rows = sample_rows(model, input_shapes(model), COUNT, **options)
    return next(iter(rows.values())) if len(rows) == 1 else rows


def reading(shape, *layers, dtype="float32"):
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


class UpTo(L.Layer):
    """Takes so many steps and no more, as a table of positions does."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def call(self, x):
        if x.shape[1] is not None and x.shape[1] > self.most:
            raise ValueError(f"{x.shape[1]} steps are too many")
        return x


MEAN, DEVIATION = np.array([1000.0, -3.0]), np.array([0.5, 40.0])


def normalization():
    return L.Normalization(mean=MEAN, variance=DEVIATION**2)


def batch_normalization():
    layer = L.BatchNormalization()
    layer.build((None, 2))
    layer.set_weights([np.ones(2), np.zeros(2), MEAN, DEVIATION**2])
    return layer


def nested(layer):
    inner = reading((2,), layer)
    return lambda x: inner(x)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((2,), [normalization]),
        ((7, 2), [normalization]),
        ((2,), [batch_normalization]),
        ((2,), [lambda: L.GaussianNoise(1.0), lambda: L.Dropout(0.5), normalization, lambda: L.Dense(1)]),
        ((2,), [lambda: nested(normalization())]),
        ((1, 2), [lambda: L.Flatten(), normalization]),
        ((4,), [lambda: L.Reshape((2, 2)), lambda: L.Masking(), normalization]),
    ],
    ids=["features", "sequence", "batch norm", "behind noise", "nested model", "flat", "reshaped, masked"],
)
def test_features_have_the_mean_and_deviation_that_a_layer_was_fitted_on(shape, layers):
    columns = drawn(reading(shape, *(make() for make in layers))).reshape(-1, 2)
    # Of 2,000 draws the mean has a standard error of 2% of the deviation.
    assert np.all(np.abs(columns.mean(0) - MEAN) < 0.1 * DEVIATION)
    assert np.allclose(columns.std(0), DEVIATION, rtol=0.1)


def test_each_slice_of_an_input_is_drawn_for_its_own_reader():
    x = keras.Input((3,))
    table = L.Embedding(30, 4)(keras.ops.cast(x[:, 2], "int32"))
    columns = drawn(keras.Model(x, L.Concatenate()([normalization()(x[:, :2]), table])))
    assert columns[:, 0].mean() == pytest.approx(1000, abs=0.1)
    assert np.unique(columns[:, 2]).tolist() == list(range(30))


@pytest.mark.parametrize(
    ("layer", "low", "high"),
    [(L.Rescaling(1 / 255), 0, 255), (L.Rescaling(1 / 127.5, offset=-1), 0, 255)],
)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_images_have_the_range_that_a_rescaling_expects(layer, low, high, dtype):
    x = drawn(reading((4, 4, 3), layer, dtype=dtype))
    assert x.dtype == dtype
    assert low <= x.min() < low + 2
    assert high - 2 < x.max() <= high


def test_a_rescaling_before_a_normalization_is_undone():
    x = drawn(reading((2,), L.Rescaling(0.01, offset=5.0), normalization()))
    assert np.allclose(x.mean(0), (MEAN - 5) / 0.01, atol=10 * DEVIATION)


@pytest.mark.parametrize(
    "layer", [L.Embedding(9, 2), L.CategoryEncoding(9, output_mode="one_hot"), lambda x: keras.ops.one_hot(x, 9)]
)  # fmt: skip
def test_whole_numbers_are_those_that_a_table_has_rows_for(layer):
    x = drawn(reading((1,), layer, dtype="int32"))
    assert np.unique(x).tolist() == list(range(9))


def test_of_two_tables_the_smaller_decides():
    x = keras.Input((3,), dtype="int32")
    for first, second in ((L.Embedding(5, 2), L.Embedding(50, 2)), (L.Embedding(50, 2), L.Embedding(5, 2))):
        assert np.unique(drawn(keras.Model(x, first(x) + second(x)))).tolist() == list(range(5))


def test_an_encoder_gets_numbers_codes_and_gaps():
    x = np.random.default_rng(0).normal([500, 0], [3, 1], size=(200, 2))
    x[:, 1] = np.arange(200) % 4
    x[::10, 0] = np.nan
    layer = tfbig.encoder(x, categories=[1])
    columns = drawn(reading((2,), layer))
    assert np.nanmean(columns[:, 0]) == pytest.approx(500, abs=1)
    assert 0 < np.isnan(columns[:, 0]).mean() < 0.5
    assert np.unique(columns[:, 1]).tolist() == [0, 1, 2, 3]


def test_inputs_of_which_nothing_is_said():
    x = drawn(reading((50,), L.Dense(2)))
    assert abs(x.mean()) < 0.02
    assert x.std() == pytest.approx(1, abs=0.02)
    whole = drawn(reading((3,), lambda x: keras.ops.cast(x, "float32"), L.Dense(2), dtype="int32"))
    assert np.unique(whole).tolist() == [0, 1]
    assert drawn(reading((3,), lambda x: keras.ops.logical_not(x), dtype="bool")).dtype == bool


def test_ranges_known_otherwise_come_first():
    x = keras.Input((2,), name="x")
    columns = drawn(keras.Model(x, normalization()(x)), ranges={"x": (-2.0, 6.0)})
    assert -2 <= columns.min() < -1.9
    assert 5.9 < columns.max() <= 6


@pytest.mark.parametrize(
    ("layers", "length"),
    [
        ([L.Conv1D(2, 3)], 16),
        ([L.Conv1D(2, 30)], 32),
        ([L.Conv1D(2, 3, strides=2), L.Conv1D(2, 60)], 128),
        ([UpTo(8)], 8),
    ],
)
def test_open_axes_get_a_length_that_the_model_runs_with(layers, length):
    assert drawn(reading((None, 4), *layers)).shape[1:] == (length, 4)


def test_what_is_read_behind_open_axes_is_found():
    tokens = drawn(reading((None,), L.Dropout(0.1), L.Embedding(50, 4), dtype="int32"))
    assert tokens.shape[1:] == (16,)
    assert tokens.max() == 49
    images = drawn(reading((None, None, 3), L.SpatialDropout2D(0.1), L.Rescaling(1 / 255), L.Conv2D(2, 3)))
    assert images.shape[1:] == (16, 16, 3)
    assert 250 < images.max() <= 255


def test_open_axes_that_no_length_fits_are_refused():
    with pytest.raises(InvalidData, match="runs with none of the lengths 1, 2, 4, .*calibration="):
        drawn(reading((None, 4), UpTo(0)))


def test_the_same_each_time():
    model = reading((2,), L.Dense(1))
    assert np.array_equal(drawn(model), drawn(model))


@pytest.mark.parametrize(
    "build",
    [
        # Means far from 0 beside small deviations: on rows near 0 all outputs are alike but for rounding.
        lambda: reading((2,), L.Normalization(mean=[1e5, -1e5], variance=[1e-2, 1.0]), L.Dense(3)),
        lambda: reading((8, 8, 1), L.Rescaling(1 / 255), L.Conv2D(2, 3), L.Flatten(), L.Dense(3), dtype="uint8"),
        lambda: reading((6,), L.Embedding(50, 4), L.Flatten(), L.Dense(3), dtype="int32"),
    ],
    ids=["normalization", "image", "tokens"],
)  # fmt: skip
def test_a_model_is_proven_without_rows_of_its_user(tmp_path, build):
    report = tfbig.export(build(), tmp_path / "m.tflite").report
    assert report.proof.inputs == "synthetic"
    assert report.proof.holds
    assert report.proof.agreement > 0.99
