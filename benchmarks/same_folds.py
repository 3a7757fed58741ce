"""Folds trained together beside the same folds one after another: how far scores and weights are apart.

    python benchmarks/same_folds.py            # 10 folds × 5 epochs of digits: 4 models, SGD and Adam
    python benchmarks/same_folds.py --quick    # 3 folds × 1 epoch

Both have the same folds, initial weights, dropout and batches; what differs is the order of additions. In float32 some
models magnify that: Adam divides a gradient by its own size, so where the true gradient is 0 (a bias before batch
normalization, a key's bias in attention) it takes whole steps from rounding; and a rounding decides which of two
almost equal pixels a maximum takes. The same training in float64 shows what is rounding and what is not: there the
limits must hold.

Prints a line per model, optimizer and precision, names the weights that are further apart than 1e-4, and writes
benchmarks/results/same_folds.json. Exits with 1 if in float64 a fold's score differs by more than 1e-3 or a weight by
more than 1e-4, or if in float32 a fold's accuracy differs by more than two of its rows.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from cross_validation import MODELS, digits

import tfbig
from tfbig.backend import keras

RESULTS = Path(__file__).parent / "results"
SCORES, WEIGHTS = 1e-3, 1e-4
OPTIMIZERS = {"sgd": lambda: keras.optimizers.SGD(0.05), "adam": lambda: keras.optimizers.Adam(1e-3)}


def trained(build, optimizer, folds, how, epochs):
    weights = []

    def finish(model, x_train, y_train):
        weights.append({v.path.split("/", 1)[-1]: v.numpy() for v in model.weights})
        return model

    x, y = digits()
    result = tfbig.cross_validate(
        *(build, x, y),
        cv=folds,
        epochs=epochs,
        batch_size=32,
        seed=0,
        folds=how,
        finish=finish,
        optimizer=optimizer(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    assert result.mode == how, result.fallback
    return result, weights


def compare(name, optimizer, folds, epochs):
    job = (MODELS[name], OPTIMIZERS[optimizer], folds)
    (one, ours), (other, theirs) = (trained(*job, how, epochs) for how in ("together", "sequential"))
    scores = max(
        float(np.max(np.abs(np.subtract(values, other.scores[metric]))))
        for metric, values in one.scores.items()
    )
    apart: dict[str, float] = {}
    for mine, other_fold in zip(ours, theirs, strict=True):
        # Names are numbered through the life of the process; positions are not.
        for (path, a), b in zip(mine.items(), other_fold.values(), strict=True):
            place = f"{list(mine).index(path)} {path.split('/')[-1]}"
            apart[place] = max(apart.get(place, 0.0), float(np.max(np.abs(a - b))))
    return {
        "accuracy": max(
            abs(a - b) for a, b in zip(one.scores["accuracy"], other.scores["accuracy"], strict=True)
        ),
        "any score": scores,
        "weights": max(apart.values()),
        "further apart": {place: value for place, value in apart.items() if value > WEIGHTS},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 folds × 1 epoch, no limits")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    folds, epochs = (3, 1) if arguments.quick else (10, 5)
    rows, missed = [], 0
    for precision in ("float32", "float64"):
        keras.config.set_floatx(precision)
        keras.config.set_dtype_policy(precision)
        for name in arguments.models:
            for optimizer in OPTIMIZERS:
                row = compare(name, optimizer, folds, epochs)
                rows.append({"precision": precision, "model": name, "optimizer": optimizer, **row})
                far = ", ".join(f"{place} {value:.1e}" for place, value in row["further apart"].items())
                held = row["any score"] <= SCORES and row["weights"] <= WEIGHTS
                missed += not held if precision == "float64" else row["accuracy"] > 2.01 * folds / 1797
                print(
                    f"{'held ' if held else 'apart'} {precision} {name} {optimizer}: accuracy {row['accuracy']:.1e}, "
                    f"any score {row['any score']:.1e}, weights {row['weights']:.1e}"
                    + (f"; further apart than 1e-4: {far}" if far else ""),
                    flush=True,
                )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "same_folds.json").write_text(json.dumps(rows, indent=2))
    return 0 if arguments.quick or not missed else 1


if __name__ == "__main__":
    sys.exit(main())
