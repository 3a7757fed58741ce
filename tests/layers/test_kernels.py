import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.layers.kernels import QuantizedLayer, channel_axes, kernel_of

L = keras.layers
# Layer, shape of a row, and how many scales its kernel has.
LAYERS = {
    "dense": (lambda: L.Dense(5), (4,), 5),
    "conv1d": (lambda: L.Conv1D(5, 3), (6, 4), 5),
    "conv2d": (lambda: L.Conv2D(5, 3), (6, 6, 4), 5),
    "grouped": (lambda: L.Conv2D(6, 3, groups=2), (6, 6, 4), 6),
    "depthwise": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 4), 8),
    "depthwise 1d": (lambda: L.DepthwiseConv1D(3), (6, 4), 4),
    "transposed": (lambda: L.Conv2DTranspose(5, 3), (6, 6, 4), 5),
    "transposed 1d": (lambda: L.Conv1DTranspose(5, 3), (6, 4), 5),
    "einsum": (lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3)), (5, 4), 6),
    "embedding": (lambda: L.Embedding(9, 4), (5,), 1),
}


def made(name, **options):
    build, shape, _ = LAYERS[name]
    wrapper = QuantizedLayer(build(), **options)
    wrapper.build((None, *shape))
    kernel = kernel_of(wrapper.layer)
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    return wrapper, kernel


def by_channel(wrapper, kernel):
    """The kernel as rows, one per scale."""
    axes = channel_axes(wrapper.layer)
    others = [axis for axis in range(kernel.ndim) if axis not in axes]
    rows = int(np.prod([kernel.shape[axis] for axis in axes]))
    return kernel.transpose(*axes, *others).reshape(rows, -1)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [4, 8])
def test_every_channel_lies_on_symmetric_levels_of_its_own(name, bits):
    wrapper, kernel = made(name, bits=bits)
    assert wrapper.scales == LAYERS[name][2]
    rounded = by_channel(wrapper, wrapper.rounded_kernel().numpy())
    before = by_channel(wrapper, kernel.numpy())
    assert len(rounded) == wrapper.scales
    levels = 2 ** (bits - 1) - 1
    for got, want in zip(rounded, before, strict=True):
        step = np.abs(want).max() / levels
        codes = got / step
        assert np.abs(codes - np.round(codes)).max() <= 1e-3  # float32
        assert np.abs(codes).max() == pytest.approx(levels)
        assert np.abs(got - want).max() <= step / 2 + 1e-6


def test_a_factor_is_applied_before_rounding():
    wrapper, kernel = made("conv2d", scaled=True)
    wrapper.scale.assign([1, -2, 3, 1e-9, 5])
    want = kernel.numpy() * wrapper.scale.numpy()
    got = wrapper.rounded_kernel().numpy()
    limits = np.abs(want).max(axis=(0, 1, 2))
    # A channel 10,000 times below the others has the coarser steps of one that is just that far below.
    steps = np.maximum(limits, limits.max() * 1e-4) / 127
    assert (np.abs(got - want).max(axis=(0, 1, 2)) <= steps / 2 * 1.001).all()


def test_zeros_and_shared_values_hold_whatever_the_kernel_does():
    wrapper, kernel = made("conv2d", zeros=True, clusters=3)
    members = np.random.default_rng(1).integers(0, 3, kernel.shape)
    wrapper.members.assign(members)
    wrapper.mask.assign(members != 1)
    rounded = wrapper.rounded_kernel().numpy()
    assert wrapper.scales == 1
    assert (rounded[members == 1] == 0).all()
    step = float(np.abs(rounded).max()) / 127
    for i in (0, 2):
        assert len(np.unique(rounded[members == i])) == 1
        assert rounded[members == i][0] == pytest.approx(kernel.numpy()[members == i].mean(), abs=step)


