"""Losses by name or object, on heads of logits and of probabilities, with labels in every form."""

import inspect

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel, InvalidOption
from tfbig.training.losses import check_outputs, fits_loss, get_loss, loss_names, reads_logits

ROWS = 24
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
LABELS = np.arange(ROWS) % 3
BITS = np.arange(ROWS) % 2
CLASSES = {
    name: kind
    for name, kind in vars(keras.losses).items()
    if inspect.isclass(kind) and kind is not keras.losses.Loss
}


def dense(outputs, activation=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs, activation=activation)])


def by_operation(outputs):
    x = keras.Input((4,))
    return keras.Model(x, keras.ops.softmax(keras.layers.Dense(outputs)(x)))


def mlp(outputs, task=None):
    return tfbig.models.mlp((4,), outputs, task=task, hidden=())


def fit(model, y, loss, **options):
    return tfbig.fit(
        model, X, y, loss=loss, **{"epochs": 1, "batch_size": 8, "seed": 0, "verbose": 0, **options}
    )


def test_every_class_of_kerass_has_a_name_here():
    known = {name.replace("_", "") for name in loss_names()}
    assert {name.lower() for name in CLASSES} <= known


@pytest.mark.parametrize("name", [*loss_names(), *CLASSES])
def test_every_name_of_kerass_is_a_loss_that_fits_the_head(name):
    logits, likely = get_loss(name, dense(3)), get_loss(name, dense(3, "softmax"))
    kind = CLASSES.get(name)
    if kind is None:
        plain = getattr(keras.losses, name, None) or keras.losses.get(name)
        kind = next(kind for own, kind in CLASSES.items() if own.lower() == plain.__name__.replace("_", ""))
    if "from_logits" in inspect.signature(kind).parameters:
        assert (type(logits), type(likely)) == (kind, kind)
        assert (reads_logits(logits), reads_logits(likely)) == (True, False)
    else:
        assert type(logits) is type(likely)
        assert callable(logits)
        assert reads_logits(logits) is None


# All whose targets are labels, distributions, bits or values: one step each.
STEPS = {
    "sparse_categorical_crossentropy": (3, LABELS),
    "categorical_crossentropy": (3, LABELS),
    "categorical_focal_crossentropy": (3, LABELS),
    "categorical_hinge": (3, LABELS),
    "binary_crossentropy": (1, BITS),
    "binary_focal_crossentropy": (1, BITS),
    "hinge": (1, BITS),
    "squared_hinge": (1, BITS),
    **dict.fromkeys(("mse", "mae", "mape", "msle", "huber", "log_cosh", "cosine_similarity"), (1, X[:, 0])),
}


@pytest.mark.parametrize(("name", "outputs", "y"), [(name, *case) for name, case in STEPS.items()], ids=STEPS)
def test_a_name_trains_on_what_it_takes(name, outputs, y):
    run = fit(dense(outputs), y, name, epochs=1, batch_size=ROWS)
    assert np.isfinite(run.history["loss"]).all()


PROBABILITIES = {
    "poisson": (1, BITS),
    "kl_divergence": (3, LABELS),
    "categorical_generalized_cross_entropy": (3, LABELS),
}


@pytest.mark.parametrize(
    ("name", "outputs", "y"), [(k, *case) for k, case in PROBABILITIES.items()], ids=PROBABILITIES
)
def test_a_name_that_takes_no_logits_trains_on_probabilities(name, outputs, y):
    model = dense(outputs, "sigmoid" if outputs == 1 else "softmax")
    assert np.isfinite(fit(model, y, name).history["loss"]).all()


def test_keras_still_does_not_take_one_of_its_own_names():
    """When this fails, `_named` can ask Keras alone."""
    with pytest.raises(ValueError, match="Could not interpret loss"):
        keras.losses.get("categorical_generalized_cross_entropy")


def cross_entropy(model, labels, smoothing=0.0):
    logits = model.predict(X, verbose=0).astype(np.float64)
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    return log, wanted


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.astype(float), np.eye(3)[LABELS]])
def test_label_smoothing_takes_labels_in_every_form(labels):
    model = mlp(3)
    log, wanted = cross_entropy(model, LABELS, 0.1)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    got = fit(model, labels, loss, optimizer=keras.optimizers.SGD(0.0))
    assert got.history["loss"][0] == pytest.approx(-(wanted * log).sum(axis=1).mean(), rel=1e-5)


def test_focal_loss_by_name_on_labels_is_that_of_the_paper():
    model = mlp(3)
    log, wanted = cross_entropy(model, LABELS)
    by_hand = -(0.25 * (1 - np.exp(log)) ** 2 * wanted * log).sum(axis=1).mean()
    got = fit(model, LABELS, "categorical_focal_crossentropy", optimizer=keras.optimizers.SGD(0.0))
    assert got.history["loss"][0] == pytest.approx(by_hand, rel=1e-5)


