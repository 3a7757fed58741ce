import numpy as np
import pytest

from tfbig.data.splitting import is_labels, split
from tfbig.errors import InvalidData, InvalidOption, UnknownOption

X = np.arange(100)[:, None]
RARE = np.array([0] * 90 + [1] * 10)


def test_every_row_lands_on_one_side_with_its_own_target():
    x_train, x_test, y_train, y_test = split(X, X[:, 0] * 2.0)
    assert sorted([*x_train[:, 0], *x_test[:, 0]]) == list(range(100))
    assert (y_train.tolist(), y_test.tolist()) == ((x_train[:, 0] * 2).tolist(), (x_test[:, 0] * 2).tolist())


@pytest.mark.parametrize(("test_size", "rows"), [(0.2, 20), (0.25, 25), (0.5, 50)])
def test_the_asked_share_is_held_out(test_size, rows):
    assert len(split(X, RARE, test_size=test_size).y_test) == rows


@pytest.mark.parametrize("seed", range(3))
def test_labels_stand_in_the_same_proportions_on_both_sides(seed):
    parts = split(X, RARE, test_size=0.3, seed=seed)
    assert (parts.y_train.sum(), parts.y_test.sum()) == (7, 3)


@pytest.mark.parametrize("seed", range(3))
def test_stratify_true_holds_for_labels_written_as_floats(seed):
    assert split(X, RARE.astype(float), test_size=0.3, stratify=True, seed=seed).y_test.sum() == 3


def test_real_values_are_split_without_regard_to_classes():
    y = np.linspace(0, 1, 100)
    assert len(split(X, y).y_test) == 20


def test_stratify_false_takes_even_a_class_of_one_row():
    y = np.array([0] * 99 + [1])
    assert len(split(X, y, stratify=False).y_test) == 20


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    first, again, other = (split(X, RARE, seed=seed).x_test[:, 0].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_parts_have_names():
    parts = split(X, RARE)
    assert parts.x_train is parts[0]
    assert parts.y_test is parts[3]


@pytest.mark.parametrize("test_size", [1, -0.1, "a fifth", None])
def test_a_share_outside_the_unit_interval_is_refused(test_size):
    with pytest.raises(InvalidOption, match=r"test_size must be a number in \[0, 1\); got "):
        split(X, RARE, test_size=test_size)


def test_holding_nothing_out_is_refused():
    with pytest.raises(InvalidOption, match=r"test_size must be above 0; got 0\."):
        split(X, RARE, test_size=0.0)


@pytest.mark.parametrize("stratify", ["yes", "Auto", None])
def test_another_value_of_stratify_is_refused(stratify):
    with pytest.raises(InvalidOption, match=r"stratify must be .*; got "):
        split(X, RARE, stratify=stratify)


def test_a_class_too_small_for_both_sides_is_refused():
    with pytest.raises(InvalidData, match=r"These 100 rows cannot be split: The least populated class"):
        split(X, np.array([0] * 99 + [1]))


def test_rows_and_targets_of_different_lengths_are_refused():
    with pytest.raises(InvalidData, match="100 rows of x and 3 of y"):
        split(X, [0, 1, 0])


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(UnknownOption, match="no option 'testsize'. Did you mean 'test_size'"):
        split(X, RARE, testsize=0.5)


@pytest.mark.parametrize(
    ("y", "labels"),
    [([0, 1], True), ([True, False], True), ([0.0, 1.0], False), ([[0, 1], [1, 0]], False)],
)
def test_one_whole_number_a_row_is_a_label(y, labels):
    assert is_labels(np.array(y)) is labels
