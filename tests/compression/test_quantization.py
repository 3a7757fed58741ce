import keras
import numpy as np
import pytest

import tfbig
from tfbig.backend.internals import every_layer
from tfbig.layers.functions import FORMS
from tfbig.layers.kernels import QuantizedLayer
from tfbig.models.step_layers import AverageOfSteps, Positions

L = keras.layers
INTEGER = ("int8", "int32", "bool")  # int32 and bool: indices and shapes


def functional(shape, body, dtype="float32", outputs=3):
    inputs = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(inputs, L.Dense(outputs, name="logits")(body(inputs)), name="net")


def mlp(x):
    x = L.Dense(12, use_bias=False)(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    return L.Dense(8, activation="tanh")(L.Dropout(0.1)(x))


def cnn(x):
    x = L.Conv2D(6, 3, strides=2, padding="same", activation="relu6")(L.ZeroPadding2D(1)(x))
    x = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x)))
    return L.Flatten()(L.MaxPooling2D(2)(x))


def depthwise_separable(x):
    x = L.ReLU(6)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)))
    x = L.ReLU(6)(L.BatchNormalization()(L.Conv2D(8, 1)(x)))
    x = L.SeparableConv2D(6, 3, activation="relu")(x)
    return L.GlobalAveragePooling2D()(x)


def residual(x):
    x = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
    x = L.ReLU()(L.Add()([x, y]))
    y = L.Conv2D(4, 1)(L.Activation("relu")(L.BatchNormalization()(x)))  # normalization before the kernel
    x = L.Add()([x, y, L.Conv2D(4, 1, activation="silu")(x)])
    return L.GlobalAveragePooling2D()(x)


def branches(x):
    a = L.Conv2D(4, 1, activation="relu")(x)
    b = L.AveragePooling2D(3, strides=1, padding="same")(L.Conv2D(4, 3, padding="same")(x))
    gate = L.Conv2D(8, 1, activation="sigmoid")(x)
    x = L.Multiply()([L.Concatenate()([a, b]), gate])
    return L.GlobalMaxPooling2D()(L.LeakyReLU(0.2)(x))


def upsampling(x):
    x = L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(x)
    x = L.BatchNormalization()(L.Conv2DTranspose(3, 2)(x))
    x = L.UpSampling2D(2, interpolation="bilinear")(L.MaxPooling2D(4)(L.Resizing(16, 16)(x)))
    return L.Flatten()(L.UpSampling2D(2)(x))


def sequence(x):
    x = L.BatchNormalization()(L.Conv1D(6, 3, padding="causal", activation="relu")(x))
    x = L.DepthwiseConv1D(3)(L.MaxPooling1D(2)(x))
    return L.Flatten()(L.SeparableConv1D(4, 2, activation="gelu")(L.AveragePooling1D(2, strides=1)(x)))


def embedding(x):
    return L.Dense(6, activation="relu")(L.GlobalAveragePooling1D()(L.Embedding(20, 6)(x)))


def attention(x):
    x = L.Dense(8)(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 4, dropout=0.1)(x, x)])
    x = L.LayerNormalization()(x)
    return L.GlobalAveragePooling1D()(L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d")(x))


def padded_tokens(x):
    x = Positions()(L.Embedding(20, 8, mask_zero=True)(x))
    norm = L.LayerNormalization()  # called twice, with the ranges of both
    y = norm(x)
    x = norm(L.Add()([x, L.MultiHeadAttention(2, 4)(y, y)]))
    return AverageOfSteps()(L.BatchNormalization()(L.Dense(8, activation="gelu")(x)))


def causal(x):
    x = Positions("sinusoidal")(L.Dense(8)(x))
    y = L.RMSNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True)])
    return L.Flatten()(L.LayerNormalization(center=False)(x))


def normalized_groups(x):
    x = L.GroupNormalization(2)(L.Conv2D(6, 3, strides=2, padding="same")(x))
    x = L.GroupNormalization(-1, scale=False)(L.Conv2D(4, 1)(L.ReLU()(x)))
    return L.Flatten()(L.LayerNormalization(axis=(1, 2, 3))(x))


def functions(x):
    applied = [L.Dense(4, activation=name)(x) for name in FORMS]
    return L.Concatenate()(
        [*applied, L.ELU(0.5)(L.Dense(4)(x)), L.Dense(4, activation="softplus")(applied[0])]
    )


def operations(x):
    x = L.TimeDistributed(L.Dense(6, activation="relu"))(x)
    y = keras.ops.square(x) - keras.ops.mean(x, axis=1, keepdims=True)
    z = keras.ops.exp(-x / 4) + keras.ops.max(keras.ops.abs(y), axis=-1, keepdims=True)
    return keras.ops.sum(L.Average()([x, y, z]), axis=1) + L.Flatten()(
        keras.ops.einsum("bij,bik->bjk", x, y)[:, 0]
    )


def nested(x):
    # Frozen: called on two kinds of rows, it has no statistics of its own for either.
    norm = L.BatchNormalization(trainable=False)
    inner = keras.Sequential([keras.Input((6,)), L.Dense(6, activation="relu"), norm], name="in")
    return L.Concatenate()([inner(x), keras.ops.relu(inner(keras.ops.multiply(x, 0.5)) + x)])


def recurrent(x):
    return L.Dense(6, activation="relu")(L.LSTM(5, name="lstm")(L.Dense(4)(x)))


def three_dimensions(x):
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(L.Conv3D(3, 2, name="conv")(x)))
    return L.Dense(6, activation="relu")(L.Flatten()(x))


