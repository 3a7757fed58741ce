"""Throughput of `tfbig.fit` beside plain `model.fit`: the same model, data, batches and loss, in turn in one run.

    python benchmarks/training.py [--quick]

Both train without shuffling, so that the loss of every epoch can be compared. The first epoch, which holds the tracing,
is left out. The ratio is the median over the repetitions; a repetition runs plain, then tfbig.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import tfbig
from tfbig.backend import keras, tf

L = keras.layers

# The two sum a batch's losses in another order: float32, over a few hundred steps.
_SAME_LOSS = 1e-4


def mlp():
    return keras.Sequential([keras.Input((64,)), L.Dense(128, "relu"), L.Dense(64, "relu"), L.Dense(10)])


def small_cnn():
    image = [keras.Input((64,)), L.Reshape((8, 8, 1))]
    body = [
        L.Conv2D(16, 3, activation="relu"),
        L.MaxPooling2D(),
        L.Conv2D(32, 3, activation="relu"),
        L.Flatten(),
    ]
    return keras.Sequential([*image, *body, L.Dense(64, "relu"), L.Dense(10)])


def large_cnn():
    layers = [keras.Input((64,)), L.Reshape((8, 8, 1)), L.UpSampling2D(4)]
    for filters in (32, 64, 128):
        layers += [L.Conv2D(filters, 3, padding="same", activation="relu") for _ in range(2)]
        layers += [L.MaxPooling2D()]
    return keras.Sequential([*layers, L.Flatten(), L.Dense(128, "relu"), L.Dense(10)])


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch; watches no batches."""

    steps_between = 1 << 30

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._began)


def measure(build, fit, epochs):
    keras.utils.set_random_seed(0)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    clock = Clock()
    history = fit(model, epochs=epochs, callbacks=[clock], verbose=0)
    return statistics.median(clock.seconds[1:]), history.history["loss"]


def compare(build, x, y, epochs, repetitions, as_stream):
    def stream():
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(32).prefetch(2)

    def plain(model, **options):
        if as_stream:
            return model.fit(stream(), **options)
        return model.fit(x, y, batch_size=32, shuffle=False, **options)

    def ours(model, **options):
        if as_stream:
            return tfbig.fit(model, stream(), **options)
        return tfbig.fit(model, x, y, batch_size=32, shuffle=False, **options)

    pairs = [(measure(build, plain, epochs), measure(build, ours, epochs)) for _ in range(repetitions)]
    ratios = [a[0] / b[0] for a, b in pairs]
    drift = max(float(np.max(np.abs(np.subtract(a[1], b[1])))) for a, b in pairs)
    rows = len(x)
    return {
        "plain_rows_per_second": round(rows / statistics.median(a[0] for a, _ in pairs)),
        "tfbig_rows_per_second": round(rows / statistics.median(b[0] for _, b in pairs)),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "loss_difference": drift,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repetition of few epochs")
    options = parser.parse_args()
    data = tfbig.load_dataset("digits")
    x, y = (data.x.reshape(-1, 64) / 16).astype("float32"), data.y
    few = x[:512], y[:512]
    repetitions = 1 if options.quick else 3
    cases = {
        "small MLP, arrays": (mlp, x, y, 10, False, 1.8),
        "small CNN, arrays": (small_cnn, x, y, 6, False, 1.2),
        "large CNN, arrays": (large_cnn, *few, 4, False, 0.98),
        "small MLP, tf.data": (mlp, x, y, 10, True, 1.3),
        "large CNN, tf.data": (large_cnn, *few, 4, True, 0.98),
    }
    table = Table("case", "plain, rows/s", "tfbig, rows/s", "ratio", "asked", "largest loss difference")
    results = {}
    for name, (build, xs, ys, epochs, as_stream, asked) in cases.items():
        result = compare(build, xs, ys, epochs, repetitions, as_stream)
        results[name] = {**result, "asked": asked}
        table.add_row(
            name,
            f"{result['plain_rows_per_second']:,}",
            f"{result['tfbig_rows_per_second']:,}",
            f"{result['ratio']:.2f}",
            f"≥ {asked}",
            f"{result['loss_difference']:.1e}",
        )
    Console().print(table)
    target = Path(__file__).parent / "results" / "training.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    missed = [f"{name}: slower than asked" for name, it in results.items() if it["ratio"] < it["asked"]]
    missed += [f"{name}: another loss" for name, it in results.items() if it["loss_difference"] > _SAME_LOSS]
    return f"MISSED  {'; '.join(missed)}" if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
