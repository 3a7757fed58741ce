import numpy as np
import pytest
from scipy import stats

from tfbig.errors import InvalidOption
from tfbig.evaluation.bootstrap import check_confidence, check_seed, intervals, percentile_interval, resamples
from tfbig.evaluation.measures import Answers

VALUES = np.random.default_rng(0).normal(size=80)


def drawn(task, targets, count=50, steps=1):
    return list(resamples(Answers(task, targets, targets, targets, steps), count, seed=0))


def test_rows_are_drawn_with_replacement():
    found = drawn("regression", VALUES)
    assert all(len(rows) == 80 and rows.min() >= 0 and rows.max() < 80 for rows in found)
    # A resample holds about 1 - 1/e of the rows.
    assert np.mean([len(np.unique(rows)) for rows in found]) == pytest.approx(80 * (1 - np.exp(-1)), rel=0.03)


def test_a_rare_class_keeps_its_rows_in_every_resample():
    labels = np.repeat([0, 1], [77, 3])
    assert {int(labels[rows].sum()) for rows in drawn("binary", labels)} == {3}


def test_classes_of_many_rows_vary_as_they_would():
    labels = np.repeat([0, 1], 40)
    assert len({int(labels[rows].sum()) for rows in drawn("binary", labels)}) > 5


def test_sequences_are_rows():
    (rows,) = drawn("sequence", np.zeros(80, int), count=1, steps=4)
    assert len(rows) == 20
    assert rows.max() < 20


def test_the_interval_is_scipys_percentile_interval():
    draw = resamples(Answers("regression", VALUES, VALUES, VALUES), 3000, seed=0)
    found = intervals(draw, lambda rows: {"mean": VALUES[rows].mean()}, 0.9)["mean"]
    expected = stats.bootstrap(
        (VALUES,), np.mean, n_resamples=3000, confidence_level=0.9, method="percentile", random_state=1
    ).confidence_interval
    # Two draws of 3,000: their ends differ by a few per cent of the interval.
    assert found == pytest.approx(tuple(expected), abs=0.05 * (expected.high - expected.low))


def test_a_metric_that_a_resample_leaves_undefined_has_an_interval_of_the_others():
    found = intervals(iter(VALUES[:4]), lambda value: {"positive": value} if value > 0 else {}, 0.5)
    assert found == {"positive": percentile_interval(VALUES[:4][VALUES[:4] > 0], 0.5)}


def test_no_resamples_make_no_intervals():
    assert intervals(iter(()), lambda rows: {"mean": 0.0}, 0.9) == {}


@pytest.mark.parametrize("confidence", [0, 1, 95, True, "0.95", None, float("nan")])
def test_a_confidence_outside_0_and_1_is_refused(confidence):
    with pytest.raises(InvalidOption, match="confidence must be a number between 0 and 1"):
        check_confidence(confidence)


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(InvalidOption, match="seed must be"):
        check_seed(seed)


def test_no_seed_is_one():
    assert check_seed(None) is None
    assert check_seed(np.int64(3)) == 3
