"""Projections made as one product give what Keras gives, in fewer and cheaper operations, and only where they may."""

import numpy as np
import pytest

from tfbig.backend import keras, tf
from tfbig.backend.internals import every_layer
from tfbig.training.flat_products import flat_products, summed_axes
from tfbig.training.train_step import TrainStep

L = keras.layers
GENERATOR = np.random.default_rng(0)
# Equation, shape of an example, shape of an output.
PRODUCTS = {
    "onto heads": ("abc,cde->abde", (5, 4), (5, 2, 3)),
    "from heads": ("abcd,cde->abe", (5, 2, 3), (5, 4)),
    "of a sequence": ("abc,cd->abd", (5, 4), (5, 3)),
    "of two axes of rows": ("abcd,de->abce", (2, 5, 4), (2, 5, 3)),
    "of a sequence of unknown length": ("abc,cde->abde", (None, 4), (None, 2, 3)),
}
OTHERS = {
    "rows alone": ("ab,bc->ac", (4,), (3,)),
    "summed in another order": ("abcd,dce->abe", (5, 2, 3), (5, 4)),
    "a kernel for each place": ("abc,bcd->abd", (5, 4), (5, 3)),
    "outputs in another order": ("abc,cde->abed", (5, 4), (5, 3, 2)),
    "any number of axes": ("...c,cd->...d", (5, 4), (5, 3)),
}


def layer_of(name, dtype="float64", **options):
    equation, _, outputs = {**PRODUCTS, **OTHERS}[name]
    if "bias_axes" not in options:
        options["bias_axes"] = equation.split("->")[1][-1]
    return L.EinsumDense(equation, outputs, bias_initializer="random_normal", dtype=dtype, **options)


def model_of(name, layer):
    return keras.Sequential([keras.Input({**PRODUCTS, **OTHERS}[name][1], dtype=layer.compute_dtype), layer])


def rows_for(name, dtype="float64"):
    shape = [6 if size is None else size for size in {**PRODUCTS, **OTHERS}[name][1]]
    return tf.constant(GENERATOR.normal(size=(7, *shape)), dtype)


def graph_of(model, x):
    """A traced function of the outputs and their gradients, and how many products of stacks of matrices it holds."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *x.shape[1:]], x.dtype)])
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x, training=True)
            loss = tf.reduce_sum(tf.sin(outputs))
        return outputs, tape.gradient(loss, [x, *(v.value for v in model.trainable_variables)])

    traced = both.get_concrete_function()
    return traced, batched_products(traced)


def batched_products(function):
    definition = function.graph.as_graph_def()
    groups = [definition.node, *(one.node_def for one in definition.library.function)]
    return sum(node.op in ("BatchMatMulV2", "Einsum") for nodes in groups for node in nodes)


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_outputs_and_gradients_are_those_of_keras(name, activation):
    model, x = model_of(name, layer_of(name, activation=activation)), rows_for(name)
    theirs, before = graph_of(model, x)
    with flat_products(model):
        ours, after = graph_of(model, x)
    assert (before > 0, after) == (True, 0)
    outputs, gradients = ours(x)
    expected, expected_gradients = theirs(x)
    assert ours.structured_outputs[0].shape.as_list() == theirs.structured_outputs[0].shape.as_list()
    np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_other_equations_stay_as_they_are(name):
    assert summed_axes(OTHERS[name][0]) is None
    model, x = model_of(name, layer_of(name, bias_axes=None)), rows_for(name)
    _, before = graph_of(model, x)
    with flat_products(model):
        assert "call" not in vars(model.layers[0])
        _, after = graph_of(model, x)
    assert before == after


def test_mixed_precision_computes_in_half():
    model, x = (
        model_of("onto heads", layer_of("onto heads", "mixed_float16")),
        rows_for("onto heads", "float16"),
    )
    expected = model(x)
    with flat_products(model):
        outputs = model(x)
    assert outputs.dtype == expected.dtype == tf.float16
    np.testing.assert_allclose(outputs, expected, rtol=2e-3, atol=2e-3)  # half holds three digits


def test_adapters_are_part_of_the_kernel():
    layer = layer_of("onto heads")
    model, x = model_of("onto heads", layer), rows_for("onto heads")
    plain = model(x)
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    expected = model(x)
    assert np.abs(expected - plain).max() > 0.01
    with flat_products(model):
        np.testing.assert_allclose(model(x), expected, rtol=1e-12, atol=1e-12)


class Doubled(L.EinsumDense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


def test_a_call_of_the_users_own_is_left_alone():
    model = keras.Sequential([keras.Input((5, 4)), Doubled("abc,cd->abd", (5, 3))])
    x = np.ones((2, 5, 4), np.float32)
    expected = model(x)
    with flat_products(model):
        np.testing.assert_array_equal(model(x), expected)


def test_layers_are_themselves_again_also_after_an_error_and_within_another_block():
    model = model_of("onto heads", layer_of("onto heads"))
    (layer,) = model.layers
    with pytest.raises(ZeroDivisionError), flat_products(model):
        assert "call" in vars(layer)
        with flat_products(model):
            pass
        assert "call" in vars(layer)
        raise ZeroDivisionError
    assert "call" not in vars(layer)


def attentive():
    inputs = keras.Input((3, 4))
    x = L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 3, dropout=0.1)(inputs, inputs))
    model = keras.Model(inputs, L.Dense(3)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


# Scores and their use are products of a matrix per example, forward once and back twice; projections are none.
ATTENTION = 2 * (1 + 2)
X, Y = np.ones((8, 3, 4), np.float32), np.zeros(8, np.int64)


def test_the_step_of_fit_projects_in_one_product():
    model = attentive()
    step = TrainStep(model)
    step.build((X, Y, None))
    order = tf.range(8, dtype=tf.int64)
    function = step.train_rows.get_concrete_function((tf.constant(X), tf.constant(Y)), order, 4)
    assert batched_products(function) == ATTENTION
    assert not any("call" in vars(layer) for layer in every_layer(model))
