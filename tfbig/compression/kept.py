"""What pruning and clustering have given a kernel, found again so that later training keeps it."""

from dataclasses import dataclass

import numpy as np

PRESERVE = ("auto", "zeros", "clusters", None)
# From this share of exact zeros on, a kernel has been pruned; initializers and training leave none.
_SPARSE = 0.05
# More values than 8 bits can tell apart are not worth keeping.
_MOST_CLUSTERS = 256
# Among weights that are free chance makes some equal: in float32 none, in bfloat16 (as many as 256 values) a sixth.
_DIFFERENT = 0.75


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


def is_pruned(kernel: np.ndarray) -> bool:
    """Whether a kernel has been pruned. One of nothing but zeros has not: it is new, and held it would never move."""
    return bool(_SPARSE <= (kernel == 0).mean() < 1)


def kept_of(kernel: np.ndarray, preserve: str | None) -> Kept:
    """Returns what a kernel has that training would lose.

    Args:
        kernel: Weights of any shape, channels last.
        preserve: "zeros" or "clusters" for one, "auto" for both, None for nothing.

    Returns:
        A `Kept`. A kernel is taken for pruned from 5% of zeros on, unless all are 0; for clustered when it has at
        most 256 values other than 0, over the kernel or in each channel, and more of its weights are equal than chance
        would make so: for every four weights there are at most three values.
    """
    mask = kernel != 0
    kept_mask = mask if is_pruned(kernel) and preserve in ("auto", "zeros") else None
    if preserve not in ("auto", "clusters"):
        return Kept(kept_mask)
    columns = kernel.reshape(-1, kernel.shape[-1])
    values, members = np.unique(kernel, return_inverse=True)
    own = [np.unique(column, return_inverse=True) for column in columns.T]
    count, counts = int(np.count_nonzero(values)), [int(np.count_nonzero(found)) for found, _ in own]
    # Channels with values of their own show as a kernel with about as many values as they have together, and far more
    # than any of them has.
    apart = len(values) > 2 * max(len(found) for found, _ in own) and 2 * count > sum(counts)
    if apart and max(counts) <= _MOST_CLUSTERS and _shared(sum(counts), mask):
        ends = np.cumsum([0, *(len(found) for found, _ in own)])
        members = np.stack([first + index for first, (_, index) in zip(ends, own, strict=False)], axis=1)
        return Kept(kept_mask, members.reshape(kernel.shape), int(ends[-1]), one_codebook=False)
    if len(values) > 1 and count <= _MOST_CLUSTERS and _shared(count, mask):
        return Kept(kept_mask, members.reshape(kernel.shape), len(values))
    return Kept(kept_mask)


def _shared(values: int, mask: np.ndarray) -> bool:
    """Whether so few values, 0 left out, make up the weights that are not 0."""
    return bool(values <= _DIFFERENT * mask.sum())
