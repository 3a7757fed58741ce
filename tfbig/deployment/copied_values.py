"""Operators that copy integers, mended in the unpacked file. Loads no TensorFlow.

A selection, a maximum and a reversal give integers that they are given. Mostly the converter gives operands and result
one scale; but in 16 bits each operand of a selection keeps its own, and so may operands that have trained ranges: what
is copied then stands for another number.
"""

import copy
from typing import Any

import numpy as np

from tfbig.deployment.packing import kind_of

# Which of their inputs they copy.
_COPIED = {"SELECT": (1, 2), "SELECT_V2": (1, 2), "MAXIMUM": (0, 1), "MINIMUM": (0, 1), "REVERSE_V2": (0,)}


def mend_copies(model: Any) -> None:
    """Brings what is copied to the scale of the result first.

    Args:
        model: The unpacked file, a `schema_py_generated.ModelT`. It is changed in place.
    """
    from ai_edge_litert import schema_py_generated as schema

    copied = {getattr(schema.BuiltinOperator, name): places for name, places in _COPIED.items()}
    for graph in model.subgraphs:
        operators: list[Any] = []
        for op in graph.operators:
            result, inputs = graph.tensors[op.outputs[0]], list(map(int, op.inputs))
            for place in copied.get(kind_of(model, op), ()):
                if _steps(graph.tensors[inputs[place]]) != _steps(result):
                    operators.append(_rescaling(model, graph, inputs[place], result, schema))
                    inputs[place] = operators[-1].outputs[0]
            op.inputs = np.array(inputs, np.int32)
            operators.append(op)
        graph.operators = operators


def _rescaling(model: Any, graph: Any, given: int, result: Any, schema: Any) -> Any:
    """An operator that brings a tensor to the scale of the result, in a new tensor."""
    rescaled = copy.deepcopy(graph.tensors[given])
    rescaled.buffer, rescaled.quantization = 0, copy.deepcopy(result.quantization)
    graph.tensors.append(rescaled)
    place = len(graph.tensors) - 1
    return schema.OperatorT(
        opcodeIndex=_opcode(model, schema.BuiltinOperator.QUANTIZE, schema), inputs=[given], outputs=[place]
    )


def _opcode(model: Any, kind: int, schema: Any) -> int:
    """The place of an operator among those that the file lists; it is added if need be."""
    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind:
            return place
    model.operatorCodes.append(schema.OperatorCodeT(builtinCode=kind, deprecatedBuiltinCode=kind, version=2))
    return len(model.operatorCodes) - 1


def _steps(tensor: Any) -> Any:
    """The scale and the zero point; None of what is not quantized."""
    seen = tensor.quantization
    if seen is None or seen.scale is None or not len(seen.scale):
        return None
    return float(seen.scale[0]), int(seen.zeroPoint[0])
