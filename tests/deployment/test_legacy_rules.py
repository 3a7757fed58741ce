"""The written rules: a class each, tried on one-layer models in this process."""

import json

import keras
import numpy as np
import pytest
import tf_keras

from tfbig.deployment import legacy_functions  # noqa: F401 - Keras finds its functions once it is imported
from tfbig.deployment.legacy import _set_weights, share_of_range
from tfbig.deployment.legacy_names import LAYERS, check_names, in_float32
from tfbig.deployment.legacy_process import _weights
from tfbig.deployment.legacy_rules import new_names, to_keras_3
from tfbig.errors import UnreadableFile

L = tf_keras.layers
SEQUENCES, IMAGES, ROWS, VOLUMES = (6, 4), (8, 8, 3), (5,), (4, 6, 6, 2)
CASES = {
    "Conv1D": (L.Conv1D(3, 2, padding="causal"), SEQUENCES),
    "Conv2D": (L.Conv2D(6, 3, groups=3, strides=2), IMAGES),
    "Conv3D": (L.Conv3D(2, 2), VOLUMES),
    "Conv1DTranspose": (L.Conv1DTranspose(3, 2, strides=2), SEQUENCES),
    "Conv2DTranspose": (L.Conv2DTranspose(3, 3, strides=2, padding="same"), IMAGES),
    "DepthwiseConv1D": (L.DepthwiseConv1D(2, depth_multiplier=2), SEQUENCES),
    "DepthwiseConv2D": (L.DepthwiseConv2D(3, depth_multiplier=2), IMAGES),
    "SeparableConv1D": (L.SeparableConv1D(3, 2), SEQUENCES),
    "SeparableConv2D": (L.SeparableConv2D(4, 3), IMAGES),
    "ConvLSTM2D": (L.ConvLSTM2D(3, 3), VOLUMES),
    "UpSampling2D": (L.UpSampling2D(2, interpolation="bilinear"), IMAGES),
    "ZeroPadding2D": (L.ZeroPadding2D(((1, 0), (0, 2))), IMAGES),
    "Cropping2D": (L.Cropping2D(1), IMAGES),
    "AveragePooling2D": (L.AveragePooling2D(3, padding="same"), IMAGES),
    "GlobalMaxPooling1D": (L.GlobalMaxPooling1D(), SEQUENCES),
    "LSTM": (L.LSTM(3, return_sequences=True, go_backwards=True), SEQUENCES),
    "LSTM of Keras 2.2": (L.LSTM(3, recurrent_activation="hard_sigmoid", implementation=1), SEQUENCES),
    "GRU": (L.GRU(3, reset_after=False), SEQUENCES),
    "SimpleRNN": (L.SimpleRNN(3, unroll=True), SEQUENCES),
    "RNN": (L.RNN([L.LSTMCell(3), L.SimpleRNNCell(2)]), SEQUENCES),
    "Bidirectional": (L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="ave"), SEQUENCES),
    "TimeDistributed": (L.TimeDistributed(L.Dense(3)), SEQUENCES),
    "BatchNormalization": (L.BatchNormalization(axis=[2], scale=False), SEQUENCES),
    "LayerNormalization": (L.LayerNormalization(axis=[1, 2]), SEQUENCES),
    "GroupNormalization": (L.GroupNormalization(3), IMAGES),
    "UnitNormalization": (L.UnitNormalization(), ROWS),
    "Normalization": (L.Normalization(mean=[1.0] * 5, variance=[4.0] * 5), ROWS),
    "LeakyReLU": (L.LeakyReLU(0.2), ROWS),
    "PReLU": (L.PReLU(shared_axes=[1]), IMAGES),
    "ThresholdedReLU": (L.ThresholdedReLU(0.6), ROWS),
    "ReLU": (L.ReLU(2.0, 0.1, 0.3), ROWS),
    "Softmax": (L.Softmax(axis=1), SEQUENCES),
    "hard_sigmoid": (L.Activation("hard_sigmoid"), ROWS),
    "EinsumDense": (L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), SEQUENCES),
    "Dense": (L.Dense(3, kernel_regularizer="l2", kernel_constraint="max_norm", activation="gelu"), ROWS),
    "Rescaling": (L.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 1.0, 2.0]), IMAGES),
    "Resizing": (L.Resizing(5, 11), IMAGES),
    "CenterCrop": (L.CenterCrop(4, 6), IMAGES),
    "RandomFlip": (L.RandomFlip(), IMAGES),
    "GaussianNoise": (L.GaussianNoise(0.5), ROWS),
    "Permute": (L.Permute((2, 1)), SEQUENCES),
    "RepeatVector": (L.RepeatVector(3), ROWS),
}


def translated(old):
    """The model of Keras 3 for one of tf_keras, as `load_model` makes it."""
    config = json.loads(old.to_json())
    model = keras.saving.deserialize_keras_object(to_keras_3(check_names(config, "m.h5"), "m.h5"))
    arrays, layers = _weights(old)
    _set_weights(model, {"model": config, "layers": layers}, arrays, "m.h5")
    return model


