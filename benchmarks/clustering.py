"""Weight clustering on digits: tfbig.cluster, by k-means++ and by linear values, beside TFMOT's cluster_weights.

    python benchmarks/clustering.py

Both start from the same trained weights, TFMOT on a tf_keras twin by its default, k-means++, and see the same batches
for the same epochs with Adam at 0.001. TFMOT's result goes back into the Keras model, so that the same code scores and
exports both. Prints a line per model and number of clusters, means over three seeds, and writes
benchmarks/results/clustering.json. "seconds" is the whole call, most of it tracing; "epoch" the median of the epochs
after the first.

Exits with 1 if a kernel holds more values than asked; if accuracy, on average over all, is more than 0.3 points
below TFMOT's; if an epoch takes over 1.5 times as long, on average; or if a gzipped float file is over 1.25 of
TFMOT's by k-means++, or larger than TFMOT's by linear values. With k-means++ it is larger because k-means, which
tfbig lets settle, fills the clusters evenly: that is closest to the weights and takes the most bits a weight. In
TFMOT Adam moves each centroid by its own full step and spreads them, so that the middle ones hold most weights.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tfbig
from tfbig.backend import keras
from tfbig.backend.pruning import tfmot
from tfbig.compression.clusters import cluster, clusters
from tfbig.compression.copies import copy_model

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
EPOCHS, BATCH = 8, 32
TOOLS = ("tfbig", "tfbig linear", "tfmot")
MODELS = {
    "cnn": lambda: tfbig.models.cnn((8, 8, 1), 10, filters=(16, 32)),
    "mlp": lambda: tfbig.models.mlp((8, 8, 1), 10, hidden=(300, 100)),
}


def epoch_timer(module):
    """A callback of that Keras which notes when each epoch ends."""

    class Timer(module.callbacks.Callback):
        ends = ()

        def on_epoch_end(self, epoch, logs=None):
            self.ends = (*self.ends, time.perf_counter())

        @property
        def median(self):
            return float(np.median(np.diff(self.ends)))

    return Timer()


def with_tfbig(model, x, y, count, init="kmeans++"):
    timer = epoch_timer(keras)
    options = {"epochs": EPOCHS, "batch_size": BATCH, "shuffle": False, "callbacks": timer, "verbose": 0}
    return cluster(model, x, y, clusters=count, init=init, optimizer="adam", **options), timer.median


def with_tfmot(model, x, y, count):
    import tf_keras

    clustering = tfmot().clustering.keras
    wrapped = clustering.cluster_weights(twin(model, tf_keras), number_of_clusters=count)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped.compile(tf_keras.optimizers.Adam(), loss, metrics=["accuracy"])
    timer = epoch_timer(tf_keras)
    wrapped.fit(x, y, epochs=EPOCHS, batch_size=BATCH, shuffle=False, callbacks=[timer], verbose=0)
    result = copy_model(model, "Cluster")
    result.set_weights(clustering.strip_clustering(wrapped).get_weights())
    return result, timer.median


def twin(model, tf_keras):
    """The same layers and weights in legacy tf_keras."""
    layers = [tf_keras.Input((8, 8, 1))]
    for layer in model.layers:
        kind = getattr(tf_keras.layers, type(layer).__name__)
        if isinstance(layer, keras.layers.Conv2D):
            layers.append(kind(layer.filters, layer.kernel_size, padding="same"))
        elif isinstance(layer, keras.layers.Dense):
            layers.append(kind(layer.units, activation=layer.activation.__name__))
        elif isinstance(layer, keras.layers.Activation):
            layers.append(kind(layer.activation.__name__))
        else:
            layers.append(kind())
    legacy = tf_keras.Sequential(layers)
    legacy.set_weights(model.get_weights())
    return legacy


def measure(make, model, data, count, folder):
    start = time.perf_counter()
    result, epoch = make(model, data.x_train, data.y_train, count)
    seconds = time.perf_counter() - start
    file = tfbig.export(result, Path(folder) / f"{time.monotonic_ns()}.tflite").path
    return {
        "accuracy": tfbig.evaluate(result, data.x_test, data.y_test)["accuracy"],
        "most distinct": max(layer.distinct for layer in clusters(result).layers),
        "seconds": seconds,
        "epoch": epoch,
        "gzip bytes": len(gzip.compress(file.read_bytes())),
    }


def main():
    tfmot()  # its import is nobody's training time
    images = tfbig.load_dataset("digits")
    data = tfbig.split(images.x / 16, images.y, seed=0)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, build in MODELS.items():
            runs = {}
            for seed in SEEDS:
                model = tfbig.fit(
                    lambda x, build=build: build(),
                    data.x_train,
                    data.y_train,
                    epochs=15,
                    seed=seed,
                    verbose=0,
                ).model
                dense = tfbig.evaluate(model, data.x_test, data.y_test)["accuracy"]
                for count in (4, 16):
                    linear = functools.partial(with_tfbig, init="linear")
                    for tool, make in zip(TOOLS, (with_tfbig, linear, with_tfmot), strict=True):
                        row = measure(make, model, data, count, folder) | {"dense accuracy": dense}
                        runs.setdefault((count, tool), []).append(row)
            for count in (4, 16):
                ours, linear, theirs = (
                    {
                        key: float(np.mean([row[key] for row in runs[count, tool]]))
                        for key in runs[count, tool][0]
                    }
                    for tool in TOOLS
                )
                results.append(
                    {
                        "model": name,
                        "clusters": count,
                        **dict(zip(TOOLS, (ours, linear, theirs), strict=True)),
                    }
                )
                print(
                    f"{name} {count:2} clusters  dense {ours['dense accuracy']:.4f}  "
                    f"accuracy {ours['accuracy']:.4f}, linear {linear['accuracy']:.4f} "
                    f"(TFMOT {theirs['accuracy']:.4f})  "
                    f"most distinct {ours['most distinct']:.0f} ({theirs['most distinct']:.0f})  "
                    f"seconds {ours['seconds']:.2f} ({theirs['seconds']:.2f})  "
                    f"epoch {theirs['epoch'] / ours['epoch']:.2f} × as fast  "
                    f"gzip {ours['gzip bytes']:.0f} = {ours['gzip bytes'] / theirs['gzip bytes']:.3f} of TFMOT's, "
                    f"linear {linear['gzip bytes']:.0f} = {linear['gzip bytes'] / theirs['gzip bytes']:.3f}",
                    flush=True,
                )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "clustering.json").write_text(json.dumps(results, indent=2))

    def mean(tool, key):
        return np.mean([row[tool][key] for row in results])

    limits = {
        "no more values than asked": all(
            row[tool]["most distinct"] <= row["clusters"] for row in results for tool in TOOLS
        ),
        "accuracy within 0.3 points of TFMOT's": all(
            mean(tool, "accuracy") >= mean("tfmot", "accuracy") - 0.003 for tool in TOOLS
        ),
        "epochs at most 1.5 times as long as TFMOT's": mean("tfbig", "epoch") <= 1.5 * mean("tfmot", "epoch"),
        "gzip at most 1.25 of TFMOT's": all(
            row["tfbig"]["gzip bytes"] <= 1.25 * row["tfmot"]["gzip bytes"] for row in results
        ),
        "gzip by linear values at most TFMOT's": all(
            row["tfbig linear"]["gzip bytes"] <= row["tfmot"]["gzip bytes"] for row in results
        ),
    }
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
