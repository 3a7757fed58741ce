"""int8 files of tabular models: tfbig's export beside the bare converter, on columns of different units.

    python benchmarks/int8_units.py

Both quantize the same trained model with the same calibration rows. Prints, per data set, the share of held-out
rows whose label agrees with the Keras model, and writes benchmarks/results/int8_units.json. Exits with 1 if
tfbig's file agrees on fewer than 97% anywhere.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

import tfbig

RESULTS = Path(__file__).parent / "results"


def label(outputs):
    return outputs.argmax(axis=1) if outputs.shape[1] > 1 else outputs[:, 0] > 0


def bare_converter(model, rows, folder):
    model.export(f"{folder}/saved_model", format="tf_saved_model", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/saved_model")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in rows)
    path = Path(folder) / "bare.tflite"
    path.write_bytes(converter.convert())
    return tfbig.LiteModel(path)


def measure(name):
    data = tfbig.load_dataset(name)
    x_train, x_test, y_train, _ = tfbig.split(data.x, data.y, test_size=0.3, seed=0)

    def build(x):
        normalizer = tfbig.normalizer(x)
        return tfbig.models.mlp(data.x.shape[1:], data.outputs, task=data.task, normalizer=normalizer)

    model = tfbig.fit(build, x_train, y_train, epochs=30, batch_size=16, seed=0, verbose=0).model
    expected = label(model.predict(x_test, verbose=0))
    with tempfile.TemporaryDirectory() as folder:
        bare = bare_converter(model, x_train, folder)
        ours = tfbig.export(model, f"{folder}/ours.tflite", quantize="int8", calibration=x_train)
        return {
            "bare converter": float(np.mean(label(bare.predict(x_test)) == expected)),
            "tfbig": float(np.mean(label(ours.predict(x_test)) == expected)),
            "size, tfbig / bare": ours.path.stat().st_size / bare.path.stat().st_size,
        }


def main():
    results = {name: measure(name) for name in ("iris", "wine", "breast_cancer")}
    for name, row in results.items():
        print(f"{name:14}" + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "int8_units.json").write_text(json.dumps(results, indent=2))
    return 0 if min(row["tfbig"] for row in results.values()) >= 0.97 else 1


if __name__ == "__main__":
    sys.exit(main())
