"""Every builder of `tfbig.models` as a file of every mode: error, size, latency, or why there is none.

    python benchmarks/export_table.py

Models are small, with random weights, moved away from their initial values so that no bias is zero. Calibration and
error are of different random rows; errors are shares of the range of the Keras model's outputs. Exits with 1 when a
file is missing that is not among the known gaps, or when a known gap has closed.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import tfbig
from tfbig.backend import keras

RESULTS = Path(__file__).parent / "results"
MODES = (None, "float16", "dynamic", "int8", "int16x8")
ROWS, STEPS, TOKENS, CLASSES = 128, 16, 40, 5
# (model, mode) of which there is no file, to why.
GAPS: dict[tuple[str, str], str] = {}


def numbers(*shape):
    return lambda generator: generator.normal(size=(ROWS, *shape)).astype("float32")


def tokens(generator):
    x = generator.integers(1, TOKENS, size=(ROWS, STEPS))
    lengths = generator.integers(4, STEPS + 1, size=(ROWS, 1))
    return np.where(np.arange(STEPS) < lengths, x, 0).astype("int32")


models = tfbig.models
MODELS = {
    "mlp": (lambda: models.mlp((20,), CLASSES), numbers(20)),
    "mlp, layer norm": (lambda: models.mlp((20,), CLASSES, norm="layer"), numbers(20)),
    "mlp, group norm": (lambda: models.mlp((20,), CLASSES, norm="group"), numbers(20)),
    "mlp, regression": (lambda: models.mlp((20,), 3, task="regression"), numbers(20)),
    "cnn": (lambda: models.cnn((16, 16, 3), CLASSES, norm="batch"), numbers(16, 16, 3)),
    "cnn, 1-D": (lambda: models.cnn((32, 4), CLASSES, norm="batch"), numbers(32, 4)),
    "cnn, residual": (lambda: models.cnn((16, 16, 3), CLASSES, variant="residual"), numbers(16, 16, 3)),
    "cnn, separable": (lambda: models.cnn((16, 16, 3), CLASSES, variant="separable"), numbers(16, 16, 3)),
    "rnn, LSTM": (lambda: models.rnn((STEPS, 8), CLASSES), numbers(STEPS, 8)),
    "rnn, LSTM, bidirectional": (
        lambda: models.rnn((STEPS, 8), CLASSES, bidirectional=True),
        numbers(STEPS, 8),
    ),
    "rnn, LSTM, padded tokens": (
        lambda: models.rnn((STEPS,), CLASSES, vocabulary=TOKENS, padding=0),
        tokens,
    ),
    "rnn, GRU": (lambda: models.rnn((STEPS, 8), CLASSES, cell="gru"), numbers(STEPS, 8)),
    "rnn, GRU, bidirectional, padded tokens": (
        lambda: models.rnn((STEPS,), CLASSES, cell="gru", bidirectional=True, vocabulary=TOKENS, padding=0),
        tokens,
    ),
    "rnn, simple": (lambda: models.rnn((STEPS, 8), CLASSES, cell="simple"), numbers(STEPS, 8)),
    "transformer, features": (
        lambda: models.transformer((STEPS, 8), CLASSES, preset="tiny"),
        numbers(STEPS, 8),
    ),
    "transformer, padded tokens": (
        lambda: models.transformer((STEPS,), CLASSES, vocabulary=TOKENS, padding=0, preset="tiny"),
        tokens,
    ),
    "transformer, patches": (
        lambda: models.transformer((16, 16, 3), CLASSES, patch_size=4, preset="tiny"),
        numbers(16, 16, 3),
    ),
    "transformer, causal": (
        lambda: models.transformer(
            (STEPS,), TOKENS, task="sequence", vocabulary=TOKENS, causal=True, preset="tiny"
        ),
        tokens,
    ),
}


def moved(build):
    keras.utils.set_random_seed(0)
    model, generator = build(), np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(np.asarray(weight) + 0.05 * generator.normal(size=weight.shape))
    return model


def measure(model, x, held_out, mode, path):
    try:
        lite = tfbig.export(model, path, quantize=mode, calibration=x, overwrite=True)
    except tfbig.errors.ExportFailed as error:
        return {"works": False, "why": str(error).splitlines()[0]}
    expected = np.asarray(model(held_out, training=False))
    apart = np.abs(lite.predict(held_out) - expected) / np.ptp(expected)
    return {
        "works": True,
        "bytes": lite.report.bytes,
        "latency_us": lite.report.latency.median_us,
        "mean_error": float(apart.mean()),
        "largest_error": float(apart.max()),
        "float_ops": list(lite.report.float_ops) if mode in ("int8", "int16x8") else [],
    }


def main():
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, (build, draw) in MODELS.items():
            model = moved(build)
            x, held_out = (draw(np.random.default_rng(seed)) for seed in (0, 1))
            for mode in MODES:
                found = measure(model, x, held_out, mode, Path(temporary, "m.tflite"))
                rows.append({"model": name, "mode": mode or "float32", **found})
                print(rows[-1], flush=True)  # the whole takes a while
    table = Table("model", "mode", "bytes", "latency, µs", "mean error", "largest error", "left in float")
    for row in rows:
        if row["works"]:
            figures = [f"{row['bytes']:,}", f"{row['latency_us']:,.0f}"]
            figures += [
                f"{row['mean_error']:.1e}",
                f"{row['largest_error']:.1e}",
                ", ".join(row["float_ops"]),
            ]
        else:
            figures = ["no file", "", "", "", row["why"]]
        table.add_row(row["model"], row["mode"], *figures)
    Console(width=150).print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "export_table.json").write_text(json.dumps(rows, indent=2))
    failed = {(row["model"], row["mode"]) for row in rows if not row["works"]}
    for place in sorted(failed - set(GAPS)):
        print(f"MISSED  no file: {place}")
    for place in sorted(set(GAPS) - failed):
        print(f"MISSED  a known gap has closed: {place}")
    return 0 if failed == set(GAPS) else 1


if __name__ == "__main__":
    sys.exit(main())
