"""Transformers in int8: trained through the rounding, beside the same files calibrated after training.

    python benchmarks/quantized_transformer.py [--seeds 3]

Three of tfbig's own: patches of digits, padded sequences of tokens (which of two tokens comes more often), and a causal
language model. Each is trained in float; from its weights start calibration and `quantize_aware`, which trains on. A
third trains on in float for as long, and is calibrated then: what the further epochs alone are worth. Prints the
accuracy of the Keras model and of the files on rows that neither training nor calibration saw, how many answers of each
file are those of its Keras model, the operators in float, and what TFMOT says to such layers in tf_keras. Writes
benchmarks/results/quantized_transformer.json. Exits with 1 where a file of `quantize_aware` computes in float, agrees
with its model on less than 98%, or is more than a point less accurate than the calibrated one that was trained for as
long (means over seeds; of the 450 digits held out, a point is 4 or 5, and two trainings differ by as much).
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
from rich.console import Console
from rich.table import Table

import tfbig
from tfbig.backend.pruning import tfmot

RESULTS = Path(__file__).parent / "results"
SIZES = {"depth": 2, "width": 32, "heads": 4}
EPOCHS, ON = 20, 6
MOST_POINTS, LEAST_AGREEMENT = 0.01, 0.98


def patches(generator):
    data = tfbig.load_dataset("digits")
    order = generator.permutation(len(data.x))
    x, y = (data.x[order] / 16).astype("float32"), data.y[order]
    return x, y, tfbig.models.transformer((8, 8, 1), 10, patch_size=2, **SIZES)


def padded_tokens(generator, rows=3000, steps=24, words=20):
    x = generator.integers(1, words, (rows, steps))
    x[np.arange(steps) >= generator.integers(4, steps + 1, rows)[:, None]] = 0
    y = ((x == 3).sum(1) > (x == 5).sum(1)).astype(int)
    return x, y, tfbig.models.transformer((steps,), 2, vocabulary=words, padding=0, **SIZES)


def language(generator, rows=2000, steps=16, words=12):
    """Each token follows from the two before it, three times in four."""
    rule = generator.integers(0, words, (words, words))
    x = generator.integers(0, words, (rows, steps + 1))
    for step in range(2, steps + 1):
        ruled = generator.random(rows) < 0.75
        x[ruled, step] = rule[x[ruled, step - 2], x[ruled, step - 1]]
    model = tfbig.models.transformer((steps,), words, vocabulary=words, task="sequence", causal=True, **SIZES)
    return x[:, :-1], x[:, 1:], model


TASKS = {"patches of digits": patches, "padded tokens": padded_tokens, "causal language model": language}


def measured(name, seed, folder):
    """Accuracy of a task's models and files, agreements, and operators in float."""
    keras.utils.set_random_seed(seed)
    x, y, model = TASKS[name](np.random.default_rng(seed))
    cut = int(0.75 * len(x))
    train, test = (x[:cut], y[:cut]), (x[cut:], y[cut:])
    options = {"seed": seed, "verbose": 0, "learning_rate": 1e-3}
    tfbig.fit(model, *train, epochs=EPOCHS, **options)
    rounded = tfbig.quantize_aware(model, *train, epochs=ON, **options)
    after = export(model, folder, calibration=train[0])
    trained = export(rounded, folder)
    further = tfbig.load_model(tfbig.save_model(model, folder / "model.keras", overwrite=True))
    tfbig.fit(further, *train, epochs=ON, **options)
    on = export(further, folder, calibration=train[0])
    row = {"float": accuracy(further, test)}
    for kind, keras_model, lite in (
        ("after training", model, after),
        ("trained on, then calibrated", further, on),
        ("quantize_aware", rounded, trained),
    ):
        same = keras_model.predict(test[0], verbose=0).argmax(-1) == lite.predict(test[0]).argmax(-1)
        row[kind] = {
            "accuracy": accuracy(lite, test),
            "agrees": float(same.mean()),
            "float_ops": list(lite.report.float_ops),
        }
    return row


def export(model, folder, **options):
    return tfbig.export(model, folder / f"{id(model)}.tflite", quantize="int8", overwrite=True, **options)


def accuracy(model, rows):
    return tfbig.evaluate(model, *rows)["accuracy"]


def what_tfmot_says():
    """Its answer to a model of one attention layer and one normalization."""
    import tf_keras

    x = tf_keras.Input((8, 16))
    y = tf_keras.layers.LayerNormalization()(x)
    y = tf_keras.layers.MultiHeadAttention(2, 8)(y, y)
    model = tf_keras.Model(x, tf_keras.layers.Dense(2)(tf_keras.layers.Flatten()(y)))
    try:
        tfmot().quantization.keras.quantize_model(model)
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "it quantizes the model"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    results, failed = {}, False
    table = Table(title=f"int8 Transformers, means of {seeds} seeds")
    for column in ("task", "file", "accuracy", "agrees with its model", "in float"):
        table.add_column(column)
    for name in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            rows = [measured(name, seed, Path(folder)) for seed in range(seeds)]
        results[name] = rows
        table.add_row(name, "(float model)", f"{np.mean([row['float'] for row in rows]):.4f}", "", "")
        means = {}
        for kind in ("after training", "trained on, then calibrated", "quantize_aware"):
            means[kind] = {key: np.mean([row[kind][key] for row in rows]) for key in ("accuracy", "agrees")}
            ops = sorted({op for row in rows for op in row[kind]["float_ops"]})
            shown = [f"{means[kind][key]:.4f}" for key in ("accuracy", "agrees")]
            table.add_row("", kind, *shown, ", ".join(ops) or "nothing")
        best = means["quantize_aware"]
        behind = means["trained on, then calibrated"]["accuracy"] - best["accuracy"]
        failed |= bool(ops) or best["agrees"] < LEAST_AGREEMENT or behind > MOST_POINTS
    Console().print(table)
    print(f"TFMOT on attention and layer normalization: {what_tfmot_says()}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quantized_transformer.json").write_text(json.dumps(results, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
