"""How each operation computes in an 8-bit LiteRT file: what shares a range with what, and what stays in float.

Found by converting each operation and reading the file; the grouping is that of TFMOT's default 8-bit scheme
(https://www.tensorflow.org/model_optimization/guide/quantization/training), which knows fewer operations.
"""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.layers.functions import FORMS
from tfbig.layers.kernels import KERNEL_LAYERS, factor_and_offset
from tfbig.layers.norms import NORMS, has_integer_form
from tfbig.models.step_layers import AverageOfSteps, Positions

_L = keras.layers

# A kernel is rounded; the result has a range of its own.
KERNEL = "kernel"
# A function of one value: read at a range, with a range of its own for the result.
ACTIVATION = "activation"
# A factor and an offset per channel.
AFFINE = "affine"
# The result has a range of its own.
OWN = "own"
# Moves values without changing them: same range, nothing to round.
KEEP = "keep"
# Mixes values within their range: same range, rounded to it again.
SAME = "same"
# Several values with one range for all.
JOIN = "join"
# Two or more of these sum up pair by pair.
PAIRWISE = "pairwise"
# Does nothing once trained.
TRAINING = "training"
# Two kernels in a row.
SEPARABLE = "separable"
# Kernels, products and a softmax.
ATTENTION = "attention"
# Several operations in one layer, each with a range of its own.
INSIDE = "inside"
# Gives some scores a fixed value, in the range of all.
HIDE = "hide"
FLOAT = "float"

_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    (KERNEL, KERNEL_LAYERS),
    (SEPARABLE, (_L.SeparableConv1D, _L.SeparableConv2D)),
    (ATTENTION, (_L.MultiHeadAttention,)),
    (AFFINE, (_L.BatchNormalization, _L.Normalization, _L.Rescaling)),
    (ACTIVATION, (_L.Activation, _L.ELU, _L.ReLU, _L.LeakyReLU, _L.PReLU, _L.Softmax)),
    (OWN, (_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, AverageOfSteps)),
    (INSIDE, (*NORMS, Positions)),
    (PAIRWISE, (_L.Add, _L.Multiply, _L.Subtract, _L.Average)),
    (JOIN, (_L.Concatenate, _L.Maximum, _L.Minimum)),
    (SAME, (_L.AveragePooling1D, _L.AveragePooling2D)),
    (
        KEEP,
        (
            *(_L.Flatten, _L.Reshape, _L.Permute, _L.RepeatVector, _L.Identity),
            *(_L.ZeroPadding1D, _L.ZeroPadding2D, _L.Cropping1D, _L.Cropping2D, _L.UpSampling1D),
            *(_L.MaxPooling1D, _L.MaxPooling2D, _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D),
        ),
    ),
    (
        TRAINING,
        (
            *(_L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.GaussianNoise, _L.GaussianDropout),
            *(_L.AlphaDropout, _L.ActivityRegularization),
        ),
    ),
)
# Operations of `keras.ops` have no public types; they are known by their class's name.
_OPERATIONS = {
    **dict.fromkeys(("Add", "Multiply", "Subtract", "Negative", "Square"), PAIRWISE),
    **dict.fromkeys(("Relu", "Relu6", "Sigmoid", "Tanh", "Softmax", "Silu", "Gelu"), ACTIVATION),
    **dict.fromkeys(("Reshape", "Transpose", "GetItem", "Squeeze", "ExpandDims"), KEEP),
    **dict.fromkeys(("Concatenate", "Maximum", "Minimum"), JOIN),
    **dict.fromkeys(("Matmul", "Einsum", "Mean", "Sum", "Absolute", "Exp", "TrueDivide", "Divide"), OWN),
    **dict.fromkeys(("Max", "Min"), KEEP),
}
_REASONS: tuple[tuple[tuple[type, ...], str], ...] = (
    (
        (_L.LSTM, _L.GRU, _L.SimpleRNN, _L.RNN, _L.Bidirectional, _L.ConvLSTM1D, _L.ConvLSTM2D),
        "the state of a recurrent layer gathers rounding errors, and the converter leaves its loop in float",
    ),
    ((_L.Conv3D, _L.Conv3DTranspose), "LiteRT has no integer kernel for convolution in three dimensions"),
    ((_L.Masking,), "rounding could make padding of a step that is none"),
    ((_L.TimeDistributed,), "wrappers of other layers than Dense are not looked into"),
)
# Those that LiteRT computes in integers, by the names of `keras.activations`.
_INTEGER_ACTIVATIONS = (
    *("linear", "relu", "relu6", "sigmoid", "softmax", "tanh"),
    *("silu", "gelu", "leaky_relu", "hard_silu", "exponential"),
)
# These read the mask of their steps.
AVERAGES = (_L.GlobalAveragePooling1D, AverageOfSteps)
# Columns of different units need a scale each; images have up to 4 channels of one unit (as in `export`).
MOST_CHANNELS_OF_ONE_UNIT = 4