def test_binary_focal_loss_by_name_is_that_of_the_paper():
    model = mlp(1, "binary")
    p = 1 / (1 + np.exp(-model.predict(X, verbose=0).astype(np.float64)[:, 0]))
    right = np.where(BITS == 1, p, 1 - p)
    got = fit(model, BITS, "binary_focal_crossentropy", optimizer=keras.optimizers.SGD(0.0))
    assert got.history["loss"][0] == pytest.approx(-((1 - right) ** 2 * np.log(right)).mean(), rel=1e-5)


def test_labels_at_every_step_become_one_hot_too():
    model = tfbig.models.rnn((5,), 4, vocabulary=4, task="sequence", units=(4,))
    tokens = np.random.default_rng(0).integers(0, 4, (ROWS, 5))
    logits = model.predict(tokens, verbose=0).astype(np.float64)
    log = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    options = {"epochs": 1, "optimizer": keras.optimizers.SGD(0.0), "verbose": 0}
    run = tfbig.fit(model, tokens, tokens, loss=loss, **options)
    wanted = np.eye(4)[tokens] * 0.8 + 0.05
    assert run.history["loss"][0] == pytest.approx(-(wanted * log).sum(axis=-1).mean(), rel=1e-5)


def test_class_weights_and_validation_go_with_a_loss_of_one_hot_labels():
    weights = {0: 1.0, 1: 0.0, 2: 3.0}
    model, frozen = mlp(3), {"optimizer": keras.optimizers.SGD(0.0)}
    log, wanted = cross_entropy(model, LABELS)
    focal = -(0.25 * (1 - np.exp(log)) ** 2 * wanted * log).sum(axis=1)
    weighed = focal * np.array([weights[label] for label in LABELS])
    run = fit(
        model,
        LABELS,
        "categorical_focal_crossentropy",
        class_weight=weights,
        validation_data=(X, LABELS),
        **frozen,
    )
    assert run.history["loss"][0] == pytest.approx(weighed.mean(), rel=1e-5)
    assert run.history["val_loss"][0] == pytest.approx(focal.mean(), rel=1e-5)


def test_a_model_that_has_such_a_loss_already_takes_labels_again():
    model = mlp(3)
    first = fit(model, LABELS, "categorical_focal_crossentropy", metrics=["accuracy"])
    again = fit(model, LABELS, None)
    assert again.history["loss"][0] < first.history["loss"][0]
    assert 0 <= again.history["accuracy"][0] <= 1


def test_folds_take_labels_for_such_a_loss_too():
    options = {"loss": "categorical_focal_crossentropy", "epochs": 1, "seed": 0, "verbose": 0}
    cv = tfbig.cross_validate(lambda: mlp(3), X, LABELS, cv=3, folds="sequential", **options)
    assert len(cv.scores["accuracy"]) == 3


def test_each_of_several_outputs_decides_for_its_own_loss():
    x = keras.Input((4,))
    likely = keras.layers.Dense(1, activation="sigmoid", name="likely")(x)
    model = keras.Model(x, [likely, keras.layers.Dense(3, name="which")(x)])
    names = "binary_crossentropy", "sparse_categorical_crossentropy"
    assert [reads_logits(loss) for loss in get_loss(list(names), model)] == [False, True]
    found = get_loss(dict(zip(("likely", "which"), names, strict=True)), model)
    assert {name: reads_logits(loss) for name, loss in found.items()} == {"likely": False, "which": True}


def test_steps_of_a_model_that_tfbig_did_not_build_are_left_to_keras():
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.Dense(3)])
    x, y = np.zeros((ROWS, 5, 2), np.float32), np.zeros((ROWS, 5), int)
    options = {
        "loss": "sparse_categorical_crossentropy",
        "validation_data": (x, y),
        "epochs": 1,
        "verbose": 0,
    }
    run = tfbig.fit(model, x, y, **options)
    assert run.history["val_loss"][0] < np.log(3)
    assert reads_logits(model.loss) is True


