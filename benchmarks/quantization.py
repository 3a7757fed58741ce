"""Quantization of a depthwise network: tfbig's training on Keras 3 beside TFMOT's on a tf_keras twin, in one run.

    TFBIG_DATA=../shared python benchmarks/quantization.py [--quick] [--seeds 3]

A small MobileNet is trained in float; from its weights start post-training int8, TFMOT's quantization-aware
training and tfbig's, on the same rows in the same order with the same optimizer. A fourth trains on in float for as
long, then rounds: what the further epochs alone are worth, and what a step costs without rounding. Prints the
accuracy of the files, how many labels of each file agree with those of the Keras model it came from, the operators
that are not int8, and the time of a step, the first epoch left out: by the clock, and in processor seconds, which
other work on the machine disturbs less. No row of the test set is seen before the files are final.
Writes benchmarks/results/quantization.json. Exits with 1 where tfbig's file is more than 0.3 points less accurate
than TFMOT's or less accurate than the post-training one (means over seeds), agrees on less than 99.5%, or computes
in float. MNIST is read from $TFBIG_DATA/data/mnist.npz; without it digits are used.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
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
BATCH, RATE = 64, 3e-3
NAMES = ("after training", "float on, after", "TFMOT", "tfbig")


def mnist(seed, rows):
    with np.load(Path(os.environ["TFBIG_DATA"]) / "data" / "mnist.npz") as arrays:
        names = ("x_train", "x_test", "y_train", "y_test")
        x_train, x_test, y_train, y_test = (arrays[name] for name in names)
    kept = np.random.default_rng(seed).permutation(len(x_train))[:rows]
    x_train, x_test = (x.astype("float32")[..., None] / 255 for x in (x_train[kept], x_test))
    return x_train, x_test, y_train[kept].astype(int), y_test.astype(int)


def digits(seed, rows):
    data = tfbig.load_dataset("digits")
    split = tfbig.split(data.x / 16, data.y, seed=seed)
    return split.x_train.astype("float32"), split.x_test.astype("float32"), split.y_train, split.y_test


def network(library, shape):
    layers = library.layers

    def normalized(layer):
        return [layer, layers.BatchNormalization(momentum=0.9), layers.ReLU(6.0)]

    stack = normalized(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False))
    for filters, strides in ((16, 1), (32, 2 if shape[0] > 8 else 1), (32, 1)):
        stack += normalized(layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False))
        stack += normalized(layers.Conv2D(filters, 1, use_bias=False))
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    model = library.Sequential(
        [library.Input(shape) if library is keras else layers.InputLayer(shape), *stack]
    )
    model.compile(
        library.optimizers.Adam(RATE),
        library.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def stopwatch(library, steps):
    """A callback that notes the milliseconds of a step, by the clock and of the processor, for each epoch."""

    class Stopwatch(library.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.marks = [self.now()]

        def on_epoch_end(self, epoch, logs=None):
            self.marks.append(self.now())

        def now(self):
            return time.perf_counter(), time.process_time()

        def per_step(self):
            """The medians; the first epoch holds the tracing and counts only where there is no other."""
            epochs = np.diff(self.marks, axis=0)
            epochs = epochs[1:] if len(epochs) > 1 else epochs
            clock, processor = np.median(epochs, axis=0) / steps * 1000
            return {"step ms": float(clock), "step processor ms": float(processor)}

    return Stopwatch()


def scored(lite, labels, data, watch=None):
    _, x_test, _, y_test = data
    named = lite.predict(x_test).argmax(1)
    other = {name: count for name, count in lite.ops.items() if not name.endswith(("int8", "int32"))}
    return {
        "accuracy": float((named == y_test).mean()),
        "agreement": float((named == labels).mean()),
        "bytes": lite.path.stat().st_size,
        "not int8": other,
        **({} if watch is None else watch.per_step()),
    }


def steps_of(data):
    return -(-len(data[0]) // BATCH)


def after_training(base, data, folder, watch=None):
    lite = tfbig.export(base, f"{folder}/after.tflite", quantize="int8", calibration=data[0], overwrite=True)
    return scored(lite, base.predict(data[1], verbose=0).argmax(1), data, watch)


def float_on(base, data, epochs, folder):
    model = network(keras, data[0].shape[1:])
    model.set_weights(base.get_weights())
    watch = stopwatch(keras, steps_of(data))
    tfbig.fit(model, data[0], data[2], callbacks=[watch], **options(keras, epochs))
    return after_training(model, data, folder, watch)


def with_tfbig(base, data, epochs, folder):
    watch = stopwatch(keras, steps_of(data))
    model = tfbig.quantize_aware(base, data[0], data[2], callbacks=[watch], **options(keras, epochs))
    lite = tfbig.export(model, f"{folder}/tfbig.tflite", quantize="int8", overwrite=True)
    return scored(lite, model.predict(data[1], verbose=0).argmax(1), data, watch)


def with_tfmot(base, data, epochs, folder):
    twin = network(tf_keras, data[0].shape[1:])
    twin.set_weights(base.get_weights())
    watch = stopwatch(tf_keras, steps_of(data))
    model = tfmot().quantization.keras.quantize_model(twin)
    settings = options(tf_keras, epochs)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(settings.pop("optimizer"), loss, metrics=["accuracy"])
    model.fit(data[0], data[2], callbacks=[watch], **settings)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path = Path(folder) / "tfmot.tflite"
    path.write_bytes(converter.convert())
    return scored(tfbig.LiteModel(path), model.predict(data[1], verbose=0).argmax(1), data, watch)


def options(library, epochs):
    """Of all trainings that start from the float model: same order, same steps."""
    optimizer = library.optimizers.Adam(RATE / 10)
    return {"optimizer": optimizer, "epochs": epochs, "batch_size": BATCH, "shuffle": False, "verbose": 0}


def printed(name, part):
    step = (
        ""
        if "step ms" not in part
        else f"{part['step ms']:.2f} ms a step ({part['step processor ms']:.2f})  "
    )
    print(
        f"    {name:15}  file {part['accuracy']:.4f}  agrees {part['agreement']:.2%}  {part['bytes']:,} bytes  "
        f"{step}not int8: {part['not int8'] or 'nothing'}",
        flush=True,
    )


def measure(load, seeds, rows, epochs):
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            data = load(seed, rows)
            keras.utils.set_random_seed(seed)
            base = network(keras, data[0].shape[1:])
            tfbig.fit(base, data[0], data[2], epochs=epochs, batch_size=BATCH, seed=seed, verbose=0)
            row = {"seed": seed, "float": float(tfbig.evaluate(base, data[1], data[3])["accuracy"])}
            more = max(1, epochs // 2)
            row["after training"] = after_training(base, data, folder)
            row["float on, after"] = float_on(base, data, more, folder)
            row["TFMOT"] = with_tfmot(base, data, more, folder)
            row["tfbig"] = with_tfbig(base, data, more, folder)
            results.append(row)
            print(f"seed {seed}  float {row['float']:.4f}")
            for name in NAMES:
                printed(name, row[name])
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="6,000 rows, one seed, fewer epochs")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    tfmot()  # its import is nobody's training time
    load, rows, epochs = mnist, 60_000, 6
    if "TFBIG_DATA" not in os.environ:
        print("TFBIG_DATA is not set: digits instead of MNIST.")
        load, epochs = digits, 30
    if arguments.quick:
        rows, epochs = 6_000, 6 if load is mnist else 20
    results = measure(load, 1 if arguments.quick else arguments.seeds, rows, epochs)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quantization.json").write_text(json.dumps(results, indent=2))

    def mean(name):
        return np.mean([row[name]["accuracy"] for row in results])

    for other in ("TFMOT", "float on, after"):
        times = [
            row["tfbig"][key] / row[other][key] for key in ("step ms", "step processor ms") for row in results
        ]
        clock, processor = np.split(np.array(times), 2)
        print(
            f"a step of tfbig's: {clock.mean():.2f} x {other!r} by the clock, {processor.mean():.2f} x processor"
        )
    limits = {
        "accuracy at least TFMOT's - 0.3 points": mean("tfbig") >= mean("TFMOT") - 0.003,
        "accuracy at least that of post-training int8": mean("tfbig") >= mean("after training"),
        "file and model agree on 99.5%": all(row["tfbig"]["agreement"] >= 0.995 for row in results),
        "every operator int8": not any(row["tfbig"]["not int8"] for row in results),
    }
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
