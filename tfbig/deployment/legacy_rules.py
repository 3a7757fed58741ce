"""From a configuration of Keras 2 to one of Keras 3: written rules, a class each. What no rule knows is refused."""

import inspect
from typing import Any

from tfbig.backend import keras
from tfbig.deployment.legacy_names import LAYERS, MODELS
from tfbig.errors import UnreadableFile

_CONVOLUTIONS = [name for name in LAYERS if "Conv" in name]
_RECURRENT = ["RNN", "LSTM", "GRU", "SimpleRNN"]
# Their first states came in one list with the sequences.
_WITH_STATE = {*_RECURRENT, "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional"}
_RANDOM = [name for name in LAYERS if name.startswith("Random")]

_CLASSES = {"ThresholdedReLU": "ReLU"}
_RENAMED = {
    "InputLayer": {"batch_input_shape": "batch_shape"},
    "LeakyReLU": {"alpha": "negative_slope"},
    "ThresholdedReLU": {"theta": "threshold"},
}
# Keys that say how something is computed, initialized or first fed, not what; Keras 3 has no such key.
_WITHOUT_MEANING = {
    **{
        name: {"implementation"}
        for name in ("LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell")
    },
    **{name: {"rng_type"} for name in _RANDOM},
    **{
        name: {"kernel_initializer", "kernel_regularizer", "kernel_constraint"}
        for name in ("SeparableConv1D", "SeparableConv2D")
    },
    "Embedding": {"input_length"},
    "MultiHeadAttention": {"query_shape", "key_shape", "value_shape"},
    "BatchNormalization": {"fused"},
}
# Keys that Keras 3 has not, with the only value that means the same without them.
_ONLY: dict[str, dict[str, Any]] = {
    **{name: {"groups": 1} for name in _CONVOLUTIONS},
    **{name: {"time_major": False} for name in _RECURRENT},
    **{name: {"groups": 1, "time_major": False} for name in _CONVOLUTIONS if "LSTM" in name},
    "InputLayer": {"ragged": False},
    "MultiHeadAttention": {"softmax_robust_masking": False},
    "BatchNormalization": {"virtual_batch_size": None, "adjustment": None},
}
# The functions that have changed under their name.
_FUNCTIONS = {"hard_sigmoid": "tfbig>legacy_hard_sigmoid"}


