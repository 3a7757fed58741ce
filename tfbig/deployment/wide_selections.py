"""Selections between 16-bit activations, mended in the unpacked file. Loads no TensorFlow.

LiteRT copies the integers that are selected. In 8 bits the converter gives both operands and the result one scale; in
16 each keeps its own, and what is copied stands for another number.
"""

import copy
from typing import Any

import numpy as np

from tfbig.deployment.packing import kind_of

# The condition stands first.
_OPERANDS = (1, 2)


def mend_selections(model: Any) -> None:
    """Brings the operands of each selection to the scale of its result.

    Args:
        model: The unpacked file, a `schema_py_generated.ModelT`. It is changed in place.
    """
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    for graph in model.subgraphs:
        operators: list[Any] = []
        for op in graph.operators:
            result = graph.tensors[op.outputs[0]]
            if (
                kind_of(model, op) in (kinds.SELECT, kinds.SELECT_V2)
                and result.type == schema.TensorType.INT16
            ):
                inputs = list(map(int, op.inputs))
                for place in _OPERANDS:
                    if not np.array_equal(_scale(graph.tensors[inputs[place]]), _scale(result)):
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


def _scale(tensor: Any) -> Any:
    return tensor.quantization.scale
