import numpy as np
import pandas as pd
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


def test_a_table_is_split_as_it_is_so_that_cleaning_can_learn_from_one_side():
    frame = pd.DataFrame({"color": ["red", None] * 50, "size": np.arange(100.0)}, index=range(100, 200))
    y = np.array([None, *["a", "b", "b"] * 33], object)
    parts = split(frame, y)
    assert (parts.x_train["size"].iloc[0], len(parts.x_test)) == (parts.x_train.index[0] - 100, 20)
    assert [y[int(size)] for size in parts.x_test["size"]] == parts.y_test.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_text_labels_stand_in_the_same_proportions_too(seed):
    y = ["rare" if label else "common" for label in RARE]
    assert (split(X, y, test_size=0.3, seed=seed).y_test == "rare").sum() == 3


def test_lists_of_text_and_numbers_keep_both():
    assert {type(value) for value in split([["red", 1.5]] * 4, [0, 1, 0, 1], test_size=0.5).x_test[0]} == {
        str,
        float,
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "groups", [np.arange(100) // 5, [f"p{i // 5}" if i % 2 else i // 5 for i in range(100)]]
)
def test_no_group_stands_on_both_sides(groups, seed):
    parts = split(X, RARE, groups=groups, test_size=0.25, seed=seed)
    train, test = ({str(groups[row]) for row in side[:, 0]} for side in (parts.x_train, parts.x_test))
    assert not train & test
    assert len(test) == round(len(train | test) * 0.25)
    assert len(parts.y_train) + len(parts.y_test) == 100


def test_the_latest_rows_are_held_out_in_order():
    time = np.random.default_rng(0).permutation(100)
    parts = split(X, RARE, time=time, test_size=0.25)
    assert time[parts.x_train[:, 0]].tolist() == list(range(75))
    assert time[parts.x_test[:, 0]].tolist() == list(range(75, 100))


def test_rows_that_stand_in_order_need_no_times():
    assert split(X, RARE, time=True).x_test[:, 0].tolist() == list(range(80, 100))


def test_rows_of_one_day_stay_on_one_side():
    days = pd.Series(pd.date_range("2024-01-01", periods=10)).repeat(10)
    for test_size, rows in ((0.13, 10), (0.17, 20), (0.99, 90), (0.01, 10)):
        assert len(split(X, RARE, time=days, test_size=test_size).y_test) == rows


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"groups": [1, 2]},
            InvalidData,
            r"groups must hold one value for each of the 100 rows; got shape \(2,\)",
        ),
        ({"groups": [1] * 100}, InvalidData, "These groups cannot be split"),
        ({"groups": [None] * 100}, InvalidData, "groups must say of each row what it belongs to"),
        ({"time": [1] * 100}, InvalidData, "Rows of one time cannot be split by time"),
        ({"time": [np.nan] * 100}, InvalidData, "time must say of each row when it was"),
        ({"time": ["2024-01-01"] * 100}, InvalidData, "time must hold numbers or dates .pandas.to_datetime"),
        ({"time": True, "groups": [1] * 100}, InvalidOption, "by groups or by time; got both"),
        ({"time": True, "stratify": True}, InvalidOption, "cannot be stratified"),
    ],
)
def test_groups_and_times_that_cannot_be_split_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        split(X, RARE, **options)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([], [], "x must hold at least one row"),
        ({}, [0, 1], "at least one input; got an empty dict"),
        ({"a": X, "b": X[:3]}, RARE, r"x\['b'\] and the other inputs must have one row per example each"),
        ([[1], [2, 3]], [0, 1], "x must be a rectangular array"),
        (X, None, "y is missing"),
    ],
)
def test_what_has_no_rows_to_split_is_refused(x, y, message):
    with pytest.raises(InvalidData, match=message):
        split(x, y)
