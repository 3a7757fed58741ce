"""How much working memory a LiteRT file needs on a microcontroller, estimated without running it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod

from tfbig.deployment.contents import Contents, Tensor
from tfbig.errors import UnreadableFile

# Bytes that TensorFlow Lite Micro rounds every tensor up to (`MicroArenaBufferAlignment`).
_ALIGNMENT = 16
_BITS = {"bool": 8, "resource": 32}  # all others end in their number of bits

# Bytes of the runtime's record of an operator that has more to remember than others.
_RECORD = {"UNIDIRECTIONAL_SEQUENCE_LSTM": 800}


@dataclass(frozen=True)
class _Need:
    """A tensor's size in bytes, and the first and last step at which its values are needed."""

    size: int
    first: int
    last: int


def arena_bytes(contents: Contents) -> int:
    """Estimates the tensor arena that TensorFlow Lite Micro needs for a file, in bytes.

    That is `activation_bytes` and room for the runtime's own records, such as one per operator and what its kernels
    prepare per channel. Records vary with the runtime's build: the room is what a 64-bit build takes and a little
    more; a 32-bit one takes about half. Left out is the scratch memory that some kernels ask for: those of CMSIS-NN
    and of other chips' libraries, of LSTMs and reductions, and of 4-bit weights,
    which are unpacked into it. So begin with this,
    ask `MicroInterpreter::arena_used_bytes()` on the device, and set what it says.

    Args:
        contents: What the file holds, from `read_contents`. Axes left open count 1.

    Returns:
        The number of bytes, a multiple of 16.

    Raises:
        UnreadableFile: A loop's body runs itself.
    """
    tensors = [tensor for graph in contents.graphs for tensor in graph.tensors]
    operations = sum(_RECORD.get(op.name, 220) for graph in contents.graphs for op in graph.operations)
    channels = sum(tensor.scales for tensor in tensors if tensor.scales > 1)
    states = sum(_size(tensor) for tensor in tensors if tensor.variable)
    # Fitted from above to what tflite-micro's recording allocator reports for some thirty files (x86-64, build
    # 8f6596d): 1.0 to 1.7 times its figures.
    records = 768 + 32 * len(tensors) + operations + 8 * channels
    return activation_bytes(contents) + states + _aligned(records)


def activation_bytes(contents: Contents) -> int:
    """Returns the memory that a file's inputs, outputs and results in between take on a microcontroller, in bytes.

    Those that live at the same time lie beside each other, as TensorFlow Lite Micro's planner puts them: largest
    first, each in the first gap that is large enough. Its recording allocator reports the same number, kernels'
    scratch memory aside.

    Args:
        contents: What the file holds, from `read_contents`. Axes left open count 1.

    Returns:
        The number of bytes, a multiple of 16.

    Raises:
        UnreadableFile: A loop's body runs itself.

    Source: micro_allocation_info.cc (lifetimes) and memory_planner/greedy_memory_planner.cc (places) in
    https://github.com/tensorflow/tflite-micro/tree/main/tensorflow/lite/micro.
    """
    lifetimes = _Lifetimes(contents)
    lifetimes.walk(contents.default.graph, callers=())
    needs = []
    for (graph, position), first in lifetimes.first.items():
        tensor = contents.graphs[graph].tensors[position]
        if not (tensor.constant or tensor.variable):
            needs.append(_Need(_size(tensor), first, lifetimes.last[graph, position]))
    return _packed(needs)


class _Lifetimes:
    """When each tensor, by graph and index, is made and last read, in steps; an operator is a step."""

    def __init__(self, contents: Contents):
        self.graphs = contents.graphs
        self.first: dict[tuple[int, int], int] = {}
        self.last: dict[tuple[int, int], int] = {}
        self._step = 0

    def walk(self, index: int, callers: tuple[int, ...]) -> None:
        if index in callers:
            raise UnreadableFile(f"This LiteRT file is broken: its graph {index} runs itself.")
        graph = self.graphs[index]
        self._make(index, graph.inputs + graph.outputs)
        for op in graph.operations:
            self._step += 1
            self._make(index, op.outputs)
            for body in op.bodies:
                self._step += 1
                self.walk(body, (*callers, index))
            self._use(index, op.inputs + op.outputs)
        self._use(index, graph.outputs)

    def _make(self, graph: int, tensors: Iterable[int]) -> None:
        for tensor in tensors:
            self.first[graph, tensor] = self.last[graph, tensor] = self._step

    def _use(self, graph: int, tensors: Iterable[int]) -> None:
        for tensor in tensors:
            if (graph, tensor) in self.first:  # the rest are constants, states and inputs left out
                self.last[graph, tensor] = self._step


def _packed(needs: list[_Need]) -> int:
    """The bytes from the first to the last tensor after each was put into the first gap that is large enough."""
    placed: list[tuple[int, _Need]] = []
    for need in sorted(needs, key=lambda need: -need.size):
        start = 0
        for offset, other in sorted(placed, key=lambda place: place[0]):
            if other.first > need.last or need.first > other.last:
                continue
            if offset - start >= need.size:
                break
            start = max(start, offset + other.size)
        placed.append((start, need))
    return max((offset + need.size for offset, need in placed), default=0)


def _size(tensor: Tensor) -> int:
    ending = re.search(r"\d+$", tensor.dtype)
    bits = _BITS.get(tensor.dtype) or int(ending.group() if ending else 8)
    return _aligned(ceil(prod(tensor.shape) * bits / 8))


def _aligned(size: int) -> int:
    return ceil(size / _ALIGNMENT) * _ALIGNMENT
