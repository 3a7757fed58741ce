import math

import numpy as np
import pytest
from scipy import stats

from tfbig.errors import InvalidData, InvalidOption
from tfbig.evaluation.fold_results import CrossValidation
from tfbig.evaluation.intervals import corrected_interval

VALUES = [0.90, 0.92, 0.94, 0.92, 0.88]


def test_the_interval_is_nadeau_and_bengios():
    low, high = corrected_interval(VALUES, test_per_train=0.25, confidence=0.9)
    reach = stats.t.ppf(0.95, 4) * np.std(VALUES, ddof=1) * math.sqrt(1 / 5 + 0.25)
    assert (low, high) == pytest.approx((np.mean(VALUES) - reach, np.mean(VALUES) + reach))


def test_without_overlap_it_is_students():
    expected = stats.t.interval(0.95, 4, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert corrected_interval(VALUES, test_per_train=0) == pytest.approx(expected)


def test_one_fold_has_no_interval():
    assert all(math.isnan(end) for end in corrected_interval([0.5], 0.25))


@pytest.mark.parametrize("confidence", [0, 1, 95, "0.95", None])
def test_a_confidence_that_makes_no_sense_is_refused(confidence):
    with pytest.raises(InvalidOption, match="confidence must be a number between 0 and 1"):
        corrected_interval(VALUES, 0.25, confidence)


def record(finished=None, **changes):
    return CrossValidation(
        task="multiclass",
        scores={"accuracy": (0.5, 0.75, 1.0), "log_loss": (1.0, 0.5, 0.0)},
        finished_scores=finished,
        predictions=np.zeros((2, 2)),
        seconds=(1.0, 1.0, 1.0),
        train_rows=(20, 20, 40),
        test_rows=(10, 10, 10),
        **changes,
    )


def test_the_records_interval_weighs_held_out_against_training_rows():
    expected = corrected_interval((0.5, 0.75, 1.0), (0.5 + 0.5 + 0.25) / 3, 0.8)
    assert record().interval(0.8)["accuracy"] == expected
    assert list(record().interval()) == ["accuracy", "log_loss"]


def test_the_difference_is_paired_fold_by_fold():
    difference = record({"accuracy": (0.4, 0.75, 0.95)}).difference()
    assert list(difference) == ["accuracy"]
    accuracy = difference["accuracy"]
    assert accuracy.mean == pytest.approx(-0.05)
    assert (accuracy.low, accuracy.high) == pytest.approx(corrected_interval([-0.1, 0, -0.05], 1.25 / 3))
    assert str(accuracy).startswith("-0.0500 (-0.")


def test_without_finish_there_is_no_difference():
    with pytest.raises(InvalidData, match="nothing to compare: pass finish="):
        record().difference()


def test_the_summary_says_how_folds_were_trained_what_failed_and_what_finish_changed():
    lines = record(
        {"accuracy": (0.4, 0.75, 0.95)},
        mode="sequential",
        fallback="the model runs eagerly",
        failures={"2": "NaN"},
    ).summary()
    assert "3 folds in 3.0 s, one after another" in lines
    assert "finished minus float\naccuracy  -0.0500 (-0." in lines
    assert "not together: the model runs eagerly" in lines
    assert "fold 2: NaN" in lines
    assert "together" in record(mode="together").summary().splitlines()[0]
