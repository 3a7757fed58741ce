import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics

from tfbig.errors import InvalidData, InvalidOption
from tfbig.evaluation.metrics import HEADLINE, TASKS, infer_task, probabilities, score

ROWS = 60
GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, ROWS)
BITS = GENERATOR.integers(0, 2, ROWS)
MULTI_HOT = GENERATOR.integers(0, 2, (ROWS, 3))
VALUES = GENERATOR.normal(size=ROWS)
ROWS_OF_VALUES = GENERATOR.normal(size=(ROWS, 2))
# Outputs that know y half the time, so that no score is 0 or 1.
LOGITS = 2 * np.eye(3)[LABELS] + GENERATOR.normal(scale=1.5, size=(ROWS, 3))
BIT_LOGITS = (2 * BITS - 1 + GENERATOR.normal(scale=1.5, size=ROWS))[:, None]
MULTI_LOGITS = 2 * MULTI_HOT - 1 + GENERATOR.normal(scale=1.5, size=(ROWS, 3))

STEPS = LABELS.reshape(20, 3), LOGITS.reshape(20, 3, 3)

LOGITS_OF = {
    "multiclass": (LOGITS, LABELS, softmax(LOGITS, axis=1)),
    "binary": (BIT_LOGITS, BITS, expit(BIT_LOGITS)),
    "multilabel": (MULTI_LOGITS, MULTI_HOT, expit(MULTI_LOGITS)),
}
# Both sides are float64; a sigmoid by tanh differs from scipy's in the last digits.
SAME = 1e-12


def by_scikit_learn(task, y, likely):
    if task == "multiclass":
        predicted, average = likely.argmax(axis=1), "macro"
    else:
        predicted, average = (likely > 0.5).astype(int), "binary" if task == "binary" else "macro"
    scores = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "f1": metrics.f1_score(y, predicted, average=average),
        "precision": metrics.precision_score(y, predicted, average=average),
        "recall": metrics.recall_score(y, predicted, average=average),
    }
    if task != "multilabel":
        scores["log_loss"] = metrics.log_loss(y, likely)
    if task == "binary":
        scores["roc_auc"] = metrics.roc_auc_score(y, likely)
    return scores


@pytest.mark.parametrize("task", LOGITS_OF)
def test_scores_of_a_classifier_are_scikit_learns(task):
    logits, y, likely = LOGITS_OF[task]
    expected = by_scikit_learn(task, y, likely[:, 0] if task == "binary" else likely)
    assert score(task, logits, y)[0] == pytest.approx(expected, rel=SAME)


@pytest.mark.parametrize("y", [VALUES, ROWS_OF_VALUES], ids=["one value", "two values"])
def test_scores_of_a_regression_are_scikit_learns(y):
    outputs = y + np.random.default_rng(1).normal(size=y.shape)
    expected = {
        "r2": metrics.r2_score(y, outputs),
        "mae": metrics.mean_absolute_error(y, outputs),
        "mse": metrics.mean_squared_error(y, outputs),
        "rmse": metrics.root_mean_squared_error(y, outputs),
    }
    assert score("regression", outputs, y)[0] == pytest.approx(expected, rel=SAME)


@pytest.mark.parametrize("task", LOGITS_OF)
def test_logits_become_the_probabilities_of_scipy(task):
    logits, _, likely = LOGITS_OF[task]
    np.testing.assert_allclose(probabilities(task, logits), likely, rtol=SAME)


@pytest.mark.parametrize("task", LOGITS_OF)
def test_probabilities_stay_as_they_are(task):
    likely = LOGITS_OF[task][2]
    np.testing.assert_allclose(probabilities(task, likely), likely, rtol=SAME)


@pytest.mark.parametrize("task", LOGITS_OF)
def test_logits_and_their_probabilities_score_the_same(task):
    logits, y, likely = LOGITS_OF[task]
    of_logits, of_likely = score(task, logits, y), score(task, likely, y)
    assert of_logits[0] == pytest.approx(of_likely[0], rel=SAME)
    np.testing.assert_array_equal(of_logits[2], of_likely[2])


def test_a_sequence_scores_as_its_steps_do():
    y, logits = STEPS
    assert score("sequence", logits, y)[0] == score("multiclass", LOGITS, LABELS)[0]


def test_large_logits_do_not_overflow():
    with np.errstate(over="raise"):
        assert probabilities("multiclass", np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]
        assert probabilities("binary", np.array([[1e4], [-1e4]])).tolist() == [[1.0], [0.0]]


def test_probabilities_rounded_to_8_bits_are_brought_to_a_sum_of_1():
    rounded = np.array([[0.5, 0.52], [0.25, 0.73]])
    np.testing.assert_allclose(probabilities("multiclass", rounded).sum(axis=1), 1, rtol=SAME)


def test_logits_between_0_and_1_are_told_from_probabilities_by_their_sum():
    logits = np.array([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]])
    np.testing.assert_allclose(probabilities("multiclass", logits), softmax(logits, axis=1), rtol=SAME)


@pytest.mark.parametrize("task", LOGITS_OF)
def test_targets_and_predictions_are_labels(task):
    logits, y, _ = LOGITS_OF[task]
    _, targets, predicted = score(task, logits, y)
    np.testing.assert_array_equal(targets, y)
    assert (predicted.shape, predicted.dtype) == (y.shape, np.int64)


def test_targets_and_predictions_of_a_regression_are_rows_of_values():
    _, targets, predicted = score("regression", VALUES[:, None] + 1, VALUES)
    np.testing.assert_array_equal(targets, VALUES[:, None])
    np.testing.assert_array_equal(predicted, VALUES[:, None] + 1)


