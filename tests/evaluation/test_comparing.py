import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

import tfbig
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption
from tfbig.evaluation.comparing import Comparison, mcnemar

GENERATOR = np.random.default_rng(0)
ROWS = 200
X = np.zeros((ROWS, 1), np.float32)
LABELS = GENERATOR.integers(0, 3, ROWS)
VALUES = GENERATOR.normal(size=ROWS)


class Given:
    def __init__(self, outputs):
        self.outputs = outputs

    def predict(self, x):
        return self.outputs


def with_wrong(rows):
    """A classifier that has these rows wrong and all others right."""
    said = LABELS.copy()
    said[rows] = (said[rows] + 1) % 3
    return Given(np.eye(3)[said] * 5)


FIRST, SECOND = with_wrong(np.arange(0, 20)), with_wrong(np.arange(10, 60))
# Errors of about 1 and of about 1.3.
CLOSE, FAR = (Given(VALUES + scale * GENERATOR.normal(size=ROWS)) for scale in (1, 1.3))


@pytest.fixture(scope="module")
def found():
    return tfbig.compare(FIRST, SECOND, X, LABELS)


def test_the_difference_is_that_of_the_scores(found):
    assert found.scores == pytest.approx((0.9, 0.75))
    assert found.difference == pytest.approx(0.15)
    assert (found.metric, found.rows) == ("accuracy", ROWS)


def test_the_p_value_of_accuracies_is_that_of_the_rows_one_model_alone_has_right(found):
    assert (found.only_first_right, found.only_second_right) == (40, 10)
    assert found.test == "McNemar's exact test"
    assert found.p_value == pytest.approx(stats.binomtest(10, 50, 0.5).pvalue)
    assert found.p_value == pytest.approx(2 * stats.binom.cdf(10, 50, 0.5))


def test_the_interval_is_scipys_of_the_paired_differences(found):
    gaps = np.zeros(ROWS)
    gaps[20:60], gaps[:10] = 1, -1
    expected = stats.bootstrap((gaps,), np.mean, n_resamples=2000, method="percentile", random_state=1)
    low, high = expected.confidence_interval
    assert found.interval == pytest.approx((low, high), abs=0.06 * (high - low))  # another draw


def test_text_is_a_verdict_with_its_evidence(found):
    assert str(found).startswith(
        "The first model is better: accuracy 0.9000 and 0.7500, a difference of +0.1500 (95%: +0."
    )
    assert "McNemar's exact test on 200 rows, p = 2.39e-05." in str(found)


def test_the_other_way_round_everything_is_turned(found):
    turned = tfbig.compare(SECOND, FIRST, X, LABELS)
    assert (turned.difference, turned.better) == (-found.difference, "second")
    assert turned.interval == pytest.approx((-found.interval[1], -found.interval[0]), abs=1e-12)
    assert turned.p_value == pytest.approx(found.p_value)


def test_a_model_does_not_differ_from_itself():
    same = tfbig.compare(FIRST, FIRST, X, LABELS)
    assert (same.difference, same.p_value, same.better) == (0, 1, None)
    assert str(same).startswith("No difference beyond chance")


def test_a_difference_of_one_row_is_chance():
    assert not tfbig.compare(with_wrong([0]), with_wrong([0, 1]), X, LABELS).differ


@pytest.mark.parametrize("metric", ["mae", "rmse", "r2"])
def test_values_are_compared_by_their_errors(metric):
    result = tfbig.compare(CLOSE, FAR, X, VALUES, metric=metric, bootstrap=500)
    assert result.better == "first"
    assert result.difference == pytest.approx(
        tfbig.evaluate(CLOSE, X, VALUES)[metric] - tfbig.evaluate(FAR, X, VALUES)[metric]
    )
    assert result.interval[0] < result.difference < result.interval[1]
    assert (result.test, result.only_first_right) == ("paired bootstrap", None)


