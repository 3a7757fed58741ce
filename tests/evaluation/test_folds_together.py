"""Folds that train together give what each gives alone: weights, scores and histories, for every kind of model."""

import re

import numpy as np
import pytest
from sklearn.model_selection import TimeSeriesSplit

import tfbig
from tfbig.backend import keras, tf
from tfbig.evaluation import fold_plan, fold_runner
from tfbig.evaluation.fold_engine import FoldEngine
from tfbig.evaluation.splitting_folds import fold_seed

L = keras.layers
GENERATOR = np.random.default_rng(0)
ROWS = 43
Y = np.arange(ROWS) % 3
FEATURES = GENERATOR.normal(size=(ROWS, 6)).astype(np.float32) + Y[:, None]
IMAGES = GENERATOR.normal(size=(ROWS, 6, 6, 2)).astype(np.float32) + Y[:, None, None, None]
SERIES = GENERATOR.normal(size=(ROWS, 3, 4)).astype(np.float32) + Y[:, None, None]
TOKENS = (GENERATOR.integers(0, 4, (ROWS, 3)) + Y[:, None]).astype(np.int32)
# 13, 23 and 33 training rows: with batches of 8 the folds differ in steps and in the size of the last batch.
UNEQUAL = TimeSeriesSplit(3, test_size=10)


@pytest.fixture
def float64():
    """Twice the digits: what remains between two ways is then a mistake, not rounding that training magnifies."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def mlp():
    layers = [L.Dense(7), L.BatchNormalization(), L.ReLU(), L.Dropout(0.3), L.Dense(3)]
    return keras.Sequential([keras.Input((6,)), *layers])


def cnn():
    layers = [
        L.Conv2D(4, 3, padding="same"),
        L.BatchNormalization(),
        L.ReLU(),
        L.MaxPooling2D(),
        L.Conv2D(3, 2),
    ]
    return keras.Sequential([keras.Input((6, 6, 2)), *layers, L.GlobalAveragePooling2D(), L.Dense(3)])


def lstm():
    return keras.Sequential([keras.Input((3, 4)), L.LSTM(5), L.Dense(3)])


def transformer():
    inputs = keras.Input((3, 4))
    x = L.LayerNormalization()(inputs + L.MultiHeadAttention(2, 3, dropout=0.1)(inputs, inputs))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(L.Dense(6, activation="gelu")(x))))


def branches():
    """A graph with branches, depthwise and separable convolution, regularizers and a constraint."""
    inputs = keras.Input((6, 6, 2))
    left = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(inputs)
    right = L.SeparableConv2D(4, 3, padding="same", activity_regularizer=keras.regularizers.L2(0.01))(inputs)
    x = L.SpatialDropout2D(0.2)(L.add([left, right]))
    x = L.concatenate([L.AveragePooling2D(2)(x), L.MaxPooling2D()(x)])
    x = L.Flatten()(L.Conv2D(3, 3, strides=2, kernel_regularizer=keras.regularizers.L2(0.05))(x))
    return keras.Model(inputs, L.Dense(3, kernel_constraint=keras.constraints.MaxNorm(0.5))(x))


def words():
    """Convolution over time, and a GRU behind an embedding's mask."""
    tokens = keras.Input((3,), dtype="int32")
    near = L.Flatten()(L.Conv1D(4, 2, padding="causal")(L.Embedding(7, 2)(tokens)))
    return keras.Model(
        tokens, L.Dense(3)(L.concatenate([near, L.GRU(3)(L.Embedding(7, 4, mask_zero=True)(tokens))]))
    )


LOSS = keras.losses.SparseCategoricalCrossentropy
DATA = {mlp: FEATURES, cnn: IMAGES, lstm: SERIES, transformer: SERIES, branches: IMAGES, words: TOKENS}


def run(build, folds, x=None, **options):
    """The result, and each fold's final weights."""
    weights = []

    def finish(model, x_train, y_train):
        weights.append(model.get_weights())
        return model

    given = {
        "cv": UNEQUAL,
        "epochs": 2,
        "batch_size": 8,
        "seed": 0,
        "loss": LOSS(from_logits=True),
        **options,
    }
    x = DATA[build] if x is None else x
    result = tfbig.cross_validate(build, x, given.pop("y", Y), folds=folds, finish=finish, **given)
    return result, weights


