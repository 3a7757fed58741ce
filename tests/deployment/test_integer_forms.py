import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.integer_forms import has_integer_forms, integer_forms

L = keras.layers
STEPS, TOKENS = 8, 40


@pytest.fixture(scope="module")
def tokens():
    generator = np.random.default_rng(0)
    x = generator.integers(1, TOKENS, size=(96, STEPS))
    return np.where(np.arange(STEPS) < generator.integers(2, STEPS + 1, size=(96, 1)), x, 0).astype("int32")


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(96, STEPS, 6)).astype("float32")


def settled(model):
    """Weights moved, so that no gamma is 1 and no beta 0."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(np.asarray(weight) + 0.1 * generator.normal(size=weight.shape))
    return model


def normalized(**options):
    x = keras.Input((STEPS, 6))
    return settled(keras.Model(x, L.Dense(3)(L.LayerNormalization(**options)(L.Dense(8)(x)))))


def of_tokens(average):
    x = keras.Input((STEPS,), dtype="int32")
    return settled(keras.Model(x, L.Dense(3)(average(L.Embedding(TOKENS, 8, mask_zero=True)(x)))))


def mean_error(lite, model, x):
    expected = np.asarray(model(x, training=False))
    return np.abs(lite.predict(x) - expected).mean() / np.ptp(expected)


@pytest.mark.parametrize(("mode", "error"), [("int8", 0.02), ("int16x8", 0.003)])
def test_layer_normalization_computes_in_integers(rows, tmp_path, mode, error):
    model = normalized()
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=rows, strict=True)
    assert "SQUARED_DIFFERENCE" not in str(lite.ops)
    assert mean_error(lite, model, rows) <= error


@pytest.mark.parametrize("average", [L.GlobalAveragePooling1D, tfbig.models.step_layers.AverageOfSteps])
def test_padded_tokens_in_sixteen_bits(tokens, tmp_path, average):
    model = of_tokens(average())
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize="int16x8", calibration=tokens)
    assert "GATHER int16" in lite.ops
    assert mean_error(lite, model, tokens) <= 0.003


@pytest.mark.parametrize(
    "build",
    [
        normalized,
        lambda: normalized(axis=[1, 2]),
        lambda: normalized(axis=1, center=False),
        lambda: normalized(scale=False),
        lambda: of_tokens(L.GlobalAveragePooling1D()),
        lambda: of_tokens(L.GlobalAveragePooling1D(keepdims=True)),
        lambda: of_tokens(tfbig.models.step_layers.AverageOfSteps()),
    ],
)
@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_the_forms_compute_what_keras_does_and_the_model_is_left_as_found(rows, tokens, build, mode):
    model = build()
    x = tokens if "int" in str(model.inputs[0].dtype) else rows
    before = model(x).numpy()
    with integer_forms(model, mode):
        assert np.allclose(model(x), before, atol=1e-5)  # sums in another order
    assert not any({"call", "compute_mask"} & set(vars(layer)) for layer in model.layers)
    assert np.array_equal(model(x), before)


def test_only_models_with_another_form_are_traced_again():
    plain = tfbig.models.mlp((4,), 3)
    assert not any(has_integer_forms(plain, mode) for mode in (None, "int8", "int16x8"))
    assert has_integer_forms(normalized(), "int8")
    assert not has_integer_forms(normalized(), "dynamic")
    assert has_integer_forms(of_tokens(L.GlobalAveragePooling1D()), "int16x8")
    assert not has_integer_forms(of_tokens(L.GlobalAveragePooling1D()), "int8")
