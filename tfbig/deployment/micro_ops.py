"""Which operators TensorFlow Lite Micro has kernels for, and how a program registers them."""

from collections.abc import Iterator

from tfbig.deployment.contents import Contents, Graph, Operation

# The methods `Add…()` of its MicroMutableOpResolver for LiteRT's own operators, from micro_mutable_op_resolver.h in
# https://github.com/tensorflow/tflite-micro/tree/main/tensorflow/lite/micro.
_METHODS = """
Abs Add AddN ArgMax ArgMin AssignVariable AveragePool2D BatchMatMul BatchToSpaceNd BroadcastArgs BroadcastTo
CallOnce Cast Ceil Concatenation Conv2D Cos CumSum DepthToSpace DepthwiseConv2D Dequantize Div
DynamicUpdateSlice Elu EmbeddingLookup Equal Exp ExpandDims Fill Floor FloorDiv FloorMod FullyConnected Gather
GatherNd Greater GreaterEqual HardSwish If L2Normalization L2Pool2D LeakyRelu Less LessEqual Log LogSoftmax
LogicalAnd LogicalNot LogicalOr Logistic MaxPool2D Maximum Mean Minimum MirrorPad Mul Neg NotEqual Pack Pad
PadV2 Prelu Quantize ReadVariable ReduceAll ReduceMax ReduceMin Relu Relu6 Reshape ResizeBilinear
ResizeNearestNeighbor ReverseV2 Round Rsqrt SelectV2 Shape Sin Slice Softmax SpaceToBatchNd SpaceToDepth Split
SplitV Sqrt Square SquaredDifference Squeeze StridedSlice Sub Sum Svdf Tanh Transpose TransposeConv
UnidirectionalSequenceLSTM Unpack VarHandle While ZerosLike
"""
_BUILTIN = {method.lower(): f"Add{method}" for method in _METHODS.split()}
_CUSTOM = {"CIRCULAR_BUFFER": "AddCircularBuffer", "TFLite_Detection_PostProcess": "AddDetectionPostprocess"}
# Its kernels for these want weights in the dtype of what goes through.
_WEIGHTED = {
    "BATCH_MATMUL",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "SVDF",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
}


def registrations(contents: Contents) -> tuple[str, ...]:
    """Returns the resolver's methods that register a file's operators, such as "AddConv2D", in alphabetical order.

    Args:
        contents: What the file holds. Operators without a method are left out; `unsupported` names them.
    """
    methods = (_method(op) for _, op in _operations(contents))
    return tuple(sorted({method for method in methods if method is not None}))


def unsupported(contents: Contents) -> tuple[str, ...]:
    """Returns what in a file TensorFlow Lite Micro cannot run, each said in a few words; empty if it runs.

    Not every kernel takes every dtype; what is found here is what its interpreter would refuse for certain.

    Args:
        contents: What the file holds.
    """
    found: dict[str, None] = {}  # each once, in the order of the file
    for graph, op in _operations(contents):
        weights = [graph.tensors[i] for i in op.inputs if i >= 0 and graph.tensors[i].constant]
        if _method(op) is None:
            found[f"{op.name} has no kernel"] = None
        if (
            op.name in _WEIGHTED
            and graph.dtype(op) == "float32"
            and any(t.dtype in ("int8", "int4") for t in weights)
        ):
            found[f"{op.name} in float on 8-bit weights (quantize='int8' makes both int8)"] = None
        if op.name == "DEQUANTIZE" and any(graph.tensors[i].dtype == "float16" for i in op.inputs):
            found["float16 weights"] = None
        if any(tensor.sparse for tensor in weights):
            found[f"{op.name} on weights stored without their zeros"] = None
    return tuple(found)


def _operations(contents: Contents) -> Iterator[tuple[Graph, Operation]]:
    return ((graph, op) for graph in contents.graphs for op in graph.operations)


def _method(op: Operation) -> str | None:
    return _CUSTOM.get(op.name) if op.custom else _BUILTIN.get(op.name.replace("_", "").lower())
