"""The program that reads legacy and untrusted model files, in a process of its own; `legacy_reading.py` runs it.

HDF5's C library can crash on a damaged file, and `tf_keras` would leave traces in the caller's process. Nothing here
runs code from the file: `legacy_names.py` checks what a configuration names before tf_keras sees it, and of a
SavedModel only the configuration and the variables are read, never the graph.
"""

import contextlib
import json
import os
import sys
import threading
import traceback
import zipfile
from pathlib import Path
from typing import Any

from tfbig.deployment.legacy_keras1 import is_keras_1, to_keras_2
from tfbig.deployment.legacy_names import check_names, in_float32
from tfbig.errors import UnreadableFile

SAMPLE_ROWS = 8
# Axes of open length get the first of these that the model accepts.
_OPEN_LENGTHS = (16, 32, 8, 64, 224, 1)
_SHRINKS_AT_MOST = 2000  # Deflate reaches about 1030.


def main(folder: str) -> None:
    """Does the job described in `folder`/job.json, and writes `folder`/answer.json beside it."""
    threading.Thread(target=_end_with_caller, daemon=True).start()
    # Should memory run out, this process goes first.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    job = json.loads((Path(folder) / "job.json").read_text())
    try:
        answer = {"ok": True, **(_JOBS[job["do"]](job) or {})}
    except UnreadableFile as error:
        answer = {"ok": False, "error": str(error)}
    except Exception as error:
        traceback.print_exc()
        answer = {
            "ok": False,
            "error": f"{job['source']!r} cannot be loaded: {type(error).__name__}: {error}",
        }
    (Path(folder) / "answer.json").write_text(json.dumps(answer))


def _end_with_caller() -> None:
    sys.stdin.read()
    os._exit(0)


def _check_weights(job: dict[str, Any]) -> None:
    """Reads all weights of a `.keras` file, so that a crash of HDF5 happens here if anywhere."""
    with zipfile.ZipFile(job["file"]) as archive, archive.open("model.weights.h5") as weights:
        _read_all(weights, archive.getinfo("model.weights.h5").file_size, job["source"])


def _read_all(path_or_file: Any, size: int, source: str) -> None:
    import h5py

    def read(name: str, node: Any) -> None:
        dict(node.attrs)
        if not isinstance(node, h5py.Dataset):
            return
        if node.external or node.is_virtual:
            raise UnreadableFile(f"{source!r}: {name!r} points to other files, which are not opened.")
        if node.nbytes > max(size * _SHRINKS_AT_MOST, 2**20):
            raise UnreadableFile(f"{source!r}: {name!r} claims {node.nbytes:,} bytes, in a file of {size:,}.")
        node[()]

    with h5py.File(path_or_file, "r") as file:
        dict(file.attrs)
        file.visititems(read)


def _read(job: dict[str, Any]) -> dict[str, Any]:
    """Reads a model's configuration and weights, and runs it on sample rows."""
    source, folder = job["source"], Path(job["folder"])
    config, version = _configuration(job)
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise UnreadableFile(f"{source!r} holds no Keras model: it has no configuration of one.")
    hdf5 = Path(job["weights"]).is_file()  # else the prefix of a TensorFlow checkpoint
    if hdf5:
        _read_all(job["weights"], os.path.getsize(job["weights"]), source)
    if version.startswith("3"):
        return _read_keras_3(job)
    for key in ("build_config", "compile_config"):
        config.pop(key, None)
    if is_keras_1(config):
        config = to_keras_2(config, source)
        _mark_as_keras_1(job["weights"])
    config = check_names(config, source)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import numpy as np
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = _built(in_float32(config), source)
    status = model.load_weights(_named_by_content(job["weights"]) if hdf5 else job["weights"])
    if status is not None:  # of a TensorFlow checkpoint
        status.assert_existing_objects_matched().expect_partial()
    arrays, layers = _weights(model)
    inputs, outputs = _sample(model)
    np.savez(folder / "weights.npz", allow_pickle=False, **arrays)
    np.savez(folder / "inputs.npz", allow_pickle=False, **inputs)
    np.savez(folder / "outputs.npz", allow_pickle=False, **outputs)
    return {"model": json.loads(_built(config, source).to_json()), "layers": layers}


