import json

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.training.identity import identity_of

X, Y = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 0, 1])


def model(hidden=5, optimizer=None, loss=None, **options):
    made = tfbig.models.mlp((3,), 2, hidden=(hidden,), **options)
    made.compile(
        optimizer or keras.optimizers.Adam(0.1),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return made


def identity(made=None, data=(X, Y, None), validation=None, **options):
    return identity_of(made or model(), data, validation, **options)


def test_the_same_is_the_same_however_layers_are_numbered():
    first, second = identity(seed=1), identity(seed=1)
    assert first == second
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(second))


def test_options_are_part_of_it():
    assert identity(batch_size=5)["batch_size"] == 5


OTHERS = {
    "width": ({"made": model(6)}, "model"),
    "activation": ({"made": model(activation="tanh")}, "model"),
    "dropout": ({"made": model(dropout=0.5)}, "model"),
    "optimizer": ({"made": model(optimizer="sgd")}, "optimizer"),
    "learning rate": ({"made": model(optimizer=keras.optimizers.Adam(0.2))}, "optimizer"),
    "loss": ({"made": model(loss="mse")}, "loss"),
    "loss's option": ({"made": model(loss=keras.losses.SparseCategoricalCrossentropy())}, "loss"),
    "values": ({"data": (X + 1, Y, None)}, "data"),
    "labels": ({"data": (X, 1 - Y, None)}, "data"),
    "weights": ({"data": (X, Y, np.ones(4))}, "data"),
    "rows": ({"data": (X[:3], Y[:3], None)}, "data"),
    "validation": ({"validation": (X, Y)}, "validation_data"),
    "a stream": ({"data": tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)}, "data"),
}


@pytest.mark.parametrize(("changes", "name"), OTHERS.values(), ids=OTHERS)
def test_what_differs_is_named(changes, name):
    mine, theirs = identity(), identity(**changes)
    assert {key for key in mine if mine[key] != theirs[key]} == {name}


def test_several_losses_are_described_each():
    found = identity(model(loss=["mse", keras.losses.Huber(2.0)]))["loss"]
    assert found[0] == "mse"
    assert found[1][0] == "Huber"


def test_a_rate_of_dropout_is_told_apart():
    assert identity(model(dropout=0.5))["model"] != identity(model(dropout=0.4))["model"]


def test_models_inside_models_are_looked_into():
    def nested(activation):
        inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation)])
        made = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(2)])
        made.compile("sgd", "mse")
        return identity(made)["model"]

    assert nested("relu") == nested("relu")
    assert nested("relu") != nested("tanh")
