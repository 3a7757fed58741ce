"""Which rows each fold sees in each step of an epoch, when folds of unequal size advance together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Rounds(NamedTuple):
    """The steps of one epoch of several folds.

    Attributes:
        rows: Row numbers, int32 of shape (rounds, folds, batch size); beyond a round's size they mean nothing.
        sizes: Rows that each active fold sees in a round, int32 of shape (rounds,).
        active: Which folds take part in a round, bool of shape (rounds, folds).
    """

    rows: np.ndarray
    sizes: np.ndarray
    active: np.ndarray


def plan_rounds(orders: Sequence[np.ndarray | None], batch_size: int) -> Rounds:
    """Returns the rounds of an epoch: every fold sees its own batches, of its own sizes, in its own order.

    Folds whose next batches are of one size share a round; folds of unequal size end in rounds of their own, in
    which the others rest. No fold ever sees a padded row, so batch statistics are those of its own rows.

    Args:
        orders: Each fold's training rows in the order they are seen; None for a fold that has stopped.
        batch_size: Rows of a full batch.

    Example:
        >>> rounds = plan_rounds([np.array([4, 5, 6]), np.array([7, 8, 9, 3])], batch_size=2)
        >>> rounds.sizes.tolist(), rounds.active.tolist()
        ([2, 2, 1], [[True, True], [False, True], [True, False]])
    """
    batches = [
        [] if order is None else [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        for order in orders
    ]
    planned = []
    for step in range(max(map(len, batches), default=0)):
        now = {k: own[step] for k, own in enumerate(batches) if step < len(own)}
        for size in sorted({len(batch) for batch in now.values()}, reverse=True):
            planned.append((size, {k: batch for k, batch in now.items() if len(batch) == size}))
    rows = np.zeros((len(planned), len(orders), batch_size), np.int32)
    active = np.zeros((len(planned), len(orders)), bool)
    for i, (size, taking_part) in enumerate(planned):
        # A resting fold computes on some fold's rows, and what it computes is dropped: rows must be valid ones.
        rows[i, :, :size] = next(iter(taking_part.values()))
        for k, batch in taking_part.items():
            rows[i, k, :size], active[i, k] = batch, True
    return Rounds(rows, np.array([size for size, _ in planned], np.int32), active)
