"""Weights that share centroids: how both train inside the compiled step, and which weight belongs to which.

TFMOT wraps a layer and gathers its kernel from the centroids in the forward pass. Keras 3 has no such wrapper.
Here the kernel itself holds the centroids' values, so every forward pass, gradient and saved file sees them. The
optimizer moves each weight by its own gradient; a constraint, which Keras runs inside the compiled step and on
every replica, then takes these moves apart:

- a centroid moves by the mean of its members' moves. Under SGD that is the step of a trained centroid whose
  gradient is averaged over its members (TFMOT's `GradientAggregation.AVG`); under Adam, the mean of their steps;
- each weight's own moves add up beside the kernel, in `_free`. These are the weights that TFMOT trains by the
  straight-through estimator: the gradient at the centroid moves the weight that stands behind it;
- each weight then belongs to the centroid nearest to its free value, anew in every step, as in TFMOT.

Projecting the kernel onto its clusters after each step would be simpler and would not train: a move that is small
against the distance between centroids, as nearly all are, would be undone every time.
"""

from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.clustering import initial_centroids
from tfbig.compression.holding import Holding

# k-means settles most of the way in a few rounds, and training moves the centroids on.
_ROUNDS = 10


class SharedWeights(Holding):
    """Holds a kernel to its centroids after each gradient step, and trains the centroids by that step.

    Weights are laid out in rows, one per output channel (last axis); centroids in one row for the whole kernel, or
    in one per channel, sorted.

    Attributes:
        is_in_step: Whether a gradient step has called it, or was traced with it.
    """

    def __init__(
        self,
        kernel: Any,
        clusters: int,
        init: str,
        keep_zeros: bool,
        per_channel: bool,
        *,
        holder: str = "Cluster",
    ):
        """Finds the centroids of a kernel's weights. The kernel changes with `share`, and its own constraint stays on.

        Args:
            kernel: A `keras.Variable`.
            clusters: Distinct values allowed per row of centroids.
            init: A key of `tfbig.backend.clustering.INITIALIZERS`.
            keep_zeros: Whether what is exactly 0 stays so, as one of the clusters.
            per_channel: Whether each channel has its own centroids.
            holder: The callback that holds the kernel so, as messages name it.
        """
        super().__init__(kernel.constraint, holder)
        self.is_in_step = False
        self._shape = tuple(kernel.shape)
        self._clusters, self._keep_zeros = clusters, keep_zeros
        free = self._rows(kernel)
        first = [
            _first_centroids(row, clusters, init, keep_zeros) for row in (free if per_channel else [free])
        ]
        centroids = tf.constant(np.stack(first))
        # Equal steps take the fewest bits for an error (Gish and Pierce, 1968); k-means would fill clusters evenly.
        centroids = centroids if init == "linear" else self._settled(free, centroids)
        self._free, self._centroids = _state(free), _state(centroids)
        self._members = _state(nearest(free, centroids))

    def __call__(self, kernel: Any) -> Any:
        """Returns the kernel on its centroids, all moved by what the optimizer has just done to it."""
        self.is_in_step = True
        if self.inner is not None:
            kernel = self.inner(kernel)
        free, centroids, members = (tf.convert_to_tensor(state) for state in self._states)
        moves = self._rows(kernel) - tf.cast(tf.cast(gather(centroids, members), kernel.dtype), tf.float32)
        free = self._without_zeros(free, free + moves)
        centroids = self._without_zeros(centroids, centroids + mean_of_members(moves, members, centroids))
        centroids = tf.sort(centroids)
        members = nearest(free, centroids)
        for state, value in zip(self._states, (free, centroids, members), strict=True):
            state.assign(value)
        return self._kernel(gather(centroids, members), kernel.dtype)

    def share(self, kernel: Any) -> None:
        """Puts a kernel that is not on centroids, new or averaged over steps, on the nearest ones."""
        rows = self._rows(kernel)
        centroids = tf.convert_to_tensor(self._centroids)
        most = int(most_distinct(rows.numpy() if len(centroids) > 1 else rows.numpy().reshape(1, -1)))
        if most > self._clusters:
            rows = self._without_zeros(tf.convert_to_tensor(self._free), rows)
            kernel.assign(self._kernel(gather(centroids, nearest(rows, centroids)), kernel.dtype))

    @property
    def _states(self) -> tuple[Any, Any, Any]:
        return self._free, self._centroids, self._members

    def _rows(self, kernel: Any) -> Any:
        flat = tf.reshape(tf.cast(tf.convert_to_tensor(kernel), tf.float32), (-1, self._shape[-1]))
        return tf.transpose(flat)

    def _kernel(self, rows: Any, dtype: str) -> Any:
        return tf.cast(tf.reshape(tf.transpose(rows), self._shape), dtype)

    def _without_zeros(self, before: Any, after: Any) -> Any:
        # No mask is needed: what trains comes to stand at exactly 0.0 by a chance of one in billions.
        return tf.where(before == 0, 0.0, after) if self._keep_zeros else after

    def _settled(self, free: Any, centroids: Any) -> Any:
        """Runs k-means from the first centroids, as Han et al. do; TFMOT trains from the first ones."""
        for _ in range(_ROUNDS):
            members = nearest(free, centroids)
            shift = mean_of_members(free - gather(centroids, members), members, centroids)
            centroids = tf.sort(self._without_zeros(centroids, centroids + shift))
        return centroids


