"""What the converter leaves undone in LSTMs, mended in the unpacked file. Loads no TensorFlow."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfbig.deployment.packing import kind_of

# Of LiteRT's LSTM: which inputs are its kernels, four for the inputs and four for the output of the step before; and
# which are that output and the cell state.
_KERNELS, _OUTPUT_STATE, _CELL_STATE = range(1, 9), 18, 19
# The scale by which 16 bits reach from -1 to 1.
_SMALLEST_CELL_SCALE = 2.0**-15
# What states are of, by their number in the schema: float32, int8 and int16.
_DTYPES = {0: np.float32, 9: np.int8, 7: np.int16}
# Below so many weights, as the converter counts, 8 bits are not worth the scales.
_FEW_WEIGHTS = 1024


def mend_lstms(model: Any, mode: str | None) -> None:
    """Mends the LSTMs of a file in place.

    Args:
        model: The unpacked file, a `schema_py_generated.ModelT`.
        mode: The mode that it was converted in.
    """
    for graph, op in list(_lstms(model)):
        _keep_states_apart(model, graph, op)
        _widen_cell_state(graph, op)
        if mode == "dynamic":
            _store_in_8_bits(model, graph, op)


def _lstms(model: Any) -> Iterator[tuple[Any, Any]]:
    from ai_edge_litert import schema_py_generated as schema

    for graph in model.subgraphs:
        for op in graph.operators:
            if kind_of(model, op) == schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM:
                yield graph, op


def _keep_states_apart(model: Any, graph: Any, op: Any) -> None:
    """Gives other operators zeros of their own where they begin with the same ones as the LSTM.

    The converter merges equal constants and then lets the LSTM write to them: a GRU behind it would begin with the
    LSTM's last state.
    """
    from ai_edge_litert import schema_py_generated as schema

    for state in (op.inputs[_OUTPUT_STATE], op.inputs[_CELL_STATE]):
        readers = [other for other in graph.operators if other is not op and state in other.inputs]
        if not readers:
            continue
        zeros = copy.deepcopy(graph.tensors[state])
        quantized = zeros.quantization is not None and zeros.quantization.zeroPoint is not None
        values = np.full(
            zeros.shape, zeros.quantization.zeroPoint[0] if quantized else 0, _DTYPES[zeros.type]
        )
        zeros.isVariable, zeros.buffer = False, len(model.buffers)
        model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        for reader in readers:
            reader.inputs = [len(graph.tensors) if index == state else index for index in reader.inputs]
        graph.tensors.append(zeros)


def _widen_cell_state(graph: Any, op: Any) -> None:
    """Gives a 16-bit cell state the range of at least [-1, 1] that LiteRT's integer operator computes with.

    The converter fits the scale to the values it saw. Where they are smaller, as behind an untrained embedding, the
    operator shifts by a negative number of bits and all of its outputs are the same.
    """
    from ai_edge_litert import schema_py_generated as schema

    state = graph.tensors[op.inputs[_CELL_STATE]]
    if state.type == schema.TensorType.INT16:
        scales = state.quantization.scale
        state.quantization.scale = [max(float(scale), _SMALLEST_CELL_SCALE) for scale in scales]


def _store_in_8_bits(model: Any, graph: Any, op: Any) -> None:
    """Stores the kernels in 8 bits, one scale each, as the converter does with larger ones.

    It leaves all eight in float32 where one of them has fewer than 1,024 weights, that is where features × units are
    fewer. LiteRT takes all in 8 bits, or none.
    """
    from ai_edge_litert import schema_py_generated as schema

    kernels = [graph.tensors[op.inputs[place]] for place in _KERNELS]
    if any(kernel.type != schema.TensorType.FLOAT32 for kernel in kernels):
        return
    weights = [np.frombuffer(bytes(bytearray(model.buffers[k.buffer].data)), np.float32) for k in kernels]
    if sum(map(len, weights)) < _FEW_WEIGHTS:
        return
    for kernel, values in zip(kernels, weights, strict=True):
        scale = float(np.abs(values).max()) / 127 or 1.0
        before, kernel.buffer = kernel.buffer, len(model.buffers)
        model.buffers.append(schema.BufferT(data=np.round(values / scale).astype(np.int8).view(np.uint8)))
        kernel.type = schema.TensorType.INT8
        kernel.quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[0])
        if not any(tensor.buffer == before for each in model.subgraphs for tensor in each.tensors):
            model.buffers[before].data = None
    op.builtinOptions.asymmetricQuantizeInputs = True
