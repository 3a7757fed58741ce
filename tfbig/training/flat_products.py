"""Projections of sequences, as in attention layers, traced as one product of two matrices.

Keras's `EinsumDense` multiplies a stack of matrices, one per example, by one kernel. TensorFlow makes that a batched
product, and so are its two gradients; that of the kernel is made once per example and then added up. On a CPU each
batched product is handed to all threads, which for a small model takes longer than the product. With the rows of all
examples below each other it is one plain product, equal up to rounding.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

from tfbig.backend import keras
from tfbig.backend.internals import every_layer


@contextlib.contextmanager
def flat_products(model: Any) -> Iterator[None]:
    """Lets the model's `EinsumDense` layers, those inside others too, multiply in one product, for the block.

    To be used around what is traced. Layers whose equation is not such a product compute as ever, and so do classes
    of the user's own with a `call` of theirs.
    """
    changed = []
    for layer in every_layer(model):
        summed = summed_axes(layer.equation) if _computes_as_keras(layer) else None
        if summed is not None:
            vars(layer)["call"] = functools.partial(_call, layer, summed)
            changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            del vars(layer)["call"]


def summed_axes(equation: str) -> int | None:
    """Returns over how many axes an equation sums, if they are the input's last and the kernel's first ones.

    Then the other axes of the input, two or more, are rows, and those of the kernel columns, of a product of
    matrices. Otherwise returns None.

    Example:
        >>> summed_axes("abc,cde->abde"), summed_axes("abcd,cde->abe"), summed_axes("abc,bde->acde")
        (1, 2, None)
    """
    inputs, kernel, outputs = equation.replace("->", ",").split(",")
    for count in range(1, len(inputs) - 1):
        rows, columns = inputs[:-count], kernel[count:]
        if (inputs[-count:], outputs) == (kernel[:count], rows + columns) and "." not in equation:
            return count
    return None


def _computes_as_keras(layer: Any) -> bool:
    """Whether the layer computes as Keras's own does, and no other block has changed that."""
    own_call = getattr(type(layer), "call", None) is keras.layers.EinsumDense.call
    return own_call and "call" not in vars(layer)


def _call(layer: Any, summed: int, inputs: Any, training: bool | None = None) -> Any:
    """`EinsumDense.call` with the product made flat."""
    ops, kernel = keras.ops, layer.kernel
    size = math.prod(kernel.shape[:summed])
    product = ops.matmul(ops.reshape(inputs, (-1, size)), ops.reshape(kernel, (size, -1)))
    # The number of examples is the one that is not known while tracing.
    outputs = ops.reshape(product, (-1, *ops.shape(inputs)[1:-summed], *kernel.shape[summed:]))
    if layer.bias is not None:
        outputs = ops.add(outputs, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)
