"""What a worker of `test_multi_worker.py` runs: python worker_script.py WHAT FOLDER."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfbig
from tfbig.errors import TfbigError, WorkerLost

layers = keras.layers
ROWS, BATCH, EPOCHS = 301, 32, 3  # uneven at the end of an epoch: 13 rows for two workers


def data(rows=ROWS):
    digits = tfbig.load_dataset("digits")
    return (digits.x[:rows] / 16).astype("float32"), digits.y[:rows]


# Smooth activations: beside the kink of a ReLU, rounding decides on which side a value falls.
def mlp():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(32, activation="gelu"), layers.Dense(10)]
    )


def cnn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3),
            layers.LayerNormalization(),
            layers.Activation("gelu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def normalized():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("gelu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def sgd():
    return keras.optimizers.SGD(0.1)


def weights():
    return np.random.default_rng(0).uniform(size=ROWS)


# Name: model, optimizer, further options of fit, largest difference allowed in any weight. Sums over replicas are
# rounded in another order; Adam divides by roots of small numbers, and a normalized batch by a deviation.
CASES = {
    "mlp, SGD": (mlp, sgd, {}, 1e-5),
    "mlp, SGD, weights, accumulation": (
        *(mlp, sgd),
        {"sample_weight": weights(), "gradient_accumulation": 4, "steps_per_execution": 1},
        1e-5,
    ),
    "layer norm, Adam, validation": (cnn, keras.optimizers.Adam, {"validation": True}, 5e-5),
    "averaged weights, clipped": (
        *(
            mlp,
            lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.3, use_ema=True, ema_overwrite_frequency=5),
        ),
        *({}, 1e-5),
    ),
    "batch norm, SGD": (normalized, sgd, {}, 1e-4),
}


def train(name, **more):
    make, optimizer, options, _ = CASES[name]
    options = dict(options)
    x, y = data()
    if options.pop("validation", False):
        options["validation_data"] = (x[:33], y[:33])
    keras.utils.set_random_seed(3)
    options |= {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "optimizer": optimizer(),
        "seed": 0,
        "verbose": 0,
        **more,
    }
    return tfbig.fit(make(), x, y, **options)


class Rows(keras.metrics.Metric):
    """Counts each row that was trained on; the row's number is its second target."""

    def __init__(self, rows, name="rows"):
        super().__init__(name=name)
        self.rows = rows
        self.seen = self.add_weight(shape=(rows,), initializer="zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        number = keras.ops.cast(y_true[:, 1], "int32")
        self.seen.assign_add(keras.ops.sum(keras.ops.one_hot(number, self.rows), axis=0))

    def result(self):
        return keras.ops.sum(keras.ops.square(self.seen - 1.0))

    def get_config(self):
        return {"rows": self.rows, "name": self.name}


def loss_of_first(y_true, y_pred):
    return keras.ops.square(y_true[:, :1] - y_pred[:, :1])


class WatchesBatches(keras.callbacks.Callback):
    """Would have a worker make one call for each step, where the others make one for many."""

    def on_train_batch_end(self, batch, logs=None):
        assert logs["loss"] >= 0


def unseeded():
    """No seed anywhere: each process draws other weights and another order of its own."""
    x = np.random.default_rng(5).normal(size=(101, 4)).astype("float32")
    y = np.stack([x.sum(axis=1), np.arange(101)], axis=1).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="gelu"), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.001), loss_of_first, metrics=[Rows(101)])
    callbacks = [WatchesBatches()] if worker() == 0 else []
    return tfbig.fit(model, x, y, epochs=2, batch_size=16, verbose=0, callbacks=callbacks)


def unseeded_stream(folder):
    """Rows of files, of which each worker shuffles the whole by itself and takes its part of every batch."""
    path = folder / f"rows-{worker()}.csv"
    rows = np.random.default_rng(5).normal(size=(101, 3))
    path.write_text("a,b,c,number\n" + "".join(f"{a},{b},{c},{i}\n" for i, (a, b, c) in enumerate(rows)))
    # One file for both, or their paths would differ; who comes later waits for it to be whole.
    path.replace(folder / "rows.csv")
    stream = tfbig.stream_csv(folder / "rows.csv", target=["a", "number"], features=["b", "c"], batch_size=16)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(8, activation="gelu"), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.001), loss_of_first, metrics=[Rows(101)])
    return tfbig.fit(model, stream, epochs=2, verbose=0)


