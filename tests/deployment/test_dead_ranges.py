import keras
import numpy as np
import pytest

import tfbig

L = keras.layers


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_units_that_never_fire_in_calibration_do_not_break_the_file(tmp_path, mode):
    x = keras.Input((8, 8, 4))
    maps = L.Conv2D(8, 3, activation="relu")(x)
    squeezed = L.Conv2D(2, 1, activation="relu", name="squeezed")(
        L.GlobalAveragePooling2D(keepdims=True)(maps)
    )
    gates = L.Conv2D(8, 1, activation="hard_sigmoid", name="gates")(squeezed)
    model = keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(L.Multiply()([maps, gates]))))
    model.get_layer("squeezed").bias.assign([-50.0, -50.0])
    model.get_layer("gates").bias.assign(np.linspace(-1, 1, 8))
    rows = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("float32")
    # The converter's own int8 file does not load; its 16-bit one is off by 30%.
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=rows, strict=True)
    assert lite.report.proof.mean_error <= {"int8": 0.01, "int16x8": 0.005}[mode]
