import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.contents import read_contents

L = keras.layers
STEPS = 10


def lstm_file(tmp_path, features, units, mode):
    x = keras.Input((STEPS, features))
    model = keras.Model(x, L.Dense(3)(L.Bidirectional(L.LSTM(units))(x)))
    rows = np.random.default_rng(0).normal(size=(64, STEPS, features)).astype("float32")
    return tfbig.export(model, tmp_path / f"{mode}.tflite", quantize=mode, calibration=rows)


def kernels(lite):
    """The dtypes of the eight kernels of each LSTM."""
    contents = read_contents(lite.path.read_bytes())
    lstms = [op for op in contents.operations if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM"]
    return [[contents.tensors[i].dtype for i in op.inputs[1:9]] for op in lstms]


# The converter itself stops at features × units < 1,024.
@pytest.mark.parametrize("features", [4, 64])
def test_dynamic_range_stores_every_lstm_in_8_bits(tmp_path, features):
    plain, dynamic = (lstm_file(tmp_path, features, 16, mode) for mode in (None, "dynamic"))
    assert kernels(plain) == [["float32"] * 8] * 2
    assert kernels(dynamic) == [["int8"] * 8] * 2
    weights = 2 * 4 * 16 * (features + 16)
    assert dynamic.report.bytes <= plain.report.bytes - 3 * weights + 2048  # four bytes a weight become one
    assert dynamic.report.proof.mean_error <= 0.01


def test_a_handful_of_weights_stays_in_float(tmp_path):
    assert kernels(lstm_file(tmp_path, 4, 4, "dynamic")) == [["float32"] * 8] * 2


@pytest.mark.parametrize("mode", [None, "dynamic", "int8"])
@pytest.mark.parametrize("behind", [L.GRU, L.SimpleRNN, L.LSTM])
def test_what_comes_behind_an_lstm_does_not_begin_with_its_last_state(tmp_path, behind, mode):
    x = keras.Input((STEPS, 4))
    model = keras.Model(x, L.Dense(3)(behind(8)(L.LSTM(8, return_sequences=True)(x))))
    rows = np.random.default_rng(0).normal(size=(64, STEPS, 4)).astype("float32")
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=rows)
    # The converter's own file is off by 1.5% in float32.
    assert lite.report.proof.mean_error <= (0.01 if mode else 1e-6)
