"""Builders and `fit` as they come, on scikit-learn's data sets, beside its MLP and gradient boosting as they come.

    python benchmarks/default_builders.py [--quick] [--data iris wine]

The same five splits, stratified, for all. tfbig's models have no option but the task, a normalizer of the training rows
and, where it says so, the denormalizer of their targets; `fit` has none but the epochs, 50 for every data set.
scikit-learn's MLP has a StandardScaler before it and trains its own 200 epochs at most. Scores are accuracy and R²:
mean and standard error over the splits. Exits with 1 where tfbig's mean is below the MLP's by more than the MLP's
standard error.
"""

import argparse
import json
import sys
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfbig

RESULTS = Path(__file__).parent / "results"
# The data set, the builder, and whether it ends with a denormalizer.
ROWS = {
    "digits, mlp": ("digits", "mlp", False),
    "digits, cnn": ("digits", "cnn", False),
    "wine, mlp": ("wine", "mlp", False),
    "breast_cancer, mlp": ("breast_cancer", "mlp", False),
    "iris, mlp": ("iris", "mlp", False),
    "diabetes, mlp": ("diabetes", "mlp", False),
    "diabetes, mlp with denormalizer": ("diabetes", "mlp", True),
}


def trained(data, builder, denormalized, x_train, y_train, epochs, seed):
    def build(x, y):
        options = {"denormalizer": tfbig.normalizer(y, invert=True)} if denormalized else {}
        make = getattr(tfbig.models, builder)
        return make(data.x.shape[1:], data.outputs, task=data.task, normalizer=tfbig.normalizer(x), **options)

    return tfbig.fit(build, x_train, y_train, epochs=epochs, seed=seed, verbose=0).model


def by_scikit_learn(task, seed):
    if task == "regression":
        mlp, boosting = MLPRegressor(random_state=seed), HistGradientBoostingRegressor(random_state=seed)
    else:
        mlp, boosting = MLPClassifier(random_state=seed), HistGradientBoostingClassifier(random_state=seed)
    return {"mlp": make_pipeline(StandardScaler(), mlp), "boosting": boosting}


def splits(data, seeds):
    return [tfbig.split(data.x, data.y, seed=seed) for seed in range(seeds)]


def measure(name, seeds, epochs):
    """Returns the scores of tfbig's model on every split."""
    dataset, builder, denormalized = ROWS[name]
    data, scores = tfbig.load_dataset(dataset), []
    for seed, (x_train, x_test, y_train, y_test) in enumerate(splits(data, seeds)):
        model = trained(data, builder, denormalized, x_train, y_train, epochs, seed)
        found = tfbig.evaluate(model, x_test, y_test)
        scores.append(found[found.headline])
    return scores


@cache
def measure_scikit_learn(dataset, seeds):
    """Returns the scores of its MLP and of its gradient boosting on every split."""
    data, scores = tfbig.load_dataset(dataset), {"mlp": [], "boosting": []}
    for seed, (x_train, x_test, y_train, y_test) in enumerate(splits(data, seeds)):
        flat = [rows.reshape(len(rows), -1) for rows in (x_train, x_test)]
        for kind, model in by_scikit_learn(data.task, seed).items():
            with warnings.catch_warnings():
                # 200 epochs are scikit-learn's default, and fewer than it would like.
                warnings.simplefilter("ignore", ConvergenceWarning)
                scores[kind].append(model.fit(flat[0], y_train).score(flat[1], y_test))
    return scores


def standard_error(values):
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def shown(values):
    return f"{np.mean(values):.4f} ± {standard_error(values):.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two splits, and not the images")
    parser.add_argument("--epochs", type=int, default=50, help="of tfbig's models")
    parser.add_argument("--data", nargs="+", default=sorted({row[0] for row in ROWS.values()}))
    options = parser.parse_args()
    names = [name for name, (dataset, *_) in ROWS.items() if dataset in options.data]
    if options.quick:
        names = [name for name in names if not name.startswith("digits")]
    seeds = 2 if options.quick else 5
    table = Table("data, builder", "tfbig", "scikit-learn's MLP", "gradient boosting", "seconds of tfbig")
    results, missed = {}, []
    for name in names:
        began = time.perf_counter()
        ours = measure(name, seeds, options.epochs)
        seconds = time.perf_counter() - began
        scores = results[name] = {"tfbig": ours, **measure_scikit_learn(ROWS[name][0], seeds)}
        print(f"{name}: {shown(ours)}", file=sys.stderr, flush=True)
        table.add_row(name, *map(shown, scores.values()), f"{seconds:.0f}")
        if np.mean(ours) < np.mean(scores["mlp"]) - standard_error(scores["mlp"]):
            missed.append(f"{name}: {shown(ours)} beside {shown(scores['mlp'])}")
    Console(width=150).print(table)
    RESULTS.mkdir(exist_ok=True)
    whole = len(names) == len(ROWS)
    target = RESULTS / ("default_builders.json" if whole else "default_builders_quick.json")
    target.write_text(json.dumps({"epochs": options.epochs, "scores": results}, indent=2) + "\n")
    print(f"MISSED  {'; '.join(missed)}" if missed else "nowhere below scikit-learn's MLP")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
