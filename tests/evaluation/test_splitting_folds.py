import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from tfbig.errors import InvalidOption
from tfbig.evaluation.fold_rounds import plan_rounds
from tfbig.evaluation.splitting_folds import fold_seed, missing_class, split_folds

X, LABELS = np.zeros((12, 2)), np.arange(12) % 3


def test_masks_and_rows_counted_from_the_end_are_row_numbers():
    mask = np.arange(12) < 8
    folds = split_folds(X, LABELS, [(mask, ~mask), ([0, 1], [-1, -2])], None, 0)
    assert [[part.tolist() for part in fold] for fold in folds] == [
        [list(range(8)), [8, 9, 10, 11]],
        [[0, 1], [11, 10]],
    ]


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([([True, False], [1])], "A mask in cv must have one entry per row of x, 12; got 2"),
        ([([0.5], [1])], "cv must hold row numbers; got float64 values such as .*0.5"),
        ([([0], [12])], "cv names row 12; x has 12 rows, from 0"),
        ([([0], [-13])], "x has 12 rows"),
    ],
)
def test_indices_that_name_no_row_are_refused(cv, message):
    with pytest.raises(InvalidOption, match=message):
        split_folds(X, LABELS, cv, None, 0)


def test_labels_with_groups_are_stratified_with_groups_kept_together():
    labels, groups = np.arange(24) % 2, np.arange(24) // 3
    folds = split_folds(np.zeros((24, 1)), labels, 4, groups, 0)
    expected = StratifiedGroupKFold(4, shuffle=True, random_state=0).split(np.zeros(24), labels, groups)
    assert [test.tolist() for _, test in folds] == [test.tolist() for _, test in expected]


def test_every_fold_and_seed_has_a_seed_of_its_own():
    seeds = {fold_seed(seed, fold) for seed in range(20) for fold in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    "y", [LABELS, LABELS[:, None], np.eye(3)[LABELS]], ids=["labels", "a column", "one-hot"]
)
def test_a_class_that_the_training_rows_lack_is_found(y):
    assert missing_class(y, np.flatnonzero(LABELS != 1)) == 1
    assert missing_class(y, np.arange(3)) is None


def test_every_fold_sees_its_own_batches_in_its_own_order_and_no_other_row():
    generator = np.random.default_rng(0)
    orders = [generator.permutation(100)[:n] for n in (5, 16, 17, 40)]
    orders[1:1] = [None]  # a fold that has stopped
    rounds = plan_rounds(orders, 8)
    for k, order in enumerate(orders):
        seen = [rounds.rows[i, k, :size] for i, size in enumerate(rounds.sizes) if rounds.active[i, k]]
        assert [len(batch) for batch in seen] == (
            [] if order is None else [8] * (len(order) // 8) + [len(order) % 8] * (len(order) % 8 > 0)
        )
        np.testing.assert_array_equal(np.concatenate(seen) if seen else [], [] if order is None else order)
    assert rounds.active.any(axis=1).all()
    # Only rows that some fold trains on, also where a fold rests: what is computed there must be computable.
    assert set(rounds.rows[rounds.active].ravel()) <= set(range(100))
    # Full batches are shared: 5 of them by the longest fold, and the tails 5, 1 and 0.
    assert rounds.sizes.tolist() == [8, 5, 8, 8, 1, 8, 8]


def test_folds_that_have_all_stopped_take_no_round():
    assert len(plan_rounds([None, None], 8).sizes) == 0
