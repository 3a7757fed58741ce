import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss

import tfbig
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption, UnreadableFile
from tfbig.evaluation.measures import ALL


class Given:
    """Something with `predict` that is no Keras model."""

    def __init__(self, outputs):
        self.outputs = np.asarray(outputs)

    def predict(self, x):
        return self.outputs


Y = np.array([0, 2, 1, 0, 1, 2])
X = np.zeros((6, 4), np.float32)
OUTPUTS = np.eye(3)[[0, 2, 1, 0, 2, 2]] * 3
BITS = np.array([0, 1, 1, 0, 1, 0])
VALUES = np.array([0.5, 1.5, -2.0, 0.0, 1.0, 4.0])


@pytest.fixture
def scores():
    return tfbig.evaluate(Given(OUTPUTS), X, Y)


def test_a_keras_model_is_scored_by_its_predictions(blobs):
    x, y = blobs
    model = tfbig.models.mlp((4,), 3, hidden=(8,))
    logits = model.predict(x, verbose=0).astype(float)
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = tfbig.evaluate(model, x, y)
    assert scores["accuracy"] == accuracy_score(y, logits.argmax(axis=1))
    # float32 logits of another batch size.
    assert scores["log_loss"] == pytest.approx(log_loss(y, likely), rel=1e-5)


def test_an_object_with_predict_is_scored(scores):
    assert scores["accuracy"] == pytest.approx(5 / 6)


def test_a_scikit_learn_estimator_is_scored(blobs):
    x, _ = blobs
    y = x @ np.array([1.0, 2.0, 3.0, 4.0]) + 0.5
    # y is linear in x: what is left is float32 rounding.
    assert tfbig.evaluate(LinearRegression().fit(x, y), x, y)["rmse"] < 1e-4


def test_lists_are_taken_as_arrays(scores):
    assert tfbig.evaluate(Given(OUTPUTS), X.tolist(), Y.tolist()) == scores


def test_scores_read_like_a_dict(scores):
    assert list(scores)[:5] == ["accuracy", "f1", "precision", "recall", "log_loss"]
    assert dict(scores) == scores.metrics
    assert len(scores) == len(ALL["multiclass"])
    assert scores.get("r2") is None


def test_an_unknown_score_is_a_key_error(scores):
    with pytest.raises(KeyError, match="r2"):
        scores["r2"]


def test_scores_are_equal_to_a_dict_of_the_same_numbers(scores):
    assert scores == dict(scores)
    assert scores != {**scores, "accuracy": 0.0}


def test_scores_of_other_rows_are_not_equal(scores):
    order = [1, 0, 2, 3, 4, 5]
    others = tfbig.evaluate(Given(OUTPUTS[order]), X, Y[order])
    assert dict(others) == pytest.approx(dict(scores))
    assert others != scores


def test_targets_and_predictions_are_kept(scores):
    assert scores.targets.tolist() == Y.tolist()
    assert scores.predicted.tolist() == [0, 2, 1, 0, 2, 2]


def test_text_shows_every_score_but_averages_over_all_rows(scores):
    assert str(scores).startswith("accuracy 0.8333  f1 ")
    repeated = {name for name in scores if name.endswith(("_micro", "_weighted"))}
    assert repeated
    for name, value in scores.items():
        assert (f"{name} {value:.4f}" in str(scores)) == (name not in repeated)


@pytest.mark.parametrize(
    ("outputs", "y", "headline"),
    [
        (np.eye(3)[Y], Y, "accuracy"),
        (BITS - 0.5, BITS, "accuracy"),
        (np.stack([BITS, BITS], axis=1) - 0.5, np.stack([BITS, BITS], axis=1), "f1"),
        (VALUES, VALUES, "r2"),
    ],
    ids=["multiclass", "binary", "multilabel", "regression"],
)
def test_the_headline_is_the_tasks_main_metric(outputs, y, headline):
    scores = tfbig.evaluate(Given(outputs), X, y)
    assert scores.headline == headline
    assert scores[headline] == 1


def test_a_given_task_beats_the_one_that_would_be_seen():
    assert tfbig.evaluate(Given(BITS - 0.5), X, BITS, task="regression")["mae"] == 0.5


def test_float_0_and_1_are_labels_where_the_task_says_so():
    assert tfbig.evaluate(Given(BITS - 0.5), X, BITS.astype(float), task="binary")["accuracy"] == 1


@pytest.mark.parametrize(
    "y", [Y[:, None], np.eye(3, dtype=int)[Y], Y.astype(float)], ids=["column", "one-hot", "floats"]
)
def test_labels_in_any_form_score_the_same(scores, y):
    assert tfbig.evaluate(Given(OUTPUTS), X, y)["accuracy"] == scores["accuracy"]


@pytest.mark.parametrize(
    ("outputs", "y"), [(OUTPUTS, Y), (VALUES + 1, VALUES)], ids=["multiclass", "regression"]
)
def test_scores_come_back_equal_from_json(outputs, y, tmp_path):
    scores = tfbig.evaluate(Given(outputs), X, y)
    scores.to_json(tmp_path / "scores.json")
    assert tfbig.Scores.from_json(scores.to_json()) == scores
    assert tfbig.Scores.from_json(tmp_path / "scores.json") == scores


