"""How channels pass the functions of `keras.ops`, and Python's operators, in a functional model."""

from collections.abc import Callable
from typing import Any

from tfbig.compression.channels import Ids, NotFollowed
from tfbig.compression.merging_rules import concatenate, elementwise


def _same(site: Any) -> Ids:
    return site.input.ids


def _beside_channels(site: Any) -> list[Ids]:
    """What works along axes of its own: the others, the channels among them, do not notice."""
    axes = site.layer.axis if hasattr(site.layer, "axis") else site.layer.axes
    # An axis that comes in counts in what is given out, one that goes in what is taken.
    rank = max(len(site.input.shape), *(len(shape) for shape in site.outputs))
    axes = axes if isinstance(axes, list | tuple) else [axes]
    if any(axis is None or axis % rank == rank - 1 for axis in axes):
        raise NotFollowed("works along the channels")
    for wire in site.inputs[1:]:
        site.tie(wire.ids, site.input.ids)
    return [site.input.ids] * len(site.outputs)


def _transposed(site: Any) -> Ids:
    axes, rank = site.layer.axes, len(site.input.shape)
    if axes is None or axes[-1] % rank != rank - 1:
        raise NotFollowed("moves the channels to another axis")
    return site.input.ids


def _padded(site: Any) -> Ids:
    if tuple(site.layer.pad_width[-1]) != (0, 0):
        raise NotFollowed("adds channels")
    return site.input.ids


def _tiled(site: Any) -> Ids:
    if site.layer.repeats[-1] != 1 or len(site.outputs[0]) != len(site.input.shape):
        raise NotFollowed("repeats the channels")
    return site.input.ids


def _indexed(site: Any) -> Ids:
    key = site.args[1] if len(site.args) > 1 else None
    key = tuple(key) if isinstance(key, list | tuple) else (key,)
    rank = len(site.input.shape)
    plain = all(isinstance(part, int | slice) for part in key)
    # x[:, -1] and x[:, -1, :] leave the last axis as it is.
    if not plain or len(key) > rank or (len(key) == rank and key[-1] != slice(None)):
        raise NotFollowed("picks among the channels")
    return site.input.ids


_ELEMENTWISE = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan", "FloorDivide", "Mod", "Power"),
    *("Maximum", "Minimum", "Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "Where"),
    *("LogicalAnd", "LogicalOr", "LogicalNot", "Isnan", "Isfinite", "Arctan2", "Hypot", "Logaddexp"),
    *("Negative", "Absolute", "Sign", "Reciprocal", "Square", "Sqrt", "Rsqrt", "Clip", "Cast"),
    "StopGradient",
    *("Exp", "Exp2", "Expm1", "Log", "Log1p", "Log2", "Log10", "Erf", "Floor", "Ceil", "Round", "Trunc"),
    *("Sin", "Cos", "Tan", "Tanh", "Sinh", "Cosh", "Arctan", "Arcsinh", "NanToNum"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "Sigmoid", "Softplus"),
    *("HardSigmoid", "HardSilu", "HardTanh", "LogSigmoid", "Softsign", "Squareplus", "TanhShrink"),
    *("SoftShrink", "HardShrink", "SparsePlus", "SparseSigmoid"),
)
_ALONG_AXES = (
    *("Mean", "Average", "Max", "Min", "Amax", "Amin", "Sum", "Prod", "Var", "Std", "Moments", "Logsumexp"),
    *("Median", "Quantile", "Norm", "Normalize", "Softmax", "LogSoftmax", "Cumsum", "Cumprod", "Diff"),
    *("Flip", "Roll", "Sort", "Repeat", "ExpandDims", "Squeeze", "Split", "Unstack", "Stack"),
)
# What stands in a functional model has no public types; it is known by its name.
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_ALONG_AXES, _beside_channels),
    **dict.fromkeys(("AveragePool", "MaxPool", "Resize"), _same),
    "Concatenate": concatenate,
    "Transpose": _transposed,
    "Pad": _padded,
    "Tile": _tiled,
    "GetItem": _indexed,
}
