"""Legacy model files, brought to Keras 3 by `load_model`, beside the models that wrote them.

    python benchmarks/legacy.py

Every kind of file is written by tf_keras here (Keras 1's by hand, from its documentation), loaded, and run on random
rows. Prints the largest difference of outputs, as a share of their range, and writes benchmarks/results/legacy.json.
Exits with 1 if one does not load or differs by more than 1e-5 (2e-2 where the model computes in float16, which rounds
that coarsely). The two MLPerf Tiny models are measured where they are: under TFBIG_DATA, or ../shared/models.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import json
import sys
import tempfile
import time
from pathlib import Path

import legacy_keras1_files  # noqa: F401 - adds its kinds
import numpy as np
import tf_keras as keras
from legacy_files import KINDS

import tfbig

RESULTS = Path(__file__).parent / "results"


def mlperf():
    places = [os.environ.get("TFBIG_DATA", ""), Path(__file__).parents[2] / "shared" / "models"]
    for name in ("mlperf_tiny_ic/pretrainedResnet.h5", "mlperf_tiny_ad/ad01.h5"):
        path = next((Path(place) / name for place in places if (Path(place) / name).is_file()), None)
        if path is None:
            print(f"{name}: not on this machine, not measured")
            continue
        KINDS[f"MLPerf Tiny: {name}"] = (
            lambda folder, path=path: ({"path": path}, keras.models.load_model(path, compile=False)),
            1e-5,
        )


def rows(model):
    """Random rows; whole numbers for words."""
    generator = np.random.default_rng(5)
    for tensor in model.inputs:
        shape = [size or 24 for size in (16, *tensor.shape[1:])]
        words = any(isinstance(layer, keras.layers.Embedding) for layer in model.layers)
        yield (generator.integers(0, 12, shape) if words else generator.normal(size=shape)).astype("float32")


def outputs_of(model, x):
    outputs = model(x if len(x) > 1 else x[0], training=False)
    outputs = outputs if isinstance(outputs, dict) else {"out": outputs}
    return {key: np.asarray(value, "float64") for key, value in outputs.items()}


def measure(write, folder):
    arguments, model = write(folder)
    start = time.perf_counter()
    loaded = tfbig.load_model(**arguments)
    seconds = time.perf_counter() - start
    x = list(rows(model))
    expected, got = outputs_of(model, x), outputs_of(loaded, x)
    differences = [np.abs(got[key] - value).max() / np.ptp(value) for key, value in expected.items()]
    return {"difference": float(max(differences)), "seconds": seconds}


def main():
    mlperf()
    results, missed = {}, 0
    for name, (write, allowed) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = measure(write, Path(folder))
                row["holds"] = row["difference"] <= allowed
                shown = f"{row['difference']:8.1e}  {row['seconds']:5.1f} s"
            except Exception as error:
                row = {"holds": False, "error": f"{type(error).__name__}: {error}"}
                shown = row["error"][:600]
        missed += not row["holds"]
        results[name] = row
        print(f"{name:66}{shown}{'' if row['holds'] else '   MISSED'}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "legacy.json").write_text(json.dumps(results, indent=2))
    print(
        f"{len(results) - missed} of {len(results)} kinds of file give the outputs of the model that wrote them"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
