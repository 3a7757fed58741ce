"""Fails loudly when Keras moves the private name that tfbig.backend.autocast relies on."""

import numpy as np

from tfbig.backend import keras
from tfbig.backend.autocast import no_autocast, variables_read_as

FINE = 1.0 + 2.0**-12  # bfloat16 rounds it to 1


class Reading(keras.layers.Layer):
    def __init__(self):
        super().__init__(dtype="mixed_bfloat16")
        self.seen = {}

    def build(self, shape):
        self.weight = self.add_weight(shape=(), initializer=keras.initializers.Constant(FINE))
        self.dense = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(FINE))
        self.dense.dtype_policy = self.dtype_policy

    def call(self, x):
        self.seen["rounded"] = float(self.weight.value)
        with no_autocast():
            self.seen["whole"] = float(self.weight.value)
            self.seen["layer"] = str(self.dense(x).dtype)
        self.seen["rounded again"] = float(self.weight.value)
        return x


def test_variables_are_whole_in_the_block_and_rounded_around_it():
    layer = Reading()
    layer(np.ones((1, 1), np.float32))
    assert layer.seen["rounded"] == layer.seen["rounded again"] == 1.0
    assert layer.seen["whole"] == FINE
    assert "bfloat16" in layer.seen["layer"]  # a layer inside still computes as its policy says


def test_variables_are_read_in_the_dtype_that_is_asked_for():
    layer = keras.layers.Dense(2, dtype="float64")
    layer.build((None, 3))
    with variables_read_as("float32"):
        assert keras.ops.convert_to_tensor(layer.kernel).dtype == "float32"
    assert keras.ops.convert_to_tensor(layer.kernel).dtype == "float64"
