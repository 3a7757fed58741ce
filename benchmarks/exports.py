"""Exports as a whole: several modes in one call, many from one process, and conversions killed.

    python benchmarks/exports.py [--kills 50] [--exports 50]

One call for float32, dynamic and int8, with its proofs, is timed beside three exports and beside three calls of the
bare converter (trace, write a SavedModel, convert; nothing is proven), in turn, all warm. Then this process exports
many times: how its resident set grows (Linux). Then processes that export are killed by SIGKILL at random moments: none
may leave a broken file at the path, or a converter that goes on. Exits with 1 when a limit is missed.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tfbig
from tfbig.backend import keras, tf

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5

EXPORTING = """
import sys
import numpy as np, tfbig
from tfbig.backend import keras
model = tfbig.models.cnn((8, 8, 1), 10)
x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
print("ready", flush=True)
while True:
    tfbig.export(model, sys.argv[1], quantize="int8", calibration=x, overwrite=True)
"""


def network():
    keras.utils.set_random_seed(0)
    return tfbig.models.cnn((32, 32, 3), 10, filters=(32, 64, 64), batch_norm=True)


def bare(model, rows, folder):
    """Three calls of the bare converter, each from the Keras model; the bytes of all."""
    files = []
    for mode in (None, "dynamic", "int8"):
        place = str(folder / f"saved_model_{len(os.listdir(folder))}")
        archive = keras.export.ExportArchive()
        archive.track(model)
        spec = keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32", name="x")
        archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[spec])
        archive.write_out(place, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(place)
        if mode:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode == "int8":
            converter.representative_dataset = lambda: ([row[None]] for row in rows)
            converter.inference_input_type = converter.inference_output_type = tf.int8
        files.append(converter.convert())
    return files


def one_call():
    model, ratios, seconds = network(), [], {"one call": [], "three exports": [], "bare converter": []}
    rows = np.random.default_rng(0).normal(size=(512, 32, 32, 3)).astype("float32")
    options = {"quantize": [None, "dynamic", "int8"], "calibration": rows, "overwrite": True}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "bare").mkdir()
        tfbig.export(
            model, folder / "m.tflite", **options
        )  # both warm: the converter's process, and this one
        bare(model, rows, folder / "bare")
        for _ in range(ROUNDS):
            start = time.perf_counter()
            tfbig.export(model, folder / "m.tflite", **options)
            one = time.perf_counter()
            for mode in options["quantize"]:
                tfbig.export(model, folder / "m.tflite", **{**options, "quantize": mode})
            three = time.perf_counter()
            bare(model, rows, folder / "bare")
            ends = (one, three, time.perf_counter())
            for name, begun, ended in zip(seconds, (start, *ends), ends, strict=False):
                seconds[name].append(ended - begun)
            ratios.append(seconds["one call"][-1] / seconds["bare converter"][-1])
    return {"ratio": statistics.median(ratios), **{n: statistics.median(s) for n, s in seconds.items()}}


def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def growth(exports):
    """MiB that this process grows by, after a first few exports."""
    model = tfbig.models.cnn((8, 8, 1), 10)
    rows = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    with tempfile.TemporaryDirectory() as temporary:
        sizes = []
        for _ in range(exports):
            path = Path(temporary, "m.tflite")
            tfbig.export(model, path, quantize="int8", calibration=rows, overwrite=True)
            sizes.append(resident())
    return {"first": sizes[0], "last": sizes[-1], "growth": sizes[-1] - sizes[0]}


def converters(mark):
    """Process ids of running converters that were started by processes with a mark in their environment."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ours = mark.encode() in (entry / "environ").read_bytes()
            if ours and b"tfbig.deployment.converter_process" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue  # it has ended
    return found


def kill_many(kills):
    chance, broken, orphans, temporary_files = random.Random(0), 0, 0, 0
    mark = f"TFBIG_BENCHMARK={os.getpid()}"
    environment = {**os.environ, **dict([mark.split("=")])}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "m.tflite")
        for _ in range(kills):
            command = [sys.executable, "-c", EXPORTING, str(path)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
            process.stdout.readline()
            time.sleep(chance.uniform(0, 6))
            process.send_signal(signal.SIGKILL)
            process.wait()
            end = time.monotonic() + 20
            while converters(mark) and time.monotonic() < end:
                time.sleep(0.1)
            orphans += len(converters(mark))
            if path.exists():
                try:
                    tfbig.LiteModel(path).predict(np.zeros((1, 8, 8, 1), "float32"))
                except tfbig.errors.TfbigError as error:
                    print(error)
                    broken += 1
            path.unlink(missing_ok=True)
            temporary_files += sum(1 for _ in Path(temporary).glob(".m*"))
            for left in Path(temporary).glob("*.json"):
                left.unlink()
    return {"kills": kills, "broken files": broken, "orphans": orphans, "hidden leftovers": temporary_files}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--exports", type=int, default=50)
    asked = parser.parse_args()
    report = {}
    for name, measure in {
        "one call": one_call,
        "many exports, MiB": lambda: growth(asked.exports),
        "killed": lambda: kill_many(asked.kills),
    }.items():
        report[name] = measure()
        print(f"{name}: {', '.join(f'{n} {v:.2f}' for n, v in report[name].items())}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "exports.json").write_text(json.dumps(report, indent=2))
    limits = {
        "three modes in one call ≤ 0.65 × three bare conversions": report["one call"]["ratio"] <= 0.65,
        f"{asked.exports} exports: growth < 50 MB": report["many exports, MiB"]["growth"] * 2**20 < 50e6,
        f"{asked.kills} kills: no broken file": report["killed"]["broken files"] == 0,
        f"{asked.kills} kills: no orphan": report["killed"]["orphans"] == 0,
    }
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
