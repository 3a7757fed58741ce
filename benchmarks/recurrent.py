"""Recurrent models as LiteRT files: mode × works, size, latency, error.

    python benchmarks/recurrent.py [--steps 50] [--units 64]

First two stacked LSTMs beside Keras's own export in the one form that LiteRT runs (a fixed batch, builtin operators
only: a WHILE). Then LSTM, bidirectional, masked, GRU and SimpleRNN in every mode. Errors are shares of the range of the
Keras model's outputs, on rows that calibration did not see; latencies are of one thread, the files timed in turn.
Exits with 1 when a limit is missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import tfbig
from tfbig.backend import keras, tf

L = keras.layers
RESULTS = Path(__file__).parent / "results"
MODES = (None, "float16", "dynamic", "int8", "int16x8")
FEATURES, CLASSES, ROUNDS = 16, 10, 9


def stacked(kind, steps, units, *, both=False, masked=False):
    def layer(**options):
        return L.Bidirectional(kind(units // 2, **options)) if both else kind(units, **options)

    x = inputs = keras.Input((steps, FEATURES))
    x = L.Masking()(x) if masked else x
    x = layer(return_sequences=True)(x)
    return keras.Model(inputs, L.Dense(CLASSES)(layer()(x)))


def keras_own(model, path):
    model.export(
        path,
        format="litert",
        verbose=False,
        input_signature=[keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32")],
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
    )


def rows_for(steps, count, seed, masked):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, steps, FEATURES)).astype("float32")
    if masked:  # sequences of another length each, filled up with zeros behind
        x *= np.arange(steps)[None, :, None] < generator.integers(1, steps + 1, size=(count, 1, 1))
    return x.astype("float32")


def errors(lite, model, x):
    expected = np.asarray(model(x, training=False))
    apart = np.abs(lite.predict(x) - expected) / np.ptp(expected)
    return float(apart.mean()), float(apart.max())


def beside_keras(steps, units, folder):
    model = stacked(L.LSTM, steps, units)
    x = rows_for(steps, 256, 0, False)
    path = folder / "keras.tflite"
    keras_own(model, str(path))
    theirs = tfbig.LiteModel(path)
    ours = tfbig.export(model, folder / "tfbig.tflite", calibration=x)
    ratios = [
        ours.benchmark(seconds=0.1).median_us / theirs.benchmark(seconds=0.1).median_us for _ in range(ROUNDS)
    ]
    int8 = tfbig.export(model, folder / "int8.tflite", quantize="int8", calibration=x)
    mean, largest = errors(int8, model, rows_for(steps, 256, 1, False))
    return {
        "latency ÷ Keras's own": statistics.median(ratios),
        "size ÷ Keras's own": ours.report.bytes / path.stat().st_size,
        "int8: mean error": mean,
        "int8: largest error": largest,
    }


def table_of(steps, units, folder):
    kinds = {
        "LSTM": (L.LSTM, {}),
        "LSTM, bidirectional": (L.LSTM, {"both": True}),
        "LSTM, masked": (L.LSTM, {"masked": True}),
        "LSTM, bidirectional, masked": (L.LSTM, {"both": True, "masked": True}),
        "GRU": (L.GRU, {}),
        "GRU, bidirectional": (L.GRU, {"both": True}),
        "GRU, masked": (L.GRU, {"masked": True}),
        "SimpleRNN": (L.SimpleRNN, {}),
    }
    rows = []
    for name, (kind, options) in kinds.items():
        keras.utils.set_random_seed(0)
        model, masked = stacked(kind, steps, units, **options), options.get("masked", False)
        x, held_out = rows_for(steps, 256, 0, masked), rows_for(steps, 256, 1, masked)
        for mode in MODES:
            row = {"model": name, "mode": mode or "float32"}
            try:
                path = folder / "model.tflite"
                lite = tfbig.export(model, path, quantize=mode, calibration=x, overwrite=True, timeout=1800)
            except tfbig.errors.TfbigError as error:
                rows.append({**row, "works": False, "why": str(error).splitlines()[0]})
                print(rows[-1], flush=True)
                continue
            mean, largest = errors(lite, model, held_out)
            rows.append(
                {
                    **row,
                    "works": True,
                    "form": next(iter(set(lite.report.recurrent.values()))),
                    "bytes": lite.report.bytes,
                    "latency_us": lite.benchmark().median_us,
                    "mean_error": mean,
                    "largest_error": largest,
                }
            )
            print(rows[-1], flush=True)  # the whole takes a while
    return rows


def show(rows):
    table = Table("model", "mode", "form", "bytes", "latency, µs", "mean error", "largest error")
    for row in rows:
        if row["works"]:
            figures = [row["form"], f"{row['bytes']:,}", f"{row['latency_us']:,.0f}"]
            figures += [f"{row['mean_error']:.1e}", f"{row['largest_error']:.1e}"]
        else:
            figures = ["no file", row["why"][:60], "", "", ""]
        table.add_row(row["model"], row["mode"], *figures)
    Console(width=130).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--units", type=int, default=64)
    asked = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        beside = beside_keras(asked.steps, asked.units, Path(temporary))
        rows = table_of(asked.steps, asked.units, Path(temporary))
    for figure, value in beside.items():
        print(f"two LSTM({asked.units}), {asked.steps} steps: {figure} {value:.4f}")
    show(rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "recurrent.json").write_text(json.dumps({"beside Keras": beside, "table": rows}, indent=2))
    limits = {
        "latency ≤ 0.4 × Keras's own": beside["latency ÷ Keras's own"] <= 0.4,
        "size ≤ 0.65 × Keras's own": beside["size ÷ Keras's own"] <= 0.65,
        "int8: largest error ≤ 2% of the range": beside["int8: largest error"] <= 0.02,
        "every LSTM works in every mode": all(row["works"] for row in rows if "LSTM" in row["model"]),
    }
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
