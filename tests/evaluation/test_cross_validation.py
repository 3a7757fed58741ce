import math
import random

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
from tfbig.backend.seeds import seeded
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption
from tfbig.evaluation import fold_runner
from tfbig.evaluation.fold_results import CrossValidation
from tfbig.evaluation.splitting_folds import fold_seed, split_folds

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


def fitted(train, **options):
    """What `fit` makes of fold 1's rows, in the order of the data."""
    seed = fold_seed(0, 1)
    return tfbig.fit(small, X[train], LABELS[train], seed=seed, shuffle=False, verbose=0, **options).model


def assert_near(one, other):
    # The same sums of float32 in other graphs; outputs are below 100.
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_fold_is_what_fit_makes_of_its_rows():
    result = cross_validate(epochs=2, shuffle=False)
    train, test = TWO_FOLDS[1]
    model = fitted(train, epochs=2)
    assert_near(result.predictions[test], np.asarray(model(X[test], training=False)))


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
    # Each fold's own seed draws its weights: the same again, and not those of the other fold.
    assert not np.array_equal(weights[0][0], weights[1][0])
    for fold in (0, 1):
        with seeded(fold_seed(0, fold)):
            assert all(
                np.array_equal(a, b) for a, b in zip(weights[fold], small().get_weights(), strict=True)
            )
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
    result = cross_validate(sample_weight=weights.tolist(), shuffle=False)
    train, test = TWO_FOLDS[1]
    model = fitted(train, epochs=1, sample_weight=weights[train])
    assert_near(result.predictions[test], np.asarray(model(X[test], training=False)))
    assert not np.allclose(
        result.predictions, cross_validate(shuffle=False).predictions, rtol=1e-4, atol=1e-4
    )


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
        pytest.param(small, np.eye(3)[np.arange(ROWS) % 3], "multiclass", id="float one-hot"),
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
    expected = (
        "3 folds in 4.8 s, one after another\n"
        "accuracy  0.7500 ± 0.2500  (95%: -0.2319 to 1.7319)\n"
        "log_loss  0.5000 ± 0.5000  (95%: -1.4639 to 2.4639)"
    )
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


def test_scorers_stand_beside_the_metrics_for_held_out_training_and_finished_rows():
    result = cross_validate(
        scoring=["balanced_accuracy"], return_train_scores=True, finish=lambda model, x, y: model
    )
    for scores in (result.scores, result.train_scores, result.finished_scores):
        assert "balanced_accuracy" in scores
        assert all(len(values) == 2 for values in scores.values())
    # A fold trains on the rows that the other holds out.
    predicted = result.predictions.argmax(axis=1)
    assert result.scores["accuracy"][0] == np.mean(predicted[1::2] == LABELS[1::2])
    assert cross_validate().train_scores is None


def test_each_fold_has_a_history_and_its_numbers_of_rows():
    result = cross_validate(epochs=3, validation_data=(X[:9], LABELS[:9]))
    assert [list(history) for history in result.histories] == [
        ["accuracy", "loss", "val_accuracy", "val_loss"]
    ] * 2
    assert all(len(series) == 3 for history in result.histories for series in history.values())
    assert (result.train_rows, result.test_rows) == ((30, 30), (30, 30))


def test_a_record_with_everything_comes_back_equal_from_json():
    result = cross_validate(
        return_train_scores=True, finish=lambda model, x, y: model, scoring="balanced_accuracy"
    )
    after = CrossValidation.from_json(result.to_json())
    assert after == result
    assert after.histories == result.histories
    assert after.summary() == result.summary()


# Class 2 begins at row 48: the second fold trains without it.
LACKING = [(np.arange(20, 60), np.arange(20)), (np.arange(40), np.arange(40, 60))]


def test_a_fold_whose_training_rows_lack_a_class_is_refused_before_training_starts():
    epochs = Epochs()
    with pytest.raises(
        InvalidData, match="Fold 1: its training rows hold no row of class 2, .*stratified cv"
    ):
        cross_validate(cv=LACKING, callbacks=[epochs])
    assert not epochs.rates


@pytest.mark.parametrize("folds", ["together", "sequential"])
def test_with_an_error_score_the_fold_is_left_out_and_named(folds):
    with pytest.warns(UserWarning, match=r"1 of 3 folds failed and score -1: 1\."):
        result = cross_validate(cv=[LACKING[0], LACKING[1], TWO_FOLDS[0]], error_score=-1, folds=folds)
    assert result.scores["accuracy"][1] == -1
    assert min(result.scores["accuracy"][::2]) >= 0
    assert list(result.failures) == ["1"]
    assert "class 2" in result.failures["1"]
    assert result.failures["1"] in result.summary()
    assert result.mode == folds


