"""How sparse a model is, measured on its kernels."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.compression.targets import Target, find_targets
from tfbig.records import Record

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
    """The zeros of every kernel of a model.

    Attributes:
        layers: A `LayerSparsity` per kernel, in the model's order.
        skipped: Layer name to the reason why it was left alone.
    """

    layers: tuple[LayerSparsity, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def overall(self) -> float:
        """Share of zeros over all kernels together, in [0, 1]."""
        return sum(layer.zeros for layer in self.layers) / sum(layer.weights for layer in self.layers)

    def __str__(self) -> str:
        width = max(len(name) for name in [*(layer.name for layer in self.layers), *self.skipped, "all"])
        lines = [f"{layer.name:{width}}  {layer.sparsity:7.2%} of {layer.weights:,}" for layer in self.layers]
        lines += [f"{name:{width}}  skipped: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([*lines, f"{'all':{width}}  {self.overall:7.2%}"])


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
    return measured(targets, {**skipped, **pruned.skipped}, asked)


def measured(
    targets: list[Target], skipped: Mapping[str, str], asked: Mapping[str, float | None] | None = None
) -> SparsityReport:
    """Counts the zeros of the targets' kernels as they are now; `asked` is by their names."""
    layers = []
    for target in targets:
        values = np.asarray(target.kernel.numpy())
        zeros = int((values == 0).sum())
        layers.append(LayerSparsity(target.name, values.size, zeros, (asked or {}).get(target.name)))
    return SparsityReport(tuple(layers), dict(skipped))


def remember(model: Any, report: SparsityReport) -> None:
    """Lets `sparsity` say what a pruning of this model asked for and skipped, for as long as the model lives."""
    _PRUNED[model] = report