def images_of_bytes(x):
    x = L.Conv2D(4, 3, activation="relu")(L.Rescaling(1 / 255, name="scale")(x))
    return L.Flatten()(x)


# Name to body, shape of a row, and what must stay in float: the layers and the operators of the file.
ARCHITECTURES = {
    "mlp": (mlp, (7,), {}, ()),
    "cnn": (cnn, (8, 8, 2), {}, ()),
    "depthwise separable": (depthwise_separable, (8, 8, 2), {}, ()),
    "residual": (residual, (6, 6, 2), {}, ()),
    "branches": (branches, (6, 6, 2), {}, ()),
    "upsampling": (upsampling, (4, 4, 2), {}, ()),
    "sequence": (sequence, (12, 3), {}, ()),
    "embedding": (embedding, (5,), {}, ()),
    "nested": (nested, (6,), {}, ()),
    "attention": (attention, (5, 6), {}, ()),
    "padded tokens": (padded_tokens, (7,), {}, ()),
    "functions": (functions, (6,), {}, ()),
    "operations": (operations, (5, 6), {}, ()),
    "causal": (causal, (5, 6), {}, ()),
    "normalized groups": (normalized_groups, (8, 8, 2), {}, ()),
    "recurrent": (
        recurrent,
        (5, 6),
        {"lstm": "rounding errors"},
        (
            *("ADD", "WHILE", "TRANSPOSE", "FILL", "STRIDED_SLICE"),
            *("FULLY_CONNECTED", "LOGISTIC", "MUL", "RESHAPE", "SPLIT", "TANH"),  # the loop's body
        ),
    ),
    "three dimensions": (
        three_dimensions,
        (4, 4, 4, 2),
        {"conv": "three dimensions", "norm": "three dimensions"},
        ("CONV_3D", "ADD", "MUL"),
    ),
    "bytes": (images_of_bytes, (8, 8, 3), {"scale": "whole numbers"}, ("MUL",)),
}
# Inputs that are no floats: their type, and how many values they take.
WHOLE = {"embedding": ("int32", 20), "padded tokens": ("int32", 20), "bytes": ("uint8", 256)}


@pytest.fixture(scope="session", params=ARCHITECTURES)
def case(request, tmp_path_factory):
    """A model, its weights before, the same quantized, its file, rows, and what must stay in float."""
    body, shape, in_float, float_ops = ARCHITECTURES[request.param]
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    dtype, values = WHOLE.get(request.param, ("float32", None))
    x = generator.integers(0, values, (128, *shape)) if values else generator.normal(size=(128, *shape))
    x = x.astype(dtype)
    model = functional(shape, body, x.dtype.name)
    for weight in model.trainable_weights:  # biases and factors too, so that none can be lost unseen
        weight.assign(weight + generator.normal(scale=0.2, size=weight.shape))
    know_their_statistics(model, x)
    before = model.get_weights()
    # A rate at which ranges are found and weights hardly move: what comes out is the model, rounded. Eight eager
    # steps take less time than tracing one.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-6), loss, run_eagerly=True)
    options = {"epochs": 1, "batch_size": 16, "seed": 0, "verbose": 0}
    rounded = tfbig.quantize_aware(model, x, generator.integers(0, 3, 128), **options)
    path = tmp_path_factory.mktemp("quantized") / "model.tflite"
    return model, before, rounded, tfbig.export(rounded, path, quantize="int8"), x, in_float, float_ops


def know_their_statistics(model, x):
    """Gives normalizations the statistics that the rows have, as training would."""
    kind = L.BatchNormalization
    normalizations = [layer for layer in every_layer(model) if isinstance(layer, kind) and layer.trainable]
    for momentum in [0.0] * len(normalizations) + [0.99]:  # each pass settles one layer more
        for layer in normalizations:
            layer.momentum = momentum
        model(x, training=True)


def test_the_given_model_is_not_changed(case):
    model, before, rounded, _, x, *_ = case
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not any(isinstance(layer, QuantizedLayer) for layer in model.layers)
    assert rounded.name == model.name
    assert rounded.layers[-1].name == "logits"


def test_it_computes_what_the_model_does_but_for_rounding(case):
    model, _, rounded, _, x, *_ = case
    want, got = np.asarray(model(x)), np.asarray(rounded(x))
    # A dozen roundings of half a step in 256 each, and values past the average range of a batch cut off; a factor
    # or bias that went missing costs ten times as much.
    assert np.abs(want - got).mean() <= 0.02 * np.ptp(want)


def test_it_saves_and_loads_equal(case, tmp_path):
    _, _, rounded, _, x, *_ = case
    again = tfbig.load_model(tfbig.save_model(rounded, tmp_path / "model.keras"))
    assert np.array_equal(again(x), rounded(x))
    assert tfbig.quantization(again) == tfbig.quantization(rounded)


def test_the_file_gives_the_models_answers_without_calibration(case):
    _, _, rounded, lite, x, *_ = case
    want, got = np.asarray(rounded(x)), lite.predict(x)
    lowest, highest = tfbig.quantization(rounded).ranges["logits"]
    # One step of the output, in 256: the file may round the other way where a sum falls between two levels.
    assert np.abs(want - got).mean() <= (highest - lowest) / 255
    assert lite.report.proof.inputs == "synthetic"


def test_everything_is_in_integers_but_what_is_listed(case):
    _, _, rounded, lite, _, in_float, float_ops = case
    reasons = tfbig.quantization(rounded).in_float
    assert set(reasons) == set(in_float)
    assert all(part in reasons[name] for name, part in in_float.items())
    assert set(lite.report.float_ops) <= set(float_ops)
    if not float_ops:
        assert all(name.endswith(INTEGER) for name in lite.ops)