def test_values_lack_no_class():
    result = cross_validate(lambda: small(1, task="regression"), np.arange(ROWS), cv=LACKING)
    assert result.task == "regression"
    assert np.isfinite(result.scores["mae"]).all()


def diverging(x_train):
    """Diverges in the fold that trains on the even rows."""
    model = small()
    if x_train[0, 0] == 0:
        model.layers[0].kernel.assign(model.layers[0].kernel * np.inf)
    return model


def test_a_fold_that_gives_nan_is_named():
    with pytest.raises(
        InvalidData, match="Fold 0: The model gives NaN or infinite outputs for 30 of 30 rows"
    ):
        cross_validate(diverging)


def test_a_fold_that_gives_nan_gets_the_error_score():
    with pytest.warns(UserWarning, match="folds failed and score nan: 0"):
        result = cross_validate(diverging, error_score=np.nan)
    assert np.isnan(result.scores["accuracy"][0])
    assert np.isfinite(result.scores["accuracy"][1])
    assert np.isnan(result.mean["accuracy"])


def test_a_finish_that_fails_raises_or_gets_the_error_score():
    def finish(model, x_train, y_train):
        if x_train[0, 0] == 0:
            raise RuntimeError("out of luck")
        return model

    with pytest.raises(RuntimeError, match="out of luck"):
        cross_validate(finish=finish)
    with pytest.warns(UserWarning, match="1 of 2 folds failed"):
        result = cross_validate(finish=finish, error_score=0.0)
    assert result.failures == {"0": "finish failed: RuntimeError: out of luck"}
    assert result.finished_scores["accuracy"][0] == 0


def test_when_every_fold_fails_it_raises_whatever_the_error_score():
    with pytest.raises(InvalidData, match="Every fold failed. Fold 0: The model gives NaN"):
        cross_validate(lambda: diverging(np.zeros((1, 1))), error_score=np.nan)
    with pytest.raises(InvalidData, match="No fold can be trained. Fold 0: .*class 2"):
        cross_validate(cv=[LACKING[1]], error_score=np.nan)


