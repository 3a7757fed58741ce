import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV, cross_validate, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption
from tfbig.evaluation.estimators import KerasClassifier, KerasRegressor

NAMES = np.array(["ant", "bee", "cat"])


def small(input_shape, outputs, task, hidden=(), dropout=0.0):
    return tfbig.models.mlp(input_shape, outputs, task=task, hidden=hidden, dropout=dropout)


def classifier(build=small, **options):
    """Learns the blobs in a few epochs; plain SGD is traced fastest."""
    defaults = {"epochs": 3, "batch_size": 8, "optimizer": "sgd", "optimizer__learning_rate": 0.1, "seed": 0}
    return KerasClassifier(build, **{**defaults, **options})


def regressor(build=small, **options):
    defaults = {"epochs": 5, "batch_size": 8, "optimizer": "sgd", "optimizer__learning_rate": 0.02, "seed": 0}
    return KerasRegressor(build, **{**defaults, **options})


class Spy(keras.callbacks.Callback):
    """Notes each epoch that ends, and the learning rate with which each training begins."""

    def __init__(self):
        super().__init__()
        self.epochs, self.rates = [], []

    def on_train_begin(self, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(epoch)


class Recorder:
    """A builder that notes what it is called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, input_shape, outputs, task, x_train, y_train, width=4):
        self.calls.append((input_shape, outputs, task, x_train, y_train, width))
        return small(input_shape, outputs, task)


# Steps of SGD on batches: a row of weight 2 is one step twice as long, a row that comes twice is two steps.
WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data": "minibatch SGD; scikit-learn's MLP fails it alike"
}


@parametrize_with_checks(
    [
        # The check of class weights weighs rows 1000 and 0.0001: clipping keeps plain SGD stable.
        classifier(epochs=5, batch_size=4, optimizer__learning_rate=0.3, optimizer__clipnorm=1.0, metrics=[]),
        regressor(batch_size=4, optimizer__learning_rate=0.01, metrics=[]),
    ],
    expected_failed_checks=lambda estimator: WEIGHTS,
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", [KerasClassifier, KerasRegressor])
def test_without_arguments_it_is_an_mlp_with_the_defaults_of_fit(kind):
    parameters = kind().get_params()
    assert parameters["build"] is tfbig.models.mlp
    assert {
        "hidden": None,
        "preset": "small",
        "dropout": 0.0,
        "epochs": 10,
        "batch_size": 32,
        "verbose": 0,
    }.items() <= (parameters.items())
    assert "sample_weight" not in parameters
    assert ("class_weight" in parameters) == (kind is KerasClassifier)


def test_none_stands_for_an_mlp(blobs):
    model = KerasClassifier(None, hidden=(5,), epochs=1).fit(*blobs).model_
    assert [w.shape for w in model.trainable_weights] == [(4, 5), (5,), (5, 3), (3,)]


def test_parameters_read_and_set_as_attributes():
    estimator = KerasClassifier(hidden=(8,), epochs=3)
    assert (estimator.hidden, estimator.epochs, estimator.dropout) == ((8,), 3, 0.0)
    estimator.epochs = 4
    assert estimator.get_params()["epochs"] == 4
    with pytest.raises(AttributeError, match="'KerasClassifier' object has no attribute 'epoch'"):
        estimator.epoch  # noqa: B018
    assert repr(estimator) == "KerasClassifier(build=mlp, hidden=(8,), epochs=4)"


def test_another_builder_brings_its_own_parameters(digits):
    estimator = KerasClassifier(epochs=1).set_params(filters=(2,), build=tfbig.models.cnn, dense=())
    assert estimator.filters == (2,)
    assert "hidden" not in estimator.get_params()
    estimator.fit(digits.x_train[:50], digits.y_train[:50])
    assert estimator.model_.input_shape == (None, 8, 8, 1)
    assert estimator.predict_proba(digits.x_test[:7]).shape == (7, 10)


def test_options_of_the_former_builder_are_refused(blobs):
    estimator = KerasClassifier(hidden=(8,)).set_params(build=tfbig.models.cnn)
    with pytest.raises(UnknownOption, match="no option 'hidden'.* Arguments of cnn: .*filters"):
        estimator.fit(*blobs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, r"KerasClassifier has no option 'epoch'\. Did you mean 'epochs'\?"),
        (
            {"hiden": (3,)},
            r"no option 'hiden'\. Did you mean 'hidden'\? Arguments of mlp: input_shape, outputs",
        ),
        ({"sample_weight": 1}, r"no option 'sample_weight'\. It goes to fit\(X, y, sample_weight=\.\.\.\)"),
    ],
)
def test_a_misspelt_option_is_told_at_once(options, message):
    with pytest.raises(UnknownOption, match=message):
        KerasClassifier(**options)
    estimator = KerasClassifier()
    with pytest.raises(UnknownOption, match=message):
        estimator.set_params(**options)
    assert not set(options) & set(estimator.get_params())


def test_a_regression_has_no_class_weight():
    with pytest.raises(UnknownOption, match="KerasRegressor has no option 'class_weight'"):
        KerasRegressor(class_weight="balanced")


def test_a_misspelt_setting_of_the_optimizer(blobs):
    estimator = classifier(optimizer__learning_rte=0.1)
    with pytest.raises(
        UnknownOption, match="SGD has no setting 'learning_rte'. Did you mean 'learning_rate'?"
    ):
        estimator.fit(*blobs)


def test_an_argument_that_nobody_gives(blobs):
    def build(input_shape, width):
        return tfbig.models.mlp(input_shape, 3, hidden=(width,))

    with pytest.raises(
        InvalidModel, match=r"build needs width, which nobody gives.*KerasClassifier\(build, wid"
    ):
        classifier(build).fit(*blobs)
    assert classifier(build, width=6).fit(*blobs).model_.layers[0].units == 6


def test_a_builder_that_returns_no_model(blobs):
    with pytest.raises(InvalidModel, match="returns a keras.Model; <lambda> returned NoneType"):
        classifier(lambda: None).fit(*blobs)


def test_a_model_is_no_builder(blobs):
    with pytest.raises(
        InvalidModel, match="needs a builder, so that each fit starts with a fresh model; got Seq"
    ):
        KerasClassifier(tfbig.models.mlp((4,), 3)).fit(*blobs)


def test_a_builder_that_hands_out_one_model_would_carry_a_fold_into_the_next(blobs):
    model = tfbig.models.mlp((4,), 3, hidden=())
    estimator = classifier(lambda: model).fit(*blobs)
    with pytest.raises(InvalidModel, match="returned a model that was trained already"):
        clone(estimator).fit(*blobs)


def test_a_model_of_another_number_of_outputs(blobs):
    with pytest.raises(InvalidModel, match=r"gives 5 outputs per row; y calls for 3 \(multiclass\)"):
        classifier(lambda: tfbig.models.mlp((4,), 5)).fit(*blobs)


def test_an_iterator_would_be_empty_in_the_second_fit(blobs):
    with pytest.raises(InvalidOption, match="callbacks must be a list: an iterator"):
        classifier(callbacks=iter([Spy()])).fit(*blobs)


def test_the_builder_is_given_sizes_rows_and_options(blobs):
    x, y = blobs
    build = Recorder()
    classifier(build, width=9, epochs=1).fit(x, NAMES[y])
    [(input_shape, outputs, task, x_train, y_train, width)] = build.calls
    assert (input_shape, outputs, task, width) == ((4,), 3, "multiclass", 9)
    np.testing.assert_array_equal(x_train, x)
    np.testing.assert_array_equal(y_train, y)


def test_a_builder_may_take_any_name_and_share_options_with_fit(blobs):
    seen = {}

    def build(x, epochs=2, **rest):
        seen.update(rest, epochs=epochs)
        return tfbig.models.mlp(x.shape[1:], 3, hidden=())

    estimator = KerasClassifier(build, anything=1).fit(*blobs)
    assert seen == {"anything": 1, "epochs": 2}
    assert len(estimator.history_["loss"]) == 2


def test_a_builder_that_takes_the_optimizer_compiles(blobs):
    def build(optimizer="sgd"):
        model = tfbig.models.mlp((4,), 3, hidden=())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.get(optimizer), loss=loss)
        return model

    model = (
        KerasClassifier(build, optimizer="rmsprop", optimizer__learning_rate=0.5, epochs=1).fit(*blobs).model_
    )
    assert type(model.optimizer) is keras.optimizers.RMSprop
    assert float(model.optimizer.learning_rate) == 0.5


def test_it_trains_as_fit_does(blobs):
    x, y = blobs
    run = tfbig.fit(
        lambda: tfbig.models.mlp((4,), 3, hidden=(8,), dropout=0.2), x, y, epochs=2, seed=3, verbose=0
    )
    estimator = KerasClassifier(hidden=(8,), dropout=0.2, epochs=2, seed=3).fit(x, y)
    assert estimator.history_ == run.history
    for mine, theirs in zip(estimator.model_.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_every_fit_starts_afresh(blobs):
    estimator = classifier(
        optimizer=keras.optimizers.SGD(0.1), metrics=[keras.metrics.SparseCategoricalAccuracy()]
    )
    first = estimator.fit(*blobs).model_
    weights = first.get_weights()
    second = estimator.fit(*blobs).model_
    assert second is not first
    assert not estimator.optimizer.built
    for before, after in zip(weights, second.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_failed_fit_leaves_no_model_of_other_data(blobs):
    x, y = blobs
    estimator = classifier().fit(x, y)
    with pytest.raises(InvalidOption, match="epochs"):
        estimator.set_params(epochs=0).fit(x, y)
    with pytest.raises(NotFittedError):
        estimator.predict(x)


@pytest.mark.parametrize("estimator", [classifier(), regressor()])
def test_predict_before_fit(estimator):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        estimator.predict(np.ones((2, 4)))


def test_clones_keep_every_option_and_leave_the_model_behind(blobs):
    spy = Spy()
    estimator = classifier(epochs=2, callbacks=[spy], optimizer=keras.optimizers.Adam(0.25)).fit(*blobs)
    twin = clone(estimator)
    assert set(twin.get_params()) == set(estimator.get_params())
    assert (twin.epochs, twin.build, twin.optimizer__learning_rate) == (2, small, 0.1)
    assert spy.epochs == twin.callbacks[0].epochs == [0, 1]
    assert spy.model is estimator.model_
    assert twin.callbacks[0].model is None
    assert not hasattr(twin, "model_")


def test_cross_validation_trains_every_epoch_of_every_fold(blobs):
    """Keras's own wrapper loses its fit options in the clone, and trains one epoch."""
    estimator = classifier(epochs=7, callbacks=[Spy()])
    found = cross_validate(estimator, *blobs, cv=3, return_estimator=True)
    for fold in found["estimator"]:
        assert fold.callbacks[0].epochs == list(range(7))
        assert len(fold.history_["loss"]) == 7
    assert estimator.callbacks[0].epochs == []
    assert found["test_score"].min() > 0.9


@pytest.mark.parametrize(
    "again", [lambda e, _: pickle.loads(pickle.dumps(e)), "joblib"], ids=["pickle", "joblib"]
)
def test_a_fitted_estimator_comes_back_whole(again, blobs, tmp_path):
    x, y = blobs
    estimator = classifier(callbacks=[Spy()], optimizer="adam").fit(x, NAMES[y])
    if again == "joblib":
        joblib.dump(estimator, tmp_path / "estimator.joblib")
        back = joblib.load(tmp_path / "estimator.joblib")
    else:
        back = again(estimator, tmp_path)
    np.testing.assert_array_equal(back.predict_proba(x), estimator.predict_proba(x))
    assert back.predict(x).tolist() == estimator.predict(x).tolist()
    assert back.history_ == estimator.history_
    assert back.callbacks[0].model is back.model_
    # Adam's moments came along: both go on to the same place.
    back.partial_fit(x, NAMES[y])
    estimator.partial_fit(x, NAMES[y])
    np.testing.assert_array_equal(back.model_.get_weights()[0], estimator.model_.get_weights()[0])


@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        NAMES.astype(object),
        np.array([7, -2, 100]),
        np.array([1.0, 5.0, 3.0]),
        np.array([2, 3, 9], np.uint8),
    ],
    ids=["str", "object", "int", "float", "uint8"],
)
def test_labels_of_any_type(labels, blobs):
    x, y = blobs
    estimator = classifier().fit(x, labels[y])
    assert estimator.classes_.tolist() == sorted(labels.tolist())
    predicted = estimator.predict(x)
    assert predicted.dtype == labels.dtype
    assert np.mean(predicted == labels[y]) > 0.95
    likely = estimator.predict_proba(x)
    np.testing.assert_allclose(likely.sum(axis=1), 1)
    assert (estimator.classes_[likely.argmax(axis=1)] == predicted).all()


