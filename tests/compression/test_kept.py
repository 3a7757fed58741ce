import numpy as np
import pytest
import tensorflow as tf

from tfbig.compression.kept import kept_of

FREE = np.random.default_rng(0).normal(size=(20, 10)).astype("float32")
SPARSE = np.where(np.random.default_rng(1).random((20, 10)) < 0.6, 0, FREE)
SHARED = np.float32([-1, 0, 0.5, 2])[np.random.default_rng(2).integers(0, 4, (20, 10))]
PER_CHANNEL = SHARED * np.linspace(1, 2, 10, dtype="float32")


def test_a_free_kernel_has_nothing_to_keep():
    for kernel in (FREE, np.zeros((4, 4)), np.ones((4, 4)), np.where(FREE > -2.2, FREE, 0)):
        kept = kept_of(kernel, "auto")
        assert kept.mask is kept.members is kept.clusters is None


def test_zeros_are_found_and_are_not_taken_for_shared_values():
    kept = kept_of(SPARSE, "auto")
    assert np.array_equal(kept.mask, SPARSE != 0)
    assert kept.clusters is None


def test_shared_values_are_found_over_the_kernel_or_per_channel():
    kept = kept_of(SHARED, "auto")
    assert (kept.clusters, kept.one_codebook) == (4, True)
    for i in range(4):
        assert len(np.unique(SHARED[kept.members == i])) == 1
    kept = kept_of(PER_CHANNEL, "auto")
    # Four values a channel, unless one has missed a value by chance.
    assert (kept.clusters, kept.one_codebook) == (sum(len(np.unique(c)) for c in PER_CHANNEL.T), False)
    for i in range(kept.clusters):
        rows, columns = np.nonzero(kept.members == i)
        assert len(np.unique(PER_CHANNEL[rows, columns])) == 1
        assert len(set(columns)) == 1


@pytest.mark.parametrize(
    ("preserve", "zeros", "clusters"),
    [("auto", True, True), ("zeros", True, False), ("clusters", False, True), (None, False, False)],
)
def test_only_what_is_asked_for_is_kept(preserve, zeros, clusters):
    kept = kept_of(SHARED, preserve)
    assert (kept.mask is not None) is zeros
    assert (kept.clusters is not None) is clusters


@pytest.mark.parametrize("seed", range(5))
def test_small_kernels_keep_their_shared_values_too(seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=10)
    few = values[generator.permutation(np.arange(16) % 10)].reshape(4, 4)
    assert kept_of(few, "auto").clusters == 10
    thin = np.where(
        generator.permutation(64).reshape(8, 8) < 40, 0, generator.normal(size=8)
    )  # one value a channel
    assert not kept_of(thin, "auto").one_codebook
    scattered = values[:8][
        generator.integers(0, 8, (3, 100))
    ]  # three weights a channel hold no values of their own
    assert kept_of(scattered, "auto").one_codebook
    for free in (
        generator.normal(size=(3, 3)),
        generator.normal(size=(2, 64)),
        generator.normal(size=(64, 2)),
    ):
        assert kept_of(free.astype("float32"), "auto").clusters is None


@pytest.mark.parametrize("count", [16, 64, 256, 300, 1000])
def test_what_half_precision_makes_equal_is_not_taken_for_shared(count):
    free = np.random.default_rng(0).uniform(-0.1, 0.1, (count // 4, 4))
    assert kept_of(tf.cast(tf.cast(free, "bfloat16"), "float32").numpy(), "auto").clusters is None
