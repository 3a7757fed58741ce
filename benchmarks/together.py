"""Prune, cluster, quantize, one after the other: what each step leaves in the file, beside TFMOT's PCQAT.

    python benchmarks/together.py [--seeds 3]

A digits CNN is trained in float; from its weights start tfbig's chain on Keras 3 and TFMOT's (`prune_low_magnitude`,
`cluster_weights` and `quantize_apply` with the scheme that preserves clusters and zeros) on a tf_keras twin, with the
same epochs, rates and order of rows. After every step the model is written as int8 (before quantization-aware
training with calibration) and the file itself is read: accuracy, zeros among the integer weights, the most distinct
integers in a kernel, size after gzip. Writes benchmarks/results/together.json. Exits with 1 where tfbig's last file
has lost zeros or clusters.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import gzip
import json
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from ai_edge_litert import schema_py_generated as schema

# As TFMOT's own guide to sparsity-preserving clustering imports it: it has no public name.
from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as sparse_clusters

import tfbig
from tfbig.backend.pruning import tfmot

RESULTS = Path(__file__).parent / "results"
SPARSITY, CLUSTERS = 0.7, 16
EPOCHS = {"train": 30, "prune": 12, "cluster": 6, "quantize": 6}
BATCH, RATE = 32, 1e-3
STEPS = ("prune", "cluster", "quantize")


def digits(seed):
    data = tfbig.load_dataset("digits")
    split = tfbig.split((data.x / 16).astype("float32"), data.y, seed=seed)
    return split.x_train, split.x_test, split.y_train, split.y_test


def network(library):
    layers = library.layers
    start = library.Input((8, 8, 1)) if library is keras else layers.InputLayer((8, 8, 1))
    stack = [
        layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]
    return compiled(library, library.Sequential([start, *stack]), RATE)


def compiled(library, model, rate):
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(library.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def rate_of(step):
    return RATE if step == "prune" else RATE / 10


def schedule(rows):
    end = EPOCHS["prune"] * -(-rows // BATCH) // 2
    return tfmot().sparsity.keras.PolynomialDecay(0.0, SPARSITY, 0, end, frequency=10)


def with_tfbig(base, data):
    """Yields the model after each step."""
    x, _, y, _ = data
    model = base
    for step in STEPS:
        options = {"epochs": EPOCHS[step], "batch_size": BATCH, "shuffle": False, "verbose": 0}
        options["optimizer"] = keras.optimizers.Adam(rate_of(step))
        if step == "prune":
            model = tfbig.prune(model, x, y, schedule=schedule(len(x)), **options)
        elif step == "cluster":
            model = tfbig.cluster(model, x, y, clusters=CLUSTERS, **options)
        else:
            model = tfbig.quantize_aware(model, x, y, **options)
        yield step, model


def with_tfmot(base, data):
    """Yields the model after each step, stripped of what only training needs."""
    x, _, y, _ = data
    library = tfmot()
    model = network(tf_keras)
    model.set_weights(base.get_weights())
    for step in STEPS:
        callbacks = []
        if step == "prune":
            schedule_ = schedule(len(x))
            model = library.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule_)
            callbacks = [library.sparsity.keras.UpdatePruningStep()]
            strip = library.sparsity.keras.strip_pruning
        elif step == "cluster":
            clustering = library.clustering.keras
            model = sparse_clusters.cluster_weights(
                model,
                CLUSTERS,
                cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
                preserve_sparsity=True,
            )
            strip = clustering.strip_clustering
        else:
            scheme = library.experimental.combine.Default8BitClusterPreserveQuantizeScheme(True)
            annotated = library.quantization.keras.quantize_annotate_model(model)
            model = library.quantization.keras.quantize_apply(annotated, scheme)
            strip = lambda trained: trained  # noqa: E731 - the converter takes it as it is
        compiled(tf_keras, model, rate_of(step))
        options = {"epochs": EPOCHS[step], "batch_size": BATCH, "shuffle": False, "verbose": 0}
        model.fit(x, y, callbacks=callbacks, **options)
        model = strip(model)
        yield step, model


def file_of_tfbig(model, step, data, path):
    calibration = {} if step == "quantize" else {"calibration": data[0]}
    return tfbig.export(model, path, quantize="int8", overwrite=True, **calibration)


def file_of_tfmot(model, step, data, path):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if step != "quantize":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([row[None]] for row in data[0])
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return tfbig.LiteModel(path)


def integer_kernels(path):
    """The integer weights of a file, by tensor."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    for tensor in model.subgraphs[0].tensors:
        held = model.buffers[tensor.buffer].data
        if held is not None and tensor.type == schema.TensorType.INT8 and len(tensor.shape) > 1:
            yield np.asarray(held, np.uint8).view(np.int8)


def measured(lite, data):
    kernels = list(integer_kernels(lite.path))
    return {
        "accuracy": float((lite.predict(data[1]).argmax(1) == data[3]).mean()),
        "zeros": float(sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels)),
        "distinct": max(len(np.unique(k)) for k in kernels),
        "gzip": len(gzip.compress(lite.path.read_bytes(), 9)),
    }


def measure(seed, folder):
    data = digits(seed)
    keras.utils.set_random_seed(seed)
    base = network(keras)
    options = {"epochs": EPOCHS["train"], "batch_size": BATCH, "seed": seed, "verbose": 0}
    tfbig.fit(base, data[0], data[2], **options)
    path = Path(folder) / "before.tflite"
    row = {"seed": seed, "before": measured(file_of_tfbig(base, "before", data, path), data)}
    for name, chain, written in (
        ("tfbig", with_tfbig, file_of_tfbig),
        ("TFMOT", with_tfmot, file_of_tfmot),
    ):
        path = Path(folder) / f"{name}.tflite"
        row[name] = {
            step: measured(written(model, step, data, path), data) for step, model in chain(base, data)
        }
    return row


def printed(row):
    print(f"seed {row['seed']}")
    lines = [("float, int8", row["before"])]
    for name in ("tfbig", "TFMOT"):
        lines += [(f"{name} {step}", part) for step, part in row[name].items()]
    for name, part in lines:
        print(
            f"    {name:15}  accuracy {part['accuracy']:.4f}  zeros {part['zeros']:.1%}  "
            f"distinct {part['distinct']:3}  gzip {part['gzip']:,}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            rows.append(measure(seed, folder))
            printed(rows[-1])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "together.json").write_text(json.dumps(rows, indent=2))
    last = [row["tfbig"]["quantize"] for row in rows]
    limits = {
        "zeros of pruning are in the last file": all(
            row["tfbig"]["quantize"]["zeros"] >= row["tfbig"]["prune"]["zeros"] - 0.005 for row in rows
        ),
        f"at most {CLUSTERS} distinct integers in a kernel": all(
            part["distinct"] <= CLUSTERS for part in last
        ),
    }
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
