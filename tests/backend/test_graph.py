"""Fails loudly when Keras moves a private name that tfbig.backend.graph relies on."""

import keras
import numpy as np

from tfbig.backend.graph import (
    carries_mask,
    graph_as_found,
    graph_of,
    input_name,
    inputs_of,
    nodes,
    operation_name,
    run_graph,
    structures,
)

L = keras.layers


def test_the_calls_of_a_functional_model_come_in_running_order():
    x = keras.Input((4,), name="x")
    dense = L.Dense(4)
    model = keras.Model({"x": x}, [L.Add()([dense(dense(x)), x]) * 2.0])
    calls = nodes(model)
    assert [type(call.operation).__name__ for call in calls] == ["Dense", "Dense", "Add", "Multiply"]
    assert calls[0].args[0] is x
    assert calls[1].args[0] is calls[0].outputs[0]
    inputs, outputs = structures(model)
    assert inputs == {"x": x}
    assert outputs[0] is calls[-1].outputs[0]


def test_masks_are_seen():
    x = keras.Input((4,), dtype="int32")
    assert carries_mask(L.Embedding(3, 2, mask_zero=True)(x))
    assert not carries_mask(L.Embedding(3, 2)(x))


def test_every_call_is_listed_after_those_it_takes_from():
    inputs = keras.Input((4,))
    block = keras.layers.Dense(4)
    one = block(inputs)
    two = block(one)
    model = keras.Model(inputs, keras.layers.Add()([one, two]))
    calls = nodes(model, inputs_too=True)
    # The input, the block twice, the sum.
    assert [call.operation for call in calls] == [model.layers[0], block, block, model.layers[-1]]
    known = set()
    for call in calls:
        assert {id(tensor) for tensor in call.inputs} <= known
        known |= {id(tensor) for tensor in call.outputs}
    assert id(model.outputs[0]) in known


def test_calls_of_other_models_are_not_listed():
    inputs = keras.Input((4,))
    middle = keras.layers.Dense(3)(inputs)
    whole = keras.Model(inputs, keras.layers.Dense(2)(middle))
    assert len(nodes(whole, inputs_too=True)) == 3
    assert len(nodes(keras.Model(inputs, middle), inputs_too=True)) == 2


def test_calls_added_in_the_block_are_forgotten_and_the_model_works_on():
    inputs = keras.Input((4,))
    block = keras.layers.Dense(3)
    middle = block(inputs)
    last = keras.layers.Dense(2)
    whole = keras.Model(inputs, last(middle))
    before = len(last._inbound_nodes), len(block._outbound_nodes)
    with graph_as_found(whole):
        part = keras.Model(middle, whole.output)
        assert part(keras.ops.ones((1, 3))).shape == (1, 2)
        assert len(last._inbound_nodes) > before[0]
    assert (len(last._inbound_nodes), len(block._outbound_nodes)) == before
    assert whole(keras.ops.ones((1, 4))).shape == (1, 2)
    assert keras.Model.from_config(whole.get_config()).output_shape == (None, 2)


def test_sequential_and_functional_models_have_a_graph_and_others_have_none():
    sequential = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    x = keras.Input((3,))
    functional = keras.Model(x, L.Dense(2)(x))

    class Own(keras.Model):
        def call(self, x):
            return x

    class OwnFunctional(type(functional)):
        def call(self, x):
            return -super().call(x)

    assert graph_of(functional) is functional
    assert isinstance(graph_of(sequential), type(functional))
    assert graph_of(Own()) is None
    assert graph_of(OwnFunctional(x, L.Dense(2)(x))) is None
    assert graph_of(L.Dense(2)) is None
    unbuilt = keras.Sequential([L.Dense(2), L.ReLU()])
    assert graph_of(unbuilt) is None
    unbuilt.build((None, 3))
    assert [node.operation for node in nodes(unbuilt)] == unbuilt.layers


def test_a_graph_runs_on_tensors_as_keras_runs_it():
    x, other = keras.Input((4, 3), name="x"), keras.Input((2,), name="other")
    shared = L.Dense(2)
    h, state = L.GRU(2, return_state=True)(x, initial_state=shared(other))
    model = keras.Model({"x": x, "other": other}, {"a": shared(h) + 1.0, "b": [state, h * h]})
    values = {
        "x": np.random.default_rng(0).normal(size=(5, 4, 3)),
        "other": np.random.default_rng(1).normal(size=(5, 2)),
    }
    values = keras.tree.map_structure(lambda value: keras.ops.convert_to_tensor(value, "float32"), values)
    seen = []

    def visit(operation, args, kwargs, outputs):
        seen.append((operation_name(operation) or type(operation).__name__, outputs[0].shape))
        return operation(*args, **kwargs)

    ours, theirs = run_graph(model, values, visit), model(values)
    keras.tree.assert_same_structure(ours, theirs)
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # the same operations on the same numbers
    assert sorted(seen) == [
        *[("Add", (None, 2)), ("Dense", (None, 2)), ("Dense", (None, 2))],
        *[("GRU", (None, 2)), ("Multiply", (None, 2))],
    ]
    assert [input_name(tensor) for tensor in keras.tree.flatten(inputs_of(model))] == ["other", "x"]


def test_an_input_without_a_name_has_that_of_its_layer():
    x = keras.Input((3,))
    model = keras.Model(x, L.Dense(2)(x))
    assert input_name(model.inputs[0]) == model.layers[0].name