@pytest.mark.parametrize("labels", [np.array([False, True]), np.array(["yes", "no"])], ids=["bool", "str"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_two_classes_have_a_logit_between_them_or_one_each(labels, outputs, blobs):
    def build():
        return tfbig.models.mlp((4,), outputs, task="binary" if outputs == 1 else None, hidden=())

    x, y = blobs
    y = labels[(y > 0).astype(int)]
    estimator = classifier(build).fit(x, y)
    assert estimator.predict_proba(x).shape == (200, 2)
    assert estimator.predict(x).dtype == labels.dtype
    assert estimator.score(x, y) > 0.95


class Subclassed(keras.Model):
    """Does not say how many outputs it gives."""

    def __init__(self, outputs):
        super().__init__()
        self.dense = keras.layers.Dense(outputs, "softmax")

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("outputs", [2, 3])
def test_a_subclassed_model_with_a_loss_of_its_own(outputs, blobs):
    x, y = blobs
    labels = NAMES[np.minimum(y, outputs - 1)]
    # Two classes with an output each: how many there are shows in the outputs only.
    estimator = classifier(lambda: Subclassed(outputs), loss="sparse_categorical_crossentropy").fit(x, labels)
    assert estimator.predict_proba(x).shape == (200, outputs)
    assert estimator.score(x, labels) > 0.9


def test_a_subclassed_model_of_another_number_of_outputs(blobs):
    with pytest.raises(InvalidModel, match="gives 5 outputs per row; y calls for 3"):
        classifier(lambda: Subclassed(5), loss="sparse_categorical_crossentropy").fit(*blobs)


def test_logits_that_lie_between_0_and_1_are_no_probabilities(blobs):
    x, y = blobs
    estimator = classifier().fit(x, y > 0)
    logits = np.asarray(estimator.model_(x))[:, 0]
    inside = (logits > 0) & (logits < 1)
    assert inside.any()
    np.testing.assert_allclose(
        estimator.predict_proba(x[inside])[:, 1], 1 / (1 + np.exp(-logits[inside])), rtol=1e-5
    )


def test_labels_in_a_column_are_taken_with_scikit_learns_warning(blobs):
    x, y = blobs
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        estimator = classifier().fit(x, y[:, None])
    assert estimator.predict(x).shape == (200,)


@pytest.mark.parametrize("one_each", [False, True])
def test_several_labels_per_row(one_each, blobs):
    """A column per label stays multilabel when each row happens to have one label."""
    x, y = blobs
    indicator = np.eye(3, dtype=int)[y]
    if not one_each:
        indicator[:, 0] = 1
    estimator = classifier(lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "sigmoid")]))
    estimator.set_params(epochs=15, optimizer__learning_rate=0.5).fit(x, indicator)
    assert type(estimator.model_.loss) is keras.losses.BinaryCrossentropy
    assert estimator.classes_.tolist() == [0, 1, 2]
    likely = estimator.predict_proba(x)
    np.testing.assert_array_equal(estimator.predict(x), likely > 0.5)
    assert estimator.score(x, indicator) > 0.9


