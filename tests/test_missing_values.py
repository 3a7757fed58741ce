"""Raw rows with gaps, from cleaning to the LiteRT file."""

import numpy as np
import pytest

import tfbig
from tfbig.errors import InvalidData

NAN = float("nan")


@pytest.fixture(scope="module")
def table():
    """Raw rows of a color and an income, some missing; their labels."""
    generator = np.random.default_rng(0)
    color, income = generator.choice(["red", "green", "blue"], 600), generator.normal(50_000, 15_000, 600)
    y = np.where((color == "red") * 15_000 + income > 52_000, "yes", "no")
    rows = [[str(c), float(i)] for c, i in zip(color, income, strict=True)]
    for row in generator.choice(600, 60, replace=False):
        rows[row][0] = None
    for row in generator.choice(600, 120, replace=False):
        rows[row][1] = NAN
    return tfbig.split(rows, y)


@pytest.fixture(scope="module")
def cleaned(table):
    return tfbig.clean(table.x_train, table.y_train, missing="keep")


def build(categories):
    return lambda x: tfbig.models.mlp(
        (2,), 1, task="binary", hidden=(16,), normalizer=tfbig.encoder(x, categories=categories)
    )


@pytest.fixture(scope="module")
def model(table, cleaned):
    x, y, report = cleaned
    held_out = tfbig.clean(table.x_test, table.y_test, missing="keep", steps=report.steps)
    options = {"epochs": 30, "seed": 0, "verbose": 0, "validation_data": held_out[:2]}
    return tfbig.fit(build(report.steps.categories), x, y, **options).model


# Of the outputs' range: float32 sums in another order, kernels of 10 bits, and 8-bit kernels and activations.
@pytest.mark.parametrize(("quantize", "error"), [(None, 1e-6), ("float16", 5e-3), ("int8", 0.03)])
def test_raw_rows_give_the_models_answers_in_the_file(table, cleaned, model, quantize, error, tmp_path):
    lite = tfbig.export(model, tmp_path / "table.tflite", quantize=quantize, calibration=cleaned.x)
    steps = cleaned.report.steps
    raw = steps.transform([*table.x_test.tolist(), ["purple", NAN], [None, NAN]])
    expected = model.predict(raw, verbose=0)
    assert np.isnan(raw).any(axis=1).sum() > 20
    assert np.abs(lite.predict(raw) - expected).max() <= error * np.ptp(expected)
    x, y, report = tfbig.clean(table.x_test, table.y_test, missing="keep", duplicates="keep", steps=steps)
    assert abs(tfbig.evaluate(lite, x, y)["accuracy"] - tfbig.evaluate(model, x, y)["accuracy"]) <= 1 / len(y)
    assert tfbig.evaluate(model, x, y)["accuracy"] > 0.8


def test_folds_encode_by_their_own_training_rows(cleaned):
    x, y, report = cleaned
    cv = tfbig.cross_validate(build(report.steps.categories), x, y, cv=3, epochs=10, seed=0, verbose=0)
    assert np.mean(cv.scores["accuracy"]) > 0.7


@pytest.mark.parametrize("builder", [True, False])
def test_a_model_that_fills_nothing_is_refused_before_it_trains(cleaned, builder):
    plain = lambda: tfbig.models.mlp((2,), 1, task="binary")  # noqa: E731
    with pytest.raises(InvalidData, match="x must be finite.*begins with tfbig.encoder takes NaN"):
        tfbig.fit(plain if builder else plain(), cleaned.x, cleaned.y, verbose=0)
    with pytest.raises(InvalidData, match="x must be finite"):
        tfbig.cross_validate(plain, cleaned.x, cleaned.y, cv=3, verbose=0)
    with pytest.raises(InvalidData, match="x must be finite"):
        tfbig.evaluate(plain(), cleaned.x, cleaned.y)


def test_it_is_loaded_where_the_encoder_was_never_imported(model, tmp_path):
    import subprocess
    import sys

    path = tfbig.save_model(model, tmp_path / "table.keras")
    code = f"import tfbig; print(tfbig.load_model({str(path)!r}).layers[0].name)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "encoder" in done.stdout
