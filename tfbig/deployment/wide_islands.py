"""Operators that stay in float in files of 16-bit activations with trained ranges.

Where operands and result of an operator have ranges, the converter makes it an integer one; and then refuses it, as
most of its operators are declared for 8 bits only. So those that it is not known to take in 16 bits are kept apart from
the ranges, by factors of nearly 1 around them.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, nodes_inside, operation_name
from tfbig.deployment.integer_forms import calls
from tfbig.deployment.integer_functions import with_own_scale
from tfbig.layers.kernels import QuantizedLayer
from tfbig.layers.ranges import FakeQuant

_L = keras.layers
# Found by converting each of Keras's layers and functions (benchmarks/integer_layers.py lists them).
_TAKEN = (
    *(QuantizedLayer, FakeQuant, _L.InputLayer, _L.Flatten, _L.Reshape, _L.Permute, _L.Identity, _L.Dropout),
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
        yield


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
