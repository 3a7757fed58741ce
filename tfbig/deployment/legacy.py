"""Brings models that Keras 1, Keras 2 and `tf_keras` wrote to Keras 3, and compares the two before it says so."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import tfbig.deployment.legacy_functions  # noqa: F401 - Keras finds its functions once it is imported
from tfbig.backend import keras
from tfbig.deployment.legacy_names import in_float32
from tfbig.deployment.legacy_reading import read_apart
from tfbig.deployment.legacy_rules import new_names, to_keras_3
from tfbig.deployment.serving import as_given
from tfbig.errors import UnreadableFile

# Shares of the output range. Float32 rounds at 6e-8; sums in another order, through many layers, stay below.
TOLERANCE = 1e-5


def load_legacy(kind: str, source: str, file: Path, weights: Path | None, timeout: float) -> Any:
    """Returns a legacy file's model as one of Keras 3, not compiled.

    Args:
        kind: "h5", "json", "keras" or "saved_model".
        source: The path that the user gave, for messages.
        file: Where the configuration is.
        weights: Where the weights are: an HDF5 file, or the prefix of a TensorFlow checkpoint.
        timeout: Seconds that reading the file may take.

    Raises:
        UnreadableFile: It is damaged, holds code or what Keras 3 does not have, or the outputs differ.
    """
    with tempfile.TemporaryDirectory(prefix="tfbig-legacy-") as work:
        folder = Path(work)
        if weights is not None and weights.is_file():
            # A copy: the reader may have to rename or mark it.
            weights = Path(shutil.copyfile(weights, folder / "weights.h5"))
        job = {"do": "read", "kind": kind, "source": source, "file": str(file), "weights": str(weights)}
        answer = read_apart(job, folder, timeout)
        try:
            if answer.get("keras_3"):
                model = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
                _compare(model, folder, source)
                return model
            model, compared = _rebuilt(answer, folder, source)
            _compare(compared, folder, source)
            return model
        except UnreadableFile:
            raise
        except Exception as error:  # whatever Keras 3 finds fault with
            raise UnreadableFile(
                f"{source!r} cannot be brought to Keras 3: {type(error).__name__}: {error}"
            ) from error


def _rebuilt(answer: dict[str, Any], folder: Path, source: str) -> tuple[Any, Any]:
    """The model, and the one to compare: the same, or its twin in float32 where it computes in 16 bits."""
    config = to_keras_3(answer["model"], source)
    plain = in_float32(config)
    twins = [config] if plain == config else [config, plain]
    models = [keras.saving.deserialize_keras_object(one) for one in twins]
    with np.load(folder / "weights.npz") as arrays:
        for model in models:
            _set_weights(model, answer, arrays, source)
    return models[0], models[-1]


def _set_weights(model: Any, answer: dict[str, Any], arrays: Any, source: str) -> None:
    """Gives every layer the arrays of its counterpart."""
    given = {tuple(layer["path"]): [arrays[name] for name in layer["arrays"]] for layer in answer["layers"]}
    for path, layer in _counterparts(model, answer["model"], ()):
        weights = [*layer.trainable_weights, *layer.non_trainable_weights]
        values = given.pop(path)
        shapes = [[tuple(x.shape) for x in some] for some in (weights, values)]
        if shapes[0] != shapes[1]:
            raise UnreadableFile(
                f"{source!r}: the layer {'/'.join(path)!r} has weights of shapes {shapes[1]}; in "
                f"Keras 3 it has {shapes[0]}."
            )
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
        if isinstance(layer, keras.layers.Normalization) and values:
            layer.finalize_state()
    if any(given.values()):
        raise UnreadableFile(f"{source!r} has weights of layers that are not in its model: {list(given)}.")


def _counterparts(model: Any, config: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Yields the path of every legacy layer, through nested models, and the Keras 3 layer that stands for it."""
    layers = config["config"]["layers"]
    names = new_names(layers)
    for old in layers:
        name = old["config"]["name"]
        if old["class_name"] == "InputLayer":
            continue
        layer = model.get_layer(names[name])
        if isinstance(layer, keras.Model):
            yield from _counterparts(layer, old, (*path, name))
        else:
            yield (*path, name), layer


def _compare(model: Any, folder: Path, source: str) -> None:
    """Raises unless the model gives the legacy model's outputs on the sample rows."""
    with np.load(folder / "inputs.npz") as arrays:
        inputs = [arrays[f"x{i}"] for i in range(len(arrays.files))]
    with np.load(folder / "outputs.npz") as arrays:
        expected = [arrays[f"y{i}"] for i in range(len(arrays.files))]
    outputs = model(as_given(model, inputs), training=False)
    got = [np.asarray(keras.ops.convert_to_numpy(output)) for output in keras.tree.flatten(outputs)]
    if len(got) != len(expected):
        raise UnreadableFile(f"{source!r} has {len(expected)} outputs; the model in Keras 3 has {len(got)}.")
    for i, (a, b) in enumerate(zip(expected, got, strict=True)):
        difference = share_of_range(a, b)
        if not difference <= TOLERANCE:
            raise UnreadableFile(
                f"{source!r}: in Keras 3, output {i} differs from the legacy model's own by {difference:.2g} of its "
                f"range on {len(a)} random rows; allowed {TOLERANCE:g}. Please report this model."
            )
    for layer in model.layers:
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()  # the rows were no use of the model


def share_of_range(expected: np.ndarray, got: np.ndarray) -> float:
    """Returns the largest difference, as a share of the range of what is expected; NaN stands for NaN.

    Example:
        >>> share_of_range(np.array([0.0, 4.0]), np.array([0.0, 4.002])).__round__(6)
        0.0005
    """
    if expected.shape != got.shape:
        return float("inf")
    expected, got = expected.astype(np.float64), got.astype(np.float64)
    odd = ~np.isfinite(expected)
    if not np.array_equal(expected[odd], got[odd], equal_nan=True):
        return float("inf")
    expected, got = expected[~odd], got[~odd]
    if not expected.size:
        return 0.0
    extent = np.ptp(expected) or np.abs(expected).max() or 1.0
    return float(np.abs(expected - got).max() / extent)
