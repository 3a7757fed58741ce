import keras
import numpy as np

import tfbig

L = keras.layers


def test_what_the_converter_takes_in_8_bits_only_stays_in_float_in_trained_16_bits(tmp_path):
    x = keras.Input((8, 8, 4))
    maps = L.Conv2D(4, 3, padding="same", activation="gelu")(x)
    larger = L.UpSampling2D(2)(maps)
    both = L.Concatenate()([larger, 5 * L.Conv2D(4, 3, padding="same")(larger)])
    model = keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(both))))
    rows = np.random.default_rng(0).normal(size=(64, 8, 8, 4)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"activation_bits": 16, "loss": loss, "epochs": 1, "verbose": 0}
    rounded = tfbig.quantize_aware(model, rows, np.arange(64) % 3, **options)
    before = np.asarray(rounded(rows))
    # Without being kept apart the converter refuses each of the four.
    lite = tfbig.export(rounded, tmp_path / "m.tflite", quantize="int16x8", calibration=rows)
    assert {"GELU", "TILE", "CONCATENATION"} <= set(lite.report.float_ops)
    assert lite.ops["CONV_2D int16"] >= 1
    assert lite.report.proof.mean_error <= 1e-3
    assert not any("call" in vars(layer) for layer in rounded.layers)
    assert np.array_equal(rounded(rows), before)


def test_a_transformer_block_has_a_file_of_trained_16_bits(tmp_path):
    tokens = keras.Input((6,), dtype="int32")
    x = L.Embedding(20, 8, mask_zero=True)(tokens)
    y = L.LayerNormalization()(x)
    # Sums of an embedding's rows, which have 8 bits by themselves, and of what attention gives: its last dense layer
    # computes on other axes than the rest.
    x = L.Add()([x, L.MultiHeadAttention(2, 4)(y, y)])
    x = L.Add()([x, L.Dense(8)(L.Dense(16, activation="relu")(x))])
    model = keras.Model(tokens, L.Dense(3)(L.Flatten()(x)))
    rows = np.random.default_rng(0).integers(0, 20, (64, 6))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"activation_bits": 16, "loss": loss, "epochs": 1, "verbose": 0}
    rounded = tfbig.quantize_aware(model, rows, np.arange(64) % 3, **options)
    lite = tfbig.export(rounded, tmp_path / "m.tflite", quantize="int16x8")
    assert {"FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL"}.isdisjoint(lite.report.float_ops)
    assert {"ADD int16", "BATCH_MATMUL int16", "CONV_2D int16"} <= set(lite.ops)
    assert lite.report.proof.mean_error <= 1e-3