def assert_same(build, tolerance, **options):
    (one, ours), (other, theirs) = run(build, "together", **options), run(build, "sequential", **options)
    assert one.fallback is None
    assert (one.mode, other.mode) == ("together", "sequential")
    for mine, other_fold in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other_fold, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    for name, values in one.scores.items():
        np.testing.assert_allclose(values, other.scores[name], rtol=0, atol=1e-3)
    for a, b in zip(one.histories, other.histories, strict=True):
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-4)
    return one


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("build", [mlp, cnn, lstm, transformer])
def test_together_and_one_after_another_are_the_same(build, optimizer, float64):
    # Losses and scores still pass through float32 here and there.
    assert_same(build, 1e-6, optimizer=optimizer)


@pytest.mark.parametrize("build", [branches, words])
def test_further_layers_are_the_same_too(build, float64):
    assert_same(build, 1e-6, optimizer=keras.optimizers.SGD(0.1, momentum=0.9))


@pytest.mark.parametrize("build", [mlp, cnn])
def test_in_float32_rounding_is_all_that_differs(build):
    # SGD: Adam turns the rounding of a bias that batch normalization undoes into whole steps.
    assert_same(build, 1e-4, optimizer=keras.optimizers.SGD(0.05))


def test_projections_in_attention_are_plain_products_as_in_fit():
    engine = FoldEngine(built(transformer), {"x": tf.constant(SERIES), "y": tf.constant(Y)})
    functions = engine._epoch.get_concrete_function().graph.as_graph_def().library.function
    kinds = [node.op for function in functions for node in function.node_def]
    # Scores, and values by scores: a product for each example, forward once and back twice. All others are plain.
    assert kinds.count("BatchMatMulV2") == 2 * (1 + 2)


class Anchored(keras.optimizers.SGD):
    """Pulls every weight back to where it started, which it remembers."""

    def build(self, variables):
        super().build(variables)
        self.starts = [self.add_variable_from_reference(v, "start") for v in variables]
        for start, variable in zip(self.starts, variables, strict=True):
            start.assign(variable)

    def update_step(self, gradient, variable, learning_rate):
        start = self.starts[self._get_variable_index(variable)]
        super().update_step(gradient + 0.5 * (variable - start), variable, learning_rate)


OPTIONS = {
    "sample weights, a schedule, in order, validation": {
        "sample_weight": np.linspace(0, 2, ROWS),
        "optimizer": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.5, 7)),
        "shuffle": False,
        "validation_data": (FEATURES[:11], Y[:11], np.linspace(1, 2, 11)),
    },
    "class weights, a norm over all weights, another metric": {
        "class_weight": {0: 1.0, 1: 3.0, 2: 0.5},
        "optimizer": lambda: keras.optimizers.SGD(1.0, global_clipnorm=0.1),
        "metrics": [keras.metrics.SparseCategoricalCrossentropy(from_logits=True)],
    },
    "accumulation": {"optimizer": lambda: keras.optimizers.Adam(0.05, gradient_accumulation_steps=2)},
    "an optimizer that starts from the weights, the task's loss": {
        "optimizer": lambda: Anchored(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
        "loss": None,
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_the_same_too(name, float64):
    options = {"optimizer": "sgd", **OPTIONS[name]}
    if callable(options["optimizer"]):
        options["optimizer"] = options["optimizer"]()
    assert_same(mlp, 1e-6, **options)


def plain():
    return keras.Sequential([keras.Input((6,)), L.Dense(5, activation="tanh"), L.Dense(3)])


DATA[plain] = FEATURES


def fitted(fold, **options):
    train, _ = list(UNEQUAL.split(FEATURES))[fold]
    given = {"epochs": 2, "batch_size": 8, "loss": LOSS(from_logits=True), "shuffle": False, "verbose": 0}
    seed = fold_seed(0, fold)
    return tfbig.fit(plain, FEATURES[train], Y[train], seed=seed, **{**given, **options})


CALLBACKS = {
    "early stopping": lambda: [
        keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    ],
    "plateau": lambda: [
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=0, factor=0.3, min_delta=0.02)
    ],
    "schedule": lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7)],
    "two": lambda: [
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=0, min_delta=0.05),
        keras.callbacks.EarlyStopping("val_accuracy", patience=2, mode="max"),
    ],
}


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "together") for name in CALLBACKS), ("two", "sequential")]
)
def test_callbacks_act_on_each_fold_as_keras_fit_lets_them(name, mode):
    options = {
        "epochs": 7,
        "shuffle": False,
        "metrics": ["accuracy"],
        "validation_data": (FEATURES[::3], Y[::3]),
    }
    rate = 1.5  # so high that the validation loss goes up and down
    result, weights = run(
        plain, mode, callbacks=CALLBACKS[name](), optimizer=keras.optimizers.SGD(rate), **options
    )
    assert result.mode == mode
    lengths = set()
    for fold in range(3):
        alone = fitted(fold, callbacks=CALLBACKS[name](), optimizer=keras.optimizers.SGD(rate), **options)
        assert list(result.histories[fold]) == list(alone.history)
        for metric, values in alone.history.items():
            # float32, magnified by a high learning rate.
            np.testing.assert_allclose(result.histories[fold][metric], values, rtol=2e-3, atol=2e-3)
        for a, b in zip(weights[fold], alone.model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-3)
        lengths.add(len(alone.epoch))
    if name in ("early stopping", "two"):
        assert len(lengths) > 1  # folds did stop, and at different epochs


