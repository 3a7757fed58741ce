from ai_edge_litert import schema_py_generated as schema

from tfbig.deployment import micro_ops
from tfbig.deployment.contents import Contents, Graph, Operation, Signature, Tensor, read_contents


def contents(*operations, tensors=()):
    graph = Graph(tensors or (Tensor("x", "float32", False, (1,)),), operations, (0,), (0,))
    return Contents((graph,), {"": Signature(0, {}, {})}, {})


def test_a_network_s_operators_are_registered_once_each(digits_lite):
    found = read_contents(digits_lite.path.read_bytes())
    assert micro_ops.unsupported(found) == ()
    methods = micro_ops.registrations(found)
    assert {"AddConv2D", "AddFullyConnected", "AddReshape"} <= set(methods)
    assert list(methods) == sorted(set(methods))
    assert len(methods) == len({op.name for op in found.operations})


def test_names_of_several_words_find_their_methods():
    names = [
        "DEPTHWISE_CONV_2D",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "PADV2",
        "SELECT_V2",
        "RELU6",
        "BATCH_MATMUL",
        "CUMSUM",
    ]
    expected = ["AddBatchMatMul", "AddCumSum", "AddDepthwiseConv2D", "AddPadV2", "AddRelu6", "AddSelectV2"]
    found = micro_ops.registrations(contents(*(Operation(name, (), ()) for name in names)))
    assert list(found) == [*expected, "AddUnidirectionalSequenceLSTM"]


def test_every_method_stands_for_an_operator_that_litert_has():
    known = {name.replace("_", "").lower() for name in vars(schema.BuiltinOperator)}
    assert set(micro_ops._BUILTIN) <= known
    assert len(micro_ops._BUILTIN) > 90  # tflite-micro's own interpreter registers just these


def test_operators_without_a_kernel_are_named_once():
    found = contents(
        Operation("GELU", (0,), (0,)), Operation("GELU", (0,), (0,)), Operation("FlexErfinv", (), (), True)
    )
    assert micro_ops.unsupported(found) == ("GELU has no kernel", "FlexErfinv has no kernel")
    assert micro_ops.registrations(found) == ()


def test_a_custom_operator_is_not_taken_for_one_of_litert_s_own():
    assert micro_ops.unsupported(contents(Operation("ADD", (), (), custom=True))) == ("ADD has no kernel",)
    ring = Operation("CIRCULAR_BUFFER", (), (), custom=True)
    assert micro_ops.registrations(contents(ring)) == ("AddCircularBuffer",)


def test_weights_that_its_kernels_cannot_read_are_named():
    tensors = (
        Tensor("x", "float32", False, (1, 4)),
        Tensor("w", "int8", True, (4, 4), 16, 4),
        Tensor("h", "float16", True, (4, 4), 32),
        Tensor("s", "float32", True, (4, 4), 32, sparse=True),
    )
    dynamic = Operation("FULLY_CONNECTED", (0, 1), (0,))
    (said,) = micro_ops.unsupported(contents(dynamic, tensors=tensors))
    assert said.startswith("FULLY_CONNECTED in float on 8-bit weights")
    half = Operation("DEQUANTIZE", (2,), (0,))
    assert micro_ops.unsupported(contents(half, tensors=tensors)) == ("float16 weights",)
    thin = Operation("FULLY_CONNECTED", (0, 3), (0,))
    (said,) = micro_ops.unsupported(contents(thin, tensors=tensors))
    assert "without their zeros" in said
