"""K-fold on digits: tfbig's folds together and one after another, beside scikit-learn over Keras's wrapper and a loop.

    python benchmarks/cross_validation.py            # 10 folds × 20 epochs, and growth with the number of folds
    python benchmarks/cross_validation.py --quick    # 5 folds × 4 epochs, no growth

Same folds, epochs, batch and optimizer for all. "wrapper" is scikit-learn's cross_validate over Keras's own
SKLearnClassifier, with its options passed by `params=` (passed as `fit_kwargs` they are lost when it is cloned); "loop"
builds and fits a fresh model per fold and predicts its held-out rows. Times are of the whole call, tracing included,
in one process, one way after the other; each model's ways start from a process that has traced something before. With
--repeats 3, all of it three times, times and ratios are medians.

Prints a line per model, writes benchmarks/results/cross_validation.json, and draws growth with the number of folds to
benchmarks/results/cross_validation.png. Exits with 1 if together takes more than 0.12 of the faster baseline for the
MLP, or 0.25 for the others (normalized_mlp is one with batch norm and dropout); if sequential takes more than 0.5; if a
mean accuracy is more than 2 points from the loop's, which has other seeds; or if 100 sequential folds peak above 1.1
times the memory of 5. A quick run checks no limits: tracing outweighs so little training.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.model_selection import cross_validate as sklearn_cross_validate

import tfbig
from tfbig.backend import keras

RESULTS = Path(__file__).parent / "results"
BATCH = 32
FLAT = "100 folds peak at most 1.1 times 5 folds"
L = keras.layers


def mlp():
    hidden = [L.Dense(128, activation="relu"), L.Dense(64, activation="relu")]
    return keras.Sequential([keras.Input((64,)), *hidden, L.Dense(10)])


def normalized_mlp():
    layers = [L.Dense(128), L.BatchNormalization(), L.ReLU(), L.Dropout(0.3), L.Dense(64, activation="relu")]
    return keras.Sequential([keras.Input((64,)), *layers, L.Dense(10)])


def cnn():
    layers = [L.Reshape((8, 8, 1)), L.Conv2D(16, 3, padding="same"), L.BatchNormalization(), L.ReLU()]
    layers += [L.MaxPooling2D(), L.Conv2D(32, 3), L.ReLU(), L.Dropout(0.2), L.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((64,)), *layers, L.Dense(10)])


def lstm():
    return keras.Sequential([keras.Input((64,)), L.Reshape((8, 8)), L.LSTM(32), L.Dense(10)])


def transformer():
    inputs = keras.Input((64,))
    x = L.Dense(32)(L.Reshape((8, 8))(inputs))
    x = L.LayerNormalization()(x + L.MultiHeadAttention(4, 8, dropout=0.1)(x, x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling1D()(L.Dense(64, activation="gelu")(x))))


MODELS = {"mlp": mlp, "normalized_mlp": normalized_mlp, "cnn": cnn, "lstm": lstm, "transformer": transformer}
MOST = {"mlp": 0.12, "normalized_mlp": 0.25, "cnn": 0.25, "lstm": 0.25, "transformer": 0.25}


def compiled(build):
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def by_wrapper(build, x, y, cv, epochs):
    def one_hot_model(X, y):
        # The wrapper feeds one-hot targets.
        model = build()
        model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model

    wrapper = keras.wrappers.SKLearnClassifier(one_hot_model)
    params = {"epochs": epochs, "batch_size": BATCH, "verbose": 0}
    with contextlib.redirect_stdout(io.StringIO()):  # its predict draws progress bars
        return sklearn_cross_validate(wrapper, x, y, cv=cv, params=params, error_score="raise")["test_score"]


def by_loop(build, x, y, cv, epochs):
    scores = []
    for train, test in cv.split(x, y):
        model = compiled(build)
        model.fit(x[train], y[train], epochs=epochs, batch_size=BATCH, verbose=0)
        scores.append(np.mean(model.predict(x[test], verbose=0).argmax(axis=1) == y[test]))
    return scores


def by_tfbig(folds):
    def run(build, x, y, cv, epochs):
        options = {"epochs": epochs, "batch_size": BATCH, "seed": 0, "folds": folds}
        result = tfbig.cross_validate(lambda: compiled(build), x, y, cv=cv, **options)
        assert result.mode == folds, result.fallback
        return result.scores["accuracy"]

    return run


WAYS = {
    "wrapper": by_wrapper,
    "loop": by_loop,
    "together": by_tfbig("together"),
    "sequential": by_tfbig("sequential"),
}


def digits():
    data = tfbig.load_dataset("digits")
    return data.x.reshape(len(data.x), 64).astype(np.float32) / 16, data.y


def timed(way, build, x, y, folds, epochs):
    cv = StratifiedKFold(folds, shuffle=True, random_state=0)
    began, busy = time.perf_counter(), time.process_time()
    scores = WAYS[way](build, x, y, cv, epochs)
    return {
        "seconds": time.perf_counter() - began,
        "cpu seconds": time.process_time() - busy,  # of all threads; says more where the machine is shared
        "accuracy": float(np.mean(scores)),
    }


def measured(build, x, y, folds, epochs, repeats):
    """Each way's seconds, accuracy and ratio to the faster baseline: medians over so many rounds of all ways."""
    rounds = [{way: timed(way, build, x, y, folds, epochs) for way in WAYS} for _ in range(repeats)]
    for row in rounds:
        for kind, ratio in (("seconds", "ratio"), ("cpu seconds", "cpu ratio")):
            fastest = min(row["wrapper"][kind], row["loop"][kind])
            for way in ("together", "sequential"):
                row[way][ratio] = row[way][kind] / fastest
    return {
        way: {name: float(np.median([row[way][name] for row in rounds])) for name in rounds[0][way]}
        for way in WAYS
    }


