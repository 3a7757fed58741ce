"""The main job on digits, three times: accuracy of the float, pruned and int8 models, sizes, agreement.

    python benchmarks/main_job.py

Prints a line per seed and the means, writes benchmarks/results/main_job.json, and exits with 1 if a limit is
missed. The limits: float accuracy at least 0.97; pruned to 80% at most 1 point below; int8 agrees with the
pruned Keras model on at least 99% of the held-out rows; int8 file at most 0.30 of the float file.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from tfbig.demo import run_demo

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)


def measure(seed):
    with tempfile.TemporaryDirectory() as folder:
        report, _ = run_demo("digits", out=folder, seed=seed)
    trained, pruned, int8 = report.stages
    folds = report.cross_validation["accuracy"]
    return {
        "seed": seed,
        "float accuracy": trained.scores["accuracy"],
        "pruned accuracy": pruned.scores["accuracy"],
        "int8 accuracy": int8.scores["accuracy"],
        "sparsity": report.sparsity,
        "int8 agreement": report.agreement,
        "int8 / float size": int8.bytes / pruned.bytes,
        "5-fold mean": float(np.mean(folds)),
        "5-fold std": float(np.std(folds, ddof=1)),
        "seconds": report.seconds,
    }


def main():
    rows = []
    for seed in SEEDS:
        rows.append(measure(seed))
        print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "seed"}
    print("mean    " + "  ".join(f"{name} {value:.4g}" for name, value in mean.items()))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "main_job.json").write_text(json.dumps({"rows": rows, "mean": mean}, indent=2))
    limits = {
        "float accuracy at least 0.97": mean["float accuracy"] >= 0.97,
        "pruned within 1.0 point of float": mean["float accuracy"] - mean["pruned accuracy"] <= 0.01,
        "sparsity 0.80 over every pruned kernel": abs(mean["sparsity"] - 0.8) < 0.001,
        "int8 agrees on at least 99%": min(row["int8 agreement"] for row in rows) >= 0.99,
        "int8 file at most 0.30 of float": max(row["int8 / float size"] for row in rows) <= 0.30,
    }
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
