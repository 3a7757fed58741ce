"""What pruning and clustering have given a kernel, found again so that later training keeps it."""

from dataclasses import dataclass

import numpy as np

from tfbig.compression.centroids import most_distinct

PRESERVE = ("auto", "zeros", "clusters", None)
# From this share of exact zeros on, a kernel has been pruned; initializers and training leave none (as in `Cluster`).
_SPARSE = 0.05
# More values than 8 bits can tell apart are not worth keeping.
_MOST_CLUSTERS = 256


@dataclass(frozen=True)
class Kept:
    """What is to stay.

    Attributes:
        mask: False where a weight stays 0; None where zeros are free.
        members: For each weight the index of the value it shares; None where values are free.
        clusters: How many values there are, over all channels.
        one_codebook: Whether the channels share them.
    """

    mask: np.ndarray | None = None
    members: np.ndarray | None = None
    clusters: int | None = None
    one_codebook: bool = True


def kept_of(kernel: np.ndarray, preserve: str | None) -> Kept:
    """Returns what a kernel has that training would lose.

    Args:
        kernel: Weights of any shape, channels last.
        preserve: "zeros" or "clusters" for one, "auto" for both, None for nothing.

    Returns:
        A `Kept`. A kernel is taken for pruned from 5% of zeros on, unless all are 0; for clustered when it has at
        most 256 values other than 0, each shared by two weights on average, over the kernel or in each channel.
    """
    mask = kernel != 0
    sparse = _SPARSE <= 1 - mask.mean() < 1
    kept_mask = mask if sparse and preserve in ("auto", "zeros") else None
    if preserve not in ("auto", "clusters"):
        return Kept(kept_mask)
    columns = kernel.reshape(-1, kernel.shape[-1])
    values, members = np.unique(kernel, return_inverse=True)
    most = most_distinct(columns.T)
    # Channels with values of their own show as a kernel with far more values than any channel has.
    per_channel = len(values) > 2 * most and _clustered(most, mask.sum() / columns.shape[1])
    if not per_channel:
        if not _clustered(len(values), mask.sum()):
            return Kept(kept_mask)
        return Kept(kept_mask, members.reshape(kernel.shape), len(values))
    members = np.zeros(columns.shape, np.int32)
    count = 0
    for i, column in enumerate(columns.T):
        values, own = np.unique(column, return_inverse=True)
        members[:, i] = own + count
        count += len(values)
    return Kept(kept_mask, members.reshape(kernel.shape), count, one_codebook=False)


def _clustered(distinct: int, weights: float) -> bool:
    return 2 <= distinct <= min(_MOST_CLUSTERS, weights / 2)
