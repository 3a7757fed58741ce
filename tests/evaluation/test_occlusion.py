import numpy as np
import pytest

import tfbig

IMAGES = np.random.default_rng(0).random((3, 7, 9, 2)).astype(np.float32)


class Given:
    def __init__(self, function):
        self.predict = function


def test_covering_a_pixel_costs_what_it_gave():
    weights = np.random.default_rng(1).normal(size=(7, 9, 2))
    model = Given(lambda x: (x * weights).sum(axis=(1, 2, 3)))
    values = tfbig.explain(model, IMAGES, patch=1).values
    # float32 images; sums over 126 products.
    np.testing.assert_allclose(values, (IMAGES * weights).sum(axis=-1), atol=1e-4)


def test_a_place_has_the_mean_of_the_patches_that_cover_it():
    model = Given(lambda x: x[:, 0, 0, 0])
    values = tfbig.explain(model, IMAGES, patch=2, stride=1).values
    assert values[:, 0, 0] == pytest.approx(IMAGES[:, 0, 0, 0])  # one patch covers the corner
    assert values[:, 0, 1] == pytest.approx(
        IMAGES[:, 0, 0, 0] / 2
    )  # two patches, one of them over the corner
    assert values[:, 1, 1] == pytest.approx(IMAGES[:, 0, 0, 0] / 4)
    assert not values[:, 2:].any()


@pytest.mark.parametrize(("patch", "stride"), [(2, 2), (3, 2), (4, 4), (7, 3), (None, None)])
def test_every_place_is_covered(patch, stride):
    model = Given(lambda x: x.sum(axis=(1, 2, 3)))
    values = tfbig.explain(model, IMAGES, patch=patch, stride=stride).values
    assert values.shape == (3, 7, 9)
    assert (values > 0).all()


def test_what_speaks_against_the_output_is_negative():
    model = Given(lambda x: np.stack([x[:, 0, 0, 0] - x[:, 3, 3, 0], np.full(len(x), -9.0)], axis=1))
    values = tfbig.explain(model, IMAGES, patch=1).values
    assert (values[:, 0, 0] > 0).all()
    assert (values[:, 3, 3] < 0).all()


def test_steps_are_covered_with_all_their_features():
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    model = Given(lambda x: x[:, 2].sum(axis=1))
    values = tfbig.explain(model, x, baseline=0).values
    assert values.shape == (4, 5)
    np.testing.assert_allclose(values[:, 2], x[:, 2].sum(axis=1), rtol=1e-5)
    assert not np.delete(values, 2, axis=1).any()


def test_the_rows_given_are_left_as_they_were():
    before = IMAGES.copy()
    tfbig.explain(Given(lambda x: x.sum(axis=(1, 2, 3))), IMAGES, patch=3)
    np.testing.assert_array_equal(IMAGES, before)


def test_an_int8_file_sees_what_its_model_sees(digits, digits_model, digits_lite):
    x = digits.x_test[:8]
    target = np.asarray(digits_model(x)).argmax(axis=1)
    model, file = (
        tfbig.explain(one, x, method="occlusion", target=target).values for one in (digits_model, digits_lite)
    )
    # 8-bit outputs: steps of about 1% of their range.
    assert np.corrcoef(model.ravel(), file.ravel())[0, 1] > 0.97
