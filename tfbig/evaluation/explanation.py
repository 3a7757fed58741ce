"""What `explain` returns: how much each part of the input matters, as numbers, a table and a picture."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.records import Record

# How many features a table or a bar chart shows.
_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Explanation(Record):
    """How much each part of the input matters to a model's answer.

    Attributes:
        method: "permutation", "integrated_gradients", "saliency", "occlusion" or "attention".
        values: Permutation: the loss of score per feature, shape (features,). Gradients: per row and value, the shape
            of x; per row and step, (rows, steps), of tokens. Occlusion: per row and place, (rows, height, width),
            (rows, steps) or (rows, features). Attention: the last layer's maps, averaged over its heads,
            (rows, queries, keys).
        names: Of the features; () for images, steps and attention.
        target: The output that was explained, per row, shape (rows,); None for permutation and attention.
        baseline: What stands for "nothing there": of the shape of a row, or of one token's vector; None where the
            method needs none.
        spread: Standard deviation of `values` over the repeats of the permutation, else None.
        gaps: Of integrated gradients, per row: how far the values' sum is from the change of the output, as a share
            of that change; else None.
        inputs: The rows explained; None for permutation.
        maps: Of attention, layer name to its weights, shape (rows, heads, queries, keys).
        score: Of permutation, what the values are a loss of, such as "accuracy".
    """

    method: str
    values: np.ndarray
    names: tuple[str, ...] = ()
    target: np.ndarray | None = None
    baseline: np.ndarray | None = None
    spread: np.ndarray | None = None
    gaps: np.ndarray | None = None
    inputs: np.ndarray | None = None
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    score: str | None = None

    @property
    def importance(self) -> np.ndarray:
        """How much each part matters over all rows: the mean of the values' sizes; of permutation the values.

        Of features with names it is over all steps too: shape (features,).
        """
        if self.method == "permutation":
            return self.values
        axes = tuple(range(self.values.ndim - 1)) if self.names else 0
        return np.abs(self.values).mean(axis=axes)

    def top(self, count: int = 10) -> dict[str, float]:
        """Returns the most important features by name, largest first; {} where features have no names."""
        if not self.names:
            return {}
        order = np.argsort(-self.importance, kind="stable")[:count]
        return {self.names[place]: float(self.importance[place]) for place in order}

    def __str__(self) -> str:
        rows = "" if self.inputs is None else f" of {len(self.inputs)} row{'s' * (len(self.inputs) != 1)}"
        lines = [f"{self.method.replace('_', ' ')}{rows}: values of shape {self.values.shape}"]
        if self.score is not None:
            lines[0] = f"{self.method}: loss of {self.score} per feature"
        if self.gaps is not None:
            lines.append(f"largest completeness gap {self.gaps.max():.2%}")
        top = self.top(_SHOWN)
        width = max(map(len, top), default=0)
        for name, value in top.items():
            spread = "" if self.spread is None else f" ± {self.spread[self.names.index(name)]:.4f}"
            lines.append(f"{name:<{width}}  {value:.4f}{spread}")
        lines += [f"{name}: {maps.shape[1]} heads" for name, maps in self.maps.items()]
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None, *, row: int = 0) -> Any:
        """Draws bars of features, heat maps of images and sequences, or the matrices of attention.

        Args:
            path: Where to save the picture, if anywhere.
            row: The row whose attention is drawn, or from which on images are.

        Returns:
            The matplotlib figure.
        """
        from tfbig import plots
        from tfbig.evaluation import explanation_plots as pictures

        if self.method == "attention":
            figure = pictures.matrices({name: maps[row].mean(axis=0) for name, maps in self.maps.items()})
        elif self.names and self.values.ndim < 3:
            top = self.top(_SHOWN)
            spread = () if self.spread is None else [self.spread[self.names.index(name)] for name in top]
            label = f"loss of {self.score}" if self.score else f"mean |{self.method.replace('_', ' ')}|"
            figure = pictures.bars(top, label, spread)
        elif self.inputs is not None and self.inputs.ndim == 4:
            shown = self.values[row : row + 6]
            targets = None if self.target is None else self.target[row : row + 6]
            if shown.ndim == 4:  # the channels of a pixel together
                shown = shown.max(axis=-1) if self.method == "saliency" else shown.sum(axis=-1)
            figure = pictures.heat_maps(self.inputs[row : row + 6], shown, targets)
        elif self.values.ndim == 3:
            figure = pictures.sequence(self.values[row].T, "step", "feature", self.names)
        else:
            figure = pictures.sequence(self.values[row : row + 30], "step", "row")
        return plots.saved(figure, path)