def test_a_fold_that_ends_in_nan_stops_and_the_others_go_on():
    weights = np.ones(ROWS)
    weights[20:23] = 1e38  # rows that the first fold does not train on
    result, _ = run(
        plain,
        "together",
        epochs=3,
        sample_weight=weights,
        optimizer=keras.optimizers.SGD(1.0),
        callbacks=keras.callbacks.TerminateOnNaN(),
        error_score=np.nan,
    )
    assert [len(history["loss"]) for history in result.histories] == [3, 1, 1]
    assert set(result.failures) == {"1", "2"}
    assert np.isfinite(result.scores["accuracy"][0])
    assert np.isnan(result.scores["accuracy"][1:]).all()


def test_the_models_that_finish_gets_are_compiled_and_train_on_where_they_stopped():
    models = []

    def finish(model, x_train, y_train):
        models.append((model, int(model.optimizer.iterations), model.optimizer.variables[-1].numpy()))
        model.fit(x_train, y_train, epochs=1, verbose=0)
        return model

    options = {"cv": UNEQUAL, "epochs": 2, "batch_size": 8, "seed": 0, "loss": LOSS(from_logits=True)}
    tfbig.cross_validate(plain, FEATURES, Y, folds="together", finish=finish, **options)
    assert [steps for _, steps, _ in models] == [2 * 2, 2 * 3, 2 * 5]  # 13, 23 and 33 rows in batches of 8
    assert all(np.abs(velocity).max() > 0 for _, _, velocity in models)