def test_several_columns_of_classes_are_refused(blobs):
    x, y = blobs
    with pytest.raises(InvalidData, match="y of several columns must hold zeros and ones"):
        classifier().fit(x, np.column_stack([y, y]))


def test_values_have_the_shape_of_y(blobs):
    x, _ = blobs
    for y in (x[:, 0], x[:, :1], x[:, :2]):
        estimator = regressor().fit(x, y)
        assert estimator.predict(x).shape == y.shape
        assert estimator.score(x, y) > 0.8


def test_a_regression_within_0_and_1_may_end_in_a_sigmoid(blobs):
    x, _ = blobs
    y = (x[:, 0] > 1).astype(int)
    build = lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])  # noqa: E731
    estimator = regressor(build, optimizer__learning_rate=0.5).fit(x, y)
    assert type(estimator.model_.loss) is keras.losses.MeanSquaredError
    assert list(estimator.history_) == ["loss", "mae"]


def test_frames_and_their_names(blobs):
    x, y = blobs
    frame = pd.DataFrame(x, columns=list("abcd"))
    estimator = classifier().fit(frame, pd.Series(NAMES[y], index=range(100, 300)))
    assert estimator.feature_names_in_.tolist() == list("abcd")
    assert estimator.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame.rename(columns={"a": "z"}))


