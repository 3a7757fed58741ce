import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.data.cleaning import clean
from tfbig.data.encoding import encoder
from tfbig.errors import InvalidData, InvalidOption

NAN = float("nan")
X = np.array([[1, 0, 1000], [3, 2, NAN], [NAN, 1, 3000], [5, NAN, 5000]], np.float32)


def test_numbers_are_scaled_gaps_are_0_and_named_and_categories_spread():
    rows = encoder(X, categories=[1])(X).numpy()
    deviation = np.sqrt(8 / 3)  # of 1, 3, 5, and of 1000, 3000, 5000 in thousands
    np.testing.assert_allclose(rows[:, 0] * deviation, [-2, 0, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(rows[:, 1] * deviation, [-2, 0, 0, 2], rtol=1e-6)
    assert rows[:, 2:5].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert rows[:, 5:].tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_without_categories_and_gaps_it_is_the_normalizer():
    x = np.random.default_rng(0).normal(50, 20, (30, 4)).astype(np.float32)
    # The same sums in another order of float32 operations.
    np.testing.assert_allclose(encoder(x)(x), tfbig.normalizer(x)(x), atol=1e-5)


def test_an_unknown_category_adds_nothing():
    assert encoder(X, categories=[1])(np.array([[3, 3, 3000]], np.float32)).numpy().tolist() == [[0] * 8]


def test_a_constant_number_is_centred_and_not_scaled():
    layer = encoder([[7.0], [7.0], [NAN]])
    assert layer(np.array([[9.0], [NAN]], np.float32)).numpy().tolist() == [[2, 0], [0, 1]]


def test_a_copy_from_its_config_is_the_same_layer():
    layer = encoder(X, categories={1: 5})
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    np.testing.assert_array_equal(again(X), layer(X))
    assert again(X).shape[1] == layer.compute_output_shape(X.shape)[1] == 2 + 5 + 3


def test_it_computes_in_float32_in_a_model_of_16_bits():
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        layer = encoder(X * 1000, categories=[])
        assert layer.compute_dtype == "float32"
        assert np.isfinite(layer(X * 1000)).all()  # 5,000,000 does not fit into float16
    finally:
        keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="module")
def table():
    """Raw rows with text and gaps, and the model of their cleaned rows."""
    generator = np.random.default_rng(0)
    color, income = generator.choice(["red", "green", "blue"], 300), generator.normal(50_000, 15_000, 300)
    y = np.where((color == "red") * 15_000 + income > 52_000, "yes", "no")
    rows = np.array([color, income], object).T
    rows[generator.random(300) < 0.1, 0] = None
    rows[generator.random(300) < 0.2, 1] = NAN
    x, y, report = clean(rows.tolist(), y, missing="keep")
    first = encoder(x, categories=report.steps.categories)
    model = tfbig.models.mlp((2,), 1, task="binary", hidden=(16,), normalizer=first)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(x, y, epochs=30, batch_size=16, verbose=0)
    return rows, y, report.steps, model


def test_a_model_learns_from_rows_with_gaps(table):
    rows, y, steps, model = table
    right = (model.predict(steps.transform(rows), verbose=0)[:, 0] > 0) == y
    # One income in five and one color in ten are not known; the more frequent label is 57% of the rows.
    assert right.mean() > 0.8


@pytest.mark.parametrize("quantize", [None, "dynamic"])
def test_a_lite_file_takes_raw_rows_with_gaps_and_gives_the_models_answers(table, quantize, tmp_path):
    rows, _, steps, model = table
    raw = steps.transform([*rows.tolist(), ["purple", NAN], [None, NAN], ["red", 1e9]])
    complete = raw[:300][~np.isnan(raw[:300]).any(axis=1)]
    lite = tfbig.export(model, tmp_path / "table.tflite", quantize=quantize, calibration=complete)
    expected = model.predict(raw, verbose=0)
    assert np.isnan(raw).any(axis=1).sum() > 50
    assert not any("Flex" in op for op in lite.ops)
    # Kernels so small stay in float32 in "dynamic" too; what is left is the order of float32 sums.
    np.testing.assert_allclose(lite.predict(raw), expected, rtol=1e-5, atol=1e-5)


def test_a_model_with_it_is_saved_and_loaded(table, tmp_path):
    rows, _, steps, model = table
    loaded = tfbig.load_model(tfbig.save_model(model, tmp_path / "table.keras"))
    raw = steps.transform(rows)
    np.testing.assert_array_equal(loaded.predict(raw, verbose=0), model.predict(raw, verbose=0))


@pytest.mark.parametrize(
    ("x", "categories", "error", "message"),
    [
        ([[1.5], [2.0]], [0], InvalidData, "Column 0 of x must hold the codes of categories.* got 1.5"),
        ([[-1.0], [2.0]], [0], InvalidData, "whole numbers from 0; got -1.0"),
        ([[NAN], [NAN]], [0], InvalidData, "got no value at all"),
        ([[NAN, 1], [NAN, 2]], (), InvalidData, "Column 0 of x holds no value at all"),
        (
            [[1.0], [np.inf]],
            (),
            InvalidData,
            r"x must be finite; got 1 infinite value, the first at index \(1, 0\)",
        ),
        ([["red"]], [0], InvalidData, "x must hold numbers"),
        (np.zeros((2, 3, 3)), (), InvalidData, r"x must be rows of columns; got shape \(2, 3, 3\)"),
        ([[1.0]], [1], InvalidOption, "categories must name columns of x by their place, 0 to 0; got 1"),
        ([[1.0]], ["red"], InvalidOption, "got 'red'"),
        ([[1.0]], {0: 0}, InvalidOption, r"categories\[0\] must be a whole number of at least 1"),
    ],
)
def test_rows_that_cannot_be_encoded_are_refused(x, categories, error, message):
    with pytest.raises(error, match=message):
        encoder(x, categories=categories)
