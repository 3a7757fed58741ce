"""Operations on several values taken apart into operations on two, whose operands may have any ranges."""

from typing import Any

from tfbig.backend import keras
from tfbig.compression import integer_rules as rules
from tfbig.compression.wiring import Call, Edge

_L = keras.layers


def in_pairs(call: Call) -> list[Call]:
    """Returns sums or products of two each, in the order of the operands; the last gives what the call gave.

    An average is a sum times a number, a negative -1 times the value, a square a product.

    Args:
        call: Of a layer such as `Add`, or of an operation on two values, which stays as it is.
    """
    kind, (first, *others) = type(call.op).__name__, call.inputs
    if kind == "Average":
        total = _like(call)
        added = Call(_L.Add(), f"{call.name}_sum", call.args, {}, (total,))
        return [*in_pairs(added), _times(call, total, 1 / len(call.inputs))]
    if kind in ("Negative", "Square"):
        return [_times(call, first, -1.0 if kind == "Negative" else first)]
    if len(others) < 2:
        return [call]
    parts = []
    for i, other in enumerate(others[:-1]):
        between = _like(call)
        parts.append(_of_two(type(call.op)(), f"{call.name}_{i}", [first, other], (between,)))
        first = between
    return [*parts, _of_two(call.op, call.name, [first, others[-1]], call.outputs)]


def by_difference(call: Call) -> list[tuple[Call, str]]:
    """Returns calls with their kinds for a maximum, a + relu(b - a), or a minimum, a - relu(a - b)."""
    larger = type(call.op).__name__ == "Maximum"
    move = _L.Add if larger else _L.Subtract
    first, *others = call.inputs
    parts: list[tuple[Call, str]] = []
    for i, other in enumerate(others):
        apart, beyond, moved = _like(call), _like(call), _like(call)
        pair, name = [other, first] if larger else [first, other], f"{call.name}_{i}"
        last, given = (call.name, call.outputs) if i == len(others) - 1 else (name, (moved,))
        parts += [
            (_of_two(_L.Subtract(), f"{name}_apart", pair, (apart,)), rules.PAIRWISE),
            (Call(_L.ReLU(), f"{name}_beyond", (apart,), {}, (beyond,)), rules.ACTIVATION),
            (_of_two(move(), last, [first, beyond], given), rules.PAIRWISE),
        ]
        first = moved
    return parts


def _times(call: Call, value: Edge, factor: Any) -> Call:
    return Call(keras.ops.multiply, call.name, (value, factor), {}, call.outputs)


def _like(call: Call) -> Edge:
    return Edge(call.outputs[0].shape, call.outputs[0].dtype)


def _of_two(op: Any, name: str, operands: list[Edge], outputs: tuple[Edge, ...]) -> Call:
    return Call(op, name, (operands,), {}, outputs)
