"""A model trained from a CSV file of 5 million rows: memory after a fifth of them and at the end.

    python benchmarks/csv_stream.py [--rows 5000000] [--folder /tmp]

The file is written first, block by block. A process of its own then streams it with `tfbig.stream_csv` into
`tfbig.fit`, one epoch, and reads its resident memory (the kernel's figure, Linux) between batches. A stream that
remembered rows, or leaked, would grow with them: exits with 1 when memory grows by more than 10% from a fifth of the
rows to the last one, or when a row was not seen.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ALLOWED = 0.10
FEATURES, BLOCK, BATCH = 8, 100_000, 1024
# What "auto" would take, were there no callback that looks between batches.
STEPS = 32


def write(path, rows):
    """Writes rows of 8 numbers and a label that they decide."""
    import numpy as np

    generator = np.random.default_rng(0)
    with open(path, "w") as file:
        file.write(",".join([*(f"x{i}" for i in range(FEATURES)), "y"]) + "\n")
        for start in range(0, rows, BLOCK):
            x = generator.integers(-3000, 3000, (min(BLOCK, rows - start), FEATURES)) / 1000
            y = (x[:, 0] + x[:, 1] > 0).astype(int)
            lines = zip(x.tolist(), y.tolist(), strict=True)
            file.writelines(f"{','.join(map(str, row))},{label}\n" for row, label in lines)
    return os.path.getsize(path)


def resident():
    """Resident memory of this process in MiB."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(found["VmRSS"].split()[0]) / 1024


def train(path, rows):
    """Prints, as JSON, what the training saw and what memory it took."""
    import tfbig
    from tfbig.backend import keras

    class Memory(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen, self.taken = [], []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(min((batch + 1) * BATCH, rows))
            self.taken.append(resident())

    memory = Memory()
    stream = tfbig.stream_csv(path, target="y", batch_size=BATCH)
    model = tfbig.models.mlp((FEATURES,), 1, task="binary", preset="tiny")
    began = time.perf_counter()
    options = {
        "epochs": 1,
        "metrics": [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
        "seed": 0,
    }
    options |= {"loss": keras.losses.BinaryCrossentropy(from_logits=True), "verbose": 0}
    run = tfbig.fit(model, stream, callbacks=[memory], steps_per_execution=STEPS, **options)
    seconds = time.perf_counter() - began
    fifth = next(i for i, seen in enumerate(memory.seen) if seen >= rows / 5)
    figures = {
        "rows": memory.seen[-1],
        "steps": int(model.optimizer.iterations),
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "mib_after_a_fifth": round(memory.taken[fifth], 1),
        "mib_at_the_end": round(memory.taken[-1], 1),
        "mib_at_most": round(max(memory.taken[fifth:]), 1),
        "accuracy": round(run.history["accuracy"][-1], 4),
    }
    print(json.dumps(figures))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", help="where the file of some 260 MB is written and deleted again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "rows.csv"
        size = write(path, options.rows)
        command = [sys.executable, __file__, "train", str(path), str(options.rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    figures["file_mib"] = round(size / 2**20, 1)
    figures["growth"] = round(figures["mib_at_most"] / figures["mib_after_a_fifth"] - 1, 4)
    print(
        f"{options.rows:,} rows, a file of {figures['file_mib']:,} MiB: {figures['rows_per_second']:,} rows/s, "
        f"accuracy {figures['accuracy']}\n"
        f"memory after {options.rows // 5:,} rows {figures['mib_after_a_fifth']:,} MiB, at most "
        f"{figures['mib_at_most']:,} MiB from there to the end: {figures['growth']:+.1%}, allowed {ALLOWED:.0%}"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "csv_stream.json").write_text(json.dumps(figures, indent=2) + "\n")
    if figures["steps"] != -(-options.rows // BATCH):
        print(f"MISSED  {figures['steps']} steps of {BATCH} rows are not {options.rows:,} rows")
        return 1
    if figures["growth"] > ALLOWED:
        print(f"MISSED  memory grew by {figures['growth']:.1%}")
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2], int(sys.argv[3]))
    else:
        raise SystemExit(main())
