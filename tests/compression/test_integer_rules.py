import keras
import numpy as np
import pytest

from tfbig.compression import integer_rules as rules

L = keras.layers


class MyDense(L.Dense):
    def call(self, inputs):
        return super().call(inputs) ** 2


@pytest.mark.parametrize(
    ("layer", "kind", "reason"),
    [
        (L.Dense(3), rules.KERNEL, ""),
        (L.ReLU(6), rules.ACTIVATION, ""),
        (L.ReLU(5), rules.FLOAT, "no integer kernel for this activation"),
        (L.Activation("elu"), rules.INSIDE, ""),
        (L.Activation("log_softmax"), rules.FLOAT, "no integer kernel for this activation"),
        (L.TimeDistributed(L.Dense(3)), rules.KERNEL, ""),
        (L.TimeDistributed(L.Conv1D(3, 1)), rules.FLOAT, "other layers than Dense"),
        (L.Activation(lambda x: x * 2), rules.FLOAT, "no integer kernel for this activation"),
        (L.UpSampling2D(interpolation="bicubic"), rules.FLOAT, "bicubic interpolation"),
        (L.UpSampling2D(), rules.KEEP, ""),
        (L.Resizing(4, 4), rules.SAME, ""),
        (L.MaxPooling2D(data_format="channels_first"), rules.FLOAT, "channels last only"),
        (L.GRU(3), rules.FLOAT, "rounding errors"),
        (L.Conv3D(3, 2), rules.FLOAT, "three dimensions"),
        (MyDense(3), rules.FLOAT, "how MyDense computes"),
        (L.Masking(), rules.FLOAT, "padding of a step that is none"),
        (L.LayerNormalization(), rules.INSIDE, ""),
        (L.LayerNormalization(rms_scaling=True), rules.FLOAT, "statistics along the last axis"),
        (L.UnitNormalization(), rules.FLOAT, "how UnitNormalization computes"),
    ],
)
def test_kinds_and_reasons(layer, kind, reason):
    assert rules.kind_of(layer)[0] == kind
    assert reason in rules.kind_of(layer)[1]
    assert bool(rules.kind_of(layer)[1]) is (kind == rules.FLOAT)


@pytest.mark.parametrize(
    "layer",
    [
        L.BatchNormalization(),
        L.BatchNormalization(scale=False, axis=2),
        L.BatchNormalization(center=False),
        L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 0.0, 9.0]),
        L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 0.0, 9.0], invert=True),
        L.Normalization(axis=None, mean=2.0, variance=5.0),
        L.Rescaling(0.5, offset=3.0),
    ],
)
def test_factors_and_offsets_are_what_the_layer_does(layer):
    generator = np.random.default_rng(0)
    layer.build((None, 4, 3))
    layer.set_weights([generator.uniform(0.5, 2, w.shape) for w in layer.weights])
    x = generator.normal(size=(5, 4, 3)).astype("float32")
    factor, offset = rules.affine_of(layer, 3, 3)
    assert np.allclose(layer(x), x * factor + offset, rtol=1e-4, atol=1e-5)


def test_factors_along_another_axis_are_refused():
    norm = L.BatchNormalization(axis=1)
    norm.build((None, 4, 3))
    assert rules.affine_of(norm, 3, 3) is None
    positions = L.Normalization(axis=(1, 2), mean=np.ones((4, 3)), variance=np.ones((4, 3)))
    positions.build((None, 4, 3))
    assert rules.affine_of(positions, 3, 3) is None
