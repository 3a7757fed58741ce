import keras
import numpy as np

import tfbig

L = keras.layers


def test_what_is_selected_keeps_its_value_in_sixteen_bits(tmp_path):
    x = keras.Input((6, 4))
    units = L.Dense(4)(x)
    chosen = keras.ops.where(units > 0, units, 0.1 * units)
    model = keras.Model(x, L.Dense(3)(L.Flatten()(chosen)))
    rows = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize="int16x8", calibration=rows)
    assert lite.report.proof.mean_error <= 0.002  # the converter's own gives 0.1
    assert lite.ops["QUANTIZE int16"] >= 2  # of the rows, and of an operand


def test_what_is_reversed_keeps_its_value_in_trained_ranges(tmp_path):
    x = keras.Input((6, 4))
    model = keras.Model(x, L.Dense(3)(L.Flatten()(keras.ops.flip(L.Dense(4)(x), 1))))
    rows = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rounded = tfbig.quantize_aware(model, rows, np.arange(64) % 3, loss=loss, epochs=1, verbose=0)
    lite = tfbig.export(rounded, tmp_path / "m.tflite", quantize="int8", calibration=rows)
    assert lite.report.proof.mean_error <= 0.005  # the converter's own gives 0.013
