"""What is decided before anything is built or trained."""

import keras
import numpy as np
import pytest

from tfbig.compression import integer_rules as rules
from tfbig.compression.integer_plan import make_plan
from tfbig.compression.wiring import Edge, read_wiring

L = keras.layers


def planned(inputs, outputs, chosen=lambda op: True):
    return make_plan(read_wiring(keras.Model(inputs, outputs)), chosen)


def kinds(plan):
    return [(call.name, plan.kinds[call]) for call in plan.wiring.calls]


def test_a_normalization_is_folded_into_the_kernel_before_it_and_into_no_other():
    x = keras.Input((8, 8, 2))
    conv, norm = L.Conv2D(3, 1, name="conv"), L.BatchNormalization(name="norm")
    assert kinds(planned(x, norm(conv(x)))) == [("conv", rules.KERNEL)]
    # Used twice, read by two, rectified in between, or fed by no kernel: it stays by itself, as a convolution.
    shared = L.Conv2D(2, 1, name="shared")
    once, twice = shared(x), shared(shared(x))
    for outputs in (
        [L.BatchNormalization(name="n")(once), twice],
        [L.BatchNormalization(name="n")(once), L.ReLU()(once)],
    ):
        assert ("n", rules.KERNEL) in kinds(planned(x, outputs))
    rectified = L.Conv2D(3, 1, activation="relu", name="conv")(x)
    plan = planned(x, L.BatchNormalization(name="n")(rectified))
    assert kinds(plan) == [("conv", rules.KERNEL), ("conv_relu", rules.ACTIVATION), ("n", rules.KERNEL)]
    assert isinstance(plan.wiring.calls[-1].op, L.DepthwiseConv2D)
    assert plan.factors == {}


def test_a_frozen_normalization_is_a_factor_and_an_offset():
    x = keras.Input((6, 6, 2))
    conv, norm = L.DepthwiseConv2D(3, depth_multiplier=2, name="conv"), L.BatchNormalization(name="norm")
    norm.trainable = False
    model = keras.Model(x, norm(conv(x)))
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 2, w.shape) for w in model.weights])
    plan = make_plan(read_wiring(model), lambda op: True)
    (call,) = plan.wiring.calls
    factor = plan.factors[call.op]
    assert np.allclose(call.op.bias, norm.beta + (conv.bias - norm.moving_mean) * factor.ravel(), atol=1e-5)
    kernel = call.op.kernel * factor
    rows = generator.normal(size=(4, 6, 6, 2)).astype("float32")
    call.op.kernel.assign(kernel)
    assert np.allclose(call.op(rows), model(rows), atol=1e-4)  # float32, sums of 9


@pytest.mark.parametrize("alone", [False, True])
def test_a_normalization_that_trains_goes_on_doing_so(alone):
    x = keras.Input((6, 6, 2))
    conv, norm = L.Conv2D(3, 3, activation="relu" if alone else None), L.BatchNormalization(name="norm")
    model = keras.Model(x, norm(conv(x)))
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 2, w.shape) for w in model.weights])
    mean = norm.moving_mean.numpy()
    plan = make_plan(read_wiring(model), lambda op: True)
    assert plan.factors == {}
    ((layer, copy),) = plan.normalizations.items()
    assert layer is plan.wiring.calls[-1].op
    assert copy is not norm
    assert copy.trainable
    assert not layer.use_bias
    rows = generator.normal(size=(4, 6, 6, 2)).astype("float32")
    for training in (False, True):
        values = rows
        for call in plan.wiring.calls:
            values = call.op(values)
        got, want = copy(values, training=training), model(rows, training=training)
        assert np.allclose(got, want, atol=1e-4)  # float32, sums of 18
    # The user's own followed its batch in the last call, the copy its own.
    assert not np.allclose(norm.moving_mean, mean)
    assert np.allclose(copy.moving_mean - norm.moving_mean, 0 if alone else -conv.bias, atol=1e-4)


def test_attention_is_taken_apart_into_dense_layers():
    x = keras.Input((5, 6))
    plan = planned(x, L.MultiHeadAttention(2, 3, name="att")(x, x))
    names = [name for name, kind in kinds(plan) if kind == rules.KERNEL]
    assert names == ["att_query", "att_key", "att_value", "att"]
    assert plan.in_float == {}


def as_planned(plan, rows):
    """What the calls of a plan give one after the other, for a model of one output; nothing is rounded."""
    values = dict(zip(keras.tree.flatten(plan.wiring.inputs), rows, strict=True))
    for call in plan.wiring.calls:
        args, kwargs = keras.tree.map_structure(
            lambda x: values[x] if isinstance(x, Edge) else x, (call.args, call.kwargs)
        )
        values.update(zip(call.outputs, keras.tree.flatten(call.op(*args, **kwargs)), strict=True))
    return values[keras.tree.flatten(plan.wiring.outputs)[0]]