def _configuration(job: dict[str, Any]) -> tuple[Any, str]:
    """A model's configuration as plain data, and the version of Keras that wrote it."""
    kind, path = job["kind"], job["file"]
    if kind == "saved_model":
        return _saved_model_configuration(path, job["source"])
    if kind == "json":
        config = json.loads(Path(path).read_text())
        if not isinstance(config, dict):
            return config, ""
        # Keras 3 leaves its version out.
        return config, str(config.get("keras_version") or ("3" if "module" in config else "2"))
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            return config, str(json.loads(archive.read("metadata.json"))["keras_version"])
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise UnreadableFile(
                f"{job['source']!r} holds weights, not a model. Give its architecture too: "
                'load_model("model.json", weights="weights.h5").'
            )
        version, config = (file.attrs.get(key, "2") for key in ("keras_version", "model_config"))
        return json.loads(_text(config)), _text(version)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _saved_model_configuration(folder: str, source: str) -> tuple[Any, str]:
    from tensorflow.core.protobuf import saved_model_pb2
    from tf_keras.protobuf import saved_metadata_pb2

    texts: dict[str, str] = {}
    metadata = Path(folder) / "keras_metadata.pb"
    if metadata.exists():
        nodes = saved_metadata_pb2.SavedMetadata.FromString(metadata.read_bytes()).nodes
        texts = {node.node_path: node.metadata for node in nodes}
    else:  # TensorFlow before 2.5 kept it in the graph's file
        graph = saved_model_pb2.SavedModel.FromString((Path(folder) / "saved_model.pb").read_bytes())
        for node in graph.meta_graphs[0].object_graph_def.nodes[:1]:
            texts = {"root": node.user_object.metadata}
    if not texts.get("root"):
        raise UnreadableFile(
            f"{source!r} is a SavedModel without a Keras model: a program, whose layers are not told. "
            'It can be run as it is, by keras.layers.TFSMLayer(folder, call_endpoint="serving_default").'
        )
    root = json.loads(texts["root"])
    config = {"class_name": root["class_name"], "config": root.get("config")}
    return config, str(root.get("keras_version") or "2")


def _mark_as_keras_1(weights: str) -> None:
    """Tells tf_keras to turn the arrays of Keras 1 into those of Keras 2, which it does for "1" exactly."""
    import h5py

    with h5py.File(weights, "r+") as file:
        group = file.get("model_weights", file)
        if _text(group.attrs.get("keras_version", "1")).startswith("1"):
            group.attrs["keras_version"] = b"1"


def _named_by_content(weights: str) -> str:
    """Renames an HDF5 file of weights as tf_keras tells its two layouts apart: by the ending."""
    import h5py

    with h5py.File(weights, "r") as file:
        by_layer = "layer_names" in file.attrs or "model_weights" in file
    name = "by_layer.h5" if by_layer else "by_object.weights.h5"
    return str(Path(weights).rename(Path(weights).with_name(name)))


def _built(config: dict[str, Any], source: str) -> Any:
    import tf_keras

    if "module" in config:
        model = tf_keras.saving.deserialize_keras_object(config, safe_mode=True)
    else:
        model = tf_keras.models.model_from_config(config)
    if not model.built or not model.inputs:
        raise UnreadableFile(
            f"{source!r} holds a model of unknown input shape: it was saved before it was built."
        )
    return model


def _weights(model: Any) -> tuple[dict[str, Any], list[Any]]:
    """The arrays of every layer, and for every layer its path through nested models and its arrays' names."""
    import tf_keras

    arrays: dict[str, Any] = {}
    layers: list[Any] = []

    def collect(inner: Any, path: list[str]) -> None:
        for layer in inner.layers:
            here = [*path, layer.name]
            if isinstance(layer, tf_keras.Model):
                collect(layer, here)
                continue
            values = [weight.numpy() for weight in layer.weights]
            names = [f"w{len(arrays) + i}" for i in range(len(values))]
            arrays.update(zip(names, values, strict=True))
            layers.append({"path": here, "arrays": names})

    collect(model, [])
    return arrays, layers


