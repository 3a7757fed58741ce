"""What of an integer file's activations may change: which tensors share a scale, and which share channels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tfbig.deployment.contents import Operation
from tfbig.deployment.integer_graph import IntegerGraph, Layer
from tfbig.deployment.rounding import few_values

# LiteRT has these give the scale that they take.
_KEEP_THE_SCALE = {"AVERAGE_POOL_2D", "MAX_POOL_2D", "RESHAPE", "PAD"}
# These read the scales of what they take and give from the file, whatever they are.
_TAKE_ANY_SCALE = {"ADD", "SUB", "MEAN", "RELU", "LEAKY_RELU"}
# These take any scale; what they give has a fixed one.
_END_WITH_ANY_SCALE = {"SOFTMAX", "LOGISTIC", "TANH"}
# A channel of these that is multiplied by a positive number gives that channel multiplied by it.
_KEEP_CHANNELS = {
    "ADD",
    "SUB",
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "PAD",
    "MEAN",
    "RESHAPE",
    "RELU",
    "LEAKY_RELU",
}
# No activation, or ReLU: those that bend elsewhere than at 0 are not scaled.
_STRAIGHT = (0, 1)
# A channel that was nearly silent in calibration may be louder in use.
_MOST_GAIN = 16.0


@dataclass(frozen=True)
class Channels:
    """Tensors whose channels can be multiplied together: divided again where they are read, it changes no answer.

    Attributes:
        tensors: Their indices.
        count: Of channels; a flattened tensor has them repeated.
    """

    tensors: tuple[int, ...]
    count: int


def shared_scales(graph: IntegerGraph, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """Returns groups of tensors that have one scale, which may be any: all that they meet takes it from the file."""
    known = {layer.op for layer in layers}
    activations = _activations(graph)
    groups = _joined(
        activations,
        (
            (op.inputs[0], op.outputs[0])
            for op in graph.operations
            if op.name in _KEEP_THE_SCALE and op.outputs
        ),
    )
    blocked: set[int] = set()
    for place, op in enumerate(graph.operations):
        if place in known or op.name in _KEEP_THE_SCALE | _TAKE_ANY_SCALE:
            continue
        blocked.update(op.outputs)
        if op.name not in _END_WITH_ANY_SCALE:
            blocked.update(op.inputs)
    blocked.update(graph.contents.graphs[0].inputs, graph.contents.graphs[0].outputs)
    return [group for group in groups if not blocked & set(group) and set(group) <= activations]


def shared_channels(
    graph: IntegerGraph, layers: Sequence[Layer], movable: Iterable[tuple[int, ...]]
) -> list[Channels]:
    """Returns groups of tensors between layers whose channels may be multiplied.

    Args:
        graph: The integer file.
        layers: Its layers whose float kernels are known.
        movable: Groups of tensors whose scale may change, from `shared_scales`.
    """
    by_op = {layer.op: layer for layer in layers}
    free = {index for group in movable for index in group}
    activations, tensors = _activations(graph), graph.contents.graphs[0].tensors
    ties: list[tuple[int, ...]] = []
    blocked: set[int] = set()
    for place, op in enumerate(graph.operations):
        passing = tuple(index for index in op.inputs if index in activations)
        if place in by_op:
            layer = by_op[place]
            # One scale for a whole kernel, or a few shared values, cannot follow its channels.
            if few_values(layer.weights):
                blocked.update(op.inputs)
            if few_values(layer.weights) and len(graph.scales(layer.kernel)) == 1:
                blocked.update(op.outputs)
            if layer.kind == "DEPTHWISE_CONV_2D" and len(graph.scales(layer.kernel)) == 1:
                blocked.update((*op.inputs, *op.outputs))
            if not _straight(graph, place):
                blocked.update(op.outputs)
        elif op.name in _KEEP_CHANNELS and _channel_by_channel(graph, place, op, passing):
            ties.append((*passing, *op.outputs))
        else:
            blocked.update((*op.inputs, *op.outputs))
    groups = []
    for group in _joined(activations, ties):
        made = [layer for layer in layers if layer.result in group]
        counts = {tensors[layer.result].shape[-1] for layer in made}
        if not blocked & set(group) and set(group) <= free and len(counts) == 1:
            groups.append(Channels(group, counts.pop()))
    return groups


def gains(
    group: Channels, lowest: dict[int, np.ndarray], highest: dict[int, np.ndarray], share: float
) -> np.ndarray:
    """Returns what to multiply each channel by, so that all reach as far as the widest: no scale grows by it.

    Args:
        group: The tensors.
        lowest: Tensor to the smallest value of each channel.
        highest: Likewise, the largest.
        share: How much of the way to go, from 0 to 1, as an exponent.

    The method is that of Nagel et al. 2019, "Data-free quantization through weight equalization and bias
    correction", arXiv:1906.04721, for activations in place of kernels.
    """
    reach = np.zeros(group.count)
    for index in group.tensors:
        widths = np.maximum(np.abs(lowest[index]), np.abs(highest[index])).reshape(-1, group.count).max(0)
        reach = np.maximum(reach, widths / (widths.max() or 1.0))
    return np.clip(1 / np.maximum(reach, 1e-9), 1.0, _MOST_GAIN) ** share


def _channel_by_channel(graph: IntegerGraph, place: int, op: Operation, passing: tuple[int, ...]) -> bool:
    """Whether each channel of the result is made of the same channel of what is given."""
    tensors = graph.contents.graphs[0].tensors
    shapes = [tensors[index].shape for index in passing]
    result = tensors[op.outputs[0]].shape
    if not passing or not _straight(graph, place):
        return False
    if op.name in ("ADD", "SUB"):
        return len(passing) == 2 and shapes[0] == shapes[1] == result
    if op.name == "MEAN":
        axes = np.ravel(graph.constant(op.inputs[1])) if tensors[op.inputs[1]].constant else np.array([-1])
        return (len(shapes[0]) - 1) not in axes % len(shapes[0])
    if op.name == "RESHAPE":
        return bool(result) and result[-1] % shapes[0][-1] == 0
    if op.name == "PAD":
        return shapes[0][-1] == result[-1]
    return True


def _straight(graph: IntegerGraph, place: int) -> bool:
    return getattr(graph.options(place), "fusedActivationFunction", 0) in _STRAIGHT


def _activations(graph: IntegerGraph) -> set[int]:
    """Tensors of 8 bits that operators give, with one scale."""
    tensors = graph.contents.graphs[0].tensors
    given = {index for op in graph.operations for index in op.outputs}
    return {index for index in given if tensors[index].dtype == "int8" and tensors[index].scales == 1}


def _joined(members: set[int], ties: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Groups of members that ties connect; one without ties is a group of its own."""
    group = {member: {member} for member in members}
    for tie in ties:
        joined = set(tie).union(*(group.get(member, {member}) for member in tie))
        for member in joined:
            group[member] = joined
    return sorted({tuple(sorted(tied)) for tied in group.values()})