def test_a_folded_factor_keeps_shared_values_and_a_negative_one_mirrors_them():
    wrapper, kernel = made("conv2d", scaled=True, clusters=3)
    members = np.random.default_rng(1).integers(0, 3, kernel.shape)
    wrapper.members.assign(members)
    for factors, most in (([1, 2, 0.3, 4, 5], 3), ([1, 2, -0.3, 4, 5], 6)):
        wrapper.scale.assign(factors)
        rounded = wrapper.rounded_kernel().numpy()
        shared = [kernel.numpy()[members == i].mean() for i in range(3)]
        steps = np.abs(shared).max() * np.abs(factors) / 127
        codes = np.round(rounded / steps)
        assert len(np.unique(codes)) <= most
        assert max(len(np.unique(codes[..., i])) for i in range(5)) <= 3
        assert np.allclose(codes * steps, rounded, atol=1e-6)


def test_members_share_the_mean_of_their_gradients():
    wrapper, kernel = made("dense", clusters=2)
    members = np.arange(20).reshape(4, 5) % 2
    wrapper.members.assign(members)
    weights = tf.constant(np.random.default_rng(1).normal(size=(4, 5)), tf.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(wrapper.rounded_kernel() * weights)
    gradient = tape.gradient(total, kernel.value).numpy()
    for i in (0, 1):
        assert np.allclose(gradient[members == i], weights.numpy()[members == i].mean(), atol=1e-6)


def test_a_kernel_of_zeros_stays_one():
    for name in LAYERS:
        wrapper, kernel = made(name)
        kernel.assign(np.zeros(kernel.shape))
        assert not wrapper.rounded_kernel().numpy().any()


def test_the_layer_computes_with_the_rounded_kernel_and_its_own_stays():
    wrapper, kernel = made("dense", bits=4)
    x = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    before = kernel.numpy()
    assert np.allclose(wrapper(x), x @ wrapper.rounded_kernel().numpy(), atol=1e-6)
    assert np.array_equal(kernel.numpy(), before)


def test_it_is_made_again_from_its_config():
    options = {
        "bits": 4,
        "scaled": True,
        "zeros": True,
        "clusters": 5,
        "one_codebook": False,
    }
    wrapper, _ = made("conv2d", **options)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(wrapper))
    again.set_weights(wrapper.get_weights())
    assert again.get_config() == wrapper.get_config()
    assert [w.name for w in again.trainable_weights] == [w.name for w in wrapper.trainable_weights]
    assert np.array_equal(again.rounded_kernel(), wrapper.rounded_kernel())


@pytest.mark.parametrize("name", ["conv2d", "depthwise", "dense", "transposed"])
@pytest.mark.parametrize("clusters", [None, 3])
def test_a_normalization_follows_batches_in_training_and_is_folded_else(name, clusters):
    shape = LAYERS[name][1]
    norm = L.BatchNormalization(momentum=0.5)
    wrapper, kernel = made(name, normalization=norm, clusters=clusters)
    generator = np.random.default_rng(2)
    for weight in norm.weights:
        weight.assign(generator.uniform(0.5, 2.0, weight.shape))
    norm.gamma.assign(norm.gamma * np.where(np.arange(norm.gamma.shape[0]) % 2, -1, 1))
    if clusters:
        wrapper.members.assign(generator.integers(0, clusters, kernel.shape))
    x = generator.normal(size=(8, *shape)).astype("float32")
    with keras.StatelessScope([(kernel, wrapper.rounded_kernel(folded=False))]):
        before = wrapper.layer(x)
    folded = norm(before).numpy()
    assert np.allclose(wrapper(x), folded, atol=1e-5 * np.abs(folded).max())
    mean = norm.moving_mean.numpy()
    followed = wrapper(x, training=True).numpy()
    assert np.allclose(followed, normalized_by_batch(before, norm), atol=1e-4 * np.abs(followed).max())
    batch_mean = before.numpy().mean(axis=tuple(range(before.ndim - 1)))
    assert np.allclose(norm.moving_mean, (mean + batch_mean) / 2, atol=1e-5)
    norm.trainable = False
    frozen = norm.moving_mean.numpy()
    assert np.allclose(wrapper(x, training=True), wrapper(x), atol=1e-6)
    assert np.array_equal(norm.moving_mean, frozen)


def normalized_by_batch(values, norm):
    """What the formula of batch normalization gives (Ioffe and Szegedy, 2015)."""
    values = values.numpy()
    axes = tuple(range(values.ndim - 1))
    deviation = np.sqrt(values.var(axes) + norm.epsilon)
    return (values - values.mean(axes)) / deviation * norm.gamma.numpy() + norm.beta.numpy()
