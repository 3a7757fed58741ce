"""Every kind of layer that pruning takes, by itself or when asked, trained and exported; and those it leaves alone."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.errors import InvalidOption

L = keras.layers
NOISE = np.random.default_rng(0)


@keras.saving.register_keras_serializable("test_prune_layers")
class Scale(L.Layer):
    """A layer that tfbig does not know: a matrix, and a vector which is left alone."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 4), name="matrix")
        self.shift = self.add_weight(shape=(4,), name="shift", initializer="ones")

    def call(self, x):
        return x @ self.matrix + self.shift


class Pair(L.Layer):
    """A custom layer with known ones inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = L.Dense(8, "relu", name="first"), L.Dense(4, name="second")

    def call(self, x):
        return self.second(self.first(x))


def attention():
    x = keras.Input((6, 4))
    mixed = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(x, L.Dense(3, name="head")(L.Flatten()(mixed)))


def stack(shape, *layers, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers, L.Flatten(), L.Dense(3, name="head")])


def rows(model):
    shape = model.input_shape[1:]
    x = NOISE.normal(size=(64, *shape)).astype("float32")
    return (np.abs(x) * 3).astype("int32") if "int" in model.inputs[0].dtype else x


TAKEN = {
    "Conv1D": lambda: stack((6, 2), L.Conv1D(4, 3)),
    "Conv2D": lambda: stack((6, 6, 2), L.Conv2D(4, 3)),
    "Conv3D": lambda: stack((4, 4, 4, 2), L.Conv3D(4, 2)),
    "Conv1DTranspose": lambda: stack((4, 2), L.Conv1DTranspose(4, 3)),
    "Conv2DTranspose": lambda: stack((4, 4, 2), L.Conv2DTranspose(4, 3)),
    "Conv3DTranspose": lambda: stack((2, 2, 2, 2), L.Conv3DTranspose(4, 2)),
    "EinsumDense": lambda: stack((4, 4), L.EinsumDense("abc,cd->abd", (4, 8), bias_axes="d")),
    "MultiHeadAttention": attention,
    "inside a custom layer": lambda: stack((4,), Pair(name="pair")),
    "TimeDistributed": lambda: stack((3, 4), L.TimeDistributed(L.Dense(4))),
}


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_a_layer_is_pruned_to_the_sparsity_and_biases_are_left_alone(make):
    model = make()
    x, y = rows(model), NOISE.integers(0, 3, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    prune = tfbig.Prune(0.5)
    tfbig.fit(model, x, y, epochs=3, batch_size=16, callbacks=[prune], verbose=0)
    assert prune.report.skipped == {}
    for layer in prune.report.layers:
        assert layer.sparsity == pytest.approx(0.5, abs=0.51 / layer.weights)
    pruned = sum(layer.weights for layer in prune.report.layers)
    biases = [v for v in model.trainable_variables if v.path.endswith("bias")]
    assert biases
    assert not any((bias.numpy() == 0).all() for bias in biases)
    assert pruned + sum(v.numpy().size for v in biases) == model.count_params()


REQUESTED = {
    "Embedding": (
        lambda: stack((6,), L.Embedding(20, 4, name="asked"), dtype="int32"),
        L.Embedding,
        ["asked"],
    ),
    "DepthwiseConv2D": (
        lambda: stack((6, 6, 2), L.DepthwiseConv2D(3, name="asked")),
        L.DepthwiseConv2D,
        ["asked"],
    ),
    "SeparableConv2D": (
        lambda: stack((6, 6, 2), L.SeparableConv2D(4, 3, name="asked")),
        "asked",
        ["asked/pointwise_kernel", "asked/depthwise_kernel"],
    ),
    "custom, by a function": (
        lambda: stack((4,), Scale(name="asked")),
        lambda layer: isinstance(layer, Scale),
        ["asked"],
    ),
}


@pytest.mark.parametrize(("make", "layers", "names"), REQUESTED.values(), ids=REQUESTED)
def test_some_layers_are_pruned_only_when_they_are_asked_for(make, layers, names):
    model = make()
    x, y = rows(model), NOISE.integers(0, 3, 64)
    options = {"epochs": 3, "batch_size": 16, "optimizer": keras.optimizers.Adam(0.01), "verbose": 0}
    unasked = tfbig.sparsity(tfbig.prune(model, x, y, sparsity=0.5, **options))
    left = [name for name in unasked.skipped if name.startswith("asked")]
    assert left
    assert all("ask for" in unasked.skipped[name] for name in left)
    options["optimizer"] = keras.optimizers.Adam(0.01)
    thin = tfbig.prune(model, x, y, sparsity=0.5, layers=layers, **options)
    report = tfbig.sparsity(thin)
    asked = {layer.name: layer for layer in report.layers if layer.asked is not None}
    assert list(asked) == names
    for layer in asked.values():
        assert layer.sparsity == pytest.approx(0.5, abs=0.51 / layer.weights)
    assert report.skipped["head"] == "not among the layers asked for"
    for vector in (v for v in thin.weights if len(v.shape) == 1):
        assert (vector.numpy() != 0).all()


def test_a_shared_layer_is_pruned_once_and_stays_shared(blobs):
    inputs, shared = keras.Input((4,)), L.Dense(4, name="shared")
    model = keras.Model(inputs, L.Dense(3, name="head")(shared(shared(inputs))))
    thin = tfbig.prune(model, *blobs, sparsity=0.5, epochs=3, verbose=0)
    assert [(layer.name, layer.sparsity) for layer in tfbig.sparsity(thin).layers] == [
        ("shared", 0.5),
        ("head", 0.5),
    ]


def test_a_block_on_a_kernel_that_is_not_two_dimensional_is_refused_before_the_model_is_copied():
    with pytest.raises(InvalidOption, match="needs two-dimensional kernels; these are not: conv3d"):
        tfbig.prune(
            TAKEN["Conv3D"](), np.zeros((4, 4, 4, 4, 2)), np.zeros(4), sparsity=0.5, block_size=(2, 2)
        )
