import json
import os
import subprocess
import sys

import pytest

IMPORT = """
import json, sys
try:
    import tfbig.backend
    said = ""
except ImportError as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps({"said": said, "loaded": [name for name in ("tensorflow", "keras") if name in sys.modules]}))
"""

# Stands in for Keras and TensorFlow, which take 5 s to load.
STUB = """
import sys, types
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
sys.modules["keras"] = keras = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: {backend!r})
"""

PRUNING = """
import json, os
import tensorflow as tf
from tfbig.backend.pruning import schedules, tfmot

tfmot()
print(json.dumps({
    "variable": os.environ.get("TF_USE_LEGACY_KERAS"),
    "tf.keras": tf.keras.Model.__module__.split(".")[0],
    "tf.compat.v1.keras": tf.compat.v1.keras.Model.__module__.split(".")[0],
    "tf.compat.v2.keras": tf.compat.v2.keras.Model.__module__.split(".")[0],
    "schedules": schedules().PolynomialDecay.__name__,
}))
"""


def run(code, **variables):
    """What a fresh process prints; a variable that is None is unset in it."""
    changed = {"KERAS_BACKEND": None, "TF_USE_LEGACY_KERAS": None, **variables}
    kept = {name: value for name, value in os.environ.items() if name not in changed}
    given = {name: value for name, value in changed.items() if value is not None}
    child = subprocess.run([sys.executable, "-c", code], env=kept | given, capture_output=True, text=True)
    return child, json.loads(child.stdout) if child.stdout else None


def test_another_backend_is_refused_before_anything_is_loaded():
    _, seen = run(IMPORT, KERAS_BACKEND="jax")
    assert seen["said"].startswith("WrongBackend: tfbig needs Keras on the TensorFlow backend; got 'jax'.")
    assert "Set KERAS_BACKEND=tensorflow" in seen["said"]
    assert seen["loaded"] == []


def test_the_traceback_of_a_wrong_backend_holds_nothing_of_the_other_backend():
    child, _ = run("import tfbig.backend", KERAS_BACKEND="jax")
    assert child.stderr.count("Traceback") == 1
    assert "No module named" not in child.stderr


def test_keras_that_is_already_loaded_on_another_backend_is_refused():
    _, seen = run(STUB.format(backend="torch") + IMPORT)
    assert seen["said"].startswith("WrongBackend: tfbig needs Keras on the TensorFlow backend; got 'torch'.")


def test_another_backend_in_keras_json_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    _, seen = run(IMPORT, KERAS_HOME=str(tmp_path))
    assert seen["said"].startswith("WrongBackend: tfbig needs Keras on the TensorFlow backend; got 'jax'.")
    assert "keras.json" in seen["said"]


def test_an_empty_keras_backend_variable_means_the_default_as_in_keras():
    _, seen = run(STUB.format(backend="tensorflow") + IMPORT, KERAS_BACKEND="")
    assert seen["said"] == ""


@pytest.fixture(scope="module")
def after_tfmot():
    """What a process looks like after `tfmot()`, by what TF_USE_LEGACY_KERAS was when it began."""
    return {variable: run(PRUNING, TF_USE_LEGACY_KERAS=variable)[1] for variable in (None, "1")}


@pytest.mark.parametrize("variable", [None, "1"])
def test_loading_tfmot_leaves_the_variable_for_legacy_keras_as_it_was(after_tfmot, variable):
    assert after_tfmot[variable]["variable"] == variable


@pytest.mark.parametrize(("variable", "package"), [(None, "keras"), ("1", "tf_keras")])
@pytest.mark.parametrize("name", ["tf.keras", "tf.compat.v1.keras", "tf.compat.v2.keras"])
def test_loading_tfmot_leaves_tensorflows_keras_what_the_user_asked_for(after_tfmot, name, variable, package):
    assert after_tfmot[variable][name] == package


def test_tfmot_gives_its_schedules(after_tfmot):
    assert after_tfmot[None]["schedules"] == "PolynomialDecay"
