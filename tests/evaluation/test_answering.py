import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

import tfbig
from tfbig.errors import InvalidData
from tfbig.evaluation.answering import answers_of, classes_of, likely_of

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(120, 4)).astype(np.float32)
LABELS = X[:, :3].argmax(axis=1)
BITS = (X[:, 0] > 0).astype(int)
MULTI_HOT = (X[:, :3] > 0).astype(int)


@pytest.mark.parametrize("y", [LABELS, BITS], ids=["three classes", "two classes"])
@pytest.mark.parametrize(
    "made",
    [
        lambda: LogisticRegression(),
        lambda: LinearSVC(),
        lambda: VotingClassifier([("a", LogisticRegression()), ("b", LinearSVC())]),
        lambda: tfbig.KerasClassifier(hidden=(8,), epochs=2, seed=0),
    ],
    ids=["probabilities", "scores", "labels only", "Keras"],
)
def test_the_predicted_classes_are_the_estimators_own(made, y):
    words = np.array(["c", "a", "b"])[y]
    estimator = made().fit(X, words)
    found, classes = answers_of(estimator, X, words, None)
    assert found.task == ("binary" if len(classes) == 2 else "multiclass")
    np.testing.assert_array_equal(np.array(classes)[found.predicted], estimator.predict(X))
    np.testing.assert_array_equal(np.array(classes)[found.targets], words)


def test_classes_that_are_numbers_from_0_need_no_names():
    assert answers_of(LogisticRegression().fit(X, LABELS), X, LABELS, None)[1] == ()


@pytest.mark.parametrize(
    "made",
    [
        lambda: RandomForestClassifier(10, random_state=0),
        lambda: MLPClassifier((8,), max_iter=5, random_state=0),
        lambda: tfbig.KerasClassifier(hidden=(8,), epochs=2, seed=0),
    ],
    ids=["forest", "MLP", "Keras"],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_several_labels_a_row_have_a_probability_each(made):
    estimator = made().fit(X, MULTI_HOT)
    found, _ = answers_of(estimator, X, MULTI_HOT, None)
    assert found.task == "multilabel"
    assert found.likely.shape == MULTI_HOT.shape
    # A forest that is undecided names either label.
    decided = np.abs(found.likely - 0.5) > 1e-6
    np.testing.assert_array_equal(found.predicted[decided], np.asarray(estimator.predict(X))[decided])


def test_a_regressor_has_no_classes():
    assert classes_of(tfbig.KerasRegressor(hidden=(8,), epochs=1).fit(X, X[:, 0])) is None


def test_outputs_of_a_binary_classifier_are_the_second_classs():
    estimator = LogisticRegression().fit(X, BITS)
    np.testing.assert_allclose(likely_of(estimator, X), estimator.predict_proba(X)[:, 1])


def test_a_label_the_classifier_was_not_fitted_on_is_refused():
    with pytest.raises(InvalidData, match=r"knows the classes \['a', 'b'\]; y holds 'z' too"):
        answers_of(LogisticRegression().fit(X, np.array(["a", "b"])[BITS]), X, np.full(120, "z"), None)


def test_no_labels_are_refused():
    with pytest.raises(InvalidData, match="y is missing"):
        answers_of(LogisticRegression().fit(X, BITS), X, None, None)


def test_ragged_labels_are_refused():
    for model in (LogisticRegression().fit(X, BITS), tfbig.models.mlp((4,), 3, hidden=(4,))):
        with pytest.raises(InvalidData, match="y must be a rectangular array"):
            answers_of(model, X, [[0], [0, 1]] * 60, None)


def test_a_token_that_the_model_does_not_know_is_named():
    model = tfbig.models.rnn((3,), 2, vocabulary=5, embedding=2, units=(2,))
    x, y = np.array([[0, 1, 4], [2, 5, 0]]), [0, 1]
    for call in (tfbig.evaluate, lambda *rows: tfbig.compare(rows[0], *rows), tfbig.explain):
        with pytest.raises(InvalidData, match="knows the tokens 0 to 4; row 1 holds 5"):
            call(model, x, y)
