"""TFMOT's clustering engine on plain weights: the values that shared weights start from."""

from typing import Any

import numpy as np

from tfbig.backend import tf
from tfbig.backend.pruning import tfmot

# Our names of TFMOT's `CentroidInitialization`, which is not imported before it is needed.
INITIALIZERS = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "density": "DENSITY_BASED",
    "linear": "LINEAR",
    "random": "RANDOM",
}


def initial_centroids(weights: Any, clusters: int, init: str, keep_zeros: bool) -> np.ndarray:
    """Returns TFMOT's first centroids for `weights`.

    TFMOT has no public call for them; they are reached through its factory of initializers. Its k-means++ has a
    fixed seed; its random one draws from TensorFlow's global generator.

    Args:
        weights: Values of any shape, more than `clusters` different ones.
        clusters: How many centroids to place.
        init: A key of `INITIALIZERS`.
        keep_zeros: Makes one of the centroids 0 and spreads the others over the negative and the positive weights,
            each side by its share of the weights that are not 0.

    Returns:
        The centroids, shape (clusters,), float32.
    """
    tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import (
        cluster_config,
        clustering_centroids,
    )

    factory = clustering_centroids.CentroidsInitializerFactory
    method = factory.get_centroid_initializer(cluster_config.CentroidInitialization[INITIALIZERS[init]])
    # One axis: TFMOT's own per-channel path takes images only, and fails where channels differ in their zeros.
    values = tf.reshape(tf.cast(tf.convert_to_tensor(weights), tf.float32), [-1])
    return method(values, clusters, preserve_sparsity=keep_zeros).get_cluster_centroids().numpy()
