"""Shrinking: a convolutional and a small residual network on MNIST, with all, ¾, ½ and ¼ of their channels.

    TFBIG_DATA=../shared python benchmarks/shrinking.py [--quick] [--rows 20000] [--importance taylor]

Each network is trained, shrunk by tfbig.shrink and trained on; the original is trained on for as long. Prints and draws
accuracy, parameters, multiply-accumulates, and the LiteRT latency of float and int8 files on one thread, measured in
turn with the original's. Writes benchmarks/results/shrinking.json and shrinking.png. Exits with 1 where half the
channels are less than 1.8 times as fast, in float or int8, or cost more than 1 point of accuracy. MNIST is read from
$TFBIG_DATA/data/mnist.npz; without it digits are taken, enlarged to 28 × 28.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import tfbig
from tfbig import plots

L = keras.layers
RESULTS = Path(__file__).parent / "results"
SHARES = (0.75, 0.5, 0.25)
MODES = (None, "int8")
# The int8 kernels of CPUs with matrix tiles work on up to 64 channels at once: on one with AMX, a 3 × 3 convolution at
# 28 × 28 took 32 µs with 16, 32 and 36 µs with 64 channels, and 137 µs with 128. A network whose half fills no tile
# gains nothing in int8 there, though it does in float.
WIDTH = 128
# Latencies come in turns, so that a busy moment of the machine meets both files.
TURNS, SECONDS = 15, 0.1
LIMIT_FASTER, LIMIT_POINTS = 1.8, 0.01


def mnist(rows):
    with np.load(Path(os.environ["TFBIG_DATA"]) / "data" / "mnist.npz") as arrays:
        names = ("x_train", "x_test", "y_train", "y_test")
        x_train, x_test, y_train, y_test = (arrays[name] for name in names)
    kept = np.random.default_rng(0).permutation(len(x_train))[:rows]
    x_train, x_test = (x.astype("float32")[..., None] / 255 for x in (x_train[kept], x_test))
    return x_train, x_test, y_train[kept].astype(int), y_test.astype(int)


def digits(rows):
    data = tfbig.load_dataset("digits")
    large = np.pad(data.x.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2), (0, 0)))
    x_train, x_test, y_train, y_test = tfbig.split(large.astype("float32") / 16, data.y, seed=0)
    return x_train[:rows], x_test, y_train[:rows], y_test


def convolved(h, filters, size=3, strides=1):
    h = L.Conv2D(filters, size, strides, padding="same", use_bias=False)(h)
    # Statistics that settle within the few epochs of a benchmark.
    return L.BatchNormalization(momentum=0.9)(h)


def stem():
    x = keras.Input((28, 28, 1), name="x")
    return x, L.ReLU()(convolved(x, WIDTH, 4, 4))


def convolutional():
    x, h = stem()
    for _ in range(3):
        h = L.ReLU()(convolved(h, WIDTH))
    h = L.Dense(WIDTH, "relu")(L.Flatten()(L.MaxPooling2D()(h)))
    return keras.Model(x, L.Dense(10, name="logits")(h), name="cnn")


def residual():
    x, h = stem()
    for projected in (False, True):
        inner = convolved(L.ReLU()(convolved(h, WIDTH)), WIDTH)
        h = L.ReLU()(L.Add()([inner, convolved(h, WIDTH, 1) if projected else h]))
    logits = L.Dense(10, name="logits")(L.GlobalAveragePooling2D()(h))
    return keras.Model(x, logits, name="residual")


def turns(files, reference):
    """Each file's median latency in µs, and how many times as fast as the reference it is."""
    times = {name: [] for name in files}
    for _ in range(TURNS):
        for name, lite in files.items():
            times[name].append(lite.benchmark(seconds=SECONDS).median_us)
    faster = {name: np.median(np.divide(times[reference], own)) for name, own in times.items()}
    return {name: (float(np.median(own)), float(faster[name])) for name, own in times.items()}