def kind_of(op: Any) -> tuple[str, str]:
    """Returns the kind of an operation, and for `FLOAT` the reason.

    Types are compared exactly: a subclass may compute something else.
    """
    op = without_wrapper(op)
    kind = next((kind for kind, types in _KINDS if type(op) in types), None)
    if not isinstance(op, _L.Layer):
        kind = _OPERATIONS.get(type(op).__name__)
    if getattr(op, "data_format", None) == "channels_first":
        return FLOAT, "LiteRT takes channels last only"
    if type(op) in (_L.UpSampling2D, _L.Resizing):
        return _resizing(op)
    if isinstance(op, NORMS) and not has_integer_form(op):
        return FLOAT, "its form in integers is known for statistics along the last axis"
    if kind == ACTIVATION and has_form(op):
        return INSIDE, ""
    if kind == ACTIVATION and activation_of(op) is None:
        return FLOAT, "LiteRT has no integer kernel for this activation"
    if kind is not None:
        return kind, ""
    reasons = [reason for types, reason in _REASONS if isinstance(op, types)]
    return FLOAT, (reasons or [f"how {type(op).__name__} computes in integers is not known"])[0]


def without_wrapper(op: Any) -> Any:
    """Returns the dense layer inside a `TimeDistributed`, which computes on steps by itself; others as they are."""
    wraps = type(op) is _L.TimeDistributed and type(op.layer) is _L.Dense
    return op.layer if wraps else op


def activation_of(op: Any) -> str | None:
    """Returns the name of the activation that a layer is or applies last; None for one without integer kernel."""
    if not isinstance(op, _L.Layer):
        return type(op).__name__.lower()
    if isinstance(op, _L.ReLU):
        if op.threshold == 0 and op.negative_slope == 0 and op.max_value in (None, 6):
            return "relu" if op.max_value is None else "relu6"
        return None
    for kind, name in ((_L.Softmax, "softmax"), (_L.LeakyReLU, "leaky_relu"), (_L.PReLU, "leaky_relu")):
        if isinstance(op, kind):
            return name
    applied = _applied_by(op)
    return applied if applied in _INTEGER_ACTIVATIONS else None


def has_form(op: Any) -> bool:
    """Whether what an activation layer applies takes several integer operations, in a form that is known."""
    return type(op) is _L.ELU or _applied_by(op) in FORMS


def _applied_by(op: Any) -> str | None:
    """The name of the function of `keras.activations` that an operation applies; None for one of the user's own."""
    function = getattr(op, "activation", None)
    name = "linear" if function is None else getattr(function, "__name__", "")
    known = getattr(keras.activations, name, None) is function or function is None
    return name if known else None


def affine_of(op: Any, channels: int, rank: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the factor and the offset per channel (last axis) of an `AFFINE` layer, each of shape (channels,).

    A batch normalization counts with its moving statistics: they are what ships.

    Returns:
        The two, or None where they do not run along the last axis.
    """
    if isinstance(op, _L.BatchNormalization):
        if op.axis not in (-1, rank - 1):
            return None
        factor, offset = factor_and_offset(op)
        return _array(factor), _array(offset)
    if isinstance(op, _L.Rescaling):
        parts = [np.asarray(op.scale, np.float32), np.asarray(op.offset, np.float32)]
    else:
        deviation = np.maximum(np.sqrt(_array(op.variance)), keras.config.epsilon())
        mean = _array(op.mean)
        parts = [deviation, mean] if op.invert else [1 / deviation, -mean / deviation]
    if any(part.ndim and part.size not in (1, part.shape[-1]) for part in parts):
        return None
    if any(part.size not in (1, channels) for part in parts):
        return None
    factor, offset = (np.broadcast_to(part.reshape(-1), (channels,)) for part in parts)
    return factor, offset


def carries_units(op: Any) -> bool:
    """Whether an `AFFINE` layer brings columns of different units to one scale, or back."""
    return isinstance(op, _L.Normalization) and np.size(op.variance) > MOST_CHANNELS_OF_ONE_UNIT


def _resizing(op: Any) -> tuple[str, str]:
    if op.interpolation == "nearest":
        return KEEP, ""
    if op.interpolation == "bilinear":
        return SAME, ""
    return FLOAT, f"LiteRT has no integer kernel for {op.interpolation} interpolation"


def _array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values), np.float32)
