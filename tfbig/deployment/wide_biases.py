"""Biases of operators on 16-bit activations, mended in the unpacked file. Loads no TensorFlow.

From calibration the converter writes these biases in 64 bits, as LiteRT reads them. From ranges that a model brings
along it writes 32 bits at the same scale: depthwise convolutions then refuse to run, and the others read two biases as
one. Its option for the type of biases is taken together with calibration only (TensorFlow 2.21's lite.py).
"""

from typing import Any

import numpy as np

# Of LiteRT's operators with a kernel, where the bias stands: after input and kernel; of transposed convolutions the
# shape of the output comes first.
_BIAS = 2
_BIAS_OF_TRANSPOSED = 3


def widen_biases(model: Any) -> None:
    """Stores in 64 bits what operators on 16-bit activations read as such. The values stay.

    Args:
        model: The unpacked file, a `schema_py_generated.ModelT`. It is changed in place.
    """
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    places = dict.fromkeys((kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED), _BIAS)
    places[kinds.TRANSPOSE_CONV] = _BIAS_OF_TRANSPOSED
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex]
            kind = max(code.builtinCode, code.deprecatedBuiltinCode)
            if kind == kinds.LOGISTIC and graph.tensors[op.outputs[0]].type == schema.TensorType.INT16:
                _give_sigmoid_its_scale(graph.tensors[op.outputs[0]])
            place = places.get(kind)
            if place is None or len(op.inputs) <= place or op.inputs[place] < 0:
                continue
            wide = graph.tensors[op.outputs[0]].type == schema.TensorType.INT16
            bias = graph.tensors[op.inputs[place]]
            if wide and bias.type == schema.TensorType.INT32:
                _widen(model, bias, schema)


def _give_sigmoid_its_scale(tensor: Any) -> None:
    """LiteRT computes it in steps of 1/32768 from 0; the converter notes 1/65536 from -32768, as if for 8 bits."""
    tensor.quantization.scale, tensor.quantization.zeroPoint = [2.0**-15], [0]


def _widen(model: Any, bias: Any, schema: Any) -> None:
    """Gives the bias a buffer of its own: the converter lets equal constants share one."""
    values = np.asarray(model.buffers[bias.buffer].data, np.uint8).view(np.int32).astype(np.int64)
    bias.buffer, bias.type = len(model.buffers), schema.TensorType.INT64
    model.buffers.append(schema.BufferT(data=values.view(np.uint8)))
