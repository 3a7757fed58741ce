import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.full_precision import in_float32, own_tolerance

L = keras.layers


def convolutional(policy):
    x = keras.Input((8, 8, 3))
    y = L.BatchNormalization(dtype=policy)(L.Conv2D(8, 3, activation="relu", dtype=policy)(x))
    y = L.GlobalAveragePooling2D(dtype=policy)(y)
    return keras.Model(x, L.Dense(3, dtype=policy)(y))


def of_sequences(policy):
    x = keras.Input((6, 4))
    recurrent = {
        "dtype": policy,
        "recurrent_initializer": "glorot_uniform",
    }  # Keras draws none in bfloat16 by default
    y = L.MultiHeadAttention(2, 4, dtype=policy)(x, x)
    y = L.LayerNormalization(dtype=policy)(L.LSTM(8, return_sequences=True, **recurrent)(y))
    return keras.Model(x, L.Dense(3, dtype=policy)(L.GRU(8, **recurrent)(y)))


def of_tokens(policy):
    x = keras.Input((5,), dtype="int32")
    y = L.Flatten(dtype=policy)(L.Embedding(20, 4, dtype=policy)(x))
    return keras.Model(x, L.Dense(3, dtype=policy)(y))


def rows_for(model):
    generator, tensor = np.random.default_rng(0), model.inputs[0]
    if "int" in str(tensor.dtype):
        return generator.integers(0, 20, size=(64, *tensor.shape[1:])).astype("int32")
    return generator.normal(size=(64, *tensor.shape[1:])).astype("float32")


# Errors: of float32 arithmetic beside the model's own in 11 bits, in 8, and in 53.
@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ("mixed_float16", 1e-3),
        ("mixed_bfloat16", 1e-2),
        ("float16", 1e-3),
        ("bfloat16", 1e-2),
        ("float64", 1e-6),
    ],
)
@pytest.mark.parametrize("build", [convolutional, of_sequences, of_tokens])
def test_a_model_of_another_precision_computes_in_float32(build, policy, error):
    model = build(policy)
    x = rows_for(model)
    own = np.asarray(model(x)).astype("float64")
    policies = [layer.dtype_policy.name for layer in model.layers]
    with in_float32(model):
        plain = model(x)
        assert plain.dtype == "float32"
    assert np.abs(plain - own).mean() / np.ptp(own) <= error
    assert [layer.dtype_policy.name for layer in model.layers] == policies
    assert np.array_equal(np.asarray(model(x)).astype("float64"), own)


@pytest.mark.parametrize("mode", [None, "int8"])
def test_a_mixed_model_becomes_a_file_of_float32_or_of_integers(tmp_path, mode):
    model = of_sequences("mixed_float16")
    x = rows_for(model)
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=x)
    assert not any("float16" in name for name in lite.ops)
    assert any(name.startswith("UNIDIRECTIONAL_SEQUENCE_LSTM") for name in lite.ops)
    assert lite.report.proof.tolerance >= 2e-3


def test_inputs_of_any_floats_are_float32_in_the_file(tmp_path):
    x = keras.Input((4,), dtype="float64")
    lite = tfbig.export(keras.Model(x, L.Dense(2, dtype="float64")(x)), tmp_path / "m.tflite")
    assert list(lite.inputs.values()) == list(lite.outputs.values()) == ["float32"]


def test_the_tolerance_is_that_of_the_coarsest_layer():
    assert own_tolerance(convolutional("float32")) == own_tolerance(convolutional("float64")) == 0
    assert own_tolerance(convolutional("mixed_float16")) == 2e-3
    assert own_tolerance(convolutional("mixed_bfloat16")) == 3e-2
