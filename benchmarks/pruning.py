"""Magnitude pruning: tfbig on Keras 3 beside TFMOT on a tf_keras twin, in turn, in one run.

    TFBIG_DATA=../shared python benchmarks/pruning.py [--rows 20000] [--seeds 3] [--untimed]

Both start from the same trained weights, see the same rows in the same order and follow the same TFMOT schedule.
The schedule sets masks about 36 times in a training however long it is, so fewer rows make masks a larger part of
it: compare throughput at the same --rows only. Digits, of which there are few, are pruned for more epochs.

Prints accuracy, throughput (the first epoch, which traces, left out; the two take turns at going first, and the
median over the seeds counts) and the gzipped float .tflite, and writes benchmarks/results/pruning.json. Exits with 1
where tfbig is more than 0.3 points less accurate, less than 1.5 times as fast, or larger. On a machine that is busy,
--untimed does not judge throughput and writes no file. MNIST is read from $TFBIG_DATA/data/mnist.npz; without it only
digits run.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import tfbig
from tfbig.backend.pruning import tfmot

RESULTS = Path(__file__).parent / "results"
SPARSITIES = (0.5, 0.8, 0.9)
BATCH = 64


def digits(seed):
    data = tfbig.load_dataset("digits")
    return tfbig.split(data.x / 16, data.y, seed=seed), [(16, 3), (32, 3)], 64, (12, 30)


def mnist(seed, rows):
    with np.load(Path(os.environ["TFBIG_DATA"]) / "data" / "mnist.npz") as arrays:
        names = ("x_train", "x_test", "y_train", "y_test")
        x_train, x_test, y_train, y_test = (arrays[name] for name in names)
    kept = np.random.default_rng(seed).permutation(len(x_train))[:rows]
    x_train, x_test = (x.astype("float32")[..., None] / 255 for x in (x_train[kept], x_test))
    return (x_train, x_test, y_train[kept].astype(int), y_test.astype(int)), [(20, 5), (50, 5)], 500, (3, 6)


def network(library, shape, convolutions, dense):
    layers = library.layers
    padding = "valid" if shape == (28, 28, 1) else "same"  # MNIST: Caffe's LeNet-5
    stack = [layers.Input(shape)]
    for filters, size in convolutions:
        stack += [layers.Conv2D(filters, size, activation="relu", padding=padding), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(dense, activation="relu"), layers.Dense(10)]
    model = library.Sequential(stack)
    compiled(library, model)
    return model


def compiled(library, model):
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(library.optimizers.Adam(1e-3), loss, metrics=["accuracy"])


def schedule(sparsity, rows, epochs):
    steps = epochs * -(-rows // BATCH)
    frequency = max(1, steps // 60)
    end = steps * 6 // 10 // frequency * frequency
    return tfmot().sparsity.keras.PolynomialDecay(0.0, sparsity, 0, end, frequency=frequency)


def with_tfbig(weights, data, convolutions, dense, sparsity, epochs):
    x_train, x_test, y_train, y_test = data
    model = network(keras, x_train.shape[1:], convolutions, dense)
    model.set_weights(weights)
    prune = tfbig.Prune(schedule=schedule(sparsity, len(x_train), epochs))
    options = {"epochs": epochs, "batch_size": BATCH, "shuffle": False, "verbose": 0}
    run = tfbig.fit(model, x_train, y_train, callbacks=[prune], **options)
    with tempfile.TemporaryDirectory() as folder:
        size = tfbig.export(model, f"{folder}/m.tflite").report.gzip_bytes
    accuracy = float(tfbig.evaluate(model, x_test, y_test)["accuracy"])
    return accuracy, run.examples_per_second, size, prune.report.overall


class EpochTimes(tf_keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.began)


def with_tfmot(weights, data, convolutions, dense, sparsity, epochs):
    x_train, x_test, y_train, y_test = data
    model = network(tf_keras, x_train.shape[1:], convolutions, dense)
    model.set_weights(weights)
    engine = tfmot().sparsity.keras
    planned = schedule(sparsity, len(x_train), epochs)
    pruned = engine.prune_low_magnitude(model, pruning_schedule=planned)
    compiled(tf_keras, pruned)
    times = EpochTimes()
    pruned.fit(
        *(x_train, y_train),
        epochs=epochs,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[engine.UpdatePruningStep(), times],
    )
    stripped = engine.strip_pruning(pruned)
    content = tf.lite.TFLiteConverter.from_keras_model(stripped).convert()
    accuracy = float((stripped.predict(x_test, verbose=0).argmax(1) == y_test).mean())
    kernels = np.concatenate([w.ravel() for w in stripped.get_weights() if w.ndim > 1])
    speed = len(x_train) * (epochs - 1) / sum(times.seconds[1:])
    return accuracy, speed, len(gzip.compress(content, 9)), float((kernels == 0).mean())


def measure(name, load, seeds):
    rows = []
    for seed in range(seeds):
        data, convolutions, dense, (epochs, more) = load(seed)
        x_train, _, y_train, _ = data
        keras.utils.set_random_seed(seed)
        base = network(keras, x_train.shape[1:], convolutions, dense)
        tfbig.fit(base, x_train, y_train, epochs=epochs, batch_size=BATCH, seed=seed, verbose=0)
        for sparsity in SPARSITIES:
            job = (base.get_weights(), data, convolutions, dense, sparsity, more)
            if seed % 2:
                theirs, ours = with_tfmot(*job), with_tfbig(*job)
            else:
                ours, theirs = with_tfbig(*job), with_tfmot(*job)
            rows.append({"sparsity": sparsity, "seed": seed, "tfbig": ours, "tfmot": theirs})
    results = []
    for sparsity in SPARSITIES:
        ours, theirs = (
            np.array([row[side] for row in rows if row["sparsity"] == sparsity])
            for side in ("tfbig", "tfmot")
        )
        results.append(
            {
                "data": name,
                "sparsity": sparsity,
                "tfbig accuracy": float(ours[:, 0].mean()),
                "TFMOT accuracy": float(theirs[:, 0].mean()),
                "throughput, tfbig / TFMOT": float(np.median(ours[:, 1] / theirs[:, 1])),
                "gzip size, tfbig / TFMOT": float((ours[:, 2] / theirs[:, 2]).mean()),
                "tfbig sparsity": float(ours[:, 3].mean()),
                "TFMOT sparsity": float(theirs[:, 3].mean()),
            }
        )
        print("  ".join(f"{k} {v:.4g}" if k != "data" else v for k, v in results[-1].items()), flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="MNIST rows to train on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--untimed", action="store_true", help="judge accuracy and size only; write nothing")
    arguments = parser.parse_args()
    results = measure("digits", digits, arguments.seeds)
    if "TFBIG_DATA" in os.environ:
        results += measure("mnist", lambda seed: mnist(seed, arguments.rows), arguments.seeds)
    else:
        print("TFBIG_DATA is not set: MNIST left out.")
    if not arguments.untimed:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "pruning.json").write_text(json.dumps(results, indent=2))
    held = all(
        row["tfbig accuracy"] >= row["TFMOT accuracy"] - 0.003
        and (arguments.untimed or row["throughput, tfbig / TFMOT"] >= 1.5)
        and row["gzip size, tfbig / TFMOT"] <= 1.0
        for row in results
    )
    print("every limit held" if held else "A LIMIT WAS MISSED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