@pytest.mark.parametrize(
    "y", [LABELS[:, None], np.eye(3)[LABELS], LABELS.astype(float)], ids=["column", "one-hot", "floats"]
)
def test_labels_in_any_form_score_the_same(y):
    np.testing.assert_array_equal(score("multiclass", LOGITS, y)[1], LABELS)


def test_a_class_that_no_row_has_does_not_lower_the_averages():
    y = np.array([0, 1, 0, 1])
    outputs = np.eye(4)[y] * 5
    scores, _, _ = score("multiclass", outputs, y)
    assert (scores["f1"], scores["precision"], scores["recall"]) == (1, 1, 1)


def test_roc_auc_is_left_out_where_only_one_class_is_there():
    assert "roc_auc" not in score("binary", np.array([[1.0], [-1.0]]), np.array([1, 1]))[0]


def test_r2_of_one_row_is_nan():
    assert np.isnan(score("regression", np.array([[1.0]]), np.array([2.0]))[0]["r2"])


@pytest.mark.parametrize("task", TASKS)
def test_the_headline_is_one_of_the_tasks_scores(task):
    others = {"regression": (VALUES, VALUES + 1), "sequence": STEPS[::-1]}
    outputs, y = others[task] if task in others else LOGITS_OF[task][:2]
    assert HEADLINE[task] in score(task, outputs, y)[0]


@pytest.mark.parametrize(
    ("columns", "y", "task"),
    [
        pytest.param(3, LABELS, "multiclass", id="labels"),
        pytest.param(3, LABELS.astype(float), "multiclass", id="labels as floats"),
        pytest.param(3, LABELS[:, None], "multiclass", id="labels in a column"),
        pytest.param(3, np.eye(3, dtype=int)[LABELS], "multiclass", id="one-hot"),
        pytest.param(3, MULTI_HOT, "multilabel", id="several labels"),
        pytest.param(1, BITS, "binary", id="bits"),
        pytest.param(1, BITS.astype(bool), "binary", id="booleans"),
        pytest.param(1, BITS[:, None], "binary", id="bits in a column"),
        pytest.param(None, BITS, "binary", id="bits, outputs in a row"),
        pytest.param(1, VALUES, "regression", id="values"),
        pytest.param(1, LABELS, "regression", id="whole values"),
        pytest.param(2, ROWS_OF_VALUES, "regression", id="rows of values"),
    ],
)
def test_the_task_is_seen_from_outputs_and_y(columns, y, task):
    assert infer_task(np.zeros((ROWS, columns) if columns else ROWS), y) == task


@pytest.mark.parametrize(
    ("columns", "y", "message"),
    [
        pytest.param(3, VALUES, "3 outputs per row; y holds one value per row, not a label", id="values"),
        pytest.param(3, ROWS_OF_VALUES, "3 outputs per row and y has 2 columns", id="columns"),
        pytest.param(1, ROWS_OF_VALUES, "1 outputs? per row and y has 2 columns", id="one output"),
    ],
)
def test_outputs_that_do_not_fit_y_make_no_task(columns, y, message):
    with pytest.raises(InvalidData, match=message):
        infer_task(np.zeros((ROWS, columns)), y)


@pytest.mark.parametrize(
    ("task", "outputs", "y", "error", "message"),
    [
        pytest.param(
            "multi", LOGITS, LABELS, InvalidOption, r"got 'multi'\. Did you mean 'multilabel'\?", id="task"
        ),
        pytest.param(
            "multiclass",
            np.where(np.arange(ROWS)[:, None] < 2, np.nan, LOGITS),
            LABELS,
            InvalidData,
            f"NaN or infinite outputs for 2 of {ROWS} rows",
            id="NaN outputs",
        ),
        pytest.param(
            "regression",
            np.where(np.arange(ROWS) < 3, np.inf, VALUES),
            VALUES,
            InvalidData,
            f"NaN or infinite outputs for 3 of {ROWS} rows",
            id="infinite outputs",
        ),
        pytest.param(
            "multiclass", LOGITS, LABELS + 1, InvalidData, "from 0 to 2; y holds 1 to 3", id="too high"
        ),
        pytest.param(
            "multiclass", LOGITS, LABELS - 1, InvalidData, "from 0 to 2; y holds -1 to 1", id="negative"
        ),
        pytest.param(
            "multiclass", LOGITS, LABELS / 2, InvalidData, "whole|run from 0 to 2", id="half labels"
        ),
        pytest.param(
            "binary", BIT_LOGITS, LABELS, InvalidData, r"are 0 and 1; y holds \[0, 1, 2\]", id="binary"
        ),
        pytest.param("multiclass", VALUES, LABELS, InvalidData, "1 output", id="one output for classes"),
        pytest.param("binary", LOGITS[:, :2], BITS, InvalidData, "2 outputs", id="two outputs for binary"),
        pytest.param(
            "regression", LOGITS, VALUES, InvalidData, "3 outputs .* 1 column", id="values and columns"
        ),
        pytest.param(
            "multilabel", LOGITS, MULTI_HOT[:, :2], InvalidData, "3 outputs .* 2 columns", id="labels"
        ),
        pytest.param(
            "sequence", LOGITS, LABELS, InvalidData, r"\(60, 3\), which does not fit", id="no steps"
        ),
        pytest.param(
            "sequence", STEPS[1], LABELS, InvalidData, r"shape \(20, 3\); y has shape", id="labels by step"
        ),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_refused(task, outputs, y, error, message):
    with pytest.raises(error, match=message):
        score(task, outputs, y)
