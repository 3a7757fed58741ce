import keras
import numpy as np
import pytest

import tfbig
from tfbig.backend.pruning import tfmot
from tfbig.compression.masks import check_pattern
from tfbig.compression.targets import find_targets
from tfbig.errors import InvalidModel, InvalidOption

SHAPES = {"dense": (64, 32), "conv2d": (3, 3, 8, 16)}


def weights_of(kind, seed=0):
    return np.random.default_rng(seed).normal(size=SHAPES[kind]).astype("float32")


def tfmots_mask(kind, weights, **options):
    """The mask that TFMOT's own wrapper puts on a legacy layer with these weights, after one step at rate 0."""
    import tf_keras

    layers = tf_keras.layers
    if kind == "dense":
        shape, layer = (weights.shape[0],), layers.Dense(weights.shape[1], use_bias=False)
    else:
        shape, layer = (5, 5, weights.shape[2]), layers.Conv2D(weights.shape[3], 3, use_bias=False)
    model = tf_keras.Sequential([layers.Input(shape), layer])
    layer.set_weights([weights])
    pruned = tfmot().sparsity.keras.prune_low_magnitude(model, **options)
    pruned.compile(tf_keras.optimizers.SGD(0.0), "mse")
    x = np.zeros((1, *shape), "float32")
    update = tfmot().sparsity.keras.UpdatePruningStep()
    pruned.fit(x, pruned.predict(x, verbose=0), epochs=2, verbose=0, callbacks=[update])
    return pruned.layers[-1].pruning_vars[0][1].numpy()


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.93])
def test_single_weights_are_masked_as_tfmot_masks_them(kind, sparsity):
    weights = weights_of(kind)
    schedule = tfmot().sparsity.keras.ConstantSparsity(sparsity, 0, frequency=1)
    (mask,) = check_pattern((1, 1), "AVG", None, "layer").masks([weights], sparsity)
    assert np.array_equal(mask, tfmots_mask(kind, weights, pruning_schedule=schedule))


@pytest.mark.parametrize("block", [(1, 4), (4, 4), (8, 2)])
@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
def test_blocks_are_masked_as_tfmot_masks_them(block, pooling):
    weights = weights_of("dense")
    schedule = tfmot().sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)
    options = {"pruning_schedule": schedule, "block_size": block, "block_pooling_type": pooling}
    (mask,) = check_pattern(block, pooling, None, "layer").masks([weights], 0.5)
    assert np.array_equal(mask, tfmots_mask("dense", weights, **options))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("m_by_n", [(2, 4), (1, 4), (4, 8)])
def test_m_zeros_of_n_are_masked_as_tfmot_masks_them(kind, m_by_n):
    weights = weights_of(kind)
    (mask,) = check_pattern((1, 1), "AVG", m_by_n, "layer").masks([weights], 0.0)
    assert np.array_equal(mask, tfmots_mask(kind, weights, sparsity_m_by_n=m_by_n))