def assert_translates(old, *x):
    generator = np.random.default_rng(1)
    old.set_weights([np.abs(generator.normal(size=w.shape)).astype(w.dtype) + 0.1 for w in old.get_weights()])
    new = translated(old)
    inputs = list(x) if len(x) > 1 else x[0]
    expected, got = flat(old(inputs, training=False)), flat(new(inputs, training=False))
    for a, b in zip(expected, got, strict=True):
        assert share_of_range(a, b) < 1e-5
    return new


def flat(outputs):
    outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
    return [np.asarray(y) for y in (outputs if isinstance(outputs, list | tuple) else [outputs])]


@pytest.mark.parametrize("name", CASES)
def test_a_layer_computes_the_same_in_keras_3(name):
    layer, shape = CASES[name]
    old = tf_keras.Sequential([L.Input(shape), layer])
    assert_translates(old, np.random.default_rng(0).normal(size=(3, *shape)).astype("float32"))


def test_calls_with_several_arguments_constants_and_masks():
    words = tf_keras.Input((7,), dtype="int32")
    y = L.Embedding(9, 4, mask_zero=True)(words)
    y = L.MultiHeadAttention(2, 3)(y, value=y, use_causal_mask=True)
    state = L.Dense(3)(L.GlobalAveragePooling1D()(y))
    y = L.GRU(3)(y, initial_state=state)
    old = tf_keras.Model(words, L.Dot(1)([y, state]))
    assert_translates(old, np.random.default_rng(0).integers(0, 9, (4, 7)))


def test_a_functional_model_called_twice_inside_another():
    z = tf_keras.Input((4,))
    inner = tf_keras.Model(z, [L.Dense(3)(z), L.Dense(3, name="a/b")(z)], name="inner")
    x = tf_keras.Input((4,))
    first, second = inner(x)
    third, _ = inner(L.Dense(4)(second))
    new = assert_translates(tf_keras.Model(x, [L.Add()([first, third]), second]), np.ones((2, 4), "float32"))
    assert [layer.name for layer in new.get_layer("inner").layers][-1] == "a_b"


def test_frozen_layers_stay_frozen():
    old = tf_keras.Sequential(
        [L.Input((4,)), L.Dense(3, trainable=False), L.BatchNormalization(), L.Dense(2)]
    )
    new = assert_translates(old, np.ones((2, 4), "float32"))
    assert [layer.trainable for layer in new.layers] == [False, True, True]


def test_names_stay_apart_without_slashes():
    layers = [{"config": {"name": name}} for name in ("a/b", "a_b", "c")]
    assert new_names(layers) == {"a/b": "a_b_", "a_b": "a_b", "c": "c"}


def test_keys_that_keras_3_has_no_word_for_are_named():
    config = json.loads(tf_keras.Sequential([L.Input((5, 2)), L.LSTM(3, time_major=True)]).to_json())
    with pytest.raises(UnreadableFile, match=r"LSTM 'lstm.*' has time_major=True, and Keras 3 has nothing"):
        to_keras_3(config, "m.h5")
    config["config"]["layers"][1]["config"].update(time_major=False, peephole=2)
    with pytest.raises(UnreadableFile, match="peephole=2"):
        to_keras_3(config, "m.h5")


def test_every_class_on_the_list_is_one_of_both_kerases():
    assert [name for name in LAYERS if not hasattr(L, name)] == []
    assert [name for name in LAYERS if not hasattr(keras.layers, name)] == ["ThresholdedReLU"]


def test_policies_of_every_age_become_names():
    old = {"class_name": "PolicyV1", "config": {"name": "infer", "loss_scale": None}}
    new = {"class_name": "Policy", "config": {"name": "mixed_float16"}, "module": "keras.mixed_precision"}
    assert check_names({"dtype": [old, new]}, "m.h5") == {"dtype": ["float32", "mixed_float16"]}
    assert in_float32({"layers": [{"dtype": "mixed_float16", "units": 3}]}) == {
        "layers": [{"dtype": "float32", "units": 3}]
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"class_name": "Lambda", "config": {"name": "mine", "function": "x"}}, "Lambda layer 'mine'"),
        ({"class_name": "__lambda__", "config": {}}, "holds code"),
        ({"class_name": "TFOpLambda", "name": "tf.math.add", "config": {}}, "operation 'tf.math.add'"),
        ({"class_name": "Denze", "config": {"name": "d"}}, "'Denze'.*Did you mean 'Dense'"),
        ({"class_name": "Dense", "module": "os.path", "config": {}}, r"'os.path.Dense'"),
        ({"class_name": "function", "config": "eval", "module": "builtins"}, "function 'eval'"),
    ],
)
def test_code_and_strangers_are_refused_by_name(config, words):
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": [config]}}
    with pytest.raises(UnreadableFile, match=words):
        check_names(model, "m.h5")
