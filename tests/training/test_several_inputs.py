"""Models of several inputs, which are given as a dict of arrays by the inputs' names."""

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel

L = keras.layers
GENERATOR = np.random.default_rng(0)
Y = np.arange(50) % 3
X = {
    "table": (GENERATOR.normal(size=(50, 4)) + Y[:, None]).astype(np.float32),
    "series": GENERATOR.normal(size=(50, 5, 2)).astype(np.float32),
}
OPTIONS = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0}


def build():
    keras.utils.set_random_seed(0)
    table, series = keras.Input((4,), name="table"), keras.Input((5, 2), name="series")
    merged = L.concatenate([L.Dense(6, activation="relu")(table), L.Flatten()(series)])
    model = keras.Model([table, series], L.Dense(3)(merged))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def test_a_dict_trains_as_keras_does():
    ours, theirs = build(), build()
    run = tfbig.fit(ours, X, Y, validation_data=(X, Y), **OPTIONS)
    history = theirs.fit(X, Y, validation_data=(X, Y), **OPTIONS).history
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert set(run.history) == set(history)
    np.testing.assert_allclose(run.history["val_loss"], history["val_loss"], rtol=1e-5)


def test_weights_of_rows_checkpoints_and_builders_go_with_it(tmp_path):
    seen = []

    def builder(x_train, y_train):
        seen.append({name: part.shape for name, part in x_train.items()})
        return build()

    options = {**OPTIONS, "sample_weight": np.linspace(0, 1, 50), "seed": 0, "shuffle": True}
    whole = tfbig.fit(builder, X, Y, **options)
    assert seen == [{"table": (50, 4), "series": (50, 5, 2)}]
    begun = {**options, "checkpoint_dir": tmp_path}
    tfbig.fit(builder, X, Y, **{**begun, "epochs": 1})
    resumed = tfbig.fit(builder, X, Y, **begun)
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = {**X, "table": X["table"] + 1}
    with pytest.raises(tfbig.errors.InvalidOption, match="holds another training. data"):
        tfbig.fit(builder, other, Y, **begun)


def test_it_is_split_and_evaluated_too():
    model, parts = build(), tfbig.split(X, Y, test_size=0.3, seed=1)
    assert {name: part.shape for name, part in parts.x_test.items()} == {
        "table": (15, 4),
        "series": (15, 5, 2),
    }
    arrays = tfbig.split(X["table"], Y, test_size=0.3, seed=1)
    np.testing.assert_array_equal(parts.x_train["table"], arrays.x_train)
    scores = tfbig.evaluate(model, parts.x_test, parts.y_test)
    expected = np.mean(model.predict(parts.x_test, verbose=0).argmax(1) == parts.y_test)
    assert scores["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ({}, InvalidData, "x must hold at least one input; got an empty dict"),
        ({"table": X["table"]}, InvalidModel, r"has the inputs \['series', 'table'\]; x names \['table'\]"),
        ({**X, "more": Y}, InvalidModel, r"x names \['more', 'series', 'table'\]"),
        (
            {**X, "table": X["table"][:, :3]},
            InvalidModel,
            r"'table' of .* takes rows of shape \(4,\); .* \(3,\)",
        ),
        (
            {**X, "table": X["table"][:9]},
            InvalidData,
            r"x\['table'\] and y must have one row per example each; got 9",
        ),
        ({**X, "series": np.full((50, 5, 2), np.nan)}, InvalidData, r"x\['series'\] must be finite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        tfbig.fit(build(), x, Y, **OPTIONS)
