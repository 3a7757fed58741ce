import functools
import json
from pathlib import Path

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.training.described import described_callback, same_callbacks
from tfbig.training.identity import identity_of

X, Y = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 0, 1])


COMPILED = ("loss_weights", "metrics", "weighted_metrics")


def model(hidden=5, optimizer=None, loss=None, **options):
    compiled = {name: options.pop(name) for name in COMPILED if name in options}
    made = tfbig.models.mlp((3,), 2, hidden=(hidden,), **options)
    made.compile(
        optimizer or keras.optimizers.Adam(0.1),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compiled,
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
    "loss_weights": ({"made": model(loss_weights=2.0)}, "loss_weights"),
    "metrics": ({"made": model(metrics=["accuracy"])}, "metrics"),
    "a metric's option": (
        {"made": model(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2)])},
        "metrics",
    ),
    "weighted metrics": ({"made": model(weighted_metrics=["accuracy"])}, "weighted_metrics"),
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


class Weighted(keras.losses.Loss):
    """Of the user's own, which writes nothing down."""

    def __init__(self, weights, inner=None, network=None):
        super().__init__()
        self.weights, self.inner, self.network = weights, inner, network

    def call(self, y, p):
        return tf.reduce_mean(tf.square(tf.cast(y, p.dtype)[:, None] - p), axis=-1)


def network():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


LOSSES = {
    "of Keras, which leaves it out": (lambda: keras.losses.Huber(1.0), lambda: keras.losses.Huber(2.0)),
    "of Keras, which writes it down": (
        lambda: keras.losses.BinaryFocalCrossentropy(gamma=2.0),
        lambda: keras.losses.BinaryFocalCrossentropy(gamma=3.0),
    ),
    "an axis": (
        lambda: keras.losses.CosineSimilarity(axis=-1),
        lambda: keras.losses.CosineSimilarity(axis=1),
    ),
    "a number": (lambda: Weighted(1.0), lambda: Weighted(2.0)),
    "an array": (lambda: Weighted(np.array([1.0, 2.0])), lambda: Weighted(np.array([1.0, 3.0]))),
    "a tensor": (lambda: Weighted(tf.constant([1.0, 2.0])), lambda: Weighted(tf.constant([1.0, 3.0]))),
    "arrays by name": (lambda: Weighted({"a": np.ones(2)}), lambda: Weighted({"a": np.zeros(2)})),
    "a loss inside": (
        lambda: Weighted([1, 2], keras.losses.Huber(1.0), network()),
        lambda: Weighted([1, 2], keras.losses.Huber(2.0), network()),
    ),
}


@pytest.mark.parametrize(("one", "other"), LOSSES.values(), ids=LOSSES)
def test_a_setting_of_a_loss_is_told_apart_whether_it_is_written_down_or_not(one, other):
    first, again, changed = (identity(model(loss=make()))["loss"] for make in (one, one, other))
    assert first == again
    assert json.loads(json.dumps(first)) == first
    assert first != changed


def test_a_setting_that_is_written_down_and_kept_twice_is_described_once():
    focal = identity(model(loss=keras.losses.BinaryFocalCrossentropy(gamma=3.0)))["loss"]
    assert str(focal).count("3.0") == 1
    huber = identity(model(loss=keras.losses.Huber(3.0)))["loss"]
    assert str(huber).count("3.0") == 1


def test_a_loss_that_is_changed_after_it_was_described_is_another_one():
    loss = Weighted(1.0)
    made = model(loss=loss)
    before = identity(made)["loss"]
    loss.weights = 2.0
    assert identity(made)["loss"] != before


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


def scaled(y, p, by):
    return by * tf.square(y - p)


def test_a_loss_with_bound_arguments_is_known_by_these_and_not_by_its_address():
    one, again, other = (
        identity(model(loss=functools.partial(scaled, by=by)))["loss"] for by in (1.0, 1.0, 2.0)
    )
    assert one == again
    assert one != other
    assert "0x" not in str(one)


def test_streams_from_files_are_known_by_their_files_and_order(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("x,y\n1,0\n2,1\n")

    def of(pattern, **options):
        return identity(
            data=tfbig.stream_csv(str(tmp_path / pattern), target="y", **options).map(lambda *b: b)
        )

    same, again = of("a.csv", seed=1), of("a.csv", seed=1)
    assert same == again
    changed = [
        of("b.csv", seed=1),
        of("*.csv", seed=1),
        of("a.csv", seed=2),
        of("a.csv", seed=1, shuffle_buffer=0),
    ]
    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n3,0\n")
    changed.append(of("a.csv", seed=1))
    assert all(other["data"] != same["data"] for other in changed)


def test_streams_of_other_lengths_are_told_apart():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(1)
    assert identity(data=data)["data"] != identity(data=data.take(3))["data"]


class Own(keras.callbacks.Callback):
    def __init__(self, path, every, action=print, verbose=0):
        super().__init__()
        self._every, self.path, self.action, self.verbose = every, path, action, verbose
        self.seen = 0


def test_callbacks_are_known_by_what_they_are_made_with():
    assert described_callback(Own(Path("a"), 3, verbose=1)) == ["Own", {"path": "a", "every": 3}]
    patience = [
        described_callback(keras.callbacks.EarlyStopping("loss", patience=count)) for count in (5, 5, 50)
    ]
    assert patience[0] == patience[1]
    assert patience[0] != patience[2]


def test_what_training_does_to_a_callback_is_not_what_it_was_made_with():
    stop = keras.callbacks.EarlyStopping("loss", min_delta=0.25)
    before = described_callback(stop)
    tfbig.fit(model(), X, Y, epochs=2, verbose=0, callbacks=[stop])
    assert stop.min_delta == -0.25
    assert described_callback(stop) == before


def test_another_worker_finds_its_own_callbacks_among_the_chiefs():
    chief = [["CSVLogger", {}], ["EarlyStopping", {"patience": 1}], ["EarlyStopping", {"patience": 2}]]
    assert same_callbacks(chief, chief) == [0, 1, 2]
    assert same_callbacks(chief[2:], chief) == [2]
    assert same_callbacks([chief[1], ["Own", {}], chief[2]], chief) == [1, None, 2]
    assert same_callbacks([], chief) == []