class DiesAt(keras.callbacks.Callback):
    """Ends this process as `kill -9` does, in the middle of an epoch, and says when."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            print(f"killed at {time.time():.2f}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


class FreezesTheChief(keras.callbacks.Callback):
    """Stops the chief's process as a machine that hangs does: it keeps its connections and answers nothing."""

    def __init__(self, folder):
        super().__init__()
        self.pid = folder / "chief.pid"

    def on_train_batch_end(self, batch, logs=None):
        if worker() == 0 and batch == 2:
            self.pid.write_text(str(os.getpid()))
            print(f"frozen at {time.time():.2f}", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
            print(f"thawed at {time.time():.2f}", flush=True)


def freeze(folder):
    """The other worker, once it has ended its training, thaws the chief, which finds itself alone."""
    try:
        train("mlp, SGD", callbacks=[FreezesTheChief(folder)])
    finally:
        if worker() == 1:
            print(f"ended at {time.time():.2f}", flush=True)
            os.kill(int((folder / "chief.pid").read_text()), signal.SIGCONT)


def interrupted(folder, die=False):
    """A training with checkpoints inside the epoch; worker 1 may die in its third one."""
    at = (2, 6) if die and worker() == 1 else (-1, -1)
    # As the documentation has it: what writes is the chief's alone.
    log = [keras.callbacks.CSVLogger(folder.with_suffix(".csv"), append=True)] if tfbig.is_chief() else []
    options = {"callbacks": [*log, DiesAt(*at)], "checkpoint_dir": folder, "checkpoint_every": 4}
    return train("layer norm, Adam, validation", **options)


def refusals(folder):
    """What workers that do not fit together are told: each is refused in both, which can train on after it."""
    tf.random.set_seed(None)  # or it would be the seed of a shuffle that has none
    x, y = data()
    chief = worker() == 0

    def fit(model, x, y=None, **options):
        return tfbig.fit(model, x, y, **{"epochs": 1, "seed": 0, "verbose": 0, **options})

    return {
        "rows": refusal(lambda: fit(mlp(), *data(ROWS - 5 * (not chief)))),
        "values": refusal(lambda: fit(mlp(), x + 0.5 * (not chief), y)),
        "model": refusal(lambda: fit(mlp() if chief else cnn(), x, y)),
        "batch_size": refusal(lambda: fit(mlp(), x, y, batch_size=32 if chief else 16)),
        "epochs": refusal(lambda: fit(mlp(), x, y, epochs=1 + chief)),
        "checkpoint_dir": refusal(
            lambda: fit(mlp(), x, y, checkpoint_dir=folder / "chief's alone" if chief else None)
        ),
        "shuffle": refusal(
            lambda: fit(mlp(), tf.data.Dataset.from_tensor_slices((x, y)).shuffle(99).batch(32), loss="mse")
        ),
        # As if the folder were on each machine's own disk, where only the chief has written.
        "checkpoint": refusal(lambda: interrupted(folder / f"checkpoints-{worker()}")),
    }


def refusal(action):
    try:
        action()
    except TfbigError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def worker():
    return json.loads(os.environ["TF_CONFIG"])["task"]["index"]


def save(run, folder, name):
    arrays = {f"weight/{i}": value for i, value in enumerate(run.model.get_weights())}
    np.savez(folder / f"{name}-{worker()}.npz", **arrays, history=json.dumps(run.history), on=run.strategy)


def table(folder):
    for name in CASES:
        save(train(name), folder, name)
    save(unseeded(), folder, "unseeded")
    save(unseeded_stream(folder), folder, "unseeded_stream")
    # A folder of its own for each worker, so that it shows who wrote.
    save(interrupted(folder / f"checkpoints-{worker()}"), folder, "uninterrupted")
    (folder / f"refusals-{worker()}.json").write_text(json.dumps(refusals(folder)))
    x, y = data()
    if worker() == 0:
        x[7] = np.nan  # which the chief finds before it meets the other
    tfbig.fit(mlp(), x, y, epochs=1, seed=0, verbose=0)


def resume(folder):
    save(interrupted(folder / "checkpoints"), folder, "resumed")

    def build():  # in the strategy's scope, where the chief's initial weights are sent as they are made
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10 + worker())])

    tfbig.fit(build, *data(), epochs=1, seed=0, verbose=0)


def main(what, folder):
    tfbig.strategy()  # joins the other workers before the first tensor is made
    try:
        if what == "die":
            interrupted(folder / "checkpoints", die=True)
        else:
            {"table": table, "resume": resume, "freeze": freeze}[what](folder)
    except WorkerLost:
        print(f"lost at {time.time():.2f}", flush=True)
        raise


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
