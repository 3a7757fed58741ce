"""Peak memory of training: deep models with and without rematerialization, and data larger than the growth allowed.

Each training runs in a process of its own. Growth is the largest resident set while it trains, less the resident
set just before; both are the kernel's figures (Linux).

    python benchmarks/memory.py                          # both parts
    python benchmarks/memory.py --part rematerialize
    python benchmarks/memory.py --part memmap --gigabytes 3 --folder /tmp
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
FEATURES = 1024
BATCH = 64


def status(*names):
    """Figures of /proc/self/status, in MiB."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(found[name].split()[0]) / 1024 for name in names]


class Watch:
    """The largest resident set and the largest part of it that is no mapped file, while the block runs."""

    def __enter__(self):
        (self.before, self.anonymous_before) = status("VmRSS", "RssAnon")
        self.anonymous, self.running = 0.0, True
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        self.began = time.perf_counter()
        return self

    def _look(self):
        while self.running:
            self.anonymous = max(self.anonymous, *status("RssAnon"))
            time.sleep(0.01)

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self.began
        self.running = False
        self.thread.join()
        (peak,) = status("VmHWM")
        self.growth = peak - self.before
        self.anonymous_growth = self.anonymous - self.anonymous_before

    def figures(self):
        return {
            "growth MiB": self.growth,
            "growth without mapped files MiB": self.anonymous_growth,
            "seconds": self.seconds,
        }


def residual():
    import keras

    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(32, 3, padding="same")(inputs)
    for _ in range(16):
        h = keras.layers.Conv2D(32, 3, padding="same")(x)
        h = keras.layers.BatchNormalization()(h)
        h = keras.layers.Dropout(0.1)(keras.layers.Activation("gelu")(h))
        x = keras.layers.Add()([x, keras.layers.Conv2D(32, 3, padding="same")(h)])
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def transformer():
    import keras

    inputs = keras.Input((64, 64))
    x = keras.layers.Dense(64)(inputs)
    for _ in range(12):
        h = keras.layers.LayerNormalization()(x)
        x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(4, 16, dropout=0.1)(h, h)])
        h = keras.layers.Dense(256, activation="gelu")(keras.layers.LayerNormalization()(x))
        x = keras.layers.Add()([x, keras.layers.Dropout(0.1)(keras.layers.Dense(64)(h))])
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling1D()(x)))


def train_deep(name, setting):
    import keras

    import tfbig

    keras.utils.set_random_seed(0)
    model = {"residual": residual, "transformer": transformer}[name]()
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4 * BATCH, *model.input_shape[1:])).astype(np.float32)
    y = generator.integers(0, 10, len(x))
    sgd, loss = keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(sgd, loss)
    options = {"batch_size": BATCH, "epochs": 3, "shuffle": False, "verbose": 0}
    with Watch() as watch:
        run = tfbig.fit(model, x, y, rematerialize=setting, **options)
    return {
        **watch.figures(),
        "seconds of a warm epoch": float(np.mean(run.epoch_seconds[1:])),
        "loss": run.history["loss"][-1],
    }


def train_memmap(path):
    import tfbig

    x = np.load(path, mmap_mode="r")
    y = np.arange(len(x)) % 10
    model = tfbig.models.mlp((FEATURES,), 10, hidden=(32,))
    # A first training on a few rows, so that what TensorFlow itself takes is no growth.
    tfbig.fit(model, np.asarray(x[: 4 * BATCH]), y[: 4 * BATCH], epochs=1, batch_size=BATCH, verbose=0)
    with Watch() as watch:
        tfbig.fit(model, x, y, epochs=1, batch_size=256, verbose=0)
    return watch.figures()


def in_child(*arguments):
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure_rematerialize():
    rows = {}
    for name in ("residual", "transformer"):
        plain, thrifty = (in_child("deep", name, setting) for setting in ("plain", "rematerialized"))
        rows[name] = {
            "plain": plain,
            "rematerialized": thrifty,
            "saved": 1 - thrifty["growth MiB"] / plain["growth MiB"],
            "time ratio": thrifty["seconds of a warm epoch"] / plain["seconds of a warm epoch"],
            "loss difference": abs(thrifty["loss"] - plain["loss"]),
        }
        print(
            f"{name}: {plain['growth MiB']:.0f} -> {thrifty['growth MiB']:.0f} MiB, {rows[name]['saved']:.0%} saved, "
            f"{rows[name]['time ratio']:.2f} times the time, loss differs by {rows[name]['loss difference']:.1e}",
            flush=True,
        )
    limits = {
        "rematerialization saves at least 30%": min(row["saved"] for row in rows.values()) >= 0.30,
        # float32 sums of some thousand steps' length, computed twice.
        "at the same loss": max(row["loss difference"] for row in rows.values()) <= 1e-5,
    }
    return rows, limits


def measure_memmap(gigabytes, folder):
    rows = int(gigabytes * 2**30) // (4 * FEATURES)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "large.npy"
        x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, FEATURES))
        block = np.random.default_rng(0).normal(size=(4096, FEATURES)).astype(np.float32)
        for start in range(0, rows, len(block)):
            x[start : start + len(block)] = block[: rows - start]
        x.flush()
        del x
        figures = in_child("memmap", path)
    print(
        f"memmap of {gigabytes:g} GiB: growth {figures['growth MiB']:.0f} MiB, without mapped files "
        f"{figures['growth without mapped files MiB']:.0f} MiB, {figures['seconds']:.0f} s"
    )
    megabytes = figures["growth MiB"] * 2**20 / 1e6
    return figures, {f"{gigabytes:g} GiB memmap: growth below 400 MB": megabytes < 400}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["all", "rematerialize", "memmap"], default="all")
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the memmap")
    parser.add_argument("--folder", help="where the memmap is written for the time of the measurement")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *rest = options.child
        figures = (
            train_memmap(rest[0]) if kind == "memmap" else train_deep(rest[0], rest[1] == "rematerialized")
        )
        print(json.dumps(figures))
        return 0
    report, limits = {}, {}
    if options.part in ("all", "rematerialize"):
        report["rematerialize"], held = measure_rematerialize()
        limits.update(held)
    if options.part in ("all", "memmap"):
        report["memmap"], held = measure_memmap(options.gigabytes, options.folder)
        limits.update(held)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(report, indent=2))
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