def test_probabilities_of_classes_are_taken_as_they_are():
    model, soft = mlp(3), np.full((ROWS, 3), 1 / 3, np.float32)
    log, _ = cross_entropy(model, LABELS)
    run = fit(model, soft, "categorical_crossentropy", optimizer=keras.optimizers.SGD(0.0))
    assert run.history["loss"][0] == pytest.approx(-log.mean(), rel=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return keras.ops.softmax(self.dense(x))


@pytest.mark.parametrize("make", [by_operation, lambda _: Subclassed()], ids=["operation", "subclassed"])
def test_a_softmax_that_is_no_layer_is_not_overlooked(make):
    """A subclassed model's end cannot be seen: there a name keeps the meaning that Keras gives it."""
    assert reads_logits(get_loss("sparse_categorical_crossentropy", make(3))) is False


def custom(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


class Custom(keras.losses.BinaryCrossentropy):
    """A subclass may do as it likes."""


@pytest.mark.parametrize("loss", [custom, Custom(), keras.losses.MeanSquaredError(name="mine")])
def test_a_custom_loss_is_passed_through(loss):
    model = mlp(1, "regression")
    assert get_loss(loss, model) is loss
    assert np.isfinite(fit(model, BITS, loss).history["loss"]).all()
    assert model.loss is loss


REFUSED = {
    "a function of probabilities": (
        lambda: dense(1),
        BITS,
        keras.losses.binary_crossentropy,
        "from_logits=False",
    ),
    "focal of probabilities": (
        lambda: mlp(1, "binary"),
        BITS,
        keras.losses.BinaryFocalCrossentropy(),
        "gives logits",
    ),
    "focal of logits": (
        lambda: dense(3, "softmax"),
        LABELS,
        keras.losses.CategoricalFocalCrossentropy(from_logits=True),
        "gives probabilities",
    ),
    "a loss that knows no logits": (lambda: mlp(3), LABELS, "kl_divergence", "takes probabilities.*Softmax"),
    "renamed": (
        lambda: mlp(1, "binary"),
        BITS,
        keras.losses.BinaryCrossentropy(name="mine"),
        "'mine'.*gives logits",
    ),
    "labels for bits": (lambda: mlp(3), LABELS, "binary_focal_crossentropy", "does not fit.*3 outputs"),
    "values for classes": (lambda: dense(3), X[:, 0], "categorical_focal_crossentropy", "does not fit"),
}


@pytest.mark.parametrize(("make", "y", "loss", "message"), REFUSED.values(), ids=REFUSED)
def test_a_loss_that_would_be_silently_wrong_is_refused(make, y, loss, message):
    with pytest.raises(InvalidModel, match=message):
        fit(make(), y, loss)


@pytest.mark.parametrize(("y", "range_"), [(BITS + 1, "from 1 to 2"), (BITS * 2 - 1, "from -1 to 1")])
def test_labels_that_are_not_0_and_1_are_refused_for_a_binary_cross_entropy(y, range_):
    with pytest.raises(InvalidData, match=f"'binary_focal_crossentropy' takes 0, 1 .*{range_}"):
        fit(mlp(1, "binary"), y, "binary_focal_crossentropy")


def test_labels_outside_the_classes_are_refused_for_a_loss_by_name():
    for name in ("sparse_categorical_crossentropy", "categorical_focal_crossentropy"):
        with pytest.raises(InvalidData, match="from 0 to 2; row 2 of y holds 3"):
            fit(mlp(3), np.where(LABELS == 2, 3, LABELS), name)


def test_a_class_that_the_loss_ignores_may_lie_outside():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    assert np.isfinite(fit(mlp(3), LABELS - 1, loss).history["loss"]).all()


@pytest.mark.parametrize(
    ("name", "near"), [("categorical_focal_crosentropy", "categorical_focal_crossentropy"), ("mes", "mse")]
)
def test_an_unknown_name_is_told_the_nearest(name, near):
    with pytest.raises(InvalidOption, match=f"loss must be one of .*; got '{name}'. Did you mean '{near}'?"):
        fit(mlp(3), LABELS, name)


def test_what_is_not_known_is_not_judged():
    model = dense(3)
    assert fits_loss(model, np.zeros((ROWS, 2)), custom)
    check_outputs(model, custom, lambda: pytest.fail("no advice is needed"))
    check_outputs(Subclassed(), keras.losses.SparseCategoricalCrossentropy(), lambda: pytest.fail("nor here"))


def test_a_stream_is_given_a_loss_that_fits_the_head():
    batches = [(X[:12], BITS[:12, None]), (X[12:], BITS[12:, None])]
    model = mlp(1, "binary")
    tfbig.fit(model, iter(batches), loss="binary_crossentropy", epochs=1, verbose=0)
    assert reads_logits(model.loss) is True
    with pytest.raises(InvalidModel, match="gives logits. Or pass the loss by name"):
        tfbig.fit(model, iter(batches), loss=keras.losses.BinaryCrossentropy(), epochs=1, verbose=0)


def test_an_overlap_of_plain_values_is_left_to_the_user_and_one_of_logits_refused():
    check_outputs(dense(3), keras.losses.Dice(), lambda: pytest.fail("no advice is needed"))
    with pytest.raises(InvalidModel, match="'dice' takes probabilities"):
        check_outputs(mlp(3), keras.losses.Dice(), lambda: "")