def test_memory_decides_how_many_folds_train_side_by_side(monkeypatch):
    asked = []
    monkeypatch.setattr(
        fold_runner,
        "folds_side_by_side",
        lambda *a: asked.append(fold_plan.folds_side_by_side(*a)) or asked[-1],
    )
    # Three folds of two at a time: the second group is filled up, and traced no second time.
    each = fold_plan.bytes_per_fold(built(plain), FEATURES, 8, 0)
    two, at_two = run(plain, "together", max_memory=int(2.5 * each))
    three, at_three = run(plain, "together")
    assert asked == [2, 3]
    for a, b in zip(at_two, at_three, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert two.mode == three.mode == "together"
    tight, _ = run(plain, "together", max_memory=1)
    assert tight.mode == "sequential"
    assert "MiB" in tight.fallback


def built(build):
    model = build()
    model.compile("adam", LOSS(from_logits=True))
    return model


def watching():
    """Attention whose scores, 2 heads × 64 × 64, outweigh all else; inside a layer of the user's own."""

    class Own(L.Layer):
        def __init__(self):
            super().__init__()
            self.attention = L.MultiHeadAttention(2, 4)

        def build(self, shape):
            self.attention.build(shape, shape)

        def call(self, x):
            return self.attention(x, x)

    return keras.Sequential([keras.Input((64, 4)), Own(), L.GlobalAveragePooling1D(), L.Dense(3)])


def both_ways():
    return keras.Sequential([keras.Input((None, 4)), L.Bidirectional(L.LSTM(5)), L.Dense(3)])


@pytest.mark.parametrize(
    ("build", "shape", "values"),
    [
        pytest.param(plain, (6,), 5 + 3, id="outputs"),
        pytest.param(watching, (64, 4), 2 * 64 * 64, id="scores inside a layer"),
        pytest.param(both_ways, (50, 4), 2 * 50 * 4 * 5, id="gates of a loop of unknown length"),
    ],
)
def test_the_estimate_counts_what_a_step_computes(build, shape, values):
    model = built(build)
    weights = 12 * 4 * sum(int(np.prod(v.shape)) for v in model.variables)
    for batch in (8, 16):
        rows = np.zeros((20, *shape), np.float32)
        estimate = fold_plan.bytes_per_fold(model, rows, batch)
        # What else there is, such as the inputs of an activation, is of the same order.
        assert 1 <= (estimate - weights) / (4 * batch * values) < 5
    assert fold_plan.bytes_per_fold(model, rows, 99) == fold_plan.bytes_per_fold(model, rows, 20)


def test_dicts_of_inputs_are_cross_validated():
    def build(x_train):
        left, right = keras.Input((6,), name="left"), keras.Input((3, 4), name="right")
        merged = L.concatenate([tfbig.normalizer(x_train["left"])(left), L.Flatten()(right)])
        return keras.Model({"left": left, "right": right}, L.Dense(3)(merged))

    x = {"left": FEATURES, "right": SERIES}
    together = assert_same(build, 1e-4, x=x, optimizer="sgd")
    assert together.predictions.shape == (ROWS, 3)


class TwoLosses(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


class Doubled(L.Layer):
    """Changes a variable that belongs to no layer."""

    shared = None

    def call(self, x):
        Doubled.shared.assign(Doubled.shared * 1.5)
        return x * 1.0


class Scaled(L.Layer):
    """Holds a number of its own, which no config tells."""

    def __init__(self, scale):
        super().__init__()
        self.hidden = {"scale": scale}

    def call(self, x):
        return x * self.hidden["scale"]


class Wrapped(keras.Model):
    """A model of the user's own, around Keras's layers."""

    def __init__(self, rate):
        super().__init__()
        self.dropout, self.head = L.Dropout(rate), L.Dense(3)
        self(np.zeros((1, 6)))

    def call(self, x, training=False):
        return self.head(self.dropout(x, training=training))


def adapted(layer, x_train):
    layer.adapt(x_train)
    return layer


def with_layer(layer):
    return keras.Sequential([keras.Input((6,)), layer, L.Dense(3)])


def eager():
    model = plain()
    model.compile("sgd", LOSS(from_logits=True), run_eagerly=True)
    return model


REASONS = {
    "train step": (
        lambda: TwoLosses([keras.Input((6,)), L.Dense(3)]),
        {},
        "TwoLosses has a train_step of its own",
    ),
    "callback": (
        plain,
        {"callbacks": keras.callbacks.LambdaCallback()},
        "the callback LambdaCallback may change the model",
    ),
    "optimizer": (plain, {"optimizer": "schedulefreeadamw"}, "ScheduleFreeAdamW reads its own state"),
    "eager": (eager, {"loss": None}, "the model runs eagerly"),
    "stream": (
        plain,
        {"validation_data": tf.data.Dataset.from_tensor_slices((FEATURES, Y)).batch(8)},
        "validation data is a stream",
    ),
    "balanced weights": (
        plain,
        {"class_weight": "balanced"},
        "balanced class weights are those of each fold's own",
    ),
    "foreign variable": (lambda: with_layer(Doubled()), {}, "variables that are not its own"),
    "own numbers": (
        lambda x_train: with_layer(Scaled(float(x_train.std()))),
        {},
        r"the builder makes fold 1 differ \(.*\.scale: 1\.\d+ against 1\.\d+",
    ),
    "own settings": (
        lambda x_train: with_layer(L.Dropout(len(x_train) / 100)),
        {},
        r"the builder makes fold 1 differ \(.*rate: 0.13 against 0.23",
    ),
    "own vocabulary": (
        lambda x_train: with_layer(adapted(L.Discretization(num_bins=4), x_train)),
        {},
        r"the builder makes fold 1 differ \(.*bin_boundaries",
    ),
    "unbuilt": (lambda: keras.Sequential([L.Dense(3)]), {}, "the model makes its weights at its first batch"),
    "own number in a model": (
        lambda x_train: Wrapped(len(x_train) / 100),
        {},
        r"the builder makes fold 1 differ \(dropout.*rate: 0.13 against 0.23",
    ),
    "own function": (
        lambda x_train: with_layer(L.Lambda(lambda x: x * float(x_train.std()))),
        {},
        r"the builder makes fold 1 differ",
    ),
}


class Noisy(L.Layer):
    """Draws from TensorFlow's hidden generator, where Keras's own layers have seeds."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class Offset(L.Layer):
    """A layer without get_config, which holds an array."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def get_config(self):
        raise NotImplementedError

    def call(self, x):
        return x + self.values


def trained_before():
    model = plain()
    model.compile("adam", LOSS(from_logits=True))
    model.fit(FEATURES, Y, epochs=1, verbose=0)
    return model


REASONS |= {
    "hidden random numbers": (lambda: with_layer(Noisy()), {}, "random numbers that are no fold's own"),
    "no config": (
        lambda x_train: with_layer(Offset(x_train.mean(axis=0))),
        {},
        r"the builder makes fold 1 differ \(offset.*values: other numbers",
    ),
    "a trained model": (trained_before, {"loss": None}, "the builder's model was trained before"),
    "rarity of words": (
        lambda x_train: keras.Sequential(
            [
                keras.Input((6,), dtype="int32"),
                adapted(L.IntegerLookup(output_mode="tf_idf", max_tokens=5), np.abs(x_train).astype(int) % 3),
                L.Dense(3),
            ]
        ),
        {"x": np.abs(FEATURES).astype(np.int32) % 3},
        r"the builder makes fold 1 differ",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_train_together_is_fitted_one_after_another_and_said(name):
    build, options, message = REASONS[name]
    Doubled.shared = keras.Variable(1.0, trainable=False)
    result, _ = run(build, "together", **{"x": FEATURES, "epochs": 1, **options})
    assert result.mode == "sequential"
    assert re.search(message, result.fallback), result.fallback
    assert result.fallback in result.summary()
    assert np.isfinite(result.scores["accuracy"]).all()


def test_a_fold_whose_layers_hold_other_numbers_computes_with_its_own():
    def build(x_train):
        return with_layer(Scaled(float(x_train.std())))

    options = {"cv": UNEQUAL, "epochs": 1, "batch_size": 8, "seed": 0, "shuffle": False}
    options |= {"loss": LOSS(from_logits=True), "optimizer": "sgd"}
    result = tfbig.cross_validate(build, FEATURES, Y, folds="together", **options)
    del options["cv"]
    for k, (train, test) in enumerate(UNEQUAL.split(FEATURES)):
        alone = tfbig.fit(build, FEATURES[train], Y[train], **{**options, "seed": fold_seed(0, k)}, verbose=0)
        np.testing.assert_allclose(
            result.predictions[test], np.asarray(alone.model(FEATURES[test])), atol=1e-4
        )


@pytest.mark.parametrize("folds", ["together", "sequential"])
def test_averages_of_the_weights_are_what_a_fold_ends_with_as_in_fit(folds):
    def average():
        return keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.7)

    result, weights = run(plain, folds, optimizer=average(), shuffle=False)
    assert result.mode == folds
    for fold in range(3):
        alone = fitted(fold, optimizer=average())
        raw = fitted(fold, optimizer=keras.optimizers.SGD(0.5))
        for a, b in zip(weights[fold], alone.model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
        assert not np.allclose(weights[fold][0], raw.model.get_weights()[0], rtol=0, atol=1e-3)


PACES = {
    "a rate": {"learning_rate": 0.02},
    "a schedule over the training": {"learning_rate": "one_cycle"},
    "a plateau": {"learning_rate": "plateau", "epochs": 7},
    "accumulation": {"gradient_accumulation": 2},
}


@pytest.mark.parametrize("name", PACES)
def test_rates_by_name_and_accumulation_are_those_of_fit(name):
    # 28 training rows each: a schedule over the training has one length for all folds.
    pairs = [(np.roll(np.arange(ROWS), 5 * k)[:28], np.roll(np.arange(ROWS), 5 * k)[28:]) for k in range(3)]
    options = {"optimizer": "sgd", "shuffle": False, **PACES[name]}
    result, weights = run(plain, "together", cv=pairs, **options)
    assert (result.mode, result.fallback) == ("together", None)
    for fold, (train, _) in enumerate(pairs):
        given = {"epochs": 2, "batch_size": 8, "loss": LOSS(from_logits=True), "verbose": 0, **options}
        alone = tfbig.fit(plain, FEATURES[train], Y[train], seed=fold_seed(0, fold), **given)
        for a, b in zip(weights[fold], alone.model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
        assert list(result.histories[fold]) == list(alone.history)


def test_folds_of_unequal_size_have_schedules_of_their_own_length():
    result, _ = run(plain, "together", learning_rate="cosine", optimizer="sgd")
    assert "learning_rate.decay_steps" in result.fallback.replace("config.", "")
    assert all(len(history["loss"]) == 2 for history in result.histories)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of the user's own, which nobody registered with Keras."""

    def __call__(self, step):
        return 0.1 * 0.5 ** keras.ops.cast(step, "float32")

    def get_config(self):
        return {}


@pytest.mark.parametrize("folds", ["together", "sequential"])
def test_a_schedule_of_the_users_own(folds):
    result, weights = run(plain, folds, optimizer=keras.optimizers.SGD(Halving()), shuffle=False)
    assert result.mode == folds
    alone = fitted(0, optimizer=keras.optimizers.SGD(Halving()))
    for a, b in zip(weights[0], alone.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_several_inputs_go_the_slow_way_too(tmp_path):
    def build():
        left, right = keras.Input((6,), name="left"), keras.Input((3, 4), name="right")
        return keras.Model([left, right], L.Dense(3)(L.concatenate([left, L.Flatten()(right)])))

    x, log = {"left": FEATURES, "right": SERIES}, keras.callbacks.CSVLogger(tmp_path / "log.csv")
    slow, _ = run(build, "together", x=x, optimizer="sgd", callbacks=log, shuffle=False)
    fast, _ = run(build, "sequential", x=x, optimizer="sgd", shuffle=False)
    assert "CSVLogger may change the model" in slow.fallback
    np.testing.assert_allclose(slow.predictions, fast.predictions, atol=1e-5)


def test_each_fold_has_callbacks_and_checkpoints_of_its_own(tmp_path):
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="loss", save_best_only=True, initial_value_threshold=1e9
    )
    scores, kept = [], []

    def finish(model, x_train, y_train):
        kept.append(keras.models.load_model(tmp_path / "best.keras"))
        scores.append((kept[-1].get_weights(), model.get_weights()))
        return kept[-1]

    options = {"cv": UNEQUAL, "epochs": 3, "batch_size": 8, "seed": 0, "loss": LOSS(from_logits=True)}
    options |= {"optimizer": keras.optimizers.SGD(0.01), "callbacks": best, "finish": finish}
    result = tfbig.cross_validate(plain, FEATURES, Y, checkpoint_dir=tmp_path / "checkpoints", **options)
    for saved, last in scores:  # the loss went down, so the best epoch is the last
        for a, b in zip(saved, last, strict=True):
            np.testing.assert_array_equal(a, b)
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == [
        f"fold-{k}" for k in range(3)
    ]
    again = tfbig.cross_validate(plain, FEATURES, Y, checkpoint_dir=tmp_path / "checkpoints", **options)
    assert again.histories == result.histories