def test_images_of_another_shape(digits):
    estimator = KerasClassifier(tfbig.models.cnn, filters=(2,), dense=(), epochs=1)
    estimator.fit(digits.x_train[:50], digits.y_train[:50])
    with pytest.raises(InvalidData, match=r"takes rows of shape \(8, 8, 1\)"):
        estimator.predict(np.zeros((2, 8, 9, 1)))


def test_a_row_of_weight_zero_teaches_nothing(blobs):
    x, y = blobs
    wrong = y.copy()
    wrong[:150] = 0
    weights = np.r_[np.zeros(150), np.ones(50)]
    assert classifier(epochs=6).fit(x, wrong, weights).score(x[:150], y[:150]) > 0.9
    assert classifier(epochs=6).fit(x, wrong).score(x[:150], y[:150]) < 0.6


def test_class_weights_are_given_by_the_users_labels(blobs):
    x, y = blobs
    noise = np.random.default_rng(0).normal(scale=4, size=x.shape).astype(np.float32)
    for favourite in NAMES:
        weights = {name: 50.0 if name == favourite else 1.0 for name in NAMES}
        predicted = (
            classifier(class_weight=weights, optimizer__clipnorm=1.0).fit(x + noise, NAMES[y]).predict(x)
        )
        assert np.mean(predicted == favourite) > 0.6


