import os

import numpy as np
import pytest

from tfbig.backend.clustering import INITIALIZERS, initial_centroids
from tfbig.backend.pruning import tfmot


@pytest.fixture(scope="module")
def tfmot_wrapper():
    """TFMOT's own road, end to end: its wrapper around a legacy layer that holds the given kernel."""
    clustering = tfmot().clustering.keras
    import tf_keras

    def wrap(kernel, clusters, init, **options):
        if kernel.ndim == 2:
            layer, shape = tf_keras.layers.Dense(kernel.shape[-1]), (None, kernel.shape[0])
        else:
            layer = tf_keras.layers.Conv2D(kernel.shape[-1], kernel.shape[:2])
            shape = (None, 8, 8, kernel.shape[2])
        layer.build(shape)
        layer.kernel.assign(kernel)
        init = clustering.CentroidInitialization[INITIALIZERS[init]]
        wrapper = clustering.cluster_weights(
            layer, number_of_clusters=clusters, cluster_centroids_init=init, **options
        )
        wrapper.build(shape)
        return wrapper

    return wrap


def kernel(*shape, zeros=0.0):
    generator = np.random.default_rng(0)
    values = generator.normal(scale=0.1, size=shape).astype("float32")
    values[generator.random(shape) < zeros] = 0
    return values


@pytest.mark.parametrize("shape", [(40, 12), (3, 3, 8, 6)])
@pytest.mark.parametrize("init", ["kmeans++", "density", "linear"])
@pytest.mark.parametrize("keep_zeros", [False, True])
def test_centroids_are_those_that_tfmots_wrapper_starts_from(tfmot_wrapper, shape, init, keep_zeros):
    weights = kernel(*shape, zeros=0.6)
    theirs = (
        tfmot_wrapper(weights, 16, init, preserve_sparsity=keep_zeros).cluster_centroids["kernel"].numpy()
    )
    ours = initial_centroids(weights, 16, init, keep_zeros)
    assert np.array_equal(ours, theirs)
    if keep_zeros:
        assert (ours == 0).sum() == 1


@pytest.mark.parametrize("init", ["kmeans++", "density", "linear"])
def test_centroids_of_one_channel_are_those_of_tfmots_per_channel_road(tfmot_wrapper, init):
    weights = kernel(3, 3, 8, 6)
    theirs = tfmot_wrapper(weights, 8, init, cluster_per_channel=True).cluster_centroids["kernel"].numpy()
    ours = [initial_centroids(weights[..., channel], 8, init, False) for channel in range(6)]
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("keep_zeros", [False, True])
def test_random_centroids_lie_between_the_weights(keep_zeros):
    weights = kernel(40, 12)
    found = initial_centroids(weights, 16, "random", keep_zeros)
    assert found.shape == (16,)
    assert weights.min() <= found.min() < found.max() <= weights.max()


@pytest.mark.parametrize("init", ["kmeans++", "density", "linear", "random"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_weights_of_one_sign_leave_no_centroid_on_the_other(init, sign):
    weights = sign * np.abs(kernel(40, 12, zeros=0.5))
    found = initial_centroids(weights, 16, init, True)
    assert found.shape == (16,)
    assert (found * sign >= 0).all()


@pytest.mark.parametrize("init", ["kmeans++", "density", "linear"])
def test_more_centroids_than_values_on_one_side_are_no_number_out_of_range(init):
    weights = np.concatenate([np.full(100, -1.0), np.linspace(0.5, 1, 100), np.zeros(50)]).astype("float32")
    found = initial_centroids(weights, 16, init, True)
    assert np.isfinite(found).all()
    assert found.shape == (16,)


def test_the_environment_is_left_as_found(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    initial_centroids(kernel(8, 8), 4, "linear", False)
    assert "TF_USE_LEGACY_KERAS" not in os.environ
