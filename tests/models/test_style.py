import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.errors import InvalidOption
from tfbig.models.style import make_style, with_preset

PLAIN = {"activation": "relu", "dropout": 0.0, "l1": 0.0, "l2": 0.0, "norm": None, "initializer": "he_normal"}


def style(**options):
    return make_style(**{**PLAIN, **options})


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("batch", "BatchNormalization"), ("layer", "LayerNormalization"), ("group", "GroupNormalization")],
)
def test_a_norm_is_a_layer_with_an_offset_that_replaces_the_bias(norm, kind):
    (layer,) = style(norm=norm).normalization(16)
    assert type(layer).__name__ == kind
    assert not style(norm=norm).use_bias


def test_without_a_norm_there_is_a_bias():
    assert style().normalization(16) == []
    assert style().use_bias


def test_batch_norm_is_short_for_a_norm():
    assert style(batch_norm=True) == style(norm="batch") == style(norm="batch", batch_norm=True)


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (32, 8), (16, 4), (12, 2), (8, 2), (7, 1), (4, 1)])
def test_groups_divide_the_channels(channels, groups):
    (layer,) = style(norm="group").normalization(channels)
    assert layer.groups == groups
    assert layer(np.ones((2, 3, channels))).shape == (2, 3, channels)


@pytest.mark.parametrize("channels", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_norm_over_units_lets_them_through(norm, channels):
    # Keras's group normalization with a group per unit gives zeros for every row.
    (layer,) = style(norm=norm).normalization(channels)
    x = np.random.default_rng(0).normal(size=(64, channels)).astype("float32")
    assert np.std(layer(x), axis=0).min() > 0.3


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_norm_over_a_single_unit_is_refused(norm):
    with pytest.raises(InvalidOption, match="of a single one it would leave 0 whatever goes in"):
        style(norm=norm).normalization(1)


def test_one_initializer_object_gives_each_kernel_weights_of_its_own():
    shared = style(initializer=keras.initializers.HeNormal())
    first, second = (keras.layers.Dense(4, **shared.kernel()) for _ in range(2))
    first.build((None, 3))
    second.build((None, 3))
    assert not np.array_equal(first.kernel.numpy(), second.kernel.numpy())


def test_checking_draws_no_seed():
    keras.utils.set_random_seed(1)
    expected = np.asarray(keras.initializers.HeNormal()((3, 4)))
    keras.utils.set_random_seed(1)
    style()
    np.testing.assert_array_equal(keras.initializers.HeNormal()((3, 4)), expected)


def test_a_size_given_goes_before_the_presets():
    presets = {"small": {"units": (4,), "depth": 2}}
    assert with_preset(presets, "small", units=None, depth=3) == {"units": (4,), "depth": 3}
    assert with_preset(presets, "small", units=(), depth=None) == {"units": (), "depth": 2}


@pytest.mark.parametrize("preset", ["smal", None, 3, ["small"]])
def test_an_unknown_preset_gets_the_list(preset):
    with pytest.raises(InvalidOption, match="preset must be one of 'small', 'base'; got"):
        with_preset({"small": {}, "base": {}}, preset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "instance"}, "norm must be one of 'batch', 'layer', 'group', None; got 'instance'"),
        ({"norm": "layer", "batch_norm": True}, "short for norm=\"batch\"; got norm='layer' beside it"),
        ({"activation": "rellu"}, r"activation must be a name .* got 'rellu'\. Did you mean 'relu"),
        ({"activation": None}, "activation must be a name that Keras knows; got None"),
        ({"initializer": "he_norml"}, r"initializer must be .* got 'he_norml'\. Did you mean 'he_normal'"),
        ({"dropout": 1.0}, "dropout must be a number in"),
        ({"l2": -1.0}, "penalties of at least 0"),
    ],
)
def test_a_style_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        style(**options)
