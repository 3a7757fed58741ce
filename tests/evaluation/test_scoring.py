import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import get_scorer_names, make_scorer

from tfbig.errors import InvalidData, InvalidOption
from tfbig.evaluation.scoring import fold_scores, get_scorers

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 2, 3))
LOGITS = GENERATOR.normal(size=(60, 3)) * 3
LABELS = np.where(GENERATOR.random(60) < 0.6, LOGITS.argmax(axis=1), GENERATOR.integers(0, 3, 60))
BITS = (LOGITS[:, 0] + GENERATOR.normal(size=60) > 0).astype(int)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def scored(outputs, y, task, scoring):
    return fold_scores(lambda x: outputs, X, y, task, get_scorers(scoring))[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("balanced_accuracy", metrics.balanced_accuracy_score(LABELS, LOGITS.argmax(axis=1))),
        ("f1_macro", metrics.f1_score(LABELS, LOGITS.argmax(axis=1), average="macro")),
        ("neg_log_loss", -metrics.log_loss(LABELS, softmax(LOGITS))),
        ("roc_auc_ovr", metrics.roc_auc_score(LABELS, softmax(LOGITS), multi_class="ovr")),
        ("top_k_accuracy", metrics.top_k_accuracy_score(LABELS, LOGITS, k=2)),
    ],
)
def test_scorers_of_several_classes(name, expected):
    assert scored(LOGITS, LABELS, "multiclass", name)[name] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("roc_auc", metrics.roc_auc_score(BITS, LOGITS[:, 0])),
        ("average_precision", metrics.average_precision_score(BITS, LOGITS[:, 0])),
        ("neg_brier_score", -metrics.brier_score_loss(BITS, 1 / (1 + np.exp(-LOGITS[:, 0])))),
        ("jaccard", metrics.jaccard_score(BITS, LOGITS[:, 0] > 0)),
    ],
)
def test_scorers_of_two_classes(name, expected, shape):
    found = scored(LOGITS[:, 0].reshape(shape), BITS.reshape(shape), "binary", name)
    assert found[name] == pytest.approx(expected)


def test_scorers_of_values():
    values = LOGITS[:, 0] + 0.1
    found = scored(LOGITS[:, :1], values, "regression", ["neg_median_absolute_error", "explained_variance"])
    assert found["neg_median_absolute_error"] == pytest.approx(-0.1)
    assert found["explained_variance"] == pytest.approx(1)
    several = scored(LOGITS, LOGITS + 0.5, "regression", "neg_mean_absolute_error")
    assert several["neg_mean_absolute_error"] == pytest.approx(-0.5)


def test_scorers_of_several_labels_a_row():
    y = (LOGITS > 0.5).astype(int)
    found = scored(LOGITS, y, "multilabel", ["f1_samples", "roc_auc"])
    assert found["roc_auc"] == 1
    assert found["f1_samples"] == pytest.approx(
        metrics.f1_score(y, LOGITS > 0, average="samples", zero_division=0)
    )


def test_tfbigs_own_metrics_stand_beside_them():
    found = scored(LOGITS, LABELS, "multiclass", "balanced_accuracy")
    assert list(found) == ["accuracy", "f1", "precision", "recall", "log_loss", "balanced_accuracy"]


def test_callables_and_dicts_are_scorers_too():
    def rows(estimator, x, y):
        assert x is X
        return len(estimator.predict(x)) + 0.5

    assert scored(LOGITS, LABELS, "multiclass", rows)["rows"] == 60.5
    named = {"mine": make_scorer(metrics.cohen_kappa_score), "theirs": "matthews_corrcoef"}
    found = scored(LOGITS, LABELS, "multiclass", named)
    assert found["mine"] == pytest.approx(metrics.cohen_kappa_score(LABELS, LOGITS.argmax(axis=1)))
    assert found["theirs"] == pytest.approx(metrics.matthews_corrcoef(LABELS, LOGITS.argmax(axis=1)))


def test_a_scorer_may_ask_for_other_rows():
    asked = []

    def outputs(x):
        asked.append(len(x))
        return LOGITS[: len(x)]

    scorers = get_scorers(lambda estimator, x, y: estimator.predict(x[:5]).sum())
    found, _ = fold_scores(outputs, X, LABELS, "multiclass", scorers)
    assert found["<lambda>"] == LOGITS[:5].argmax(axis=1).sum()
    assert asked == [60, 5]


BAD = {
    "nan": (lambda *_: float("nan"), "scorer 'bad' gives NaN"),
    "several": (lambda *_: np.ones(3), "scorer 'bad' must give one number; got ndarray"),
    "failing": (lambda *_: 1 / 0, "scorer 'bad' failed: ZeroDivisionError"),
    "of another task": ("f1", "scorer 'bad' failed: ValueError.*multiclass"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_scorer_that_gives_no_number_is_named(name):
    scorer, message = BAD[name]
    with pytest.raises(InvalidData, match=message):
        scored(LOGITS, LABELS, "multiclass", {"bad": scorer})


def test_an_unknown_scorer_is_refused_with_the_nearest_name():
    with pytest.raises(InvalidOption, match="got 'balanced_acuracy'. Did you mean 'balanced_accuracy'?"):
        get_scorers(["accuracy", "balanced_acuracy"])
    with pytest.raises(
        InvalidOption, match="scoring must be a scorer's name, a callable, a list or a dict; got 3"
    ):
        get_scorers(3)


def test_every_scorer_that_scikit_learn_names_is_found():
    assert set(get_scorers(get_scorer_names())) == set(get_scorer_names())
    assert get_scorers(None) == {}
