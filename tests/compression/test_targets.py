import re

import keras
import numpy as np
import pytest

import tfbig
from tfbig.backend.internals import layers_inside
from tfbig.compression.targets import find_targets, those_that_train
from tfbig.errors import InvalidModel

L = keras.layers


class Bilinear(L.Layer):
    """A layer that tfbig cannot know: one matrix, one vector."""

    def build(self, shape):
        self.form = self.add_weight(shape=(shape[-1], 3), name="form")
        self.offset = self.add_weight(shape=(3,), name="offset")

    def call(self, x):
        return x @ self.form + self.offset


def model_of(*layers, shape=(6, 4), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def names(model, layers=None):
    return [target.name for target in find_targets(model, layers)[0]]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (L.Dense(3, name="a"), (6, 4), ["a"]),
        (L.EinsumDense("abc,cd->abd", output_shape=(None, 3), name="a"), (6, 4), ["a"]),
        (L.Conv1D(3, 2, name="a"), (6, 4), ["a"]),
        (L.Conv2D(3, 2, name="a"), (6, 6, 2), ["a"]),
        (L.Conv3D(3, 2, name="a"), (4, 4, 4, 1), ["a"]),
        (L.Conv1DTranspose(3, 2, name="a"), (6, 4), ["a"]),
        (L.Conv2DTranspose(3, 2, name="a"), (6, 6, 2), ["a"]),
        (L.SeparableConv1D(3, 2, name="a"), (6, 4), ["a/pointwise_kernel"]),
        (L.SeparableConv2D(3, 2, name="a"), (6, 6, 2), ["a/pointwise_kernel"]),
        (L.LSTM(3, name="a"), (6, 4), ["a/lstm_cell/kernel", "a/lstm_cell/recurrent_kernel"]),
        (L.GRU(3, name="a"), (6, 4), ["a/gru_cell/kernel", "a/gru_cell/recurrent_kernel"]),
        (L.SimpleRNN(3, name="a"), (6, 4), ["a/simple_rnn_cell/kernel", "a/simple_rnn_cell/recurrent_kernel"]),
        (L.TimeDistributed(L.Dense(3, name="b"), name="a"), (6, 4), ["a/b"]),
        (model_of(L.Dense(3, name="b")), (6, 4), ["sequential/b"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)  # fmt: skip
def test_kernels_of_each_kind_are_found(layer, shape, expected):
    found = names(model_of(layer, shape=shape))
    # Keras numbers models anew in each process: "sequential_7/b".
    assert [re.sub(r"sequential_\d+", "sequential", name) for name in found] == expected


def test_both_directions_and_every_projection_are_found():
    both = L.Bidirectional(L.LSTM(3, name="r", return_sequences=True), name="both")
    x = keras.Input((6, 4))
    h = both(x)
    attention = L.MultiHeadAttention(2, 3, name="attention")
    found = names(keras.Model(x, attention(h, h)))
    assert found == [
        f"both/{direction}_r/lstm_cell/{kernel}"
        for direction in ("forward", "backward")
        for kernel in ("kernel", "recurrent_kernel")
    ] + [f"attention/{part}" for part in ("query", "key", "value", "attention_output")]


@pytest.mark.parametrize(
    ("layer", "shape", "dtype", "reason"),
    [
        (L.DepthwiseConv2D(2, name="a"), (6, 6, 2), "float32", "depthwise kernels are few and sensitive"),
        (L.Embedding(9, 3, name="a"), (6,), "int32", "as rarely as their token comes"),
        (Bilinear(name="a"), (6, 4), "float32", "Bilinear is not known; ask for it with layers="),
    ],
)
def test_some_are_taken_on_request_only(layer, shape, dtype, reason):
    model = model_of(layer, L.Flatten(), L.Dense(2, name="head"), shape=shape, dtype=dtype)
    targets, skipped = find_targets(model)
    assert [target.name for target in targets] == ["head"]
    assert reason in skipped["a"]
    for choice in ("a", type(layer), lambda other: other is layer):
        targets, skipped = find_targets(model, choice)
        assert [(target.name, len(target.kernel.shape) >= 2) for target in targets] == [("a", True)]
        assert skipped == {"head": "not among the layers asked for"}


@pytest.mark.parametrize("kind", [L.SeparableConv1D, L.SeparableConv2D])
def test_depthwise_kernels_of_separable_layers_are_listed_and_taken_on_request(kind):
    model = model_of(kind(3, 2, name="a"), shape=(6, 6, 2)[-kind(3, 2).rank - 1 :])
    targets, skipped = find_targets(model)
    assert [target.name for target in targets] == ["a/pointwise_kernel"]
    assert "few and sensitive" in skipped["a/depthwise_kernel"]
    targets, skipped = find_targets(model, "a")
    assert [target.name for target in targets] == ["a/pointwise_kernel", "a/depthwise_kernel"]
    assert targets[1].kernel is model.layers[0].depthwise_kernel
    assert skipped == {}


def test_frozen_layers_are_found_and_know_that_they_do_not_train():
    model = model_of(
        L.Dense(3, name="a"), L.BatchNormalization(name="n"), L.GRU(3, name="b"), L.Dense(2, name="c")
    )
    everything = names(model)
    model.trainable = False
    assert names(model) == everything
    assert find_targets(model)[1] == {"n": "normalization is left alone"}
    with pytest.raises(InvalidModel, match="no kernel that trains; skipped: .*'a': 'it is frozen"):
        those_that_train(model, find_targets(model)[0])
    model.trainable = True
    model.layers[2].trainable = False
    targets, skipped = those_that_train(model, find_targets(model)[0])
    assert [target.name for target in targets] == ["a", "c"]
    assert list(skipped) == ["b/gru_cell/kernel", "b/gru_cell/recurrent_kernel"]


def test_kernels_that_keras_quantized_are_listed_with_the_reason():
    model = model_of(L.Dense(3, name="a"), L.LSTM(4, name="b"), L.Dense(2, name="c"))
    model.get_layer("a").quantize("int8")
    skipped = those_that_train(model, find_targets(model)[0])[1]
    assert skipped == {"a": "Keras quantized it (model.quantize), which leaves nothing to train"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "technique",
    [
        lambda model, *data: tfbig.prune(model, *data, sparsity=0.5),
        tfbig.cluster,
        tfbig.quantize_aware,
        lambda model, *data: tfbig.shrink(model),
    ],
)
def test_weights_that_are_no_numbers_are_refused(technique, value):
    model = model_of(L.Dense(8, name="a"), L.Dense(2, name="b"), shape=(4,))
    kernel, bias = model.get_layer("a").get_weights()
    kernel[1, 2] = value
    model.get_layer("a").set_weights([kernel, bias])
    with pytest.raises(InvalidModel, match="holds NaN or infinity in .*a/kernel"):
        technique(model, np.ones((8, 4)), np.zeros(8))


def test_what_was_adapted_but_never_trains_is_not_listed():
    normalizer = L.Normalization(name="n")
    normalizer.adapt(np.zeros((2, 4)))
    assert find_targets(model_of(normalizer, L.Dense(3), shape=(4,)))[1] == {}


@pytest.mark.parametrize("nothing", ["model.keras", None, np.zeros(3)])
def test_what_is_no_model_is_refused(nothing):
    with pytest.raises(InvalidModel, match=r"Expected a keras.Model; got (str|NoneType|ndarray)\."):
        find_targets(nothing)


def test_normalization_is_never_taken():
    model = model_of(L.Dense(3), L.BatchNormalization(name="a"), L.LayerNormalization(name="b"))
    skipped = find_targets(model)[1]
    assert skipped == {"a": "normalization is left alone", "b": "normalization is left alone"}


def test_choosing_a_layer_chooses_what_is_inside():
    model = model_of(L.LSTM(3, name="first", return_sequences=True), L.LSTM(3, name="second"), L.Dense(2))
    inside = ["second/lstm_cell/kernel", "second/lstm_cell/recurrent_kernel"]
    assert names(model, "second") == inside
    assert names(model, lambda layer: layer.name == "second") == inside
    assert len(names(model, L.LSTM)) == 4


def test_biases_are_left_alone():
    model = model_of(L.Dense(3), L.GRU(3), L.Dense(2))
    assert all("bias" not in target.kernel.name for target in find_targets(model)[0])


def test_the_private_list_of_inner_layers_is_where_keras_keeps_it():
    cell = L.LSTM(3)
    cell(np.zeros((1, 2, 2), "float32"))
    assert [layer.name for layer in layers_inside(cell)] == ["lstm_cell"]
