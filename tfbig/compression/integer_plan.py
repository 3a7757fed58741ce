"""What a model's calls become for integers: layers taken apart, normalizations folded, what stays in float."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import operation_name
from tfbig.compression import integer_rules as rules
from tfbig.compression.attention import attention_calls, why_not_integer
from tfbig.compression.fresh import adopt, again, linear
from tfbig.compression.wiring import Call, Edge, Wiring
from tfbig.layers.attending import Remasked
from tfbig.layers.kernels import channel_axes, kernel_of

_L = keras.layers
_CONVOLUTIONS = (
    *(_L.Conv1D, _L.Conv2D, _L.DepthwiseConv1D, _L.DepthwiseConv2D),
    *(_L.Conv1DTranspose, _L.Conv2DTranspose),
)
_FOLDABLE = (_L.Dense, *_CONVOLUTIONS)
# Kinds of operations that compute on values rounded to a range.
_ROUNDS_INPUTS = (
    *(rules.KERNEL, rules.SEPARABLE, rules.ATTENTION, rules.AFFINE),
    *(rules.ACTIVATION, rules.OWN, rules.SAME, rules.INSIDE),
)
# The weights of a batch normalization.
_FACTORS = ("gamma", "beta")
# Of images, with that of the batch: what the depthwise convolution takes that stands for a factor per channel.
_MOST_AXES = 4


@dataclass(eq=False)
class Plan:
    """What to build.

    Attributes:
        wiring: The calls, each of a fresh layer with the weights of the model's own.
        kinds: What each call is, in the words of `integer_rules`.
        factors: For kernels with a constant factor per channel folded in: that factor, in the shape of the channels.
        normalizations: For kernels with a batch normalization that trains: that layer.
        in_float: Layer name to the reason why it stays in float.
        lost: Layer name to the penalties and constraints that end with its being folded or made a convolution.
    """

    wiring: Wiring
    kinds: dict[Call, str] = field(default_factory=dict)
    factors: dict[Any, np.ndarray] = field(default_factory=dict)
    normalizations: dict[Any, Any] = field(default_factory=dict)
    in_float: dict[str, str] = field(default_factory=dict)
    lost: dict[str, tuple[str, ...]] = field(default_factory=dict)


def make_plan(wiring: Wiring, chosen: Callable[[Any], bool]) -> Plan:
    """Decides what each call becomes.

    Args:
        wiring: Of the model, as `read_wiring` gives it; its layers are only read.
        chosen: Whether a layer with a kernel is to be quantized.

    Returns:
        The plan, on layers of its own.
    """
    plan = Plan(Wiring(wiring.inputs, wiring.outputs))
    copies = _Copies(wiring)
    for call in wiring.calls:
        kind, reason = kind_of_call(call, chosen)
        for part, part_kind in copies.of(call, kind):
            if computes_in_float(part, part_kind):
                plan.in_float[part.name] = reason or rules.kind_of(part.op)[1]
            part.source = call.op
            plan.wiring.calls.append(part)
            plan.kinds[part] = part_kind
    _fold(plan)
    _stand_alone(plan)
    return plan


def kind_of_call(call: Call, chosen: Callable[[Any], bool]) -> tuple[str, str]:
    """Returns the kind of a call, by what it is called on too, and for float the reason."""
    kind, reason = rules.kind_of(call.op)
    if kind == rules.ATTENTION and why_not_integer(call):
        return rules.FLOAT, why_not_integer(call)
    if kind in (rules.KERNEL, rules.SEPARABLE, rules.ATTENTION) and not chosen(call.op):
        return rules.FLOAT, "not among the layers asked for"
    if kind in _ROUNDS_INPUTS and not isinstance(call.op, _L.Embedding) and _reads_whole_numbers(call):
        return rules.FLOAT, "it reads whole numbers, which have no range to round to"
    masked = any(edge.masked for edge in call.inputs)
    if masked and isinstance(call.op, _L.Softmax | _L.Average):
        return rules.FLOAT, "it reads the mask of an Embedding or Masking layer, or passes it on"
    if masked and kind == rules.OWN and isinstance(call.op, rules.AVERAGES):
        return rules.INSIDE, ""
    if operation_name(call.op) in ("Divide", "TrueDivide") and not isinstance(call.args[-1], int | float):
        return rules.FLOAT, "what it divides by may round to 0"
    if isinstance(call.op, _L.GroupNormalization) and None in call.inputs[0].shape[1:-1]:
        return rules.FLOAT, "how many values it takes together is open"
    if kind == rules.AFFINE and rules.carries_units(call.op):
        return rules.FLOAT, "one 8-bit scale cannot carry columns of different units"
    if kind == rules.AFFINE:
        shape = call.outputs[0].shape
        if len(shape) > _MOST_AXES:
            return rules.FLOAT, "LiteRT has no integer kernel for factors per channel in three dimensions"
        if rules.affine_of(call.op, _channels(call), len(shape)) is None:
            return rules.FLOAT, "its factors do not run along the last axis"
    return kind, reason


def computes_in_float(call: Call, kind: str) -> bool:
    """Whether a call of this kind belongs into the list of what stays in float: indices and masks do not."""
    return kind == rules.FLOAT and any("float" in edge.dtype for edge in call.outputs)


def _reads_whole_numbers(call: Call) -> bool:
    return bool(call.inputs) and not any("float" in edge.dtype for edge in call.inputs)


def _channels(call: Call) -> int:
    """Of the result; 0 where their number is open, which no factor fits."""
    return call.outputs[0].shape[-1] or 0


class _Copies:
    """Fresh layers in place of the model's own; one that is called twice is copied once."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._made: dict[int, Any] = {}

    def of(self, call: Call, kind: str) -> list[tuple[Call, str]]:
        """Returns the calls that stand for this one, with their kinds."""
        if kind == rules.ATTENTION:
            return attention_calls(call, self._once(call.op, lambda: {}))
        if kind == rules.SEPARABLE:
            depthwise, pointwise = self._once(call.op, lambda: _separated(call.op))
            between = Edge(call.outputs[0].shape, call.outputs[0].dtype)
            first = Call(depthwise, f"{call.name}_depthwise", call.args, {}, (between,))
            return [(first, rules.KERNEL), *self._with_activation(call, pointwise, (between,))]
        if kind == rules.KERNEL:
            bare = replace(call, op=rules.without_wrapper(call.op))
            return self._with_activation(bare, self._once(bare.op, lambda: linear(bare.op)), call.args)
        op = self._once(call.op, lambda: again(call.op))
        return [(Call(op, call.name, call.args, call.kwargs, call.outputs), kind)]

    def _with_activation(self, call: Call, layer: Any, args: tuple[Any, ...]) -> list[tuple[Call, str]]:
        function = getattr(call.op, "activation", None) or keras.activations.linear
        regularizer = getattr(call.op, "activity_regularizer", None)
        if function is keras.activations.linear and regularizer is None:
            return [(Call(layer, call.name, args, {}, call.outputs), rules.KERNEL)]
        activation = keras.layers.Activation(function, activity_regularizer=regularizer)
        kind, _ = rules.kind_of(activation)
        between = Edge(call.outputs[0].shape, call.outputs[0].dtype)
        names = [call.name, f"{call.name}_{getattr(function, '__name__', 'activation')}"]
        if self._wiring.leaves(call.outputs[0]):  # the last layer of a model says by its name what it gives
            names = [f"{call.name}_kernel", call.name]
        return [
            (Call(layer, names[0], args, {}, (between,)), rules.KERNEL),
            (Call(activation, names[1], (between,), {}, call.outputs), kind),
        ]

    def _once(self, op: Any, make: Callable[[], Any]) -> Any:
        if id(op) not in self._made:
            self._made[id(op)] = make()
        return self._made[id(op)]