def embedded(x):
    return L.Embedding(32, 6, mask_zero=True)(keras.ops.cast(keras.ops.abs(4 * x[..., 0]), "int32"))


def itself(x, **options):
    return L.MultiHeadAttention(2, 3)(x, x, **options)


@pytest.mark.filterwarnings("error:Layer:UserWarning")  # no mask is lost on the way
@pytest.mark.parametrize(
    "body",
    [
        lambda x: itself(x, use_causal_mask=True),
        lambda x: itself(x, attention_mask=keras.ops.abs(x[:, :, None, 0] - x[:, None, :, 1]) < 1),
        lambda x: itself(x, attention_mask=keras.ops.greater(x @ keras.ops.transpose(x, (0, 2, 1)), 0)[:, None]),
        lambda x: itself(embedded(x)),
        lambda x: itself(itself(embedded(x), use_causal_mask=True)),
        lambda x: L.MultiHeadAttention(2, 3)(L.Dense(6)(x), embedded(x)),
        lambda x: L.MultiHeadAttention(2, 3)(embedded(x), L.Dense(6)(x), embedded(x), use_causal_mask=True),
        lambda x: itself(L.BatchNormalization(trainable=False)(embedded(x))),
        lambda x: L.LSTM(3)(L.BatchNormalization(trainable=False)(itself(embedded(x)))),
        lambda x: L.LSTM(3)(L.MultiHeadAttention(2, 3, output_shape=4)(embedded(x), L.Dense(5)(x))),
        lambda x: L.GlobalAveragePooling1D()(L.Activation("relu")(L.LayerNormalization()(embedded(x)))),
    ],
)  # fmt: skip
def test_taken_apart_it_computes_the_same_whatever_the_masks(body):
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, body(inputs))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + generator.uniform(-0.2, 0.2, weight.shape))
    rows = generator.normal(size=(16, 5, 6)).astype("float32")
    plan = make_plan(read_wiring(model), lambda op: True)
    got = as_planned(plan, [rows])
    assert np.allclose(got, model(rows), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "name", "reason"),
    [
        (lambda x: L.MultiHeadAttention(2, 3, name="a")(x, x, query_mask=x[..., 0]), "a", "called with query_mask"),
        (lambda x: L.Softmax(name="a")(L.Masking(name="m")(x)), "a", "mask of an Embedding or Masking"),
        (lambda x: L.MultiHeadAttention(2, 3, name="a", attention_axes=(1, 2))(*[x[:, None]] * 2), "a", "one axis"),
        (lambda x: L.BatchNormalization(axis=1, name="a")(x), "a", "along the last axis"),
        (lambda x: L.Normalization(mean=[0.0] * 6, variance=[1.0] * 6, name="a")(x), "a", "different units"),
        (lambda x: L.Dense(3, activation="log_softmax", name="a")(x), "a", "no integer kernel for this activation"),
        (lambda x: x / (keras.ops.abs(x) + 1), "true_divide", "may round to 0"),
    ],
)  # fmt: skip
def test_what_stays_in_float_and_why(body, name, reason):
    keras.backend.clear_session()  # operations are named by how many there were
    x = keras.Input((5, 6))
    assert reason in planned(x, body(x)).in_float[name]


def test_factors_per_channel_in_three_dimensions_stay_in_float():
    x = keras.Input((4, 4, 4, 2))
    plan = planned(x, L.BatchNormalization(name="norm")(L.Conv3D(3, 2, name="conv")(x)))
    assert list(plan.in_float) == ["conv", "norm"]
    assert "three dimensions" in plan.in_float["norm"]


def test_what_reads_whole_numbers_stays_in_float_but_for_tables():
    x = keras.Input((8, 8, 3), dtype="uint8")
    plan = planned(x, L.Conv2D(3, 1, name="conv")(L.Rescaling(1 / 255, name="scale")(x)))
    assert list(plan.in_float) == ["scale"]
    assert "whole numbers" in plan.in_float["scale"]
    words = keras.Input((5,), dtype="int32")
    assert planned(words, L.Embedding(9, 4)(words)).in_float == {}


def test_indices_and_masks_are_not_listed_as_float():
    x = keras.Input((5,), dtype="int32")
    embedded = L.Embedding(9, 4, mask_zero=True)(keras.ops.maximum(x, 0) + 1)
    plan = planned(x, L.Conv1D(2, 1)(embedded))
    assert plan.in_float == {}


def test_the_models_own_layers_are_only_read():
    x = keras.Input((8, 8, 2))
    model = keras.Model(x, L.Flatten()(L.SeparableConv2D(3, 3)(L.BatchNormalization()(x))))
    calls = {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    before = model.get_weights()
    plan = make_plan(read_wiring(model), lambda op: True)
    assert not {id(call.op) for call in plan.wiring.calls} & {id(layer) for layer in model.layers}
    assert calls == {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
