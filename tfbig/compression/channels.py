"""Channels of a model: which go together, which must stay, and where each stands in the weights.

A channel is one position along the last axis of a tensor: a unit, a filter, an output dimension. Every channel that a
layer makes gets a number; tensors and weights are then described by arrays of these numbers. Channels that are added
to each other are one channel (union-find); flattening repeats numbers; concatenating concatenates them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Ids = np.ndarray  # int64, one number per position along an axis


class ChannelSets:
    """Which channels go together (a channel set), and why some must stay. Sets are named by their smallest number."""

    def __init__(self) -> None:
        """Starts with no channels."""
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def new(self, count: int) -> Ids:
        """Returns the numbers of so many new channels."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def roots(self, ids: Ids) -> Ids:
        """Returns the set of each channel, shape of `ids`."""
        found = {int(i): self._root(int(i)) for i in np.unique(ids)}
        return np.array([found[int(i)] for i in ids], np.int64)

    def tie(self, first: Ids, second: Ids) -> None:
        """Makes one channel of each pair: removed together or not at all."""
        for one, other in {(int(a), int(b)) for a, b in zip(first, second, strict=True)}:
            low, high = sorted((self._root(one), self._root(other)))
            self._parents[high] = low
            if high in self._reasons:
                self._reasons.setdefault(low, self._reasons[high])

    def lock(self, ids: Ids, reason: str, *, above_all: bool = False) -> None:
        """Says that these channels must stay; the first reason given is kept, unless another stands above all."""
        for root in np.unique(self.roots(ids)).tolist():
            self._reasons[root] = reason if above_all else self._reasons.get(root, reason)

    def reason(self, root: int) -> str:
        """Returns why a set must stay, "" if it need not."""
        return self._reasons.get(int(root), "")

    def _root(self, i: int) -> int:
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i


@dataclass(frozen=True, eq=False)
class Wire:
    """A tensor between layers: the channels along its last axis, and its shape in the model as it is."""

    ids: Ids
    shape: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Slice:
    """How the axes of one weight stand to channels.

    Attributes:
        maker: Name of what the weight belongs to: a layer's path, or "attention/heads".
        variable: The `keras.Variable`.
        axes: The channels along each axis, None for an axis of something else (a window's side).
        makes: The axis of the channels that this kernel makes; None for biases and normalization.
        reads: The axis of the channels that this kernel reads: zero there, and it does not see them.
        copies: How often the made channels stand in a row along their axis (the gates of an LSTM: 4).
    """

    maker: str
    variable: Any
    axes: tuple[Ids | None, ...]
    makes: int | None = None
    reads: int | None = None
    copies: int = 1


@dataclass(frozen=True, eq=False)
class Setting:
    """A value of a layer's configuration that counts channels: `form` makes it of their number."""

    ids: Ids
    form: Callable[[int], Any] = int


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation, in the graph's order.

    Attributes:
        reads: The channels of each tensor among the flattened arguments, by position there, if the layer has kernels
            that read them; else empty.
    """

    reads: dict[int, Ids]


@dataclass
class Trace:
    """What following a model's graph has found. Made by `tracing.trace`.

    Attributes:
        sets: Which channels go together, which must stay.
        makers: Name of each layer that makes channels to their numbers.
        layers: The same names to the layers.
        slices: id of each weight with channels to its `Slice`.
        settings: id of each layer to its settings, by path in its configuration.
        calls: Every call but those of nested models, in order.
        inputs: id of each nested model to the channels of its inputs.
        opaque: Path of each layer with weights that could not be followed to the reason.
    """

    sets: ChannelSets = field(default_factory=ChannelSets)
    makers: dict[str, Ids] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    slices: dict[int, Slice] = field(default_factory=dict)
    settings: dict[int, dict[tuple[str, ...], Setting]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    inputs: dict[int, list[Ids]] = field(default_factory=dict)
    opaque: dict[str, str] = field(default_factory=dict)


class NotFollowed(Exception):
    """Raised by a rule for a layer whose channels it cannot follow; says why, after "which"."""