def test_the_default_for_values_is_the_mean_absolute_error():
    assert tfbig.compare(CLOSE, FAR, X, VALUES).metric == "mae"


def test_a_mean_over_rows_and_any_other_metric_are_drawn_alike():
    fast = tfbig.compare(CLOSE, FAR, X, VALUES, metric="mse", bootstrap=300)
    slow = tfbig.compare(CLOSE, FAR, X, VALUES, metric="rmse", bootstrap=300)
    assert np.sign(fast.interval).tolist() == np.sign(slow.interval).tolist()
    one = (
        Given(VALUES),
        Given(VALUES + np.arange(ROWS)),
    )  # rmse of a perfect model is 0: the other's is its root
    fast, slow = (tfbig.compare(*one, X, VALUES, metric=metric, bootstrap=300) for metric in ("mse", "rmse"))
    # Quantiles between two resamples are not quite those of the roots.
    assert np.sqrt(-np.array(fast.interval)) == pytest.approx(-np.array(slow.interval), rel=1e-3)


def test_models_that_are_alike_seldom_differ():
    generator = np.random.default_rng(1)
    p_values = []
    for _ in range(60):
        y = generator.normal(size=100)
        pair = [Given(y + generator.normal(size=100)) for _ in range(2)]
        p_values.append(tfbig.compare(*pair, X[:100], y, bootstrap=200).p_value)
    # Of 60 tests at 5%, 3 are expected; more than 8 would come by chance once in 400 times.
    assert sum(p < 0.05 for p in p_values) <= 8


def test_a_file_an_estimator_and_a_model_are_compared(digits, digits_model, digits_lite):
    x, y = digits.x_test[:80], digits.y_test[:80]

    class Flat(LogisticRegression):
        def predict_proba(self, X):
            return super().predict_proba(X.reshape(len(X), -1))

    flat = Flat(max_iter=20).fit(digits.x_train[:300].reshape(300, -1), digits.y_train[:300])
    assert not tfbig.compare(digits_model, digits_lite, x, y).differ
    assert tfbig.compare(digits_lite, flat, x, y).rows == 80


def test_a_comparison_comes_back_from_json(found):
    assert Comparison.from_json(found.to_json()) == found


def test_no_row_that_tells_them_apart_gives_a_p_value_of_1():
    assert mcnemar(0, 0) == 1


def test_sequences_are_compared_by_the_bootstrap():
    y, outputs = LABELS.reshape(50, 4), np.eye(3)[LABELS].reshape(50, 4, 3)
    wrong = outputs.copy()
    wrong[:10] = np.roll(wrong[:10], 1, axis=2)
    result = tfbig.compare(Given(outputs * 5), Given(wrong * 5), X[:50], y, bootstrap=200)
    assert (result.test, result.rows, result.only_first_right, result.better) == (
        "paired bootstrap",
        50,
        40,
        "first",
    )


BAD_INPUT = {
    "unknown metric": (
        {"metric": "acuracy"},
        InvalidOption,
        "metric must be one of .*Did you mean 'accuracy'",
    ),
    "metric of another task": ({"metric": "rmse"}, InvalidOption, "metric must be one of 'accuracy'"),
    "few resamples": ({"bootstrap": 10}, InvalidOption, "at least 100; got 10"),
    "confidence": ({"confidence": 95}, InvalidOption, "between 0 and 1; got 95"),
    "no y": ({"y": None}, InvalidData, "y is missing"),
    "no model": ({"b": "model"}, InvalidModel, "Expected a model with predict; got str"),
    "other outputs": ({"b": Given(VALUES)}, InvalidData, "different questions: multiclass and regression"),
    "option": ({"metrics": "f1"}, UnknownOption, "Did you mean 'metric'"),
    "undefined": ({"y": LABELS % 2, "metric": "roc_auc"}, InvalidData, "roc_auc is undefined on these rows"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        tfbig.compare(**{"a": FIRST, "b": SECOND, "x": X, "y": LABELS, **changes})