def peak_memory(folds):
    """Peak resident MiB of a process of its own that trains so many folds one after another."""
    code = f"""
import sys
import numpy as np
sys.path.insert(0, {str(Path(__file__).parent)!r})
import cross_validation as benchmark
import tfbig
x, y = benchmark.digits()
rows = np.arange(len(x))
pairs = [(rows[rows % {folds} != k][:640], rows[rows % {folds} == k]) for k in range({folds})]
build = lambda: benchmark.compiled(benchmark.mlp)
tfbig.cross_validate(build, x, y, cv=pairs, epochs=1, seed=0, folds="sequential")
# Not getrusage: its maximum is inherited from the process that started this one.
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(child.stdout.split()[-1])


def memory():
    """Peak MiB of 5 and of 100 folds, and whether it is flat."""
    peaks = {count: peak_memory(count) for count in (5, 100)}
    print("peak memory: " + "  ".join(f"{count} folds {mib:.0f} MiB" for count, mib in peaks.items()))
    return peaks, peaks[100] <= 1.1 * peaks[5]


def draw(growth, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    ax = figure.subplots()
    for way in WAYS:
        ax.plot(list(growth), [row[way] for row in growth.values()], marker="o", label=way)
    ax.set(xlabel="folds", xticks=list(growth), ylabel="seconds (MLP)", ylim=(0, None))
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 folds × 4 epochs, no growth, no limits")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--memory", action="store_true", help="peak memory of 5 and 100 folds, nothing else")
    parser.add_argument("--repeats", type=int, default=1, help="rounds to take medians of")
    arguments = parser.parse_args()
    if arguments.memory:
        return 0 if memory()[1] else 1
    folds, epochs = (5, 4) if arguments.quick else (10, 20)
    x, y = digits()
    compiled(mlp).fit(x[:64], y[:64], verbose=0)  # TensorFlow's own first start is nobody's time
    report, limits = {"folds": folds, "epochs": epochs, "repeats": arguments.repeats, "models": {}}, {}
    for name in arguments.models:
        row = measured(MODELS[name], x, y, folds, epochs, arguments.repeats)
        report["models"][name] = row
        shown = (f"{way} {one['seconds']:.1f} s ({one['accuracy']:.4f})" for way, one in row.items())
        ratios = ", ".join(
            f"{way} {row[way]['ratio']:.3f} of the faster (CPU {row[way]['cpu ratio']:.3f})"
            for way in ("together", "sequential")
        )
        print(f"{name}: {'  '.join(shown)}  {ratios}", flush=True)
        limits[f"{name}: together at most {MOST[name]}"] = row["together"]["ratio"] <= MOST[name]
        limits[f"{name}: sequential at most 0.5"] = row["sequential"]["ratio"] <= 0.5
        for way in ("together", "sequential"):
            apart = abs(row[way]["accuracy"] - row["loop"]["accuracy"])
            limits[f"{name}: {way} within 2 points of the loop"] = apart <= 0.02
    RESULTS.mkdir(exist_ok=True)
    if not arguments.quick:
        report["growth"] = {
            count: {way: timed(way, mlp, x, y, count, epochs)["seconds"] for way in WAYS}
            for count in (2, 5, 10, 20)
        }
        draw(report["growth"], RESULTS / "cross_validation.png")
        for count, row in report["growth"].items():
            print(f"{count} folds: " + "  ".join(f"{way} {seconds:.1f} s" for way, seconds in row.items()))
        report["peak MiB"], limits[FLAT] = memory()
    (RESULTS / "cross_validation.json").write_text(json.dumps(report, indent=2))
    if arguments.quick:
        return 0
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