def nearest(rows: Any, centroids: Any) -> Any:
    """Returns the index of the nearest centroid for each weight; of two that are as near, the first.

    The same as TFMOT's `get_pulling_indices` for sorted centroids, by search instead of a table of all distances,
    which takes `clusters` times the memory of the kernel in every step.

    Args:
        rows: Weights, shape (channels, weights per channel).
        centroids: Shape (1, clusters) or (channels, clusters), sorted.

    Returns:
        Indices, shape of `rows`, int32.
    """
    borders = (centroids[:, 1:] + centroids[:, :-1]) / 2
    return tf.searchsorted(tf.broadcast_to(borders, (rows.shape[0], borders.shape[1])), rows)


def gather(centroids: Any, members: Any) -> Any:
    """Returns the centroid of each weight, from the indices that `nearest` gave."""
    every_row = tf.broadcast_to(centroids, (members.shape[0], centroids.shape[1]))
    return tf.gather(every_row, members, batch_dims=1)


def mean_of_members(values: Any, members: Any, centroids: Any) -> Any:
    """Returns the mean of the values of each centroid's members, shape of `centroids`; 0 where it has none."""
    channels, clusters = members.shape[0], centroids.shape[1]
    # Summed by channel first: TensorFlow works on segments in parallel, and a few long ones take several times as long.
    # (`bincount` is faster still, but its sums differ from run to run.)
    segments = members + clusters * tf.range(channels)[:, None]

    def per_centroid(values: Any) -> Any:
        sums = tf.math.unsorted_segment_sum(values, segments, channels * clusters)
        sums = tf.reshape(sums, (channels, clusters))
        return sums if centroids.shape[0] > 1 else tf.reduce_sum(sums, axis=0, keepdims=True)

    return per_centroid(values) / tf.maximum(per_centroid(tf.ones_like(values)), 1.0)


def most_distinct(rows: np.ndarray) -> int:
    """Returns the largest number of distinct values in any row."""
    ordered = np.sort(rows, axis=1)
    return int((np.diff(ordered, axis=1) != 0).sum(axis=1).max()) + 1


def _first_centroids(weights: Any, clusters: int, init: str, keep_zeros: bool) -> np.ndarray:
    values = np.unique(weights.numpy()) + np.float32(0)  # -0.0 becomes 0.0
    if len(values) > clusters:
        return np.sort(initial_centroids(weights, clusters, init, keep_zeros))
    # Clustered before, or very sparse: the values themselves lose nothing. One of them fills up what is left.
    return np.pad(values, (0, clusters - len(values)), mode="edge")


def _state(value: Any) -> Any:
    """A variable that the compiled step may write; every replica writes the same."""
    value = tf.convert_to_tensor(value)
    return keras.Variable(value, trainable=False, dtype=value.dtype.name, aggregation="only_first_replica")
