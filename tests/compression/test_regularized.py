"""Penalties and constraints of the user's layers, in the model that trains through rounding."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.compression import integer_rules as rules
from tfbig.compression.integer_build import Settings, build
from tfbig.compression.integer_plan import make_plan
from tfbig.compression.wiring import read_wiring

L = keras.layers
L1, L2 = keras.regularizers.L1(0.01), keras.regularizers.L2(0.02)


def quantized(model):
    """The model as it is before it is trained, rounding nothing yet but kernels."""
    plan = make_plan(read_wiring(model), lambda op: True)
    return plan, build(plan, Settings(lambda op: 8, 8, "moving_average", 1000, "auto"), model.name)


LAYERS = {
    "dense": (lambda: L.Dense(5, activity_regularizer=L2), (4,)),
    "activated": (lambda: L.Dense(5, activation="tanh", activity_regularizer=L1), (4,)),
    "swish": (lambda: L.Dense(5, activation="silu", activity_regularizer=L1), (4,)),
    "kernel and bias": (lambda: L.Conv1D(5, 2, kernel_regularizer=L1, bias_regularizer=L2), (6, 4)),
    "separable": (
        lambda: L.SeparableConv1D(
            *(5, 2),
            activation="relu",
            depthwise_regularizer=L1,
            pointwise_regularizer=L2,
            bias_regularizer=L1,
            activity_regularizer=L2,
        ),
        (6, 4),
    ),
    "separable image": (
        lambda: L.SeparableConv2D(5, 2, depthwise_regularizer=L1, pointwise_regularizer=L2),
        (6, 6, 4),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_penalties_are_those_of_the_model(name):
    make, shape = LAYERS[name]
    model = keras.Sequential([keras.Input(shape), make(), L.Flatten(), L.Dense(2)])
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    _, rounded = quantized(model)
    x = np.random.default_rng(1).normal(size=(16, *shape)).astype("float32")
    losses = []
    for each in (model, rounded):
        each(x, training=True)
        losses.append(float(sum(each.losses)))
    assert losses[0] > 0
    # Kernels are rounded by up to half of one step in 127 of the largest weight; a penalty lost costs a third or more.
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_the_penalty_on_an_attention_layers_kernels_is_that_of_the_model():
    x = keras.Input((5, 6))
    attention = L.MultiHeadAttention(2, 3, kernel_regularizer=L2, bias_regularizer=L1, name="att")
    model = keras.Model(x, L.Dense(2)(attention(x, x)))
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    plan, rounded = quantized(model)
    assert plan.in_float == {}
    # The scale of the queries is folded into their kernel: nothing more to compute.
    assert all(plan.kinds[call] != rules.AFFINE for call in plan.wiring.calls)
    want, got = (
        [
            float(v.regularizer(v.value))
            for v in each.trainable_weights
            if v.name == "kernel" and v.regularizer
        ]
        for each in (model, rounded)
    )
    assert len(want) == 4
    assert sorted(got) == pytest.approx(sorted(want), rel=1e-5)  # float32
    rows = np.random.default_rng(1).normal(size=(16, 5, 6)).astype("float32")
    want, got = np.asarray(model(rows)), np.asarray(rounded(rows, training=True))
    assert np.abs(want - got).mean() <= 0.02 * np.ptp(want)  # kernels rounded, a few in a row


def test_constraints_of_separable_layers_hold():
    positive = keras.constraints.NonNeg()
    layer = L.SeparableConv1D(5, 2, depthwise_constraint=positive, pointwise_constraint=positive, name="both")
    model = keras.Sequential([keras.Input((6, 4)), layer, L.Flatten(), L.Dense(2)])
    for kernel in (layer.depthwise_kernel, layer.pointwise_kernel):
        kernel.assign(np.abs(kernel) * 0.01)  # so near to 0 that steps of 0.1 would lead some below
    x, y = np.random.default_rng(0).normal(size=(64, 6, 4)), np.arange(64) % 2
    optimizer = keras.optimizers.Adam(0.1)
    rounded = tfbig.quantize_aware(model, x, y, epochs=2, optimizer=optimizer, seed=0, verbose=0)
    for name in ("both_depthwise", "both"):
        kernel = rounded.get_layer(name).layer.kernel.numpy()
        assert kernel.min() == 0


def test_attention_with_constraints_stays_in_float_and_is_listed():
    x = keras.Input((5, 6))
    attention = L.MultiHeadAttention(2, 3, kernel_constraint=keras.constraints.MaxNorm(1), name="att")
    plan, _ = quantized(keras.Model(x, L.Dense(2)(attention(x, x))))
    assert "constraints" in plan.in_float["att"]


def folded(convolution, normalization):
    """A model whose normalization will be folded, with factors far from 1."""
    model = keras.Sequential([keras.Input((6, 6, 2)), convolution, normalization, L.Flatten(), L.Dense(2)])
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(generator.uniform(0.5, 2.0, weight.shape))
    return model


def test_a_penalty_on_a_kernel_stays_where_a_normalization_is_folded_in():
    convolution = L.Conv2D(3, 2, use_bias=False, kernel_regularizer=L2, bias_regularizer=L1, name="conv")
    model = folded(convolution, L.BatchNormalization(name="norm"))
    plan, rounded = quantized(model)
    assert len(plan.normalizations) == 1
    assert plan.lost == {}
    # Of the kernel before the factor, and of nothing else.
    want = float(L2(convolution.kernel))
    assert float(sum(rounded.losses)) == pytest.approx(want, rel=0.02)  # as above, of the rounded kernel


def test_penalties_of_a_normalization_that_trains_stay():
    model = folded(L.Conv2D(3, 2, use_bias=False), L.BatchNormalization(gamma_regularizer=L1))
    plan, rounded = quantized(model)
    assert plan.lost == {}
    assert float(sum(rounded.losses)) == pytest.approx(float(L1(model.layers[1].gamma)))


def test_what_folding_ends_is_said():
    positive = keras.constraints.NonNeg()
    convolution = L.Conv2D(3, 2, bias_constraint=positive, kernel_regularizer=L2, name="conv")
    norm = L.BatchNormalization(gamma_regularizer=L1, beta_constraint=positive, name="norm", trainable=False)
    model = folded(convolution, norm)
    x, y = np.random.default_rng(0).normal(size=(32, 6, 6, 2)), np.arange(32) % 2
    with pytest.warns(
        UserWarning, match="conv: bias_constraint; norm: gamma_regularizer, beta_constraint"
    ) as said:
        rounded = tfbig.quantize_aware(model, x, y, epochs=1, verbose=0)
    assert __file__ in {warning.filename for warning in said}
    assert rounded.get_layer("conv").layer.bias.constraint is None


def test_what_a_penalty_looks_at_is_not_folded_away():
    x = keras.Input((4,))
    layer = L.Dense(5, activity_regularizer=L2, name="dense")
    model = keras.Model(x, L.BatchNormalization(name="norm")(layer(x)))
    plan, rounded = quantized(model)
    assert plan.factors == {}
    rows = np.random.default_rng(1).normal(size=(16, 4)).astype("float32")
    for each in (model, rounded):
        each(rows, training=True)
    assert float(sum(rounded.losses)) == pytest.approx(float(sum(model.losses)), rel=0.02)  # rounded kernels


def test_attention_gives_the_shape_that_was_asked_for(tmp_path):
    x = keras.Input((5, 6))
    attention = L.MultiHeadAttention(2, 3, output_shape=(2, 3), name="att")
    model = keras.Model(x, L.Dense(2, name="logits")(attention(x, x)))
    rows = np.random.default_rng(0).normal(size=(64, 5, 6)).astype("float32")
    options = {"optimizer": keras.optimizers.SGD(1e-6), "loss": "mse", "epochs": 1, "verbose": 0}
    rounded = tfbig.quantize_aware(model, rows, np.zeros((64, 5, 2, 2)), **options)
    assert rounded.output_shape == model.output_shape
    want, got = np.asarray(model(rows)), np.asarray(rounded(rows))
    assert np.abs(want - got).mean() <= 0.02 * np.ptp(want)  # a dozen roundings of half a step in 256
    lite = tfbig.export(rounded, tmp_path / "att.tflite", quantize="int8")
    assert lite.report.float_ops == ()
