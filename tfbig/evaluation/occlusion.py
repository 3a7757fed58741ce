"""Occlusion: how far an output falls when a patch of the input is covered. Needs nothing but `predict`."""

import itertools
from typing import Any

import numpy as np

from tfbig.evaluation.answering import likely_of


def occlusion(
    model: Any, x: np.ndarray, target: np.ndarray, baseline: np.ndarray, patch: int, stride: int
) -> np.ndarray:
    """Returns how far the target's output falls where a patch covers the input, averaged over the patches there.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014 (https://arxiv.org/abs/1311.2901).

    Args:
        model: Anything with `predict`.
        x: Shape (rows, height, width, channels), (rows, steps, features) or (rows, features).
        target: The output of each row, shape (rows,).
        baseline: What covers: the shape of a row.
        patch: Side of the patch, in places; covers all channels.
        stride: How far it moves.

    Returns:
        Shape (rows, height, width), (rows, steps) or (rows, features).
    """
    places = x.shape[1:-1] if x.ndim > 2 else x.shape[1:]
    whole = chosen(likely_of(model, x), target)
    total, times = np.zeros((len(x), *places)), np.zeros(places)
    for corner in itertools.product(*(_starts(side, patch, stride) for side in places)):
        window = tuple(slice(start, start + patch) for start in corner)
        covered = x.copy()
        covered[:, *window] = baseline[window]
        fall = whole - chosen(likely_of(model, covered), target)
        total[:, *window] += fall.reshape(-1, *[1] * len(places))
        times[window] += 1
    return total / times


def chosen(outputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the output that is explained of each row, shape (rows,)."""
    table = outputs.reshape(len(outputs), -1).astype(np.float64)
    return table[np.arange(len(table)), target]


def default_patch(shape: tuple[int, ...]) -> int:
    """Returns a sixth of an image's shorter side, rounded up; one step or feature of anything else."""
    return -(-min(shape[:2]) // 6) if len(shape) == 3 else 1


def _starts(side: int, patch: int, stride: int) -> list[int]:
    """Where patches begin along one side; the last touches the end."""
    return sorted({*range(0, side - patch + 1, stride), side - patch})