def test_scores_from_json_still_plot(scores):
    assert tfbig.Scores.from_json(scores.to_json()).plot().axes[0].get_xlabel() == "predicted"


def test_incomplete_json_is_an_unreadable_file():
    with pytest.raises(UnreadableFile, match="not a complete Scores"):
        tfbig.Scores.from_json('{"task": "binary"}')


def test_a_classifiers_plot_is_the_confusion_matrix(scores):
    (axes,) = scores.plot().axes
    counts = [int(text.get_text()) for text in axes.texts]
    assert counts == [2, 0, 0, 0, 1, 1, 0, 0, 2]


def test_a_regressions_plot_is_predicted_against_true():
    left, _ = tfbig.evaluate(Given(VALUES + 1), X, VALUES).plot().axes
    np.testing.assert_allclose(left.collections[0].get_offsets()[:, 1], VALUES + 1)


def test_a_plot_is_saved_at_the_path(scores, tmp_path):
    scores.plot(tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_text_has_a_line_per_class(scores):
    lines = str(scores).splitlines()[-4:]
    assert lines[0].split() == ["class", "precision", "recall", "f1", "rows"]
    assert lines[2].split() == ["1", "1.0000", "0.5000", "0.6667", "2"]


def test_precision_recall_and_f1_are_there_per_class(scores):
    assert scores.per_class["recall"] == (1, 0.5, 1)
    assert scores.per_class["rows"] == (2, 2, 2)


def test_the_confusion_matrix_counts_true_classes_in_rows(scores):
    assert scores.confusion_matrix.tolist() == [[2, 0, 0], [0, 1, 1], [0, 0, 2]]
    assert scores.residuals.size == 0


def test_the_confusion_matrix_keeps_a_class_that_does_not_occur():
    scores = tfbig.evaluate(Given(np.eye(4)[[0, 1]]), X[:2], [0, 1])
    assert scores.confusion_matrix.shape == (4, 4)


def test_several_labels_have_a_matrix_each():
    bits = np.stack([BITS, 1 - BITS], axis=1)
    assert tfbig.evaluate(Given(bits - 0.5), X, bits, task="multilabel").confusion_matrix.shape == (2, 2, 2)


def test_residuals_are_predicted_minus_true():
    scores = tfbig.evaluate(Given(VALUES + 1), X, VALUES)
    np.testing.assert_allclose(scores.residuals, np.ones((6, 1)))
    assert scores.confusion_matrix.size == 0


@pytest.fixture(scope="module")
def many():
    """1,000 rows of two classes, of which the model has 800 right."""
    y = np.repeat([0, 1], 500)
    said = np.where(np.arange(1000) % 5 == 0, 1 - y, y)
    return tfbig.evaluate(Given(said * 4.0 - 2), np.zeros((1000, 1)), y, bootstrap=200)


def test_the_interval_of_accuracy_is_that_of_a_share(many):
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    low, high = many.intervals["accuracy"]
    # The ends of 200 resamples are themselves known to about a tenth of the interval.
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.3 * half)


def test_every_metric_has_an_interval_and_shows_it(many):
    assert set(many.intervals) == set(many)
    assert str(many).startswith("accuracy           0.8000  (95%: 0.7")
    assert all(
        low <= many[name] <= high for name, (low, high) in many.intervals.items() if "calib" not in name
    )


def test_intervals_come_back_from_json(many):
    back = tfbig.Scores.from_json(many.to_json())
    assert back == many
    assert back.intervals["f1"] == many.intervals["f1"]


def test_the_same_seed_gives_the_same_interval():
    first, again, other = (
        tfbig.evaluate(Given(VALUES + BITS), X, VALUES, bootstrap=20, seed=seed).intervals
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_classifier_is_scored_by_its_probabilities_on_its_own_labels(blobs):
    x, y = blobs
    colours = np.array(["red", "green", "blue"])[y]
    classifier = LogisticRegression(max_iter=500).fit(x, colours)
    scores = tfbig.evaluate(classifier, x, colours)
    assert scores.task == "multiclass"
    assert scores.classes == ("blue", "green", "red")
    assert scores["accuracy"] == classifier.score(x, colours)
    assert scores["log_loss"] == pytest.approx(log_loss(colours, classifier.predict_proba(x)))
    assert "green  " in str(scores)
    assert [tick.get_text() for tick in scores.plot().axes[0].get_xticklabels()] == ["blue", "green", "red"]


def test_an_int8_file_and_its_model_are_scored_alike(digits, digits_model, digits_lite):
    x, y = digits.x_test[:100], digits.y_test[:100]
    model, file = (tfbig.evaluate(one, x, y) for one in (digits_model, digits_lite))
    assert list(model) == list(file)
    # 8-bit outputs: a row or two of a hundred may fall to the other side.
    assert file["accuracy"] == pytest.approx(model["accuracy"], abs=0.03)


def test_sequences_are_scored_by_their_steps_and_drawn_whole():
    y = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]])
    said = np.where(np.arange(4)[:, None] == 0, 1 - y, y)  # the first row is all wrong
    scores = tfbig.evaluate(Given(np.eye(2)[said] * 3), X[:4], y, bootstrap=200)
    assert (scores.task, scores["accuracy"]) == ("sequence", 0.75)
    assert scores.plot().axes[0].get_xlabel() == "predicted"
    drawn = {round(4 * end) for end in scores.intervals["accuracy"]}
    assert drawn == {1, 4}  # steps drawn for themselves would stay closer to 3


