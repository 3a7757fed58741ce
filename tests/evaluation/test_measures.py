import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics

from tfbig.evaluation.measures import ALL, ERRORS, MAIN, calibration_error, measure, per_class
from tfbig.evaluation.metrics import answers

GENERATOR = np.random.default_rng(0)
ROWS = 90
LABELS = GENERATOR.integers(0, 3, ROWS)
BITS = GENERATOR.integers(0, 2, ROWS)
MULTI_HOT = GENERATOR.integers(0, 2, (ROWS, 3))
LOGITS = 2 * np.eye(3)[LABELS] + GENERATOR.normal(scale=1.5, size=(ROWS, 3))
BIT_LOGITS = 2 * BITS - 1 + GENERATOR.normal(scale=1.5, size=ROWS)
MULTI_LOGITS = 2 * MULTI_HOT - 1 + GENERATOR.normal(scale=1.5, size=(ROWS, 3))
ANSWERS = {
    "multiclass": answers("multiclass", LOGITS, LABELS),
    "binary": answers("binary", BIT_LOGITS, BITS),
    "multilabel": answers("multilabel", MULTI_LOGITS, MULTI_HOT),
    "regression": answers("regression", LOGITS, LOGITS + 1),
    "sequence": answers("sequence", LOGITS.reshape(30, 3, 3), LABELS.reshape(30, 3)),
}
LIKELY = {
    "multiclass": softmax(LOGITS, axis=1),
    "binary": expit(BIT_LOGITS),
    "multilabel": expit(MULTI_LOGITS),
}
TRUTH = {"multiclass": LABELS, "binary": BITS, "multilabel": MULTI_HOT}
SAID = {
    task: likely.argmax(axis=1) if task == "multiclass" else (likely > 0.5).astype(int)
    for task, likely in LIKELY.items()
}


@pytest.mark.parametrize("task", LIKELY)
@pytest.mark.parametrize("average", ["micro", "weighted"])
@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
def test_averages_are_scikit_learns(task, average, name):
    expected = getattr(metrics, f"{name}_score")(TRUTH[task], SAID[task], average=average)
    assert measure(ANSWERS[task], [f"{name}_{average}"]) == {f"{name}_{average}": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("task", "name", "expected"),
    [
        ("binary", "balanced_accuracy", metrics.balanced_accuracy_score(BITS, SAID["binary"])),
        ("binary", "average_precision", metrics.average_precision_score(BITS, LIKELY["binary"])),
        ("binary", "f1_macro", metrics.f1_score(BITS, SAID["binary"], average="macro")),
        ("multiclass", "balanced_accuracy", metrics.balanced_accuracy_score(LABELS, SAID["multiclass"])),
        ("multiclass", "roc_auc", metrics.roc_auc_score(LABELS, LIKELY["multiclass"], multi_class="ovr")),
        (
            "multiclass",
            "average_precision",
            metrics.average_precision_score(np.eye(3)[LABELS], LIKELY["multiclass"]),
        ),
        ("multilabel", "roc_auc", metrics.roc_auc_score(MULTI_HOT, LIKELY["multilabel"])),
        ("multilabel", "average_precision", metrics.average_precision_score(MULTI_HOT, LIKELY["multilabel"])),
        (
            "multilabel",
            "log_loss",
            np.mean([metrics.log_loss(MULTI_HOT[:, i], LIKELY["multilabel"][:, i]) for i in range(3)]),
        ),
    ],
)
def test_the_other_metrics_are_scikit_learns(task, name, expected):
    assert measure(ANSWERS[task], [name])[name] == pytest.approx(expected)


@pytest.mark.parametrize("task", ANSWERS)
def test_every_metric_of_a_task_is_measured(task):
    assert list(measure(ANSWERS[task], ALL[task])) == list(ALL[task])
    assert ALL[task][: len(MAIN[task])] == MAIN[task]


@pytest.mark.parametrize("task", ANSWERS)
def test_errors_fall_and_scores_rise_where_every_answer_is_right(task):
    given = ANSWERS[task]
    perfect = {"binary": BITS * 20 - 10, "multilabel": MULTI_HOT * 20 - 10, "regression": LOGITS + 1}
    perfect |= {"multiclass": np.eye(3)[LABELS] * 20, "sequence": np.eye(3)[LABELS].reshape(30, 3, 3) * 20}
    shape = given.targets if task != "sequence" else LABELS.reshape(30, 3)
    best, found = measure(answers(task, perfect[task], shape), ALL[task]), measure(given, ALL[task])
    for name in ALL[task]:
        assert (best[name] < found[name]) == (name in ERRORS), name


def test_a_sequence_measures_as_its_steps_do():
    names = ALL["sequence"]
    assert measure(ANSWERS["sequence"], names) == measure(ANSWERS["multiclass"], names)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_ranking_metrics_are_left_out_where_a_class_has_no_row(task):
    found = ANSWERS[task]
    rows = np.flatnonzero((found.targets.reshape(ROWS, -1) != 1).all(axis=1))
    assert not {"roc_auc", "average_precision"} & set(measure(found.take(rows), ALL[task]))


def test_two_classes_with_an_output_each_rank_by_the_second():
    two = answers("multiclass", np.stack([-BIT_LOGITS, BIT_LOGITS], axis=1), BITS)
    assert measure(two, ["roc_auc"])["roc_auc"] == metrics.roc_auc_score(BITS, BIT_LOGITS)


def test_confidence_that_is_right_as_often_as_it_says_is_calibrated():
    likely = np.repeat([0.55, 0.95], [20, 20])
    right = np.r_[np.arange(20) < 11, np.arange(20) < 19]
    assert calibration_error(likely, right) == pytest.approx(0)
    assert calibration_error(likely, ~right) == pytest.approx((0.1 + 0.9) / 2)


def test_certainty_falls_into_the_last_bin():
    assert calibration_error(np.array([1.0, 0.99]), np.array([True, False])) == pytest.approx(0.495)


def test_calibration_is_that_of_the_class_that_is_named():
    likely = np.array([[0.7, 0.2, 0.1]] * 10)
    ten = answers("multiclass", likely, np.array([0] * 5 + [1] * 5))
    assert measure(ten, ["calibration_error"])["calibration_error"] == pytest.approx(0.2)
    bits = answers("binary", np.full(10, 0.3), np.array([0] * 5 + [1] * 5))
    assert measure(bits, ["calibration_error"])["calibration_error"] == pytest.approx(0.2)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_classes_have_their_own_precision_recall_and_f1(task):
    found = per_class(ANSWERS[task])
    expected = metrics.precision_recall_fscore_support(TRUTH[task], SAID[task])
    for name, values in zip(("precision", "recall", "f1", "rows"), expected, strict=True):
        assert found[name] == pytest.approx(values.tolist())


def test_a_regression_has_no_classes():
    assert per_class(ANSWERS["regression"]) == {}


def test_rows_of_a_sequence_are_taken_with_all_their_steps():
    taken = ANSWERS["sequence"].take(np.array([2, 2, 0]))
    np.testing.assert_array_equal(taken.targets.reshape(3, 3), LABELS.reshape(30, 3)[[2, 2, 0]])
    assert len(taken.likely) == 9