def test_balanced_class_weights_are_those_of_scikit_learn(blobs):
    x, y = blobs
    kept = np.r_[np.flatnonzero(y == 0)[:5], np.flatnonzero(y > 0)]
    x, y = x[kept], NAMES[y[kept]]
    counts = {name: len(y) / 3 / np.sum(y == name) for name in NAMES}
    balanced = classifier(class_weight="balanced").fit(x, y)
    np.testing.assert_array_equal(
        balanced.predict_proba(x), classifier(class_weight=counts).fit(x, y).predict_proba(x)
    )
    rows = np.array([counts[name] for name in y])
    np.testing.assert_array_equal(balanced.predict_proba(x), classifier().fit(x, y, rows).predict_proba(x))


@pytest.mark.parametrize(
    ("options", "y", "weights", "message"),
    [
        ({}, [0] * 6, None, "at least 2 classes; got 1 class, 0"),
        (
            {},
            [0, 0, 0, 1, 1, 1],
            [1, 1, 1, 0, 0, 0],
            "2 classes in rows with a weight above zero; got 1 class",
        ),
        ({}, [0, 1] * 3, [0] * 6, "some row a weight above zero"),
        ({}, [0, 1] * 3, [1] * 5, "one weight per row of x, 6; got 5"),
        (
            {"class_weight": {0: 1, 7: 1}},
            [0, 1] * 3,
            None,
            r"The classes, \[.*1.*\], are not in class_weight",
        ),
        (
            {"class_weight": {0: 1}},
            [[1, 1], [0, 1]] * 3,
            None,
            "one label per row; this is a multilabel task",
        ),
        (
            {"validation_data": (np.ones((1, 2)), ["x"])},
            [0, 1] * 3,
            None,
            "validation y must hold the classes of",
        ),
    ],
)
def test_bad_targets_and_weights(options, y, weights, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options).fit(np.arange(12.0).reshape(6, 2), y, weights)


def test_validation_data_has_the_users_labels(blobs):
    x, y = blobs
    estimator = classifier(validation_data=(x[:20], NAMES[y[:20]])).fit(x, NAMES[y])
    assert len(estimator.history_["val_accuracy"]) == 3
    assert estimator.history_["val_accuracy"][-1] > 0.9
    assert "val_loss" in regressor(validation_data=(x[:20], x[:20, 0])).fit(x, x[:, 0]).history_


def test_partial_fit_goes_on_from_where_the_model_stands(blobs):
    x, y = blobs
    spy = Spy()
    estimator = classifier(callbacks=[spy])
    estimator.partial_fit(x[y < 2], NAMES[y[y < 2]], classes=NAMES)
    model = estimator.model_
    for _ in range(4):
        estimator.partial_fit(x, NAMES[y])
    assert estimator.model_ is model
    assert spy.epochs == [0] * 5
    assert len(estimator.history_["loss"]) == 5
    assert estimator.score(x, NAMES[y]) > 0.9
    with pytest.raises(
        InvalidData, match=r"y must hold the classes of the first fit, \['ant', 'bee', 'cat'\]; got .*dog"
    ):
        estimator.partial_fit(x[:1], ["dog"])
    with pytest.raises(ValueError, match="X has 3 features, but KerasClassifier is expecting 4"):
        estimator.partial_fit(x[:, :3], NAMES[y])


