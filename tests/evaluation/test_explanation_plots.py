import numpy as np
import pytest

from tfbig.evaluation import explanation_plots as pictures

IMAGES = np.arange(2 * 4 * 4, dtype=float).reshape(2, 4, 4, 1)


def drawn(ax):
    return ax.images[0].get_array()


def test_the_first_bar_is_at_the_top_and_as_long_as_its_value():
    (ax,) = pictures.bars({"age": 0.5, "height": -0.25}, "loss of accuracy", [0.1, 0.2]).axes
    assert [bar.get_width() for bar in ax.patches] == [0.5, -0.25]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["age", "height"]
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "loss of accuracy"
    low, high = ax.collections[0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((0.4, 0.6))


def test_images_stand_above_their_values():
    values = np.zeros((2, 4, 4))
    values[0, 1, 1], values[1, 2, 2] = 2.0, -1.0
    figure = pictures.heat_maps(IMAGES, values, np.array([7, 3]))
    above, below = figure.axes[:2], figure.axes[2:4]
    assert [ax.get_title() for ax in above] == ["output 7", "output 3"]
    assert (drawn(above[0]).min(), drawn(above[0]).max()) == (0, 1)
    np.testing.assert_array_equal(drawn(below[1]), values[1])


def test_zero_is_white_where_values_have_signs():
    values = np.array([[[3.0, -1.0]]])
    for ax in (
        pictures.heat_maps(IMAGES[:1], values).axes[1],
        pictures.sequence(values[0], "step", "row").axes[0],
    ):
        assert ax.images[0].get_clim() == (-3, 3)
        assert ax.images[0].cmap(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.05)


def test_sizes_begin_at_white():
    (ax, _) = pictures.sequence(np.array([[3.0, 0.0]]), "step", "row").axes
    assert ax.images[0].get_clim() == (0, 3)
    assert ax.images[0].cmap(0.0)[:3] == pytest.approx((1, 1, 1), abs=0.07)


def test_nothing_but_zeros_is_drawn():
    assert pictures.heat_maps(IMAGES[:1] * 0, np.zeros((1, 4, 4))).axes[1].images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 4)), (2, (4, 4)), (3, (4, 4, 3))])
def test_three_channels_are_colours(channels, shape):
    image = np.random.default_rng(0).random((1, 4, 4, channels))
    assert drawn(pictures.heat_maps(image, np.ones((1, 4, 4))).axes[0]).shape == shape


def test_a_matrix_per_layer_has_queries_in_rows():
    maps = {"first": np.array([[1.0, 0.0], [0.5, 0.5]]), "second": np.eye(2)}
    axes = pictures.matrices(maps).axes[:2]
    assert [ax.get_title() for ax in axes] == ["first", "second"]
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [("key", "query")] * 2
    np.testing.assert_array_equal(drawn(axes[0]), maps["first"])


def test_features_of_a_sequence_are_named():
    ax = pictures.sequence(np.ones((2, 5)), "step", "feature", ["x", "y"]).axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["x", "y"]
