"""How sparse a model is, measured on its kernels."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.compression.targets import Target, find_targets, layer_paths
from tfbig.records import Record

# Longer names of skipped layers do not widen the table.
_WIDE = 40
# What was asked of models that were pruned in this process, and what of them was skipped. Zeros are measured anew.
_PRUNED: weakref.WeakKeyDictionary[Any, "SparsityReport"] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class LayerSparsity(Record):
    """The zeros of one kernel.

    Attributes:
        name: Of the layer.
        weights: Values in the kernel.
        zeros: How many of them are exactly 0.
        asked: The sparsity that was asked for, if one was.
    """

    name: str
    weights: int
    zeros: int
    asked: float | None = None

    @property
    def sparsity(self) -> float:
        """Share of zeros, in [0, 1]."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class SparsityReport(Record):
    """The zeros of every kernel of a model. `print` shows a line per layer: zeros, asked and reached, why skipped.

    Attributes:
        layers: A `LayerSparsity` per kernel, in the model's order.
        skipped: Layer name to the reason why it was left alone.
        asked: The sparsity that was asked of all kernels together (`scope="global"`), if one was.
    """

    layers: tuple[LayerSparsity, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    asked: float | None = None

    @property
    def overall(self) -> float:
        """Share of zeros over all kernels together, in [0, 1]."""
        return self._sum("zeros") / self._sum("weights")

    def __str__(self) -> str:
        titles = ("layer", "weights", "zeros", "sparsity", "asked", "")
        every = LayerSparsity("all", self._sum("weights"), self._sum("zeros"), self.asked)
        rows = [_row(layer) for layer in (*self.layers, every)]
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        widths[0] = max([widths[0], *(len(name) for name in self.skipped if len(name) <= _WIDE)])
        lines = []
        for row in (titles, *rows):
            right = [f"{cell:>{width}}" for cell, width in zip(row[1:5], widths[1:5], strict=True)]
            lines.append("  ".join([f"{row[0]:{widths[0]}}", *right, row[5]]).rstrip())
        rule = "─" * max(map(len, lines))
        skipped = [f"{name:{widths[0]}}  skipped: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([lines[0], rule, *lines[1:-1], *skipped, rule, lines[-1]])

    def _sum(self, attribute: str) -> int:
        return sum(getattr(layer, attribute) for layer in self.layers)


def _row(layer: LayerSparsity) -> tuple[str, ...]:
    asked = remark = ""
    if layer.asked is not None:
        asked, missing = f"{layer.asked:.2%}", layer.asked * layer.weights - layer.zeros
        # A kernel of few weights cannot hold every share of zeros: one weight off is what was asked.
        remark = "fewer than asked" if missing > 1 else "more than asked" if missing < -1 else ""
    counts = (f"{layer.weights:,}", f"{layer.zeros:,}", f"{layer.sparsity:.2%}")
    return layer.name, *counts, asked, remark


def sparsity(model: Any) -> SparsityReport:
    """Measures the share of zeros in every kernel of a model.

    Args:
        model: A built Keras model.

    Returns:
        A `SparsityReport`; `.overall` is the share over all kernels, `print` shows a line per layer. Of a model that
        was pruned in this process it also says what was asked of each layer, and which were skipped and why; a layer
        that could not be pruned stands in both lists.

    Raises:
        InvalidModel: The model is not built, or has no kernel.

    Example:
        >>> import tfbig
        >>> tfbig.sparsity(tfbig.models.mlp((4,), 3, hidden=(8,))).overall
        0.0
    """
    targets, skipped = find_targets(model)
    pruned = _PRUNED.get(model)
    if pruned is None:
        return measured(targets, skipped)
    # Kernels that are taken on request only count where they were requested.
    asked = {layer.name: layer.asked for layer in pruned.layers}
    usual = {target.name for target in targets}
    every, _ = find_targets(model, lambda layer: True)
    targets = [target for target in every if target.name in usual or target.name in asked]
    skipped = {name: reason for name, reason in skipped.items() if name not in asked}
    # Layers may have been taken off since.
    there = {target.name for target in every} | set(layer_paths(model).values())
    still = {name: reason for name, reason in pruned.skipped.items() if name in there}
    return measured(targets, {**skipped, **still}, asked, pruned.asked)


def measured(
    targets: list[Target],
    skipped: Mapping[str, str],
    asked: Mapping[str, float | None] | None = None,
    asked_of_all: float | None = None,
) -> SparsityReport:
    """Counts the zeros of the targets' kernels as they are now; `asked` is by their names."""
    layers = []
    for target in targets:
        values = np.asarray(target.kernel.numpy())
        zeros = int((values == 0).sum())
        layers.append(LayerSparsity(target.name, values.size, zeros, (asked or {}).get(target.name)))
    return SparsityReport(tuple(layers), dict(skipped), asked_of_all)


def remember(model: Any, report: SparsityReport) -> None:
    """Lets `sparsity` say what a pruning of this model asked for and skipped, for as long as the model lives."""
    _PRUNED[model] = report
