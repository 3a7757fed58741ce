"""Raw rows, with gaps and text, through a LiteRT file: the same answers as the Keras model's.

    python benchmarks/raw_rows.py

A table of made-up customers has a city, a plan, a date and three numbers of very different units; of each column some
are missing, and the held-out rows hold a city that the training rows do not. `clean(missing="keep")` learns the codes
of text and dates from the training rows; `encoder`, inside of the model, fills gaps, scales and one-hot encodes. The
files get the held-out rows as they were written, through the codes alone. Errors are shares of the range of the Keras
model's outputs. Exits with 1 when one is above its limit in ALLOWED.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from rich.console import Console
from rich.table import Table

import tfbig

RESULTS = Path(__file__).parent / "results"
NAN = float("nan")
CITIES, PLANS = ["Lisbon", "Oslo", "Quito", "Seoul"], ["basic", "plus", "pro"]
# Of the outputs' range: the mean error, that of 99 rows in 100, the largest; and the rows whose class may differ.
# The largest of int8 has no limit: 8 bits cut off what lies beyond the calibrated ranges, here some large incomes.
ALLOWED = {
    "float32": {"mean": 1e-5, "99%": 1e-5, "largest": 1e-5, "other class": 0.0},
    "float16": {"mean": 2e-3, "99%": 5e-3, "largest": 2e-2, "other class": 0.01},
    "int8": {"mean": 0.01, "99%": 0.02, "other class": 0.02},
}


def table(rows=3000):
    """Returns rows as they are written, and their labels, "stays" or "leaves"."""
    generator = np.random.default_rng(0)
    city, plan = generator.choice(CITIES, rows), generator.choice(PLANS, rows, p=[0.6, 0.3, 0.1])
    since = np.datetime64("2020-01-01") + generator.integers(0, 2000, rows)
    income, visits, share = (
        generator.lognormal(10.5, 0.4, rows),
        generator.poisson(4, rows),
        generator.random(rows),
    )
    leaning = (
        (plan == "basic") + 0.8 * (city == "Oslo") - 0.3 * visits + 2 * share - (income - 38_000) / 30_000
    )
    y = np.where(leaning + generator.normal(0, 0.5, rows) > 0.4, "leaves", "stays")
    columns = (city, plan, np.datetime_as_string(since), income, visits.astype(float), share)
    written = [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    for row in written:
        for place in np.flatnonzero(generator.random(len(columns)) < 0.08):
            row[place] = None if place < 3 else NAN
    return written, y


def measure(model, lite, rows, y):
    expected, given = model.predict(rows, verbose=0), lite.predict(rows)
    apart = np.abs(given - expected) / np.ptp(expected)
    return {
        "bytes": lite.path.stat().st_size,
        "mean": float(apart.mean()),
        "99%": float(np.quantile(apart, 0.99)),
        "largest": float(apart.max()),
        "other class": float(np.mean((given > 0) != (expected > 0))),
        "accuracy": tfbig.evaluate(lite, rows, y)["accuracy"],
        "of Keras": tfbig.evaluate(model, rows, y)["accuracy"],
    }


def main():
    x_train, x_test, y_train, y_test = tfbig.split(*table(), test_size=0.25, seed=0)
    x, y, report = tfbig.clean(x_train, y_train, missing="keep", dates=[2])
    steps = report.steps

    def build(rows):
        encoder = tfbig.encoder(rows, categories=steps.categories)
        return tfbig.models.mlp((rows.shape[1],), 1, task="binary", normalizer=encoder)

    model = tfbig.fit(build, x, y, epochs=20, seed=0, verbose=0).model
    for place in range(0, len(x_test), 50):
        x_test[place][0] = "Atlantis"  # in no training row
    rows, labels, _ = tfbig.clean(x_test, y_test, missing="keep", duplicates="keep", steps=steps)
    gaps = int(np.isnan(rows).any(axis=1).sum())
    print(f"{len(rows)} held-out rows, {gaps} of them with gaps, {-(-len(x_test) // 50)} of an unknown city")

    results, missed = {}, []
    shown = Table("file", "bytes", "mean error", "99%", "largest", "other class", "accuracy", "of Keras")
    with tempfile.TemporaryDirectory() as folder:
        for name, allowed in ALLOWED.items():
            mode = None if name == "float32" else name
            lite = tfbig.export(model, Path(folder, f"{name}.tflite"), quantize=mode, calibration=x)
            found = results[name] = measure(model, lite, rows, labels)
            missed += [f"{name}: {what} {found[what]:.1e}" for what in allowed if found[what] > allowed[what]]
            shown.add_row(
                name,
                f"{found['bytes']:,}",
                *(f"{found[what]:.1e}" for what in ("mean", "99%", "largest")),
                f"{found['other class']:.2%}",
                *(f"{found[what]:.4f}" for what in ("accuracy", "of Keras")),
            )
    Console(width=110).print(shown)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "raw_rows.json").write_text(json.dumps({"gaps": gaps, **results}, indent=2) + "\n")
    print(f"MISSED  {'; '.join(missed)}" if missed else "the same answers, but for rounding")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
