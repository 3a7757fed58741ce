"""The user's process is left as found. Each test runs in a fresh child, since this one has loaded everything."""

import json
import os
import subprocess
import sys

import pytest


def in_child(code, **environment):
    """Runs code that prints one line of JSON, and returns that."""
    clean = {k: v for k, v in os.environ.items() if k not in ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_tfbig_is_quick_and_loads_no_framework():
    code = """
import json, sys, time
start = time.perf_counter()
import tfbig
seconds = time.perf_counter() - start
heavy = [m for m in ("tensorflow", "keras", "sklearn", "matplotlib", "numpy", "rich") if m in sys.modules]
print(json.dumps([seconds, heavy]))
"""
    # The best of three: a busy machine slows a run, nothing makes one faster than it is.
    runs = [in_child(code) for _ in range(3)]
    assert runs[0][1] == []
    assert min(seconds for seconds, _ in runs) <= 0.3


def test_predicting_and_evaluating_with_a_lite_model_loads_no_tensorflow(digits_lite, tmp_path):
    code = f"""
import json, sys
import numpy as np
import tfbig
lite = tfbig.LiteModel({str(digits_lite.path)!r})
x, y = np.zeros((5, 8, 8, 1), "float32"), np.arange(5)
outputs = lite.predict(x)
scores = tfbig.evaluate(lite, x, y)
print(json.dumps([outputs.shape, scores.task, [m for m in ("tensorflow", "keras") if m in sys.modules]]))
"""
    assert in_child(code) == [[5, 10], "multiclass", []]


WHOLE_ROAD = """
import json, os, random
{before}
random.seed(1); expected = random.random(); random.seed(1)
import numpy as np
np.random.seed(1); expected_np = np.random.rand(); np.random.seed(1)
import keras, tensorflow as tf
tf.random.set_seed(1); expected_tf = float(tf.random.uniform(())); tf.random.set_seed(1)
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32"); y = (x[:, 0] > 0).astype(int)
import tfbig
model = tfbig.fit(lambda: tfbig.models.mlp((4,), 2), x, y, epochs=2, seed=0, verbose=0).model
thin = tfbig.prune(model, x, y, sparsity=0.5, epochs=2, seed=0, verbose=0)
tfbig.export(thin, {path!r}, quantize="int8", calibration=x)
print(json.dumps({{
    "legacy": os.environ.get("TF_USE_LEGACY_KERAS"),
    "tf.keras is Keras 3": tf.keras.Model is keras.Model,
    "policy": keras.config.dtype_policy().name,
    "numpy": np.random.rand() == expected_np,
    "tensorflow": float(tf.random.uniform(())) == expected_tf,
}}))
"""


@pytest.mark.parametrize("legacy", [None, "0"])
def test_the_whole_road_leaves_environment_keras_policy_and_seeds_alone(tmp_path, legacy):
    before = "" if legacy is None else f'os.environ["TF_USE_LEGACY_KERAS"] = {legacy!r}'
    found = in_child(WHOLE_ROAD.format(before=before, path=str(tmp_path / "model.tflite")))
    assert found == {
        "legacy": legacy,
        "tf.keras is Keras 3": True,
        "policy": "float32",
        "numpy": True,
        "tensorflow": True,
    }
