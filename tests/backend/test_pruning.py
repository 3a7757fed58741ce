import numpy as np
import pytest

from tfbig.backend.pruning import magnitude_mask


def normal(*shape, dtype="float32"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def blocks(mask, rows, columns):
    """The values that stand in each whole block, as sets."""
    height, width = mask.shape
    return [
        set(mask[i : i + rows, j : j + columns].ravel().tolist())
        for i in range(0, height, rows)
        for j in range(0, width, columns)
    ]


@pytest.mark.parametrize("shape", [(40,), (8, 5), (2, 2, 5, 2)])
@pytest.mark.parametrize(("sparsity", "zeros"), [(0.25, 10), (0.5, 20), (0.9, 36)])
def test_the_asked_share_of_weights_is_masked_in_a_kernel_of_any_shape(shape, sparsity, zeros):
    mask = magnitude_mask(normal(*shape), sparsity).numpy()
    assert mask.shape == shape
    assert (np.count_nonzero(mask == 0), np.count_nonzero(mask == 1)) == (zeros, 40 - zeros)


def test_the_smallest_magnitudes_are_masked_whatever_their_sign():
    mask = magnitude_mask(np.array([[-4.0, 1.0, 3.0], [-2.0, 0.5, -0.1]], np.float32), 0.5)
    assert mask.numpy().tolist() == [[1, 0, 1], [1, 0, 0]]


def test_no_sparsity_keeps_all_even_weights_that_are_zero():
    weights = normal(4, 4)
    weights[0] = 0
    assert magnitude_mask(weights, 0.0).numpy().min() == 1


def test_a_weight_is_kept_however_high_the_sparsity():
    assert magnitude_mask(normal(4, 4), 0.999).numpy().sum() == 1


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_mask_has_the_dtype_of_the_weights(dtype):
    assert magnitude_mask(normal(4, 4, dtype=dtype), 0.5).dtype == dtype


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((8, 16), (1, 4)),
        ((8, 16), (4, 4)),
        ((8, 3), (1, 4)),  # a block wider than the kernel
        ((8, 1), (4, 1)),  # the head of a binary task
        ((4, 16), (4, 4)),  # one row of blocks
    ],
)
def test_blocks_are_kept_or_dropped_whole(shape, block):
    found = blocks(magnitude_mask(normal(*shape), 0.5, block).numpy(), *block)
    assert sorted(map(sorted, found)) == [[0]] * (len(found) // 2) + [[1]] * (len(found) // 2)


def test_the_block_with_the_smallest_mean_magnitude_goes():
    weights = np.array([[9, 0, 0, 0, -3, 3, -3, 3]], np.float32).repeat(2, axis=0)
    weights[1] *= 10
    mask = magnitude_mask(weights, 0.25, (1, 4)).numpy()
    assert mask.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [1] * 8]


def test_a_block_that_the_border_cuts_is_judged_by_its_own_weights():
    weights = np.ones((6, 8), np.float32)
    weights[3] = 100  # in the upper blocks, rows 0 to 3: mean magnitude 25.75
    weights[4:] = 10  # the lower blocks, rows 4 and 5
    mask = magnitude_mask(weights, 0.5, (4, 4)).numpy()
    assert mask[:, 0].tolist() == [1, 1, 1, 1, 0, 0]