def test_m_zeros_of_n_lie_along_the_input_channels():
    weights = weights_of("conv2d")
    (mask,) = check_pattern((1, 1), "AVG", (2, 4), "layer").masks([weights], 0.0)
    groups = np.asarray(mask).reshape(3, 3, 2, 4, 16)
    assert np.all(groups.sum(axis=3) == 2)


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (keras.layers.Conv2DTranspose(6, 3), (5, 5, 8), 3),
        (keras.layers.EinsumDense("ab,cb->ac", 6), (8,), 1),
        (keras.layers.EinsumDense("ab,bc->ac", 6), (8,), 0),
    ],
    ids=["Conv2DTranspose", "outputs first", "inputs first"],
)
def test_m_zeros_of_n_lie_along_the_input_channels_of_kernels_laid_out_otherwise(layer, shape, axis):
    model = keras.Sequential([keras.Input(shape), layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(8, *shape))
    thin = tfbig.prune(model, x, np.zeros(8), m_by_n=(3, 4), layers=type(layer), epochs=1, verbose=0)
    kernel = np.moveaxis(thin.layers[0].kernel.numpy(), axis, -1)
    assert set(np.count_nonzero(kernel.reshape(-1, 4), axis=1)) == {1}


def test_m_zeros_of_n_need_one_axis_of_input_channels():
    layer = keras.layers.EinsumDense("abcd,cdef->abef", (None, 4, 4), name="a")
    model = keras.Sequential([keras.Input((3, 4, 4)), layer, keras.layers.Dense(4, name="b")])
    skipped = check_pattern((1, 1), "AVG", (2, 4), "layer").fitting(find_targets(model)[0])[1]
    assert skipped == {
        "a": "m_by_n runs along one axis of input channels; 'abcd,cdef->abef' has none or several"
    }


def test_a_global_threshold_takes_more_from_smaller_weights():
    small, large = 0.1 * weights_of("dense"), weights_of("conv2d")
    masks = check_pattern((1, 1), "AVG", None, "global").masks([small, large], 0.5)
    zeros = [float((np.asarray(mask) == 0).mean()) for mask in masks]
    count = sum(int((np.asarray(mask) == 0).sum()) for mask in masks)
    assert zeros[0] > 0.7 > 0.2 > zeros[1]
    assert count == round(0.5 * (small.size + large.size))


def test_kernels_that_cannot_hold_m_of_n_are_skipped_with_the_reason(blobs):
    stack = [keras.Input((4,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(3, name="b")]
    model = keras.Sequential(stack)
    callback = tfbig.Prune(m_by_n=(2, 4))
    tfbig.fit(model, *blobs, epochs=2, callbacks=[callback], verbose=0)
    assert callback.report.skipped == {"b": "its 6 input channels do not divide by 4"}
    assert [layer.sparsity for layer in callback.report.layers] == [0.5]


def test_the_copy_that_prune_returns_knows_what_was_asked_and_what_was_skipped(blobs):
    stack = [keras.Input((4,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(3, name="b")]
    model = keras.Sequential(stack)
    thin = tfbig.prune(model, *blobs, m_by_n=(2, 4), epochs=2, verbose=0)
    report = tfbig.sparsity(thin)
    assert report.skipped == {"b": "its 6 input channels do not divide by 4"}
    assert [(layer.name, layer.asked, layer.sparsity) for layer in report.layers] == [
        ("a", 0.5, 0.5),
        ("b", None, 0.0),
    ]
    assert tfbig.sparsity(model).skipped == {}


def test_prune_takes_m_by_n_scope_and_tfmots_names(blobs):
    model = tfbig.models.mlp((4,), 3, hidden=(16, 8))
    thin = tfbig.prune(model, *blobs, sparsity_m_by_n=(1, 4), epochs=2, verbose=0)
    assert tfbig.sparsity(thin).overall == 0.25
    thin = tfbig.prune(model, *blobs, sparsity=0.6, scope="global", epochs=4, seed=0, verbose=0)
    report = tfbig.sparsity(thin)
    assert report.overall == pytest.approx(0.6, abs=0.01)  # one weight in 216
    assert len({layer.sparsity for layer in report.layers}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m_by_n": (4, 4)}, r"m below n: m zeros of n weights; got \(4, 4\)"),
        ({"m_by_n": 2}, r"m_by_n must be \(zeros, of\), such as \(2, 4\); got 2"),
        ({"sparsity": 0.5, "scope": "globl"}, "Did you mean 'global'"),
        ({"sparsity": 0.5, "block_pooling": "mean"}, "block_pooling must be one of 'AVG', 'MAX'"),
        ({"sparsity": 0.5, "scope": "global", "block_size": (1, 4)}, "they exclude each other"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        tfbig.Prune(**options)


def test_a_model_in_which_no_kernel_can_hold_m_of_n_is_refused_before_training(blobs):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    with pytest.raises(
        InvalidModel, match="No kernel can hold m_by_n=.* 4 input channels do not divide by 8"
    ):
        tfbig.prune(model, *blobs, m_by_n=(2, 8))
