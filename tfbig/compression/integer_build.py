"""A plan for integers becomes a Keras model: kernels wrapped, ranges watched where the file will round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.compression import integer_rules as rules
from tfbig.compression.integer_plan import Plan
from tfbig.compression.joins import by_difference, in_pairs
from tfbig.compression.kept import kept_of
from tfbig.compression.wiring import Call, Edge, Names
from tfbig.layers.functions import QuantizedFunction
from tfbig.layers.kernels import KERNEL_LAYERS, QuantizedLayer, kernel_of
from tfbig.layers.norms import NORMS, QuantizedNormalization
from tfbig.layers.ranges import KNOWN_RANGES, FakeQuant
from tfbig.layers.rounding import RoundedInside
from tfbig.layers.sequences import QuantizedAverage, QuantizedPositions
from tfbig.models.step_layers import Positions

_L = keras.layers
_WITH_RANGE = (
    *(rules.KERNEL, rules.ACTIVATION, rules.OWN, rules.JOIN, rules.PAIRWISE),
    *(rules.INSIDE, rules.HIDE),
)
_PASSING = (rules.KEEP, rules.TRAINING)
# These take ReLU into the same integer operation, so that only its result is rounded.
_FUSING = (rules.KERNEL, rules.PAIRWISE)
# From layers of several operations to what computes and rounds as the file will.
_INSIDE: tuple[tuple[tuple[type, ...], type[RoundedInside]], ...] = (
    (NORMS, QuantizedNormalization),
    ((Positions,), QuantizedPositions),
    (rules.AVERAGES, QuantizedAverage),
    ((_L.Activation, _L.ELU), QuantizedFunction),
)


@dataclass(frozen=True)
class Settings:
    """How the model is to be rounded.

    Attributes:
        weight_bits: From a layer of the user's model to the bits of its kernel.
        activation_bits: Bits of what flows between layers.
        ranges: As `FakeQuant` takes it.
        delay: As `FakeQuant` takes it.
        preserve: As `quantize_aware` takes it.
    """

    weight_bits: Callable[[Any], int]
    activation_bits: int
    ranges: str
    delay: int
    preserve: str | None


@dataclass
class _Flow:
    """What stands for an edge in the model being made.

    Attributes:
        tensor: The symbolic tensor.
        name: Of the layer that made it.
        origin: The kind of operation that made it; "input" for the model's own inputs.
        made_by: Its call; None for inputs.
        ranges: The layer that knows its range; None as long as it has none.
        rounded: The tensor after rounding to that range; None as long as nothing asked for it.
    """

    tensor: Any
    name: str
    origin: str
    made_by: Call | None = None
    ranges: Any = None
    rounded: Any = None


def build(plan: Plan, settings: Settings, name: str) -> Any:
    """Returns the model of a plan."""
    return _Builder(plan, settings).build(name)


class _Builder:
    def __init__(self, plan: Plan, settings: Settings):
        self.plan, self.settings = plan, settings
        self.flows: dict[Edge, _Flow] = {}
        self.names = Names()
        self.made: dict[int, Any] = {}
        self._applied_by = {
            rules.PAIRWISE: self._apply_pairwise,
            rules.JOIN: self._apply_join,
            rules.ACTIVATION: self._apply_activation,
        }

    def build(self, name: str) -> Any:
        wiring = self.plan.wiring
        inputs = keras.tree.map_structure(self._input, wiring.inputs)
        for call in wiring.calls:
            self._place(call)
        outputs = keras.tree.map_structure(self._output, wiring.outputs)
        return keras.Model(inputs, outputs, name=name)

    def _input(self, edge: Edge) -> Any:
        assert edge.name is not None
        tensor = keras.Input(batch_shape=edge.shape, dtype=edge.dtype, name=self.names.free(edge.name))
        self.flows[edge] = _Flow(tensor, edge.name, "input")
        return tensor

    def _output(self, edge: Edge) -> Any:
        """Rounding comes last wherever the result is rounded: so `export` sees that the range is known."""
        flow = self.flows[edge]
        if flow.origin in ("input", rules.FLOAT):
            return flow.tensor
        rounded = self._rounded(edge)
        return flow.ranges(rounded, observe=False) if flow.origin in _PASSING and flow.ranges else rounded

    def _place(self, call: Call) -> None:
        """Adds the call to the model."""
        kind = self.plan.kinds[call]
        if kind == rules.FLOAT or (kind in _PASSING and not self._wanted_in_integers(call)):
            # Float stays float until something integer asks for it.
            self._apply(call, self._in_float, rules.FLOAT)
        elif kind in _PASSING:
            self._apply(call, self._rounded, kind)
            self._inherit(call)
        elif kind == rules.KERNEL:
            self._apply(call, self._rounded, kind, op=self._kernel_layer(call))
            if isinstance(call.op, _L.Embedding) and self.settings.activation_bits == 8:
                # Rows of a rounded table are rounded.
                flow = self.flows[call.outputs[0]]
                flow.rounded = flow.tensor
        elif kind in self._applied_by:
            self._applied_by[kind](call)
        elif kind == rules.SAME:
            self._apply(call, self._rounded, kind)
            self._inherit(call)
            flow = self.flows[call.outputs[0]]
            flow.rounded = flow.ranges(flow.tensor, observe=False) if flow.ranges else None
        elif kind == rules.INSIDE and self.settings.activation_bits == 8:
            call = self._rounded_inside(call)
            self._apply(call, self._rounded, kind, op=call.op)
        elif kind == rules.HIDE and self.settings.activation_bits == 8:
            # What is hidden and what is not have one range, so that the scores need none before.
            self._apply(call, self._raw, kind)
        else:
            self._apply(call, self._rounded, kind)

    def _apply(self, call: Call, read: Callable[[Edge], Any], origin: str, op: Any = None) -> None:
        """Calls the operation on what `read` gives for its edges, and notes what comes out."""
        args, kwargs = keras.tree.map_structure(
            lambda x: read(x) if isinstance(x, Edge) else x, (call.args, call.kwargs)
        )
        op = op or self._named(call)
        for edge, tensor in zip(call.outputs, keras.tree.flatten(op(*args, **kwargs)), strict=True):
            self.flows[edge] = _Flow(tensor, call.name, origin, call)

    def _apply_pairwise(self, call: Call) -> None:
        *before, last = in_pairs(call)
        for pair in before:
            self._apply(pair, self._rounded, rules.OWN)
        self._apply(last, self._rounded, rules.PAIRWISE)

    def _apply_join(self, call: Call) -> None:
        """What serves nothing else takes on the range of the whole; the converter does the same.

        But where one operand has a range of its own it would take that for all.
        """
        if all(self._serves_nothing_else(edge) for edge in call.inputs):
            self._apply(call, self._raw, rules.JOIN)
        elif type(call.op).__name__ == "Concatenate" or len(call.inputs) < 2:
            self._apply(call, self._rounded, rules.JOIN)
        else:
            for part, kind in by_difference(call):
                self._apply(part, self._raw if kind == rules.ACTIVATION else self._rounded, kind)

    def _apply_activation(self, call: Call) -> None:
        activation = rules.activation_of(call.op)
        if activation == "linear":
            self._apply(call, self._raw, self.flows[call.inputs[0]].origin)
            self._inherit(call)
        elif activation in ("relu", "relu6"):
            self._apply(call, self._raw_where_fused, rules.ACTIVATION)
        elif activation == "silu":
            self._apply_silu(call)
        else:
            self._apply(call, self._rounded, rules.ACTIVATION)

    def _apply_silu(self, call: Call) -> None:
        """As the file computes it: x times the rounded sigmoid of x."""
        (source,) = call.inputs
        gate = Edge(source.shape, source.dtype)
        sigmoid = Call(_L.Activation("sigmoid"), f"{call.name}_sigmoid", (source,), {}, (gate,))
        self._apply(sigmoid, self._rounded, rules.ACTIVATION)
        regularizer = getattr(call.op, "activity_regularizer", None)
        product = Call(
            _L.Multiply(activity_regularizer=regularizer), call.name, ([source, gate],), {}, call.outputs
        )
        self._apply(product, self._rounded, rules.OWN)

    def _raw(self, edge: Edge) -> Any:
        return self.flows[edge].tensor

    def _in_float(self, edge: Edge) -> Any:
        raw = self.flows[edge].origin in ("input", rules.FLOAT)
        return self._raw(edge) if raw else self._rounded(edge)

    def _serves_nothing_else(self, edge: Edge) -> bool:
        flow = self.flows[edge]
        alone = self.plan.wiring.only_consumer(edge) is not None and flow.rounded is None
        free = flow.origin in (rules.KERNEL, rules.PAIRWISE) and flow.ranges is None
        relu = flow.origin == rules.ACTIVATION and _activation(flow.made_by) in ("relu", "relu6")
        return alone and (free or relu)

    def _raw_where_fused(self, edge: Edge) -> Any:
        flow = self.flows[edge]
        transposed = flow.made_by is not None and isinstance(
            flow.made_by.op, _L.Conv1DTranspose | _L.Conv2DTranspose
        )
        fuses = flow.origin in _FUSING and not transposed and flow.ranges is None
        alone = self.plan.wiring.only_consumer(edge) is not None
        return flow.tensor if fuses and alone else self._rounded(edge)

    def _rounded(self, edge: Edge) -> Any:
        """The tensor of an edge, rounded to its range; whole numbers as they are."""
        flow = self.flows[edge]
        if flow.rounded is None and "float" in edge.dtype:
            flow.ranges = self._new_range(edge, flow)
            flow.rounded = flow.ranges(flow.tensor)
        return flow.tensor if flow.rounded is None else flow.rounded

    def _new_range(self, edge: Edge, flow: _Flow) -> FakeQuant:
        activation = _activation(flow.made_by)
        known = activation if flow.origin == rules.ACTIVATION and activation in KNOWN_RANGES else None
        settings = self.settings
        # The last layer of a model says by its name what the outputs mean.
        name = flow.name if self.plan.wiring.leaves(edge) else f"{flow.name}_range"
        return FakeQuant(
            bits=settings.activation_bits,
            ranges=settings.ranges,
            delay=settings.delay,
            activation=known,
            name=self.names.free(name),
        )

    def _inherit(self, call: Call) -> None:
        """The result has the range of what it was made from, and needs no rounding of its own."""
        (source, *_) = (self.flows[edge] for edge in call.inputs)
        for edge in call.outputs:
            flow = self.flows[edge]
            flow.ranges, flow.rounded = source.ranges, None if source.rounded is None else flow.tensor

    def _kernel_layer(self, call: Call) -> Any:
        if id(call.op) not in self.made:
            self.made[id(call.op)] = self._wrap(call)
        return self.made[id(call.op)]

    def _wrap(self, call: Call) -> QuantizedLayer:
        layer = call.op
        factor = self.plan.factors.get(layer)
        kept = kept_of(np.asarray(kernel_of(layer)), self.settings.preserve)
        wrapper = QuantizedLayer(
            layer,
            bits=self.settings.weight_bits(call.source),
            scaled=factor is not None,
            normalization=self.plan.normalizations.get(layer),
            zeros=kept.mask is not None,
            clusters=kept.clusters,
            one_codebook=kept.one_codebook,
            name=self._name(call),
            dtype="float32",
        )
        wrapper.build(call.inputs[0].shape)
        if factor is not None:
            wrapper.scale.assign(factor)
        if kept.mask is not None:
            wrapper.mask.assign(kept.mask)
        if kept.members is not None:
            wrapper.members.assign(kept.members)
        return wrapper

    def _rounded_inside(self, call: Call) -> Call:
        """The call, of a layer that rounds inside, which knows in which of its places it is."""
        calls = [other for other in self.plan.wiring.calls if other.op is call.op]
        if id(call.op) not in self.made:
            kind = next(kind for types, kind in _INSIDE if isinstance(call.op, types))
            ranges, delay, name = self.settings.ranges, self.settings.delay, self._name(call)
            made = kind(call.op, places=len(calls), ranges=ranges, delay=delay, name=name)
            self.made[id(call.op)] = made
        kwargs = {**call.kwargs, "place": calls.index(call)}
        return Call(self.made[id(call.op)], call.name, call.args, kwargs, call.outputs)

    def _named(self, call: Call) -> Any:
        """The operation itself, under a name that nothing else has; a function has no name."""
        if isinstance(call.op, keras.Operation) and id(call.op) not in self.made:
            call.op.name = self._name(call)
            self.made[id(call.op)] = call.op
        return call.op

    def _name(self, call: Call) -> str:
        """The call's own name, unless the rounding of a model's output will bear it: heads are known by name."""
        kind = self.plan.kinds.get(call)
        rounds = kind in _WITH_RANGE and not isinstance(call.op, _L.Embedding)
        if not rounds or not any(self.plan.wiring.leaves(edge) for edge in call.outputs):
            return self.names.free(call.name)
        return self.names.free(f"{call.name}_{'kernel' if kind == rules.KERNEL else 'values'}")

    def _wanted_in_integers(self, call: Call) -> bool:
        """Whether what only passes values on is fed, or in the end read, by something that computes in integers."""
        fed = any(self.flows[edge].origin not in ("input", rules.FLOAT) for edge in call.inputs)
        return fed or self._read_in_integers(call)

    def _read_in_integers(self, call: Call) -> bool:
        kinds = self.plan.kinds
        readers = [reader for edge in call.outputs for reader in self.plan.wiring.consumers(edge)]
        return any(
            kinds[reader] in (*_WITH_RANGE, rules.SAME)
            or (kinds[reader] in _PASSING and self._read_in_integers(reader))
            for reader in readers
        )


def _activation(call: Call | None) -> str | None:
    if call is None or isinstance(call.op, KERNEL_LAYERS):
        return None
    return rules.activation_of(call.op)