def test_steps_labelled_minus_1_do_not_count():
    generator = np.random.default_rng(0)
    y, logits = generator.integers(0, 3, (6, 5)), generator.normal(size=(6, 5, 3))
    padded = np.where(np.arange(5) >= 3, -1, y)
    scores = tfbig.evaluate(Given(logits), X, padded, bootstrap=50)
    cut = tfbig.evaluate(Given(logits[:, :3]), X, y[:, :3], bootstrap=50)
    assert dict(scores) == dict(cut)
    assert (scores.per_class, scores.intervals) == (cut.per_class, cut.intervals)
    np.testing.assert_array_equal(scores.confusion_matrix, cut.confusion_matrix)
    assert tfbig.compare(Given(logits), Given(-logits), X, padded, bootstrap=100).rows == 6


def test_rows_of_padding_alone_add_nothing():
    y, logits = np.array([[0, 1], [-1, -1]]), np.zeros((2, 2, 2))
    scores = tfbig.evaluate(Given(logits), X[:2], y, bootstrap=20)
    assert (scores["accuracy"], len(scores.targets)) == (0.5, 2)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([[-1, -1]], "Every label of y is -1"), ([[-2, 1]], "from 0 to 1; y holds -2"), ([[0.5, -1]], "whole")],
)
def test_other_labels_below_zero_are_refused(labels, message):
    with pytest.raises(InvalidData, match=message):
        tfbig.evaluate(Given(np.zeros((1, 2, 2))), X[:1], labels)


BAD_INPUT = {
    "lengths differ": ({"y": Y[:5]}, InvalidData, "6 rows of x and 5 of y"),
    "no y": ({"y": None}, InvalidData, "y is missing"),
    "NaN in x": (
        {"x": np.where(np.arange(6)[:, None] == 2, np.nan, X)},
        InvalidData,
        r"x must be finite.*\(2, 0\)",
    ),
    "text in y": ({"y": list("abcabc")}, InvalidData, "y must hold numbers; got .*'a'"),
    "label too high": ({"y": Y + 1}, InvalidData, "from 0 to 2; y holds 1 to 3"),
    "columns of y": ({"y": np.zeros((6, 2))}, InvalidData, "3 outputs per row and y has 2 columns"),
    "values for classes": (
        {"y": VALUES},
        InvalidData,
        "3 outputs per row; y holds one value per row, not a label",
    ),
    "NaN outputs": (
        {"model": Given(OUTPUTS * np.nan)},
        InvalidData,
        "NaN or infinite outputs for 6 of 6 rows",
    ),
    "no predict": ({"model": "mlp"}, InvalidModel, "Expected a model with predict; got str"),
    "fewer outputs": ({"model": Given(OUTPUTS[:4])}, InvalidModel, r"for 6 rows; got float64 .*\(4, 3\)"),
    "two outputs for a binary task": (
        {"model": Given(OUTPUTS[:, :2]), "y": BITS, "task": "binary"},
        InvalidData,
        "2 outputs",
    ),
    "unknown task": (
        {"task": "clustering"},
        InvalidOption,
        "task must be one of 'binary', .*; got 'clustering'",
    ),
    "negative bootstrap": ({"bootstrap": -1}, InvalidOption, "bootstrap must be .* at least 0; got -1"),
    "confidence in percent": ({"confidence": 95}, InvalidOption, "between 0 and 1; got 95"),
    "seed": ({"seed": 0.5}, InvalidOption, "seed must be a whole number .*; got 0.5"),
    "misspelt option": ({"tasks": "binary"}, UnknownOption, r"no option 'tasks'\. Did you mean 'task'\?"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        tfbig.evaluate(**{"model": Given(OUTPUTS), "x": X, "y": Y, **changes})


def test_x_that_does_not_fit_the_model_is_refused():
    model = tfbig.models.mlp((4,), 3, hidden=(8,))
    with pytest.raises(InvalidData, match=r"rows of shape \(3,\)"):
        tfbig.evaluate(model, X[:, :3], Y)


CHILD = """
import sys
import numpy as np
import tfbig

class Given:
    def predict(self, x):
        return np.eye(2)[[0, 1, 1]]

print(tfbig.evaluate(Given(), np.zeros((3, 2)), [0, 1, 0])["accuracy"])
print(sorted({"tensorflow", "keras", "tf_keras"} & set(sys.modules)))
"""


def test_scoring_an_object_with_predict_loads_no_tensorflow():
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    accuracy, loaded = child.stdout.splitlines()
    assert float(accuracy) == pytest.approx(2 / 3)
    assert loaded == "[]"
