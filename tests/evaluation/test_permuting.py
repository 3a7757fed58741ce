import numpy as np
import pytest
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression

import tfbig

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(150, 4)).astype(np.float32)
LABELS = X[:, :3].argmax(axis=1)
VALUES = (2 * X[:, 0] - X[:, 3]).astype(np.float32)


def test_an_estimators_importance_is_scikit_learns():
    model = LogisticRegression().fit(X, LABELS)
    result = tfbig.explain(model, X, LABELS, repeats=4, seed=3)
    expected = permutation_importance(model, X, LABELS, n_repeats=4, random_state=3)
    np.testing.assert_allclose(result.values, expected.importances_mean)
    np.testing.assert_allclose(result.spread, expected.importances_std)
    assert result.score == "accuracy"


@pytest.mark.parametrize("scoring", [None, "neg_mean_absolute_error"])
def test_a_regressions_importance_is_scikit_learns(scoring):
    model = LinearRegression().fit(X, VALUES)
    result = tfbig.explain(model, X, VALUES, scoring=scoring)
    expected = permutation_importance(model, X, VALUES, scoring=scoring or "r2", random_state=0)
    np.testing.assert_allclose(result.values, expected.importances_mean, rtol=1e-5, atol=1e-6)
    assert result.score == (scoring or "r2")


def test_labels_may_be_words():
    model = LogisticRegression().fit(X, np.array(["b", "c", "a"])[LABELS])
    result = tfbig.explain(model, X, np.array(["b", "c", "a"])[LABELS])
    assert list(result.top())[-1] == "x3"


def test_a_keras_model_and_its_file_lose_by_the_same_feature(tmp_path):
    model = tfbig.models.mlp((4,), 3, hidden=())
    model.set_weights([np.eye(4, 3, dtype=np.float32) * 4, np.zeros(3, np.float32)])
    file = tfbig.export(model, tmp_path / "m.tflite", quantize=None)
    for one in (model, file):
        result = tfbig.explain(one, X, LABELS)
        assert result.values[3] == 0
        assert (result.values[:3] > 0.2).all()


def test_several_labels_a_row_are_scored_by_macro_f1():
    y = (X[:, :2] > 0).astype(int)

    class Signs:
        def predict(self, x):
            return x[:, :2] * 50

    result = tfbig.explain(Signs(), X, y)
    assert result.score == "f1_macro"
    assert (result.values[:2] > 0.1).all()
    assert not result.values[2:].any()


def test_the_course_of_a_feature_is_permuted_as_a_whole():
    x = np.repeat(GENERATOR.normal(size=(100, 1, 2)), 5, axis=1).astype(np.float32)
    seen = []

    class Course:
        def predict(self, x):
            seen.append(x)
            return x[:, :, 0].sum(axis=1)

    result = tfbig.explain(Course(), x, x[:, :, 0].sum(axis=1))
    assert result.values[0] > 0.5
    assert result.values[1] == 0
    assert all((np.ptp(one, axis=1) == 0).all() for one in seen)  # steps of one row stay together


def test_whole_numbers_stay_whole():
    kinds = set()

    class Tokens:
        def predict(self, x):
            kinds.add(x.dtype)
            return x[:, 0].astype(float)

    tokens = GENERATOR.integers(0, 9, (40, 3))
    tfbig.explain(Tokens(), tokens, tokens[:, 0].astype(float))
    assert kinds == {tokens.dtype}


def test_the_same_seed_permutes_alike():
    model = LogisticRegression().fit(X, LABELS)
    first, again, other = (tfbig.explain(model, X, LABELS, seed=seed).values.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
