"""Kernels that the converter stores as blocks without the zero ones, where LiteRT cannot read them.

A dense layer's kernel whose zeros fill blocks of four inputs is stored in such blocks, and LiteRT computes on them as
they lie. The converter does so too where the inputs are no multiple of four: the last ones are then lost, and LiteRT
reads beyond the row. And it does so in float16, where LiteRT takes the blocks for the whole kernel. Neither is an
error; the answers are wrong. Loads no TensorFlow.
"""

import functools
from collections.abc import Iterator
from typing import Any

from tfbig.deployment.packing import kind_of, repacked


def with_readable_blocks(sparse: bytes, plain: bytes) -> bytes:
    """Returns the file without zeros, with each kernel whole that LiteRT could not read in blocks.

    Args:
        sparse: The bytes of a file without zeros.
        plain: Those of the file of the same model with all zeros in it, which the kernels are taken from.

    Returns:
        The changed file; the plain one where the two do not match.
    """
    from ai_edge_litert import schema_py_generated as schema

    model, whole = (
        schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)) for content in (sparse, plain)
    )
    if not _has_unreadable_blocks(model):
        return sparse
    try:
        return repacked(sparse, functools.partial(_fill_in, whole=whole))
    except _Unlike:
        return plain


class _Unlike(Exception):
    """The two files do not have the same kernels."""


def _fill_in(model: Any, whole: Any) -> None:
    kernels, theirs = list(_dense_kernels(model)), list(_dense_kernels(whole))
    if [_form(kernel) for kernel in kernels] != [_form(kernel) for kernel in theirs]:
        raise _Unlike
    for kernel, full in zip(kernels, theirs, strict=True):
        if _in_unreadable_blocks(kernel):
            kernel.sparsity = None
            model.buffers[kernel.buffer].data = whole.buffers[full.buffer].data
    if _has_unreadable_blocks(model):
        raise _Unlike


def _form(tensor: Any) -> tuple[Any, ...]:
    return (tensor.type, *tensor.shape)


def _has_unreadable_blocks(model: Any) -> bool:
    return any(_in_unreadable_blocks(tensor) for graph in model.subgraphs for tensor in graph.tensors)


def _in_unreadable_blocks(tensor: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    if tensor.sparsity is None or tensor.sparsity.blockMap is None or not len(tensor.sparsity.blockMap):
        return False
    if tensor.type != schema.TensorType.FLOAT32:
        return True
    # The sizes of the blocks stand behind those of the axes.
    blocks = tensor.sparsity.dimMetadata[len(tensor.shape) :]
    axes = tensor.sparsity.blockMap
    return any(tensor.shape[axis] % block.denseSize for axis, block in zip(axes, blocks, strict=True))


def _dense_kernels(model: Any) -> Iterator[Any]:
    """The tensor that holds each dense layer's kernel, in order."""
    from ai_edge_litert import schema_py_generated as schema

    for graph in model.subgraphs:
        makers = {int(place): op for op in graph.operators for place in op.outputs}
        for op in graph.operators:
            if kind_of(model, op) != schema.BuiltinOperator.FULLY_CONNECTED:
                continue
            place = int(op.inputs[1])
            while place in makers:  # expanded from float16, or from what is stored of it
                place = int(makers[place].inputs[0])
            yield graph.tensors[place]
