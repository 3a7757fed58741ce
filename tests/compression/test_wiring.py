import keras

from tfbig.compression.wiring import Names, read_wiring

L = keras.layers


def test_nested_models_are_laid_out_in_place_each_time_they_are_called():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, name="a"), L.ReLU(name="b")], name="inner")
    x = keras.Input((4,), name="x")
    model = keras.Model(x, L.Add(name="sum")([inner(x), inner(inner(x))]))
    wiring = read_wiring(model)
    assert sorted(call.name for call in wiring.calls) == ["inner/a"] * 3 + ["inner/b"] * 3 + ["sum"]
    assert len({id(call.op) for call in wiring.calls}) == 3
    *_, last = wiring.calls
    assert last.name == "sum"
    assert wiring.leaves(last.outputs[0])
    assert wiring.inputs.name == "x"
    made = {edge: call.name for call in wiring.calls for edge in call.outputs}
    assert [made[edge] for edge in last.inputs] == ["inner/b", "inner/b"]
    assert last.inputs[0] is not last.inputs[1]


def test_only_consumer_is_the_one_that_reads_alone():
    x = keras.Input((4,))
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = keras.Model(x, [L.Add(name="sum")([L.ReLU(name="r")(a), b]), b])
    wiring = read_wiring(model)
    calls = {call.name: call for call in wiring.calls}
    assert wiring.only_consumer(calls["a"].outputs[0]) is calls["r"]
    assert wiring.only_consumer(calls["b"].outputs[0]) is None  # an output of the model too
    assert wiring.only_consumer(wiring.inputs) is None
    assert {call.name for call in wiring.consumers(wiring.inputs)} == {"a", "b"}


def test_names_are_given_once():
    names = Names()
    assert [names.free("a"), names.free("a"), names.free("in/a"), names.free("a")] == [
        "a",
        "a_1",
        "in_a",
        "a_2",
    ]