ARCHITECTURES = {
    "another width": (
        lambda x_train: tfbig.models.mlp((4,), 3, hidden=(int(x_train[0, 0]) + 4,)),
        r"another architecture for fold 1: its weight .* has shape \(4, 5\), that of fold 0 \(4, 4\)",
    ),
    "another layer": (
        lambda x_train: tfbig.models.mlp((4,), 3, hidden=(4,) * (1 + int(x_train[0, 0]))),
        "another architecture for fold 1: its layers are .*, those of fold 0 are",
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("folds", ["together", "sequential"])
def test_another_architecture_for_another_fold_is_refused(name, folds):
    build, message = ARCHITECTURES[name]
    with pytest.raises(InvalidModel, match=message):
        cross_validate(build, folds=folds)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"folds": "togehter"}, InvalidOption, "folds must be one of 'auto', .*Did you mean 'together'"),
        ({"error_score": "nan"}, InvalidOption, "error_score must be \"raise\" or a number; got 'nan'"),
        ({"scoring": "acuracy"}, InvalidOption, "scoring must be one of .*Did you mean 'accuracy'"),
        ({"max_memory": 0}, InvalidOption, "max_memory must be a whole number of at least 1; got 0"),
        ({"seed": -1}, InvalidOption, "seed must be a whole number of at least 0"),
        ({"seed": 2**32}, InvalidOption, "seed must be below"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        cross_validate(**changes)


def spied(x_train, seen):
    """A model whose normalizer and first weights tell which rows they were made from."""
    seen.append(set(x_train[:, 0].astype(int)))
    return keras.Sequential([keras.Input((4,)), tfbig.normalizer(x_train), keras.layers.Dense(3)])


@pytest.mark.parametrize("folds", ["together", "sequential"])
def test_held_out_rows_touch_neither_builder_normalizer_nor_weights_nor_finish(folds):
    """What a fold makes of its training rows stays the same whatever stands in the rows that it holds out."""
    results = []
    for poison in (0, 1e6):
        seen, finished, normalizers = [], [], []

        def finish(model, x_train, y_train, finished=finished, normalizers=normalizers):
            finished.append(set(x_train[:, 0].astype(int)))
            normalizers.append(np.asarray(model.layers[0].mean).ravel())
            return model

        x = X.copy()
        x[TWO_FOLDS[0][1], 1:] += poison  # held out by the first fold, the training rows of the second
        result = tfbig.cross_validate(
            lambda x_train, seen=seen: spied(x_train, seen),
            x,
            LABELS,
            cv=[TWO_FOLDS[0], (TWO_FOLDS[0][0][10:], TWO_FOLDS[0][1])],
            folds=folds,
            epochs=3,
            seed=0,
            finish=finish,
            return_train_scores=True,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        assert result.mode == folds
        train = [set(TWO_FOLDS[0][0]), set(TWO_FOLDS[0][0][10:])]
        assert seen == finished == train
        for mean, rows in zip(normalizers, train, strict=True):
            np.testing.assert_allclose(mean, x[sorted(rows)].mean(axis=0), rtol=1e-5)
        results.append(result)
    assert results[0].histories == results[1].histories
    assert results[0].train_scores == results[1].train_scores


def test_one_compiled_model_serves_every_fold(monkeypatch):
    engines = []
    original = fold_runner.FoldEngine

    def noted(*args):
        engines.append(original(*args))
        return engines[-1]

    monkeypatch.setattr(fold_runner, "FoldEngine", noted)
    # Of unequal size, so that epochs differ in steps and last batches: 12, 13, … rows.
    pairs = [(np.flatnonzero(np.arange(ROWS) % 5 != k)[: 40 + k], np.arange(k, ROWS, 5)) for k in range(5)]
    cross_validate(cv=pairs, y=np.arange(ROWS) % 3, folds="sequential", batch_size=8, epochs=2)
    (engine,) = engines
    assert engine.traces == 1


@pytest.mark.parametrize(("worth", "mode"), [(1e9, "sequential"), (0.0, "together")])
def test_auto_goes_by_what_it_measures(monkeypatch, worth, mode):
    monkeypatch.setattr(fold_runner, "WORTH_TRACING", worth)
    costs = {None: 10.0, 2: 1.0}
    monkeypatch.setattr(fold_runner, "seconds_per_epoch", lambda engine, folds, schedule: costs[engine.folds])
    result = cross_validate(folds="auto", epochs=2)
    assert result.mode == mode
    if mode == "sequential":
        assert "about 20.0 s of training are not worth" in result.fallback
    costs[2] = 11.0
    monkeypatch.setattr(fold_runner, "WORTH_TRACING", 0.0)
    slower = cross_validate(folds="auto", epochs=2)
    assert (slower.mode, slower.fallback) == (
        "sequential",
        "measured slower: 22.0 s against 20.0 s one after another",
    )


@pytest.mark.parametrize(("worth", "estimates"), [(1e9, 0), (0.0, 1)])
def test_auto_estimates_memory_only_where_training_is_worth_a_larger_graph(monkeypatch, worth, estimates):
    asked = []
    original = fold_runner.bytes_per_fold
    monkeypatch.setattr(fold_runner, "bytes_per_fold", lambda *args: asked.append(args) or original(*args))
    monkeypatch.setattr(fold_runner, "WORTH_TRACING", worth)
    monkeypatch.setattr(fold_runner, "seconds_per_epoch", lambda *_: 1.0)
    result = cross_validate(folds="auto", epochs=1, max_memory=1)
    assert len(asked) == estimates
    assert result.mode == "sequential"
    assert ("MiB at once" if estimates else "not worth") in result.fallback


def test_without_a_seed_two_runs_differ_and_pythons_seed_decides():
    def predictions():
        return cross_validate(seed=None).predictions

    state = random.getstate()
    first, second = predictions(), predictions()
    random.setstate(state)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, predictions())


def test_verbose_tells_of_each_epoch(capsys):
    cross_validate(folds="together", epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["epoch 1/2", "mean of 2 folds:"],
        ["epoch 2/2", "mean of 2 folds:"],
    ]
    assert "loss" in lines[0]


@pytest.mark.parametrize("folds", ["together", "sequential"])
def test_held_out_rows_touch_neither_vocabulary_nor_calibration(folds, tmp_path):
    """A word that only held-out rows hold is unknown; an int8 file's scales are those of the training rows."""
    train, test = TWO_FOLDS[0]
    fixed = np.linspace(-2, 2, 40, dtype=np.float32).reshape(10, 4)
    answers = []
    for poison in (0, 1e6):
        x, vocabularies = X.copy(), []
        x[test, 1:] += poison

        def build(x_train, vocabularies=vocabularies):
            lookup = keras.layers.IntegerLookup(output_mode="one_hot", max_tokens=80)
            lookup.adapt(x_train[:, :1].astype(int))
            vocabularies.append({int(word) for word in lookup.get_vocabulary() if word >= 0})
            inputs = keras.Input((4,))
            return keras.Model(inputs, keras.layers.Dense(3)(tfbig.normalizer(x_train)(inputs)))

        def finish(model, x_train, y_train, poison=poison):
            path = tmp_path / f"{poison:g}.tflite"
            lite = tfbig.export(model, path, quantize="int8", calibration=x_train)
            answers.append(lite.predict(fixed))
            return lite

        tfbig.cross_validate(
            *(build, x, LABELS),
            cv=[TWO_FOLDS[0]],
            folds=folds,
            epochs=2,
            seed=0,
            finish=finish,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        assert vocabularies == [set(train)]  # the first column numbers the rows
    np.testing.assert_array_equal(answers[0], answers[1])
