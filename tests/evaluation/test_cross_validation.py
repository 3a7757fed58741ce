import math

import numpy as np
import pytest
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
)

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption
from tfbig.evaluation.cross_validation import CrossValidation, split_folds

ROWS = 60
LABELS = np.repeat([0, 1, 2], [30, 18, 12])
# The first column is the row's number, so that a row can be told wherever it turns up.
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
X[:, 0] = np.arange(ROWS)
X[:, 1] += 3 * LABELS
VALUES = X[:, 1] + 0.5
TWO_FOLDS = [(np.arange(0, 60, 2), np.arange(1, 60, 2)), (np.arange(1, 60, 2), np.arange(0, 60, 2))]


def small(outputs=3, **options):
    return tfbig.models.mlp((4,), outputs, hidden=(8,), **options)


def cross_validate(build=small, y=LABELS, **options):
    return tfbig.cross_validate(build, X, y, **{"cv": TWO_FOLDS, "epochs": 1, "seed": 0, **options})


class Epochs(keras.callbacks.Callback):
    """Notes each epoch that ends, and the learning rate with which each training begins."""

    def __init__(self):
        super().__init__()
        self.seen, self.rates = [], []

    def on_train_begin(self, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(epoch)


class Given:
    def __init__(self, outputs):
        self.outputs = outputs

    def predict(self, x):
        return np.tile(np.array(self.outputs, np.float32), (len(x), 1))


@pytest.fixture(scope="module")
def result():
    return cross_validate(cv=3, epochs=2)


def held_out(folds):
    return np.concatenate([test for _, test in folds])


@pytest.mark.parametrize("y", [LABELS, VALUES], ids=["labels", "values"])
def test_folds_hold_every_row_out_once(y):
    folds = split_folds(X, y, 4, None, 0)
    assert len(folds) == 4
    assert sorted(held_out(folds)) == list(range(ROWS))
    assert all(sorted([*train, *test]) == list(range(ROWS)) for train, test in folds)


def test_folds_of_labels_have_each_class_in_the_same_proportion():
    for train, test in split_folds(X, LABELS, 6, None, 0):
        assert np.bincount(LABELS[train]).tolist() == [25, 15, 10]
        assert np.bincount(LABELS[test]).tolist() == [5, 3, 2]


def test_folds_are_shuffled_by_the_seed():
    def tests(seed):
        return held_out(split_folds(X, LABELS, 3, None, seed)).tolist()

    assert tests(1) == tests(1)
    assert tests(1) != tests(2)


@pytest.mark.parametrize(
    ("splitter", "groups"),
    [
        (KFold(3), None),
        (RepeatedKFold(n_splits=2, n_repeats=2, random_state=0), None),
        (ShuffleSplit(3, random_state=0), None),
        (TimeSeriesSplit(3), None),
        (GroupKFold(2), np.arange(ROWS) % 5),
        (LeaveOneGroupOut(), np.arange(ROWS) % 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_scikit_learn_splitter_decides_the_folds(splitter, groups):
    expected = list(splitter.split(X, LABELS, groups))
    folds = split_folds(X, LABELS, splitter, groups, 0)
    assert len(folds) == len(expected)
    for fold, pair in zip(folds, expected, strict=True):
        np.testing.assert_array_equal(fold[0], pair[0])
        np.testing.assert_array_equal(fold[1], pair[1])


@pytest.mark.parametrize("wrap", [list, iter], ids=["list", "iterator"])
def test_pairs_of_indices_are_the_folds(wrap):
    folds = split_folds(X, LABELS, wrap([([0, 1], [2]), ([3], [4, 5])]), None, 0)
    assert [[part.tolist() for part in fold] for fold in folds] == [[[0, 1], [2]], [[3], [4, 5]]]


@pytest.mark.parametrize("y", [LABELS, np.where(np.arange(ROWS) == 0, 1, 0)], ids=["labels", "a rare label"])
def test_a_number_of_folds_with_groups_keeps_each_group_together(y):
    groups = np.arange(ROWS) % 7
    folds = split_folds(X, y, 3, groups, 0)
    assert len(folds) == 3
    assert all(not set(groups[train]) & set(groups[test]) for train, test in folds)


def test_each_fold_is_scored(result):
    assert set(result.scores) == {"accuracy", "f1", "precision", "recall", "log_loss"}
    assert all(len(values) == 3 for values in result.scores.values())
    assert len(result.seconds) == 3


def test_each_row_is_predicted(result):
    assert result.predictions.shape == (ROWS, 3)
    assert np.isfinite(result.predictions).all()


def test_scores_are_those_of_the_held_out_predictions(result):
    folds = split_folds(X, LABELS, 3, None, 0)
    predicted = result.predictions.argmax(axis=1)
    expected = [np.mean(predicted[test] == LABELS[test]) for _, test in folds]
    assert result.scores["accuracy"] == pytest.approx(expected)


def test_a_fold_is_what_fit_makes_of_its_rows(result):
    train, test = split_folds(X, LABELS, 3, None, 0)[1]
    model = tfbig.fit(small, X[train], LABELS[train], epochs=2, seed=0, verbose=0).model
    np.testing.assert_array_equal(result.predictions[test], np.asarray(model(X[test], training=False)))


def test_rows_that_no_fold_holds_out_are_nan():
    result = cross_validate(cv=TWO_FOLDS[:1])
    train, test = TWO_FOLDS[0]
    assert np.isnan(result.predictions[train]).all()
    assert np.isfinite(result.predictions[test]).all()


def test_each_fold_gets_a_fresh_model():
    models, weights = [], []

    def build():
        models.append(small())
        weights.append(models[-1].get_weights())
        return models[-1]

    cross_validate(build)
    assert models[0] is not models[1]
    # The same seed draws the same weights, unless something of the first fold were carried over.
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    assert not np.array_equal(models[0].get_weights()[0], weights[0][0])


def test_a_model_in_place_of_a_builder_is_refused():
    with pytest.raises(InvalidModel, match="builder.*Sequential"):
        cross_validate(small())


def test_an_optimizer_that_a_callback_changed_starts_each_fold_as_it_was_given():
    epochs = Epochs()
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    cross_validate(optimizer=keras.optimizers.SGD(0.5), callbacks=[epochs, halve])
    assert epochs.rates == [0.5, 0.5]


def test_the_builder_sees_the_training_rows_of_its_fold_and_no_other():
    seen = []

    def build(x_train, y_train):
        seen.append((x_train[:, 0].astype(int), y_train))
        return small()

    cross_validate(build)
    for (rows, labels), (train, _) in zip(seen, TWO_FOLDS, strict=True):
        np.testing.assert_array_equal(rows, train)
        np.testing.assert_array_equal(labels, LABELS[train])


def test_finish_is_scored_beside_the_model():
    finished = cross_validate(finish=lambda model, x, y: Given([1, 0, 0]))
    assert finished.finished_scores["accuracy"] == pytest.approx([0.5, 0.5])  # half of each fold is class 0
    assert finished.scores == cross_validate().scores


def test_finish_gets_the_folds_model_and_training_rows():
    models, got = [], []

    def build():
        models.append(small())
        return models[-1]

    def finish(model, x_train, y_train):
        got.append((model, x_train[:, 0].astype(int), y_train))
        return model

    result = cross_validate(build, finish=finish)
    assert result.finished_scores == result.scores
    for (model, rows, labels), built, (train, _) in zip(got, models, TWO_FOLDS, strict=True):
        assert model is built
        np.testing.assert_array_equal(rows, train)
        np.testing.assert_array_equal(labels, LABELS[train])


def test_without_finish_there_are_no_finished_scores(result):
    assert result.finished_scores is None


def test_sample_weight_is_cut_to_the_folds_rows():
    weights = np.linspace(0, 2, ROWS)
    result = cross_validate(sample_weight=weights.tolist())
    train, test = TWO_FOLDS[1]
    run = tfbig.fit(small, X[train], LABELS[train], sample_weight=weights[train], epochs=1, seed=0, verbose=0)
    np.testing.assert_array_equal(result.predictions[test], np.asarray(run.model(X[test], training=False)))


@pytest.mark.parametrize("wrap", [list, iter], ids=["list", "iterator"])
def test_fit_options_reach_every_fold(wrap):
    epochs = Epochs()
    cross_validate(epochs=3, callbacks=wrap([epochs]))
    assert epochs.seen == [0, 1, 2, 0, 1, 2]


def test_it_is_silent_by_default(capsys):
    cross_validate()
    assert capsys.readouterr().out == ""


def test_a_regression_is_cross_validated():
    result = cross_validate(lambda: small(1, task="regression"), VALUES)
    assert (result.task, result.headline) == ("regression", "r2")
    assert result.predictions.shape == (ROWS, 1)


# Of rows 0 to 19 alone, other tasks could be thought: they are held out by the first fold.
FIRST_ROWS_APART = [(np.arange(20, 60), np.arange(20)), (np.arange(40), np.arange(40, 60))]
COUNTS = np.where(np.arange(ROWS) < 20, np.arange(ROWS) % 2, np.arange(ROWS) % 5)
SEVERAL = np.eye(3, dtype=int)[LABELS] | (np.arange(ROWS) >= 20)[:, None]


@pytest.mark.parametrize(
    ("build", "y", "task"),
    [
        pytest.param(lambda: small(1, task="binary"), (LABELS > 0).astype(float), "binary", id="float bits"),
        pytest.param(small, np.eye(3)[LABELS], "multiclass", id="float one-hot"),
        pytest.param(lambda: small(1, task="regression"), LABELS % 2, "regression", id="values 0 and 1"),
        pytest.param(lambda: small(1, task="regression"), COUNTS, "regression", id="a fold of 0 and 1"),
        pytest.param(
            lambda: small(3, task="multilabel"), SEVERAL, "multilabel", id="a fold of one label a row"
        ),
    ],
)
def test_folds_are_scored_by_the_task_that_was_trained(build, y, task):
    result = cross_validate(build, y, cv=FIRST_ROWS_APART)
    assert result.task == task
    assert np.isfinite(list(result.scores.values())).all()


def test_labels_in_a_column_score_as_in_a_row():
    assert cross_validate(y=LABELS[:, None]).scores == cross_validate().scores


def record(**changes):
    return CrossValidation(
        **{
            "task": "multiclass",
            "scores": {"accuracy": (0.5, 0.75, 1.0), "log_loss": (1.0, 0.5, 0.0)},
            "finished_scores": None,
            "predictions": np.array([[0.5, 0.25], [1.0, 2.0]], np.float32),
            "seconds": (1.25, 1.5, 2.0),
            **changes,
        }
    )


def test_mean_and_deviation_are_over_the_folds():
    assert record().mean == {"accuracy": 0.75, "log_loss": 0.5}
    assert record().std == {"accuracy": 0.25, "log_loss": 0.5}  # divided by folds - 1


def test_the_deviation_of_one_fold_is_nan():
    one = record(scores={"accuracy": (0.5,)})
    assert one.mean["accuracy"] == 0.5
    assert math.isnan(one.std["accuracy"])


def test_the_summary_is_a_line_per_metric():
    expected = "3 folds in 4.8 s\naccuracy  0.7500 ± 0.2500\nlog_loss  0.5000 ± 0.5000"
    assert record().summary() == str(record()) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"finished_scores": {"accuracy": (0.25, 0.5, 0.75)}},
        {"predictions": np.array([[np.nan, np.nan], [1.0, 2.0]], np.float32)},
    ],
    ids=["plain", "finished", "rows not held out"],
)
def test_json_and_back_keeps_every_field(changes, tmp_path):
    before = record(**changes)
    before.to_json(tmp_path / "cv.json")
    for after in (
        CrossValidation.from_json(before.to_json()),
        CrossValidation.from_json(tmp_path / "cv.json"),
    ):
        np.testing.assert_array_equal(after.predictions, before.predictions)
        assert after.scores == before.scores
        assert after.finished_scores == before.finished_scores
        assert (after.task, after.seconds) == (before.task, before.seconds)


def test_a_record_comes_back_equal_from_json():
    assert CrossValidation.from_json(record().to_json()) == record()


def test_a_plot_draws_the_headline_of_each_fold():
    (axes,) = record().plot().axes
    assert axes.get_ylabel() == "accuracy"
    assert axes.collections[-1].get_offsets()[:, 1].tolist() == [0.5, 0.75, 1.0]


def test_a_plot_is_saved_at_the_path(tmp_path):
    record().plot(tmp_path / "cv.png")
    assert (tmp_path / "cv.png").read_bytes().startswith(b"\x89PNG")


def three(x_train, y_train, units):
    return small()


NEEDS = "a number of folds, a scikit-learn splitter or a list of index pairs"
BAD_INPUT = {
    "more folds than rows": ({"cv": 61, "y": VALUES}, InvalidData, "61 folds need at least 61 rows; got 60"),
    "more folds than members": (
        {"cv": 13},
        InvalidData,
        r"13 stratified folds need 13 rows of each class; class 2 has 12\. Use fewer folds",
    ),
    "one fold": ({"cv": 1}, InvalidOption, "cv must be a whole number of at least 2; got 1"),
    "cv as text": ({"cv": "five"}, InvalidOption, f"{NEEDS}; got 'five'"),
    "cv as a fraction": ({"cv": 2.5}, InvalidOption, f"{NEEDS}; got 2.5"),
    "cv of numbers": ({"cv": [1, 2]}, InvalidOption, "cv must .*pairs"),
    "no pairs": ({"cv": []}, InvalidOption, "at least one pair of non-empty train and test indices"),
    "triples": ({"cv": [([0], [1], [2])]}, InvalidOption, "pair of non-empty train and test indices"),
    "an empty test": ({"cv": [([0], [])]}, InvalidOption, "pair of non-empty train and test indices"),
    "rows that do not exist": ({"cv": [([0, 1], [60])]}, InvalidOption, "60"),
    "splitter for more rows": (
        {"cv": KFold(61)},
        InvalidData,
        "KFold cannot split these 60 rows: .*n_splits=61",
    ),
    "groups missing": ({"cv": GroupKFold(2)}, InvalidData, "GroupKFold cannot split these 60 rows: .*groups"),
    "more folds than groups": (
        {"cv": 4, "groups": np.arange(ROWS) % 3},
        InvalidData,
        "GroupKFold cannot split .*number of groups: 3",
    ),
    "groups of fewer rows": (
        {"groups": [0, 1]},
        InvalidData,
        "groups must have one entry per row of x, 60; got 2",
    ),
    "weights of fewer rows": (
        {"sample_weight": np.ones(5)},
        InvalidData,
        "sample_weight must have one weight per row of x, 60; got 5",
    ),
    "lengths differ": ({"y": LABELS[:9]}, InvalidData, "60 rows of x and 9 of y"),
    "label too high": ({"y": LABELS + 1}, InvalidData, "from 0 to 2; row .* of y holds 3"),
    "misspelt fit option": (
        {"epoch": 3},
        UnknownOption,
        r"cross_validate\(\) has no option 'epoch'\. .*'epochs'\?",
    ),
    "misspelt option": ({"group": None}, UnknownOption, r"no option 'group'\. Did you mean 'groups'\?"),
    "no epochs": ({"epochs": 0}, InvalidOption, "epochs must be a whole number of at least 1; got 0"),
    "three arguments": ({"build": three}, InvalidModel, r"three asks for \(x_train, y_train, units\)"),
    "a builder of nothing": ({"build": lambda: None}, InvalidModel, "<lambda> returned NoneType"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused_before_training_starts(changes, error, message):
    epochs = Epochs()
    with pytest.raises(error, match=message):
        cross_validate(**changes, callbacks=[epochs])
    assert not epochs.rates


def test_a_builder_that_returns_the_same_model_twice_is_refused(blobs):
    model = tfbig.models.mlp((4,), 3, hidden=(8,))
    with pytest.raises(InvalidModel, match="returned the same model twice.*Build the model inside"):
        tfbig.cross_validate(lambda: model, *blobs, cv=3, epochs=1)