def measure(build, data, epochs, importance, verbose):
    x_train, x_test, y_train, y_test = data
    first, more = epochs
    options = {"batch_size": 64, "verbose": verbose}
    model = tfbig.fit(build, x_train, y_train, epochs=first, seed=0, **options).model
    shrunk = {
        share: tfbig.shrink(
            model, x_train, y_train, keep=share, importance=importance, epochs=more, seed=0, **options
        )
        for share in SHARES
    }
    tfbig.fit(model, x_train, y_train, epochs=more, seed=0, **options)
    models = {1.0: model, **shrunk}
    rows = []
    for share, one in models.items():
        sizes, accuracy = tfbig.summary(one), tfbig.evaluate(one, x_test, y_test)["accuracy"]
        rows.append({"network": model.name, "keep": share, "accuracy": float(accuracy)})
        rows[-1] |= {"parameters": sizes.parameters, "MACs": sizes.macs}
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            calibration = x_train[:200] if mode else None
            paths = {share: f"{folder}/{mode}_{share}.tflite" for share in models}
            files = {
                share: tfbig.export(one, paths[share], quantize=mode, calibration=calibration)
                for share, one in models.items()
            }
            latencies = turns(files, 1.0)
            for row in rows:
                name, lite = mode or "float", files[row["keep"]]
                accuracy = float(tfbig.evaluate(lite, x_test, y_test)["accuracy"])
                row |= {f"{name} accuracy": accuracy, f"{name} bytes": lite.path.stat().st_size}
                row[f"{name} µs"], row[f"{name} times as fast"] = latencies[row["keep"]]
    return rows


def as_table(rows):
    titles = (
        "network, keep",
        "accuracy",
        "parameters",
        "MACs",
        "float µs",
        "faster",
        "int8 µs",
        "faster",
        "int8 acc.",
    )
    cells = [
        (
            f"{row['network']}, {row['keep']:g}",
            f"{row['accuracy']:.2%}",
            f"{row['parameters']:,}",
            f"{row['MACs']:,}",
            *(f"{row['float µs']:.1f}", f"{row['float times as fast']:.2f} ×"),
            *(f"{row['int8 µs']:.1f}", f"{row['int8 times as fast']:.2f} ×"),
            f"{row['int8 accuracy']:.2%}",
        )
        for row in rows
    ]
    return titles, cells


def limits(rows):
    """What half the channels must hold, by network."""
    held = {}
    for whole in (row for row in rows if row["keep"] == 1.0):
        half = next(row for row in rows if row["network"] == whole["network"] and row["keep"] == 0.5)
        for mode in ("float", "int8"):
            faster, lost = half[f"{mode} times as fast"], whole[f"{mode} accuracy"] - half[f"{mode} accuracy"]
            name = f"{whole['network']}, {mode}"
            held[f"{name}: {faster:.2f} times as fast, at least {LIMIT_FASTER}"] = faster >= LIMIT_FASTER
            held[f"{name}: {100 * lost:+.2f} points lost, at most 1"] = lost <= LIMIT_POINTS
    return held


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows and epochs: to see that it runs")
    parser.add_argument("--rows", type=int, help="rows to train on; 20,000, or 3,000 with --quick")
    parser.add_argument("--importance", default="taylor")
    arguments = parser.parse_args()
    rows = arguments.rows or (3_000 if arguments.quick else 20_000)
    epochs = (3, 6) if arguments.quick else (5, 5)
    if "TFBIG_DATA" in os.environ:
        data = mnist(rows)
    else:
        print("TFBIG_DATA is not set: digits, enlarged, instead of MNIST.")
        data = digits(rows)
    results = []
    for build in (convolutional, residual):
        results += measure(build, data, epochs, arguments.importance, verbose=0)
    titles, cells = as_table(results)
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for line in (titles, *cells):
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "shrinking.json").write_text(json.dumps(results, indent=2))
    plots.saved(plots.table(titles, cells), RESULTS / "shrinking.png")
    held = limits(results)
    for limit, holds in held.items():
        print(f"{'held  ' if holds else 'MISSED'}  {limit}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