def to_keras_3(model: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns a model's configuration in the words of Keras 3, for `keras.saving.deserialize_keras_object`.

    Args:
        model: Class and configuration as tf_keras's `Model.to_json` writes them, parsed.
        source: The file, for messages.

    Raises:
        UnreadableFile: A layer, or a key with its value, has no counterpart in Keras 3; the message names it.
    """
    inner = model["config"]
    names = new_names(inner["layers"])
    layers = [_layer(layer, names, inner["layers"], source) for layer in inner["layers"]]
    config = {**{key: inner[key] for key in ("name", "trainable") if key in inner}, "layers": layers}
    config["name"] = clean(config["name"])
    if model["class_name"] == "Sequential":
        return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
    for key in ("input_layers", "output_layers"):
        config[key] = _references(inner[key], names, inner["layers"])
    return {"module": "keras", "class_name": "Model", "config": config, "registered_name": None}


def clean(name: str) -> str:
    """Returns a layer's name without slashes, which Keras 3 does not allow."""
    return name.replace("/", "_")


def new_names(layers: list[dict[str, Any]]) -> dict[str, str]:
    """Maps the old names of a model's layers to new ones: without slashes, and still each once."""
    names: dict[str, str] = {}
    old = [layer["config"]["name"] for layer in layers]
    taken = {name for name in old if "/" not in name}
    for name in old:
        new = name
        if "/" in name:
            new = clean(name)
            while new in taken:
                new += "_"
            taken.add(new)
        names[name] = new
    return names


def _layer(layer: dict[str, Any], names: dict[str, str], siblings: list[Any], source: str) -> dict[str, Any]:
    name = layer["config"]["name"]
    new = _object(layer, source)
    new["config"]["name"] = new["name"] = names[name]
    if "inbound_nodes" in layer:
        new["inbound_nodes"] = [
            _call(node, new["class_name"], names, siblings) for node in layer["inbound_nodes"]
        ]
    return new


def _object(layer: dict[str, Any], source: str) -> dict[str, Any]:
    """A layer, alone: as it stands in a model, a wrapper or a cell."""
    name = layer["class_name"]
    if name in MODELS:
        return to_keras_3(layer, source)
    new_class = _CLASSES.get(name, name)
    accepted = _keys_of(getattr(keras.layers, new_class))
    config = {}
    for key, value in layer["config"].items():
        new = _RENAMED.get(name, {}).get(key, key)
        if key in _WITHOUT_MEANING.get(name, ()) or (key == "batch_input_shape" and name != "InputLayer"):
            continue
        only = _ONLY.get(name, {})
        if key in only and value == only[key]:
            continue
        if new not in accepted:
            raise UnreadableFile(
                f"{source!r}: {name} {layer['config'].get('name')!r} has {key}={value!r}, and Keras 3 has nothing "
                "that means the same."
            )
        config[new] = _value(key, value, source)
    return {"module": "keras.layers", "class_name": new_class, "config": config, "registered_name": None}


def _value(key: str, value: Any, source: str) -> Any:
    if key == "axis" and isinstance(value, list) and len(value) == 1:
        return value[0]
    if key.endswith("activation") and value in _FUNCTIONS:
        return {
            "module": "builtins",
            "class_name": "function",
            "config": _FUNCTIONS[value],
            "registered_name": "function",
        }
    if key == "dtype" and isinstance(value, dict):
        return value["config"]["name"]
    if isinstance(value, dict) and value.get("class_name") in LAYERS | MODELS:  # wrapped layers and cells
        return _object(value, source)
    if isinstance(value, list):
        return [_value(key, entry, source) for entry in value]
    return value


def _call(node: Any, class_name: str, names: dict[str, str], siblings: list[Any]) -> dict[str, Any]:
    """One call of a layer: Keras 2 lists the tensors of the first argument, and repeats the others beside each."""
    options: dict[str, Any] = {}

    def tensor(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensor(entry) for key, entry in value.items()}
        if not isinstance(value, list):
            return value
        if _is_reference(value, names):
            name, call, index = _reference(value, names, siblings, own_call_counts=False)
            # Shape and dtype are not read: the tensor is looked up.
            config = {"shape": [None], "dtype": "float32", "keras_history": [name, call, index]}
            return {"class_name": "__keras_tensor__", "config": config}
        if len(value) in (3, 4) and value[0] == "_CONSTANT_VALUE":
            return value[2]
        return [tensor(entry) for entry in value]

    for entry in node if isinstance(node, list) else []:
        if isinstance(entry, list) and len(entry) == 4 and isinstance(entry[3], dict):
            options.update({key: tensor(value) for key, value in entry[3].items()})
    first = tensor(node)
    if isinstance(first, list) and len(first) == 1:
        first = first[0]
    if class_name in _WITH_STATE and isinstance(first, list):
        first, *options["initial_state"] = first
    return {"args": [first], "kwargs": options}


def _references(tensors: Any, names: dict[str, str], siblings: list[Any]) -> Any:
    """The tensors that go into a model or come out: `[layer, call, tensor]`, in lists and dicts."""
    if isinstance(tensors, dict):
        return {key: _references(value, names, siblings) for key, value in tensors.items()}
    if _is_reference(tensors, names):
        return _reference(tensors, names, siblings, own_call_counts=True)
    new = [_references(entry, names, siblings) for entry in tensors]
    return new[0] if len(new) == 1 else new


def _is_reference(value: Any, names: dict[str, str]) -> bool:
    return (
        isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str) and value[0] in names
    )


def _reference(
    tensor: list[Any], names: dict[str, str], siblings: list[Any], *, own_call_counts: bool
) -> list[Any]:
    """Keras 2 counts the making of a model that knows its inputs as the first call of it.

    Keras 3 does so for functional models, where a model's outputs are listed (`own_call_counts`), and nowhere else.
    """
    name, call, index = tensor[:3]
    layer = next(layer for layer in siblings if layer["config"]["name"] == name)
    sequential = layer["class_name"] == "Sequential"
    if sequential:
        made_by_a_call = layer["config"]["layers"][0]["class_name"] == "InputLayer"
    else:
        made_by_a_call = layer["class_name"] in MODELS and not own_call_counts
    return [names[name], call - made_by_a_call, index]


def _keys_of(layer_class: type) -> set[str]:
    """Every keyword that a class of Keras 3, or one that it is built on, takes."""
    keys: set[str] = set()
    for base in layer_class.__mro__:
        if "__init__" in vars(base):
            keys |= set(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
    return keys - {"self", "args", "kwargs"}
