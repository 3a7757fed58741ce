"""Layers in the forms that integer files can compute, put in their places while a model is traced."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.graph import nodes_inside, operation_name
from tfbig.backend.hidden_scores import bounded_hidden_scores
from tfbig.backend.internals import every_layer
from tfbig.backend.keras_functions import keras_functions
from tfbig.deployment.integer_functions import calls_such, integer_functions, with_own_scale
from tfbig.deployment.integer_norms import normalizing_form
from tfbig.deployment.modes import is_integer
from tfbig.models.step_layers import AverageOfSteps

_L = keras.layers
_ATTENTION = (_L.Attention, _L.MultiHeadAttention, _L.GroupQueryAttention)
_AVERAGES = (_L.GlobalAveragePooling1D, AverageOfSteps)


def has_integer_forms(model: Any, quantize: str | None) -> bool:
    """Returns whether a mode's trace of the model is another one than that for float32, recurrent layers aside.

    Args:
        model: A built Keras model.
        quantize: The mode.
    """
    if not is_integer(quantize):
        return False
    attends = any(isinstance(layer, _ATTENTION) for layer in every_layer(model))
    return attends or calls_such(model) or next(_stand_ins(model, quantize), None) is not None


@contextlib.contextmanager
def integer_forms(model: Any, quantize: str | None) -> Iterator[None]:
    """Lets the model be traced, in the block, in a form that suits an integer mode; for others nothing is changed.

    Hidden steps of attention get a small score (see `bounded_hidden_scores`), normalization layers and functions the
    forms of `integer_norms` and `integer_functions`. A selection's operands get scales of their own: one that is read
    elsewhere, too, would be clipped to the range of the result.

    For 16 bits the converter asks for the ranges of whole numbers, too, wherever they are added or compared; it records
    none. So indices go to their table as they are, and comparisons, of tokens with the one that pads, are of floats.
    And it gives a sum the scale of its terms, which clips it: averages of masked steps are ratios of means.

    Args:
        model: A built Keras model. It is left as found.
        quantize: The mode; None for a model that brings its ranges along, whose layers stay as they were trained.
    """
    if not is_integer(quantize):
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(bounded_hidden_scores())
        stack.enter_context(keras_functions(integer_functions(wide=quantize == "int16x8")))
        for operation, stand_in, name in _stand_ins(model, quantize):
            stack.enter_context(calls(operation, stand_in, name))
        yield


def _stand_ins(model: Any, quantize: str | None) -> Iterator[tuple[Any, Callable[..., Any], str]]:
    """What is called in another form: layer or operation, the function that stands in, and for which method."""
    wide = quantize == "int16x8"
    for layer in every_layer(model):
        normalized = normalizing_form(layer)
        if normalized is not None:
            yield layer, normalized, "call"
        elif type(layer) is _L.Embedding and wide:
            yield layer, looked_up_in(layer), "call"
            if layer.mask_zero:
                yield layer, _not_zero, "compute_mask"
        elif isinstance(layer, _AVERAGES) and wide:
            yield layer, _averaged_by(layer), "call"
    for node in nodes_inside(model):
        kind = operation_name(node.operation)
        if wide and kind == "NotEqual" and "int" in str(node.inputs[0].dtype):
            yield node.operation, _differ, "call"
        elif not wide and kind == "Where":
            yield node.operation, _selected_by(node.operation), "call"


@contextlib.contextmanager
def calls(operation: Any, stand_in: Callable[..., Any], name: str = "call") -> Iterator[None]:
    """Lets a function stand in, in the block, for a method of an operation.

    Recurrent layers do without cuDNN in it, whose operators Keras would trace on a GPU.
    """
    own, cudnn = vars(operation).get(name), getattr(operation, "use_cudnn", None)
    setattr(operation, name, stand_in)
    if cudnn is not None:
        operation.use_cudnn = False
    try:
        yield
    finally:
        delattr(operation, name)
        if own is not None:
            setattr(operation, name, own)
        if cudnn is not None:
            operation.use_cudnn = cudnn


def _differ(x1: Any, x2: Any) -> Any:
    return tf.not_equal(tf.cast(x1, tf.float32), tf.cast(x2, tf.float32))


def _selected_by(operation: Any) -> Callable[..., Any]:
    original = operation.call

    def call(condition: Any, x1: Any = None, x2: Any = None) -> Any:
        return original(condition, with_own_scale(x1), with_own_scale(x2))

    return call


def _not_zero(inputs: Any, mask: Any = None) -> Any:
    return _differ(inputs, 0)


def looked_up_in(layer: Any) -> Callable[..., Any]:
    """Returns what an Embedding computes, by GATHER alone: without Keras's arithmetic for negative indices."""

    def call(inputs: Any) -> Any:
        rows = tf.gather(tf.convert_to_tensor(layer.embeddings), tf.cast(inputs, tf.int32))
        return tf.cast(rows, layer.compute_dtype)

    return call


def _averaged_by(layer: Any) -> Callable[..., Any]:
    original = layer.call

    def call(inputs: Any, mask: Any = None) -> Any:
        if mask is None or getattr(layer, "data_format", "channels_last") != "channels_last":
            return original(inputs, mask=mask)
        kept = tf.cast(mask, inputs.dtype)[..., None]
        keepdims, steps = getattr(layer, "keepdims", False), tf.cast(tf.shape(inputs)[1], inputs.dtype)
        share = tf.maximum(tf.reduce_mean(kept, 1, keepdims), 1 / steps)  # of nothing but padding it is zeros
        return tf.reduce_mean(inputs * kept, 1, keepdims) / share

    return call
