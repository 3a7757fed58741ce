from dataclasses import replace

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfbig
from tfbig.deployment.contents import read_contents
from tfbig.errors import UnreadableFile


def edited(content, change):
    """A LiteRT file after `change` was called on its unpacked form."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def content(digits_lite):
    return digits_lite.path.read_bytes()


def test_tensors_say_what_they_are(content):
    contents = read_contents(content)
    first = next(op for op in contents.operations if op.name == "CONV_2D")
    kernel, bias = (contents.tensors[i] for i in first.inputs[1:])
    assert (kernel.dtype, kernel.shape, kernel.bytes, kernel.scales) == ("int8", (16, 3, 3, 1), 144, 16)
    assert (bias.dtype, bias.bytes, bias.constant) == ("int32", 64, True)
    image = contents.tensors[contents.inputs["x"]]
    assert (image.shape, image.constant, image.bytes, image.sparse, image.variable) == (
        (1, 8, 8, 1),
        False,
        0,
        False,
        False,
    )
    result = contents.tensors[first.outputs[0]]
    assert result.scales == 1
    assert result.scale > 0
    assert -128 <= result.zero_point <= 127


def test_marks_of_states_and_of_sparse_weights_are_read(content):
    def change(model):
        model.subgraphs[0].tensors[0].isVariable = True
        model.subgraphs[0].tensors[1].sparsity = schema.SparsityParametersT()

    before, after = read_contents(content).tensors, read_contents(edited(content, change)).tensors
    assert after[0] == replace(before[0], variable=True)
    assert after[1] == replace(before[1], sparse=True)


def test_operators_that_are_not_litert_s_own_are_named(content):
    def change(model):
        code = next(c for c in model.operatorCodes if c.builtinCode == schema.BuiltinOperator.CONV_2D)
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = "FlexErfinv"

    contents = read_contents(edited(content, change))
    assert contents.custom_ops() == ("FlexErfinv",)
    assert contents.count_ops()["FlexErfinv int8"] == 2
    assert read_contents(content).custom_ops() == ()


def test_operators_in_bodies_are_counted_and_lead_there():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32)])
    def loop(x):
        return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.sin(y)), [0, x])[1]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([loop.get_concrete_function()], loop)
    contents = read_contents(converter.convert())
    (loop,) = (op for op in contents.operations if op.name == "WHILE")
    bodies = [[op.name for op in contents.graphs[body].operations] for body in loop.bodies]
    assert [("LESS" in names, "SIN" in names) for names in bodies] == [(True, False), (False, True)]
    assert contents.count_ops()["SIN float32"] == 1
    assert "SIN" in contents.float_ops()


def test_signatures_come_with_their_graphs_and_the_first_is_the_default(tmp_path):
    import tensorflow as tf

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
        def double(self, x):
            return {"twice": x * 2}

        @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, name="a")])
        def halve(self, a):
            return {"half": a / 2}

    two = Two()
    tf.saved_model.save(two, str(tmp_path), signatures={"double": two.double, "halve": two.halve})
    contents = read_contents(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert())
    names = {key: ([*s.inputs], [*s.outputs]) for key, s in contents.signatures.items()}
    assert names == {"double": (["x"], ["twice"]), "halve": (["a"], ["half"])}
    assert {s.graph for s in contents.signatures.values()} == {0, 1}
    assert contents.default == contents.signatures["double"]
    assert contents.tensors[contents.inputs["x"]].shape == (1, 4)
    halve = contents.signatures["halve"]
    assert contents.graphs[halve.graph].tensors[halve.inputs["a"]].shape == (1, 3)


def test_a_file_without_signatures_goes_by_its_tensors_and_tells_those_of_one_name_apart(content):
    def change(model):
        model.signatureDefs = None
        graph = model.subgraphs[0]
        graph.outputs = np.array([0, graph.outputs[0]], "int32")
        for tensor in graph.tensors:
            tensor.name = "same"

    contents = read_contents(edited(content, change))
    assert list(contents.signatures) == [""]
    assert list(contents.inputs) == ["same"]
    assert list(contents.outputs) == ["same", "same_1"]


@pytest.mark.parametrize("place", ["operator", "signature", "graph output"])
def test_an_index_that_leads_nowhere_is_a_broken_file(content, place):
    def change(model):
        graph = model.subgraphs[0]
        if place == "operator":
            graph.operators[0].outputs = np.array([10_000], "int32")
        elif place == "signature":
            model.signatureDefs[0].outputs[0].tensorIndex = 10_000
        else:
            graph.outputs = np.array([-1], "int32")

    with pytest.raises(UnreadableFile, match="broken: IndexError"):
        read_contents(edited(content, change))


def test_contents_name_the_arithmetic_before_the_first_layer(tmp_path):
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model = tfbig.models.mlp((4,), 2, normalizer=tfbig.normalizer(x))
    lite = tfbig.export(model, tmp_path / "m.tflite", calibration=x)
    contents = read_contents(lite.path.read_bytes())
    assert len(contents.elementwise_front()) == 2
    assert contents.float_ops() == ("FULLY_CONNECTED", "MUL", "SUB")