def test_balanced_weights_need_all_rows_at_once(blobs):
    with pytest.raises(InvalidOption, match="class_weight='balanced' needs all rows at once"):
        classifier(class_weight="balanced").partial_fit(*blobs)


def test_partial_fit_of_values(blobs):
    x, _ = blobs
    estimator = regressor(optimizer="adam", optimizer__learning_rate=0.1)
    losses = [estimator.partial_fit(x, x[:, 0]).history_["loss"][-1] for _ in range(3)]
    assert losses == estimator.history_["loss"]
    assert losses[2] < losses[0] / 2


def test_pipeline_and_grid_search_over_builder_fit_and_optimizer(blobs):
    pipeline = make_pipeline(StandardScaler(), classifier())
    grid = {
        "kerasclassifier__hidden": [(4,)],
        "kerasclassifier__epochs": [4],
        "kerasclassifier__optimizer": ["sgd"],
        "kerasclassifier__optimizer__learning_rate": [1e-6, 0.1],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(*blobs)
    slow, fast = search.cv_results_["mean_test_score"]
    assert slow < 0.7 < 0.9 < fast
    best = search.best_estimator_[-1]
    assert best.model_.layers[0].units == 4
    assert len(best.history_["loss"]) == 4


def test_the_optimizers_setting_reaches_the_training(blobs):
    spy = Spy()
    for optimizer in ("sgd", None, keras.optimizers.RMSprop(0.9)):
        classifier(optimizer=optimizer, optimizer__learning_rate=0.125, epochs=1, callbacks=[spy]).fit(*blobs)
    assert spy.rates == [0.125] * 3


def test_grid_search_over_builders(digits):
    grid = [
        {"build": [tfbig.models.cnn], "filters": [(2,)], "dense": [()]},
        {"build": [tfbig.models.mlp], "hidden": [(4,)]},
    ]
    x, y = digits.x_train[:60], digits.y_train[:60] > 4
    search = GridSearchCV(KerasClassifier(epochs=1), grid, cv=2, error_score="raise").fit(x, y)
    assert [p["build"].__name__ for p in search.cv_results_["params"]] == ["cnn", "mlp"]


def test_halving_search_over_epochs(blobs):
    search = HalvingRandomSearchCV(
        classifier(), {"optimizer__learning_rate": [0.01, 0.1]}, resource="epochs", max_resources=4, factor=2,
        min_resources=2, cv=2, random_state=0,
    )  # fmt: skip
    search.fit(*blobs)
    assert search.cv_results_["n_resources"].tolist() == [2, 2, 4]
    assert search.best_estimator_.epochs == 4


def test_learning_curve(blobs):
    _, train, test = learning_curve(classifier(), *blobs, train_sizes=[20, 130], cv=2 + 1)
    assert train.shape == test.shape == (2, 3)
    assert test[1].mean() > 0.9


def test_permutation_importance_finds_the_columns_that_matter(blobs):
    found = permutation_importance(classifier(epochs=6).fit(*blobs), *blobs, n_repeats=3, random_state=0)
    assert found.importances_mean[:3].min() > 0.05
    assert abs(found.importances_mean[3]) < 0.02  # the same for every class


def test_calibration_and_stacking(blobs):
    x, y = blobs
    calibrated = CalibratedClassifierCV(classifier(), cv=2).fit(x, NAMES[y])
    assert calibrated.score(x, NAMES[y]) > 0.9
    stacked = StackingClassifier([("net", classifier()), ("line", LogisticRegression())], cv=2).fit(
        x, NAMES[y]
    )
    assert stacked.score(x, NAMES[y]) > 0.9
    assert stacked.transform(x).shape == (200, 6)


def test_scorers_of_probabilities(blobs):
    found = cross_validate(
        classifier(), *blobs, cv=2, scoring=["roc_auc_ovr", "neg_log_loss"], error_score="raise"
    )
    assert found["test_roc_auc_ovr"].min() > 0.95
    assert found["test_neg_log_loss"].min() > -0.5
