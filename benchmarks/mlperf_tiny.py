"""Int8 files of two MLPerf Tiny models beside the bare converter's and the reference files.

    TFBIG_DATA=../shared python benchmarks/mlperf_tiny.py

`TFBIG_DATA` names a folder that holds models/mlperf_tiny_ic (ResNet8, images of 32 × 32 × 3) and models/mlperf_tiny_ad
(an autoencoder of 640 features), each a legacy .h5 and the reference's int8 .tflite. Images are crops of the two
photographs that come with scikit-learn: squares of 32 to 256 pixels scaled to 32 × 32, and plain ones of 32 × 32; each
kind has files of its own, calibrated on other crops of it. Features are windows of the log-mel frames beside the model.
Files are made with the converter's numbers and with `refine=True`. Latencies are of one thread, files timed in turn;
the ratio is the median over the rounds. Exits with 1 when a limit is missed.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images

import tfbig
from tfbig.backend import keras, tf

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15


def crops(count, seed=0, largest=256):
    """Squares of 32 pixels or more from the photographs, scaled to 32 × 32, raw values from 0 to 255."""
    generator = np.random.default_rng(seed)
    images = load_sample_images().images
    found = []
    for _ in range(count):
        image = images[generator.integers(len(images))]
        side = int(generator.integers(32, largest + 1))
        top, left = (int(generator.integers(0, size - side + 1)) for size in image.shape[:2])
        square = image[top : top + side, left : left + side].astype("float32")
        found.append(tf.image.resize(square, (32, 32), antialias=True).numpy())
    return np.stack(found)


def windows(folder):
    (path,) = folder.glob("*.bin")
    frames = np.fromfile(path, "<f4").reshape(-1, 128)
    return np.stack([frames[start : start + 5].ravel() for start in range(len(frames) - 4)])


def bare(model, rows, folder):
    """The bare converter's int8 bytes with the same signature: batch of 1, int8 at the edges."""
    spec = keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32", name="x")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[spec])
    archive.write_out(str(folder), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in rows)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def measure(folder, rows, held_out):
    """Figures of a model's files, calibrated on `rows` and compared with the model on `held_out`."""
    (source,), (reference,) = folder.glob("*.h5"), folder.glob("*.tflite")
    model = tfbig.load_model(source)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        options = {"quantize": "int8", "calibration": rows}
        plain = tfbig.export(model, place / "plain.tflite", **options)
        refined = tfbig.export(model, place / "refined.tflite", refine=True, **options)
        compact = tfbig.export(model, place / "compact.tflite", refine=True, compact=True, **options)
        converted = bare(model, rows[:512], place / "bare")
        theirs = tfbig.LiteModel(reference)
        ratios = []
        for _ in range(ROUNDS):
            times = [m.benchmark(seconds=0.1).median_us for m in (compact, theirs, compact)]
            ratios.append((times[0] + times[2]) / 2 / times[1])
        figures = {
            "bytes": plain.report.bytes,
            "bytes, refined": refined.report.bytes,
            "bytes, bare converter": len(converted),
            "bytes, compact and refined": compact.report.bytes,
            "bytes, reference": reference.stat().st_size,
            "latency of compact and refined ÷ reference": statistics.median(ratios),
            "operators that the reference lacks": sorted(
                {op.split()[0] for op in compact.ops} - {op.split()[0] for op in theirs.ops}
            ),
            "float operators": list(compact.report.float_ops),
        }
        makers = {"plain": plain, "refined": refined, "compact and refined": compact, "reference": theirs}
        expected = model.predict(held_out, verbose=0)
        for maker, lite in makers.items():
            got = lite.predict(held_out)
            figures[f"agreement on held-out rows, {maker}"] = _agreement(expected, got)
            figures[f"mean error on held-out rows, {maker}"] = float(
                np.abs(expected - got).mean() / np.ptp(expected)
            )
        return figures


def _agreement(expected, got):
    return float((expected.argmax(1) == got.argmax(1)).mean())


def limits(name, figures):
    held = {
        "size ≤ 1.01 × the bare converter's": figures["bytes, refined"]
        <= 1.01 * figures["bytes, bare converter"],
        "compact size ≤ 1.02 × the reference's": figures["bytes, compact and refined"]
        <= 1.02 * figures["bytes, reference"],
        "latency ≤ 1.03 × the reference's": figures["latency of compact and refined ÷ reference"] <= 1.03,
        "operators within the reference's": not figures["operators that the reference lacks"],
    }
    if name != "ad":  # its outputs are no classes
        held["agreement ≥ 95%"] = figures["agreement on held-out rows, refined"] >= 0.95
    return {f"{name}: {limit}": met for limit, met in held.items()}


def main():
    data = Path(os.environ.get("TFBIG_DATA", "../shared"), "models")
    if not data.is_dir():
        print(f"There is no {str(data)!r}: set TFBIG_DATA to the folder that holds models/mlperf_tiny_*.")
        return 1
    sound = windows(data / "mlperf_tiny_ad")
    ic, ad = data / "mlperf_tiny_ic", data / "mlperf_tiny_ad"
    report = {
        "ic, scaled crops": measure(ic, crops(512, seed=1), crops(2000, seed=2)),
        "ic, plain crops": measure(ic, crops(512, seed=3, largest=32), crops(2000, seed=4, largest=32)),
        "ad": measure(ad, sound[::2], sound[1::2]),
    }
    table = Table("figure", *report)
    for figure in report["ad"]:
        table.add_row(figure, *(_shown(figures[figure]) for figures in report.values()))
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mlperf_tiny.json").write_text(json.dumps(report, indent=2))
    held = {limit: met for name in report for limit, met in limits(name, report[name]).items()}
    for limit, met in held.items():
        print(f"{'held  ' if met else 'MISSED'}  {limit}")
    return 0 if all(held.values()) else 1


def _shown(value):
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else ", ".join(value) or "none"


if __name__ == "__main__":
    sys.exit(main())
