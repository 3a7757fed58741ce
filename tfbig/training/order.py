"""The order in which the rows of an epoch are seen: a function of seed and epoch, and of nothing else.

Every worker, every fold and every resumed run can therefore work out any epoch's batches by itself.
"""

import numpy as np


def epoch_order(rows: int, epoch: int, seed: int, shuffle: bool = True) -> np.ndarray:
    """Returns the row numbers of one epoch in the order they are trained on: int64 of shape (rows,).

    Args:
        rows: Rows of the training data.
        epoch: The epoch, from 0.
        seed: The run's seed.
        shuffle: Whether rows are shuffled; else the order is that of the data.

    Example:
        >>> sorted(epoch_order(4, epoch=1, seed=7).tolist()), epoch_order(3, 0, 7, shuffle=False).tolist()
        ([0, 1, 2, 3], [0, 1, 2])
    """
    if not shuffle:
        return np.arange(rows, dtype=np.int64)
    return np.random.default_rng((seed, epoch)).permutation(rows).astype(np.int64, copy=False)