def _separated(layer: Any) -> tuple[Any, Any]:
    """A depthwise and a pointwise layer with the kernels of a separable one."""
    flat = isinstance(layer, _L.SeparableConv1D)
    kinds = (_L.DepthwiseConv1D, _L.Conv1D) if flat else (_L.DepthwiseConv2D, _L.Conv2D)
    config = layer.get_config()
    taken = ("kernel_size", "strides", "padding", "depth_multiplier", "dilation_rate")
    also = ("depthwise_regularizer", "depthwise_constraint")
    depthwise = kinds[0](**{name: config[name] for name in (*taken, *also)}, use_bias=False)
    also = ("bias_regularizer", "bias_constraint")
    pointwise = kinds[1](
        *(layer.filters, 1),
        use_bias=layer.use_bias,
        kernel_regularizer=config["pointwise_regularizer"],
        kernel_constraint=config["pointwise_constraint"],
        **{name: config[name] for name in also},
    )
    adopt(depthwise, [layer.depthwise_kernel], layer.depthwise_kernel.shape[-2])
    biases = [layer.bias] if layer.use_bias else []
    adopt(pointwise, [layer.pointwise_kernel, *biases], layer.pointwise_kernel.shape[-2])
    for part in (depthwise, pointwise):
        part.trainable = layer.trainable
    return depthwise, pointwise


