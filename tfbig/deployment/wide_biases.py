"""Biases of operators on 16-bit activations, mended in the unpacked file. Loads no TensorFlow.

From calibration the converter writes these biases in 64 bits, as LiteRT reads them. From ranges that a model brings
along it writes 32 bits at the same scale: depthwise convolutions then refuse to run, and the others read two biases as
one. Its option for the type of biases is taken together with calibration only (TensorFlow 2.21's lite.py).

The steps of a bias are those of the input times those of the kernel. Of a layer that is called on several inputs the
converter writes one bias, in the steps of one call; LiteRT then adds a multiple of it in the others. In 8 bits there
is one for each call.
"""

import copy
from typing import Any

import numpy as np

from tfbig.deployment.packing import kind_of

# Where LiteRT's operators with a kernel, which stands at 1, have input and bias; the shape of a transposed
# convolution's output comes first.
_PLACES = {
    "CONV_2D": (0, 2),
    "DEPTHWISE_CONV_2D": (0, 2),
    "FULLY_CONNECTED": (0, 2),
    "TRANSPOSE_CONV": (2, 3),
}
# Steps nearer to each other than this are the same, but for rounding to float32.
_SAME = 1e-5


def mend_biases(model: Any) -> None:
    """Stores biases of operators on 16-bit activations in 64 bits, and in the steps of the call that reads them.

    Args:
        model: The unpacked file, a `schema_py_generated.ModelT`. It is changed in place.
    """
    from ai_edge_litert import schema_py_generated as schema

    places = {getattr(schema.BuiltinOperator, name): place for name, place in _PLACES.items()}
    for graph in model.subgraphs:
        in_steps: dict[tuple[int, bytes], int] = {}  # (bias, steps) to the bias in these steps
        for op in graph.operators:
            if graph.tensors[op.outputs[0]].type != schema.TensorType.INT16:
                continue
            kind = kind_of(model, op)
            if kind == schema.BuiltinOperator.LOGISTIC:
                _give_sigmoid_its_scale(graph.tensors[op.outputs[0]])
            given, place = places.get(kind, (0, len(op.inputs)))
            if len(op.inputs) <= place or op.inputs[place] < 0:
                continue
            bias = graph.tensors[op.inputs[place]]
            if bias.type == schema.TensorType.INT32:
                _widen(model, bias, schema)
            steps = _steps(graph.tensors[op.inputs[given]]) * _steps(graph.tensors[op.inputs[1]])
            if np.allclose(_steps(bias), steps, rtol=_SAME, atol=0):
                continue
            key = int(op.inputs[place]), steps.tobytes()
            if key not in in_steps:
                in_steps[key] = len(graph.tensors)
                graph.tensors.append(_in_steps(model, bias, steps, schema))
            op.inputs = np.array([*op.inputs[:place], in_steps[key], *op.inputs[place + 1 :]], np.int32)


def _give_sigmoid_its_scale(tensor: Any) -> None:
    """LiteRT computes it in steps of 1/32768 from 0; the converter notes 1/65536 from -32768, as if for 8 bits."""
    tensor.quantization.scale, tensor.quantization.zeroPoint = [2.0**-15], [0]


def _widen(model: Any, bias: Any, schema: Any) -> None:
    """Gives the bias a buffer of its own: the converter lets equal constants share one."""
    values = np.asarray(model.buffers[bias.buffer].data, np.uint8).view(np.int32).astype(np.int64)
    bias.type = schema.TensorType.INT64
    _store(model, bias, values, schema)


def _in_steps(model: Any, bias: Any, steps: np.ndarray, schema: Any) -> Any:
    """The same bias in other steps: a tensor of its own."""
    values = np.asarray(model.buffers[bias.buffer].data, np.uint8).view(np.int64)
    other = copy.deepcopy(bias)
    other.quantization.scale = steps.astype(np.float32)
    _store(model, other, np.round(values * (_steps(bias) / steps)).astype(np.int64), schema)
    return other


def _steps(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.quantization.scale, np.float64)


def _store(model: Any, bias: Any, values: np.ndarray, schema: Any) -> None:
    bias.buffer = len(model.buffers)
    model.buffers.append(schema.BufferT(data=values.view(np.uint8)))
