"""Functions of `keras.ops` between layers: those that leave channels where they are can be shrunk through."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.compression.channel_groups import alive_after, make_plan
from tfbig.compression.importance import Data, score
from tfbig.compression.rebuilding import masked, rebuild

L, ops = keras.layers, keras.ops


def each(form, names):
    """Name to the form of it, as `form` makes it of the function."""
    return {name: form(getattr(ops, name)) for name in names.split()}


FOLLOWED = {
    **each(
        lambda f: f,
        "abs sign negative square exp expm1 exp2 sin cos tan arctan arcsinh sinh cosh tanh erf floor ceil round trunc "
        "nan_to_num stop_gradient relu relu6 leaky_relu elu selu celu gelu silu sigmoid softplus hard_sigmoid "
        "hard_silu hard_tanh log_sigmoid softsign squareplus tanh_shrink soft_shrink hard_shrink sparse_plus "
        "sparse_sigmoid",
    ),
    **each(lambda f: lambda x: f(ops.abs(x) + 1), "log log1p log2 log10 sqrt rsqrt reciprocal"),
    **each(
        lambda f: lambda x: f(x, 2.0),
        "add subtract multiply divide divide_no_nan true_divide floor_divide mod power",
    ),
    **each(
        lambda f: lambda x: f(x, ops.mean(x, (1, 2), keepdims=True)),
        "maximum minimum arctan2 hypot logaddexp",
    ),
    **each(
        lambda f: lambda x: ops.where(f(x, 0.1), x, 0.5),
        "greater greater_equal less less_equal equal not_equal",
    ),
    **each(lambda f: lambda x: f(x, (1, 2)), "mean max min amax amin sum prod var std logsumexp median"),
    **each(
        lambda f: lambda x: f(x, axis=1),
        "softmax log_softmax normalize norm cumsum cumprod diff flip sort average expand_dims",
    ),
    "quantile": lambda x: ops.quantile(x, 0.3, axis=(1, 2)),
    "moments": lambda x: ops.concatenate(ops.moments(x, (1, 2)), -1),
    "clip": lambda x: ops.clip(x, -0.5, 0.7),
    "cast": lambda x: ops.cast(ops.cast(x, "float16"), "float32"),
    "logic": lambda x: ops.where(
        ops.logical_or(ops.logical_and(x > 0, x < 1), ops.logical_not(ops.isfinite(x))), x, -x
    ),
    "roll": lambda x: ops.roll(x, 1, axis=1),
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "tile": lambda x: ops.tile(x, (1, 2, 1, 1)),
    "squeeze": lambda x: ops.squeeze(ops.max(x, 1, keepdims=True), 1),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0)), constant_values=2.0),
    "split": lambda x: ops.multiply(*ops.split(x, 2, axis=1)),
    "unstack": lambda x: ops.unstack(x, axis=1)[2],
    "stack": lambda x: ops.stack([x, ops.exp(x)], axis=1),
    "concatenate": lambda x: ops.concatenate([x, ops.exp(x)], axis=-1),
    "average_pool": lambda x: ops.average_pool(x, 2),
    "max_pool": lambda x: ops.max_pool(x, 2),
    "resize": lambda x: ops.image.resize(x, (3, 3)),
}


def around(function):
    """The function between a convolution of 8 filters and a dense layer, with random weights."""
    x = keras.Input((6, 6, 3))
    h = function(L.Conv2D(8, 3, padding="same", name="first")(x))
    free = L.Dense(6, name="free")(L.GlobalAveragePooling2D()(x))
    model = keras.Model(x, L.Dense(2)(L.Concatenate()([L.Flatten()(h), free])))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    return model


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_followed_through_functions(name):
    model = around(FOLLOWED[name])
    plan = make_plan(model, 0.4)
    assert any("first" in group.makers for group in plan.groups)
    kept = [group.kept() for group in plan.groups]
    alive = alive_after(plan, score(model, plan, "random", Data(seed=0)), kept)
    smaller, zeroed = rebuild(model, plan.trace, alive), masked(model, plan.trace, alive)
    assert smaller.get_layer("first").filters == 3
    x = np.random.default_rng(1).normal(size=(4, 6, 6, 3)).astype("float32")
    ours, theirs = np.asarray(smaller(x)), np.asarray(zeroed(x))
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1, np.abs(theirs).max())


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: ops.mean(x, -1, keepdims=True), "works along the channels"),
        (lambda x: ops.softmax(x), "works along the channels"),
        (lambda x: ops.expand_dims(x, -1), "works along the channels"),
        (lambda x: ops.flip(x), "works along the channels"),
        (lambda x: ops.transpose(x, (0, 3, 1, 2)), "moves the channels to another axis"),
        (lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1))), "adds channels"),
        (lambda x: ops.tile(x, (1, 1, 1, 2)), "repeats the channels"),
        (lambda x: x[..., :3], "picks among the channels"),
        (lambda x: x[:, :, :, 2:], "picks among the channels"),
        (lambda x: x * np.arange(8, dtype="float32"), "is given an array"),
        (lambda x: ops.max_pool(x, 2, data_format="channels_first"), "has its channels first"),
        (lambda x: ops.reshape(x, (-1, 36, 8)), "cannot be followed"),
    ],
)
def test_functions_that_look_at_channels_keep_them_whole_with_the_reason(function, reason):
    plan = tfbig.shrink_plan(around(function))
    assert [group.makers for group in plan.groups] == [("free",)]
    assert plan.skipped["first"].endswith(reason)