def _fold(plan: Plan) -> None:
    """Folds each factor and offset per channel into the kernel before it, where that kernel serves nothing else."""
    calls = plan.wiring.calls
    for call in list(calls):
        follower = plan.wiring.only_consumer(call.outputs[0]) if plan.kinds[call] == rules.KERNEL else None
        used_once = sum(other.op is call.op for other in calls) == 1
        if follower is None or not used_once or type(call.op) not in _FOLDABLE:
            continue
        if plan.kinds[follower] != rules.AFFINE:
            continue
        affine = rules.affine_of(follower.op, _channels(call), len(call.outputs[0].shape))
        if affine is None:
            continue
        _note_lost(plan, call, ("bias",) if call.op.use_bias else ())
        if _follows_batches(follower.op):
            layer, normalization = _without_bias(call.op, follower.op)
            call.op, plan.normalizations[layer] = layer, normalization
        else:
            _note_lost(plan, follower, _FACTORS)
            call.op = _with_offset(call.op, *affine)
            shape = [kernel_of(call.op).shape[axis] for axis in channel_axes(call.op)]
            plan.factors[call.op] = affine[0].reshape(shape)
        call.outputs = follower.outputs
        calls.remove(follower)


def _follows_batches(op: Any) -> bool:
    """Whether an affine operation goes on following the batches: a frozen normalization does not."""
    return isinstance(op, _L.BatchNormalization) and op.trainable


def _without_bias(layer: Any, norm: Any) -> tuple[Any, Any]:
    """Copies: of the layer, without the bias, which a normalization takes off again, and of the normalization."""
    norm = again(norm)
    if layer.use_bias:
        norm.moving_mean.assign(norm.moving_mean - layer.bias)
    return linear(layer, use_bias=False), norm


def _with_offset(layer: Any, factor: np.ndarray, offset: np.ndarray) -> Any:
    """The layer with a bias that holds the offset; the factor goes onto the kernel."""
    bias = np.asarray(layer.bias) if layer.use_bias else np.zeros_like(offset)
    return linear(layer, bias=bias * factor + offset)


def _note_lost(plan: Plan, call: Call, weights: tuple[str, ...]) -> None:
    """Penalties and constraints of these weights speak of numbers that no longer exist by themselves."""
    rules_of_weights = [f"{weight}_{what}" for weight in weights for what in ("regularizer", "constraint")]
    lost = tuple(name for name in rules_of_weights if getattr(call.op, name, None) is not None)
    if lost:
        plan.lost[call.name] = lost


def _stand_alone(plan: Plan) -> None:
    """Turns what could not be folded into a depthwise convolution of one pixel: one operation, a scale a channel."""
    calls: list[Call] = []
    for call in plan.wiring.calls:
        calls += _as_convolution(plan, call) if plan.kinds[call] == rules.AFFINE else [call]
    plan.wiring.calls = calls


def _as_convolution(plan: Plan, call: Call) -> list[Call]:
    shape, dtype = call.outputs[0].shape, call.outputs[0].dtype
    channels = _channels(call)
    affine = rules.affine_of(call.op, channels, len(shape))
    assert affine is not None  # such calls are float
    if _follows_batches(call.op):
        layer = _L.DepthwiseConv2D(1, use_bias=False)
        adopt(layer, [np.ones((1, 1, channels, 1), np.float32)], channels)
        plan.normalizations[layer] = _of_pixels(call.op, channels)
    else:
        _note_lost(plan, call, _FACTORS)
        layer = _L.DepthwiseConv2D(1)
        adopt(layer, [affine[0].reshape(1, 1, -1, 1), affine[1]], channels)
    layer.trainable = False  # where something trains, it is the normalization
    if len(shape) == 4:
        parts = [(Call(layer, call.name, call.args, {}, call.outputs), rules.KERNEL)]
    else:
        inner = (1,) * (4 - len(shape)) + tuple(-1 if size is None else size for size in shape[1:])
        outer = tuple(-1 if size is None else size for size in shape[1:])
        four = (shape[0], *(None if size == -1 else size for size in inner))
        (bare, steps), (pixel, result) = ([Edge(size, dtype) for _ in range(2)] for size in (shape, four))
        read, name, outputs = call.args, call.name, call.outputs
        masked = call.outputs[0].masked  # which reshaping loses
        if masked:
            read, name, outputs = (bare,), f"{call.name}_steps", (steps,)
        parts = [
            (Call(_L.Reshape(inner), f"{call.name}_pixel", read, {}, (pixel,)), rules.KEEP),
            (Call(layer, f"{call.name}_kernel", (pixel,), {}, (result,)), rules.KERNEL),
            (Call(_L.Reshape(outer), name, (result,), {}, outputs), rules.KEEP),
        ]
        if masked:
            before = Call(Remasked(), f"{call.name}_unmasked", (list(call.args),), {}, (bare,))
            after = Call(Remasked(), call.name, ([steps, *call.args],), {}, call.outputs)
            parts = [(before, rules.KEEP), *parts, (after, rules.KEEP)]
    plan.kinds.update(parts)
    for part, _ in parts:
        part.source = call.source
    return [part for part, _ in parts]


def _of_pixels(norm: Any, channels: int) -> Any:
    """The same normalization for images, whose last axis is the channels."""
    copy = _L.BatchNormalization.from_config({**norm.get_config(), "axis": -1})
    copy.build((None, 1, 1, channels))
    copy.set_weights(norm.get_weights())
    return copy
