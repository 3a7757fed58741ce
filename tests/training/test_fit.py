import os
import random
import warnings

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import tfbig
from tfbig.backend import keras, tf
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption

BATCHES = 7  # of 32 rows in the 200 of blobs; the last one holds 8


def small(outputs=3, **options):
    return tfbig.models.mlp((4,), outputs, hidden=(8,), **options)


def fit(model, x, y=None, **options):
    return tfbig.fit(model, x, y, **{"epochs": 1, "verbose": 0, **options})


def sparse_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(**options):
    model = small()
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": sparse_loss(), **options})
    return model


def same_weights(one, other):
    pairs = zip(one.model.get_weights(), other.model.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


class Spy(keras.callbacks.Callback):
    """Notes when training begins and how many steps one call takes. Watches no single batch."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_begin(self, logs=None):
        self.steps.append(self.model.steps_per_execution)


def test_a_model_learns_blobs(blobs):
    run = fit(small, *blobs, epochs=10, optimizer=keras.optimizers.Adam(0.05), seed=0)
    # The centres are 4.2 apart and the noise is 0.5: all but a handful of rows can be told apart.
    assert run.history["accuracy"][-1] > 0.95


def test_the_model_is_trained_in_place(blobs):
    model = small()
    assert fit(model, *blobs).model is model


def test_every_epoch_is_in_the_history(blobs):
    run = fit(small, *blobs, epochs=3)
    assert run.epoch == [0, 1, 2]
    assert len(run.history["loss"]) == len(run.epoch_seconds) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({}, {}, id="repeated"),
        pytest.param({"steps_per_execution": 1}, {"steps_per_execution": "auto"}, id="steps together"),
    ],
)
def test_the_same_seed_gives_bit_identical_weights(blobs, one, other):
    def build():
        return small(dropout=0.5)

    runs = [fit(build, *blobs, epochs=2, seed=3, **options) for options in (one, other)]
    assert same_weights(*runs)


def test_another_seed_gives_other_weights(blobs):
    assert not same_weights(fit(small, *blobs, seed=3), fit(small, *blobs, seed=4))


def test_steps_together_give_the_same_history(blobs):
    x, y = blobs
    validation = (x[:50], y[:50])
    histories = [
        fit(small, *blobs, epochs=2, seed=3, validation_data=validation, steps_per_execution=steps).history
        for steps in (1, "auto")
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps"), [(200, 32, BATCHES), (70, 1, 64), (200, 500, 1)], ids=str
)
def test_auto_compiles_the_steps_of_an_epoch_into_one_call_up_to_64(blobs, rows, batch_size, steps):
    x, y = blobs
    spy = Spy()
    fit(small, x[:rows], y[:rows], batch_size=batch_size, callbacks=[spy])
    assert spy.steps == [steps]


def test_a_given_number_of_steps_is_taken(blobs):
    spy = Spy()
    fit(small, *blobs, steps_per_execution=3, callbacks=[spy])
    assert spy.steps == [3]


def test_steps_per_execution_is_restored_after_training(blobs):
    model = compiled(steps_per_execution=2)
    fit(model, *blobs)
    assert model.steps_per_execution == 2


def test_steps_per_execution_is_restored_after_training_fails(blobs):
    def fail(epoch, logs):
        raise RuntimeError("stopped by the test")

    model = compiled(steps_per_execution=2)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        fit(model, *blobs, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=fail)])
    assert model.steps_per_execution == 2


class BatchCounter(keras.callbacks.Callback):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)


@pytest.mark.parametrize(
    "watching",
    [
        BatchCounter,
        lambda seen: keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(batch)
        ),
    ],
    ids=["method", "lambda"],
)
def test_a_callback_that_watches_batches_sees_every_batch(blobs, watching):
    seen = []
    fit(small, *blobs, callbacks=[watching(seen)])
    assert seen == list(range(BATCHES))


class ValidationCounter(keras.callbacks.Callback):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def on_test_batch_end(self, batch, logs=None):
        self.seen.append(batch)


def test_a_callback_that_watches_validation_batches_sees_every_one(blobs):
    seen = []
    fit(small, *blobs, validation_data=blobs, callbacks=[ValidationCounter(seen)])
    assert seen == list(range(BATCHES))


class Watching(keras.callbacks.ModelCheckpoint):
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)


SAVING = {
    "each epoch": (keras.callbacks.ModelCheckpoint, "epoch", BATCHES),
    "every three batches": (keras.callbacks.ModelCheckpoint, 3, 1),
    "a backup of each epoch": (keras.callbacks.BackupAndRestore, "epoch", BATCHES),
    "of the user's own": (Watching, "epoch", 1),
}


@pytest.mark.parametrize(("kind", "every", "steps"), SAVING.values(), ids=SAVING)
def test_saving_between_epochs_slows_nothing_down(blobs, tmp_path, kind, every, steps):
    spy = Spy()
    fit(small, *blobs, callbacks=[kind(str(tmp_path / "m.keras"), save_freq=every), spy])
    assert spy.steps == [steps]


def test_a_single_callback_needs_no_list(blobs):
    spy = Spy()
    fit(small, *blobs, callbacks=spy)
    assert len(spy.steps) == 1


def test_the_history_holds_what_callbacks_add_to_it_as_in_keras(blobs):
    constant = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)
    assert "learning_rate" in fit(small, *blobs, callbacks=[constant]).history


def test_a_compiled_model_keeps_its_optimizer_and_loss(blobs):
    model = compiled()
    optimizer, loss = model.optimizer, model.loss
    fit(model, *blobs)
    assert model.optimizer is optimizer
    assert model.loss is loss


def test_a_compiled_model_keeps_its_metrics_when_another_optimizer_is_passed(blobs):
    run = fit(compiled(metrics=["accuracy"]), *blobs, optimizer="adam")
    assert "accuracy" in run.history


def test_a_compiled_model_keeps_its_optimizer_and_its_state_when_metrics_are_passed(blobs):
    model = compiled()
    fit(model, *blobs)
    optimizer = model.optimizer
    fit(model, *blobs, metrics=["accuracy"])
    assert model.optimizer is optimizer
    assert int(model.optimizer.iterations) == 2 * BATCHES


def test_a_second_fit_goes_on_where_the_first_stopped(blobs):
    model = small()
    fit(model, *blobs)
    fit(model, *blobs)
    assert int(model.optimizer.iterations) == 2 * BATCHES


def test_a_model_the_user_compiles_anew_after_a_fit_keeps_that_loss(blobs):
    x, y = blobs
    model = small()
    fit(model, x, y)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["categorical_accuracy"])
    fit(model, x, np.eye(3)[y])
    assert model.loss is loss
    assert int(model.optimizer.iterations) == BATCHES


def test_an_optimizer_that_is_passed_replaces_the_models(blobs):
    model = compiled()
    fit(model, *blobs, optimizer="rmsprop")
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)


def test_a_loss_that_is_passed_replaces_the_models(blobs):
    model, loss = compiled(), sparse_loss()
    fit(model, *blobs, loss=loss)
    assert model.loss is loss


def test_metrics_that_are_passed_replace_the_tasks(blobs):
    top_two = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top_two")
    assert sorted(fit(small, *blobs, metrics=[top_two]).history) == ["loss", "top_two"]


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_a_builder_gets_the_training_rows_it_asks_for(blobs, wanted):
    got = []
    builders = [
        lambda: got.extend([]) or small(),
        lambda x_train: got.extend([x_train]) or small(),
        lambda x_train, y_train: got.extend([x_train, y_train]) or small(),
    ]
    fit(builders[wanted], *blobs)
    assert len(got) == wanted
    for rows, given in zip(got, blobs, strict=False):
        np.testing.assert_array_equal(rows, given)


def test_validation_rows_are_measured_after_each_epoch(blobs):
    x, y = blobs
    run = fit(small, x, y, epochs=2, validation_data=(x[:40], y[:40]))
    model = run.model
    measured = model.evaluate(x[:40], y[:40], verbose=0, return_dict=True)
    # float32, summed over batches in another order.
    assert run.history["val_loss"][-1] == pytest.approx(measured["loss"], rel=1e-5)
    assert len(run.history["val_loss"]) == 2


def test_a_validation_row_of_weight_0_does_not_count(blobs):
    x, y = blobs
    shown, hidden = np.arange(40), np.arange(40, 200)
    weights = np.isin(np.arange(200), shown).astype(float)
    scrambled = y.copy()
    scrambled[hidden] = (scrambled[hidden] + 1) % 3
    losses = [
        fit(small, x, y, seed=0, validation_data=(x, labels, weights)).history["val_loss"]
        for labels in (y, scrambled)
    ]
    assert losses[0] == losses[1]


def test_validation_may_be_a_stream(blobs):
    stream = tf.data.Dataset.from_tensor_slices(blobs).batch(50)
    assert "val_accuracy" in fit(small, *blobs, validation_data=stream).history


def test_rows_of_weight_0_have_no_influence(blobs):
    x, y = blobs
    weights = (np.arange(200) % 2).astype(float)
    scrambled = np.where(weights == 0, (y + 1) % 3, y)
    runs = [fit(small, x, labels, sample_weight=weights, seed=0) for labels in (y, scrambled)]
    assert same_weights(*runs)


def test_rows_of_a_weight_have_influence(blobs):
    x, y = blobs
    weights = (np.arange(200) % 2).astype(float)
    assert not same_weights(fit(small, x, y, sample_weight=weights, seed=0), fit(small, x, y, seed=0))


def test_a_class_of_weight_0_is_not_learned(blobs):
    x, y = blobs
    run = fit(
        small, x, y, epochs=10, optimizer=keras.optimizers.Adam(0.05), class_weight={0: 1, 1: 1, 2: 0}, seed=0
    )
    predicted = run.model.predict(x, verbose=0).argmax(axis=1)
    assert set(predicted) == {0, 1}


@pytest.mark.parametrize("targets", [lambda y: y, lambda y: np.eye(3)[y]], ids=["labels", "one-hot"])
def test_class_weight_is_the_sample_weight_of_each_label(blobs, targets):
    x, y = blobs
    by_class = fit(small, x, targets(y), class_weight={0: 1.0, 1: 2.0, 2: 0.5}, seed=0)
    by_row = fit(small, x, targets(y), sample_weight=np.array([1.0, 2.0, 0.5])[y], seed=0)
    assert same_weights(by_class, by_row)


@pytest.mark.parametrize("loss", [None, "categorical_focal_crossentropy"])
def test_balanced_class_weights_are_those_of_scikit_learn(blobs, loss):
    x, y = blobs
    rare = (y != 2) | (np.arange(len(y)) % 4 == 0)
    x, y = x[rare], y[rare]
    by_class = dict(enumerate(compute_class_weight("balanced", classes=np.unique(y), y=y)))
    one, other = (
        fit(small, x, y, class_weight=weight, loss=loss, seed=0) for weight in ("balanced", by_class)
    )
    assert one.history == other.history


def test_balanced_class_weights_of_a_stream_are_refused(blobs):
    with pytest.raises(InvalidOption, match="'balanced' needs all rows at once"):
        fit(small(), iter([blobs]), None, class_weight="balanced", loss="sparse_categorical_crossentropy")


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(50 * index, 50 * (index + 1))
        return self.x[rows], self.y[rows]


STREAMS = [
    pytest.param(lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).batch(50), id="tf.data"),
    pytest.param(Batches, id="PyDataset"),
]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_trains_on_all_its_batches(blobs, stream):
    run = fit(small, stream(*blobs), loss=sparse_loss(), epochs=2)
    assert int(run.model.optimizer.iterations) == 2 * 4


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_trains_without_warnings(blobs, stream):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run = fit(small, stream(*blobs), loss=sparse_loss())
    assert len(run.epoch) == 1


def test_a_stream_trains_a_compiled_model_as_it_is(blobs):
    model = compiled()
    optimizer = model.optimizer
    fit(model, tf.data.Dataset.from_tensor_slices(blobs).batch(50))
    assert model.optimizer is optimizer
    assert int(optimizer.iterations) == 4


def test_the_rows_of_a_stream_are_unknown(blobs):
    stream = tf.data.Dataset.from_tensor_slices(blobs).batch(50)
    assert fit(small, stream, loss=sparse_loss()).examples is None


def process_state():
    return {
        "random": random.getstate(),
        "numpy": [repr(part) for part in np.random.get_state()],
        "dtype policy": keras.config.dtype_policy().name,
        "legacy switch": os.environ.get("TF_USE_LEGACY_KERAS"),
        "tf.keras": tf.keras.Model,
    }


@pytest.mark.parametrize("seed", [None, 3])
def test_the_process_is_left_as_found(blobs, seed):
    # Built before: Keras itself draws from Python's generator when layers are made.
    model = small(dropout=0.5)
    before = process_state()
    fit(model, *blobs, seed=seed)
    assert process_state() == before


def test_a_builder_with_a_seed_leaves_the_generators_as_found(blobs):
    before = process_state()
    fit(small, *blobs, seed=3)
    assert process_state() == before


X, Y = np.arange(80, dtype=np.float32).reshape(20, 4), np.arange(20) % 3


def changed(array, index, value):
    array = array.astype(float) if isinstance(value, float) else array.copy()
    array[index] = value
    return array


def sequence_model():
    return keras.Sequential([keras.Input((4, 2)), keras.layers.Dense(3)])


def tf_keras_model():
    import tf_keras

    return tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))])


# What is wrong, as changes to fit(small, X, Y); "made" is a model that the test makes, not a builder.
BAD_INPUT = {
    "lengths differ": ({"y": Y[:19]}, InvalidData, "20 rows of x and 19 of y"),
    "NaN in x": ({"x": changed(X, (3, 1), np.nan)}, InvalidData, r"x must be finite; got 1 .*index \(3, 1\)"),
    "infinity in x": ({"x": changed(X, (5, 0), np.inf)}, InvalidData, r"x must be finite; .*index \(5, 0\)"),
    "NaN in y": ({"y": changed(Y, 4, np.nan)}, InvalidData, r"y must be finite; got 1 .*index \(4,\)"),
    "label too high": ({"y": changed(Y, 5, 3)}, InvalidData, "from 0 to 2; row 5 of y holds 3"),
    "label below 0": ({"y": changed(Y, 6, -1)}, InvalidData, "from 0 to 2; row 6 of y holds -1"),
    "text in x": ({"x": np.full((20, 4), "a")}, InvalidData, "x must hold numbers; got .*'a'"),
    "text in y": ({"y": np.full(20, "cat")}, InvalidData, "y must hold numbers; got .*'cat'.*tfbig.clean"),
    "empty": (
        {"x": X[:0], "y": Y[:0]},
        InvalidData,
        r"at least one row; got an empty array of shape \(0, 4\)",
    ),
    "rows of different lengths": ({"x": [[1.0], [1.0, 2.0]], "y": [0, 1]}, InvalidData, "rectangular"),
    "no y": ({"y": None}, InvalidData, "y is missing: x is an array"),
    "values for a classifier": ({"y": X[:, 0] + 0.5}, InvalidModel, "3 outputs .*model with 1 output"),
    "too many columns of y": ({"y": np.eye(4)[Y]}, InvalidModel, r"3 outputs .*\(20, 4\).*Needed: 4 outputs"),
    "labels for a regression": (
        {"model": lambda: small(3, task="regression")},
        InvalidModel,
        "gives 3 outputs per row and y has shape",
    ),
    "three outputs of a sequence": (
        {"model": sequence_model, "x": np.zeros((20, 4, 2))},
        InvalidModel,
        r"one output of shape \(batch, outputs\); .*\(None, 4, 3\). Pass loss=",
    ),
    "three axes in y": ({"y": np.zeros((20, 3, 2))}, InvalidModel, "they do not fit"),
    "too few columns of x": (
        {"x": X[:, :3]},
        InvalidModel,
        r"rows of shape \(4,\); x has rows of shape \(3,\)",
    ),
    "too many axes of x": ({"x": X[..., None]}, InvalidModel, r"rows of shape \(4,\); x has .* \(4, 1\)"),
    "no epochs": ({"epochs": 0}, InvalidOption, "epochs must be a whole number of at least 1; got 0"),
    "a fraction of rows": ({"batch_size": 2.5}, InvalidOption, "batch_size must be a whole .*; got 2.5"),
    "no steps": ({"steps_per_execution": 0}, InvalidOption, "steps_per_execution must be .*; got 0"),
    "misspelt option": ({"epoch": 3}, UnknownOption, r"no option 'epoch'\. Did you mean 'epochs'\?"),
    "unknown optimizer": ({"optimizer": "addam"}, InvalidOption, r"got 'addam'\. Did you mean 'adam'\?"),
    "an optimizer's class": ({"optimizer": dict}, InvalidOption, "a name or a keras.optimizers.Optimizer"),
    "no model": ({"model": "mlp"}, InvalidModel, "Expected a keras.Model or a builder; got str"),
    "a layer": ({"made": lambda: keras.layers.Dense(3)}, InvalidModel, "Expected a keras.Model.*; got Dense"),
    "a tf_keras model": (
        {"made": tf_keras_model},
        InvalidModel,
        "legacy tf_keras model: rebuild it with Keras 3",
    ),
    "a builder of nothing": ({"model": lambda: None}, InvalidModel, "returns a keras.Model; .* NoneType"),
    "negative weight": ({"sample_weight": -np.ones(20)}, InvalidData, "sample_weight must not be negative"),
    "NaN weight": ({"sample_weight": np.full(20, np.nan)}, InvalidData, "sample_weight must be finite"),
    "weights of fewer rows": (
        {"sample_weight": np.ones(9)},
        InvalidData,
        "one weight per row of x, 20; got 9",
    ),
    "weights of two axes": (
        {"sample_weight": np.ones((20, 3))},
        InvalidData,
        r"sample_weight must have .*\(20,\).*got .*\(20, 3\)",
    ),
    "a label without weight": (
        {"class_weight": {0: 1.0, 2: 1.0}},
        InvalidOption,
        r"every label in y; missing: \[1\]",
    ),
    "class_weight of a regression": (
        {"model": lambda: small(1, task="regression"), "class_weight": {0: 1.0}},
        InvalidOption,
        "class_weight is for one label per row; this is a regression task",
    ),
    "class_weight that is no mapping": (
        {"class_weight": 2.0},
        InvalidOption,
        'class_weight must .*or be "balanced"',
    ),
    "balanced values": (
        {
            "model": lambda: small(1, task="regression"),
            "y": np.linspace(0, 1, 20),
            "loss": "mse",
            "class_weight": "balanced",
        },
        InvalidOption,
        "whole-number labels, one per row",
    ),
    "class_weight misspelt": ({"class_weight": "balance"}, InvalidOption, "Did you mean 'balanced'"),
    "both kinds of weights": (
        {"class_weight": {0: 1, 1: 1, 2: 1}, "sample_weight": np.ones(20)},
        InvalidOption,
        "class_weight .*sample_weight",
    ),
    "a callback that is none": (
        {"callbacks": [print]},
        InvalidOption,
        "keras.callbacks.Callback objects; got",
    ),
    "callbacks that are no list": ({"callbacks": 5}, InvalidOption, "keras.callbacks.Callback objects; got"),
    "validation_data of one array": (
        {"validation_data": X},
        InvalidData,
        r"validation_data must be \(x, y\), \(x, y, sample_weight\) or a stream; got ndarray",
    ),
    "validation lengths differ": ({"validation_data": (X, Y[:7])}, InvalidData, "7 of validation y"),
    "NaN in validation x": (
        {"validation_data": (changed(X, (2, 2), np.nan), Y)},
        InvalidData,
        r"validation x must be finite; .*index \(2, 2\)",
    ),
    "validation x of other columns": (
        {"validation_data": (X[:, :3], Y)},
        InvalidModel,
        r"takes rows of shape \(4,\); .* shape \(3,\)",
    ),
    "validation label too high": ({"validation_data": (X, Y + 1)}, InvalidData, "row 2 of .*y holds 3"),
    "one-hot validation y of fewer classes": (
        {"validation_data": (X, np.eye(2)[Y % 2])},
        InvalidModel,
        "3 outputs .* do not fit",
    ),
    "validation y of more values": (
        {
            "model": lambda: small(1, task="regression"),
            "y": X[:, 0],
            "validation_data": (X, X[:, :2]),
        },
        InvalidModel,
        "1 output .* do not fit",
    ),
    "a stream without a loss": (
        {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(5), "y": None},
        InvalidOption,
        "task cannot be seen: pass loss=, or compile the model",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused_before_training_starts(changes, error, message):
    spy = Spy()
    options = {"model": small, "x": X, "y": Y, "callbacks": [spy], **changes}
    if "made" in options:
        options["model"] = options.pop("made")()
    with pytest.raises(error, match=message):
        fit(**options)
    assert not spy.steps


def test_a_loaded_model_goes_on_with_one_hot_targets_of_its_task(blobs, tmp_path):
    x, y = blobs
    model = tfbig.fit(tfbig.models.mlp((4,), 3, hidden=(8,)), x, y, epochs=1, verbose=0).model
    again = tfbig.load_model(tfbig.save_model(model, tmp_path / "m.keras"))
    run = tfbig.fit(again, x, np.eye(3)[y], epochs=1, verbose=0)
    assert np.isfinite(run.history["loss"][0])


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "a"])
def test_a_seed_that_is_none_is_refused(blobs, seed):
    with pytest.raises(InvalidOption, match="seed must be"):
        tfbig.fit(tfbig.models.mlp((4,), 3), *blobs, seed=seed)


def test_one_metric_may_be_named_alone(blobs):
    run = tfbig.fit(tfbig.models.mlp((4,), 3), *blobs, epochs=1, metrics="accuracy", verbose=0)
    assert "accuracy" in run.history


def test_settings_of_a_compiled_model_survive_a_new_optimizer(blobs):
    model = tfbig.models.mlp((4,), 3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    tfbig.fit(model, *blobs, epochs=1, optimizer="adam", verbose=0)
    assert model.run_eagerly
    assert isinstance(model.optimizer, keras.optimizers.Adam)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulating_8_batches_of_32_is_a_batch_of_256(optimizer):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(512, 4)).astype(np.float32)
    y = (x @ generator.normal(size=4) > 0).astype(int)

    def weights(**options):
        keras.utils.set_random_seed(0)
        model = tfbig.models.mlp((4,), 2, hidden=(8,))
        options = {"optimizer": optimizer, "learning_rate": 0.01, "epochs": 4, "shuffle": False, **options}
        return fit(model, x, y, **options).model.get_weights()

    whole, accumulated = weights(batch_size=256), weights(batch_size=32, gradient_accumulation=8)
    for one, other in zip(whole, accumulated, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)  # float32 sums in another order
    assert np.abs(whole[0] - weights(batch_size=32)[0]).max() > 1e-3  # or nothing was accumulated


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_rematerialized_training_has_the_same_loss(blobs, dropout):
    def losses(**options):
        keras.utils.set_random_seed(0)
        model = tfbig.models.mlp((4,), 3, hidden=(8,) * 4, dropout=dropout)
        return fit(model, *blobs, epochs=3, seed=0, **options).history["loss"]

    # The same float32 operations; XLA is not in it, but kernels may be fused in another way.
    np.testing.assert_allclose(losses(rematerialize=True), losses(), rtol=1e-6)


def test_a_schedule_by_name_spans_the_training_and_is_followed(blobs):
    optimizer = keras.optimizers.SGD(0.5)
    run = fit(
        small,
        *blobs,
        optimizer=optimizer,
        learning_rate="cosine",
        epochs=5,
        callbacks=[tfbig.callbacks.LearningRate()],
    )
    rates = run.history["learning_rate"]
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert rates == sorted(rates, reverse=True)
    assert 0.4 < rates[0] < 0.5  # after 7 of 35 steps, 2 of them warm-up


def test_tensorboard_writes_what_is_trained(blobs, tmp_path):
    pytest.importorskip("tensorboard")
    run = fit(
        small, *blobs, validation_data=blobs, epochs=2, callbacks=[keras.callbacks.TensorBoard(tmp_path)]
    )
    assert len(run.epoch) == 2
    assert {path.parent.name for path in tmp_path.rglob("events*")} == {"train", "validation"}


def test_tables_of_pandas_train_as_their_values_do(blobs):
    pandas = pytest.importorskip("pandas")
    x, y = blobs
    table = pandas.DataFrame(x, columns=list("abcd"), index=np.arange(len(x))[::-1])
    series = pandas.Series(y, index=table.index)
    runs = [fit(small, *data, seed=0, epochs=2) for data in ((table, series), (x, y))]
    assert same_weights(*runs)