def _sample(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random rows that the model accepts, and its outputs for them."""
    import tensorflow as tf

    refused: Exception | None = None
    for length in _OPEN_LENGTHS:
        inputs = _random_rows(model, length)
        try:
            outputs = model(tf.nest.pack_sequence_as(model.input, inputs), training=False)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            refused = error
            continue
        flat = [output.numpy() for output in tf.nest.flatten(outputs)]
        return (
            {f"x{i}": value for i, value in enumerate(inputs)},
            {f"y{i}": value for i, value in enumerate(flat)},
        )
    raise UnreadableFile(f"The model cannot be run on sample rows, to compare it: {refused}")


def _random_rows(model: Any, length: int) -> list[Any]:
    import numpy as np
    import tensorflow as tf

    generator = np.random.default_rng(0)
    vocabulary = _smallest_vocabulary(model)
    rows = []
    for tensor in tf.nest.flatten(model.input):
        batch, *shape = tensor.shape
        full = (batch or SAMPLE_ROWS, *(size or length for size in shape))
        dtype = tensor.dtype.as_numpy_dtype
        if vocabulary or not tensor.dtype.is_floating:
            values = generator.integers(0, vocabulary or 2, full).astype(dtype)
        else:
            values = generator.normal(size=full).astype(dtype)
        if len(full) > 1 and full[1] > 2:
            values[0, full[1] // 2 :] = 0  # what Masking and Embedding(mask_zero) skip
        rows.append(values)
    return rows


def _smallest_vocabulary(model: Any) -> int | None:
    import tf_keras

    layers = [layer for layer in model.submodules if isinstance(layer, tf_keras.layers.Layer)]
    sizes = [layer.input_dim for layer in layers if isinstance(layer, tf_keras.layers.Embedding)]
    return min(sizes, default=None)


def _read_keras_3(job: dict[str, Any]) -> dict[str, Any]:
    """Loads what Keras 3 wrote in an older form (.h5, json with weights), and writes it as .keras."""
    import keras
    import numpy as np

    import tfbig.deployment.legacy_functions
    import tfbig.layers.kernels
    import tfbig.layers.ranges  # noqa: F401
    from tfbig.deployment.serving import as_given

    folder = Path(job["folder"])
    if job["kind"] == "h5":
        model = keras.saving.load_model(job["file"], compile=False, safe_mode=True)
    else:
        model = keras.saving.deserialize_keras_object(
            json.loads(Path(job["file"]).read_text()), safe_mode=True
        )
        model.load_weights(_named_by_content(job["weights"]))
    model.save(folder / "model.keras")
    inputs = [
        np.random.default_rng(0)
        .integers(0, 2, [size or SAMPLE_ROWS for size in tensor.shape])
        .astype(tensor.dtype)
        for tensor in model.inputs
    ]
    outputs = model(as_given(model, inputs), training=False)
    flat = [np.asarray(output) for output in keras.tree.flatten(outputs)]
    np.savez(folder / "inputs.npz", allow_pickle=False, **{f"x{i}": x for i, x in enumerate(inputs)})
    np.savez(folder / "outputs.npz", allow_pickle=False, **{f"y{i}": y for i, y in enumerate(flat)})
    return {"keras_3": True}


def _hang(job: dict[str, Any]) -> None:
    """Stands in for a file without end, for the tests of the time limit."""
    import time

    time.sleep(job["seconds"])


def _crash(job: dict[str, Any]) -> None:
    """Stands in for a bug in HDF5, for the tests of isolation."""
    import signal

    print("the reader's last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


_JOBS = {"check_weights": _check_weights, "read": _read, "hang": _hang, "crash": _crash}

if __name__ == "__main__":
    main(sys.argv[1])
