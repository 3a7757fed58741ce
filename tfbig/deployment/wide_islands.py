"""Operators that stay in float in files of 16-bit activations with trained ranges.

Where operands and result of an operator have ranges, the converter makes it an integer one; and then refuses it, as
most of its operators are declared for 8 bits only. So those that it is not known to take in 16 bits are kept apart from
the ranges, by factors of nearly 1 around them.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.graph import graph_of, nodes_inside, operation_name
from tfbig.deployment.integer_forms import calls
from tfbig.deployment.integer_functions import with_own_scale
from tfbig.layers.attending import Remasked
from tfbig.layers.kernels import QuantizedLayer
from tfbig.layers.ranges import FakeQuant

_L = keras.layers
# Found by converting each of Keras's layers and functions (benchmarks/integer_layers.py lists them).
_TAKEN = (
    *(QuantizedLayer, FakeQuant, Remasked, _L.InputLayer),
    *(_L.Flatten, _L.Reshape, _L.Permute, _L.Identity, _L.Dropout),
    *(_L.SpatialDropout1D, _L.SpatialDropout2D, _L.GaussianNoise, _L.GaussianDropout, _L.ReLU, _L.Softmax),
    *(_L.LeakyReLU, _L.ActivityRegularization, _L.Add, _L.Multiply, _L.Subtract, _L.ZeroPadding1D),
    *(_L.ZeroPadding2D, _L.Cropping1D, _L.Cropping2D, _L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D),
    *(_L.AveragePooling2D, _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalMaxPooling1D),
    _L.GlobalMaxPooling2D,
)
_ACTIVATIONS = {"linear", "relu", "relu6", "sigmoid", "tanh", "softmax"}
_OPERATIONS = {
    *("Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Matmul"),
    *("Relu", "Relu6", "Sigmoid", "Tanh", "Softmax"),
}
# What hands values on as they are.
_PASSING = (FakeQuant, Remasked, _L.Identity, _L.Dropout)
# Of two tensors; a number would have 8 bits beside one of 16.
_OF_TWO = {"Add", "Multiply", "Subtract"}


@contextlib.contextmanager
def islands(model: Any) -> Iterator[None]:
    """Lets the model be traced, in the block, with what has to stay in float kept apart.

    Args:
        model: A model trained through rounding to 16 bits. It is left as found.
    """
    apart = {id(node.operation): node.operation for node in nodes_inside(model) if not _is_taken(node)}
    with contextlib.ExitStack() as stack:
        for operation in apart.values():
            stack.enter_context(calls(operation, _island(operation.call)))
        for operation in _dense_behind_reshaping(model):
            stack.enter_context(calls(operation, _by_convolution(operation.layer), "computed"))
        yield


def _dense_behind_reshaping(model: Any) -> list[Any]:
    """Dense layers on steps that were another shape before, as in attention.

    The converter lets these compute on two axes, so that a sum has terms of two and three axes; in 16 bits there is
    no operator for that.
    """
    found, reshaped = {}, set()
    for node in nodes_inside(model):
        operation = node.operation
        behind = any(id(x) in reshaped for x in node.inputs)
        shapes = isinstance(operation, _L.Reshape) or operation_name(operation) == "Reshape"
        if shapes or (behind and isinstance(operation, _PASSING)):
            reshaped |= {id(x) for x in node.outputs}
        dense = isinstance(operation, QuantizedLayer) and isinstance(operation.layer, _L.Dense)
        if behind and dense and len(node.inputs[0].shape) == 3:
            found[id(operation)] = operation
    return list(found.values())


def _by_convolution(layer: Any) -> Callable[..., Any]:
    """What a dense layer computes, by a convolution, which keeps all axes."""

    def computed(inputs: Any, kernel: Any) -> Any:
        maps = tf.nn.conv2d(tf.expand_dims(inputs, 1), kernel[None, None], 1, "VALID")
        moved = maps if layer.bias is None else maps + tf.convert_to_tensor(layer.bias)
        return tf.squeeze(moved, [1])

    return computed


def _island(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        args, options = keras.tree.map_structure(with_own_scale, (args, options))
        return keras.tree.map_structure(with_own_scale, original(*args, **options))

    return call


def _is_taken(node: Any) -> bool:
    """Whether the converter takes the operation; what is inside of a nested model is looked at there."""
    operation = node.operation
    if graph_of(operation) is not None:
        return True
    if not isinstance(operation, _L.Layer):
        name = operation_name(operation)
        return name in _OPERATIONS or (name in _OF_TWO and len(node.inputs) == 2)
    if type(operation) is _L.Activation:
        return getattr(operation.activation, "__name__", None) in _ACTIVATIONS
    return type(operation) in _TAKEN
