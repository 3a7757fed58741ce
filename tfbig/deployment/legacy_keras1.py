"""Configurations of Keras 1 (2015 to 2017) in the words of Keras 2."""

from typing import Any

from tfbig.errors import UnreadableFile

_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
}
_MERGES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
}
_KEYS = {
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "inner_activation": "recurrent_activation",
    "gamma_init": "gamma_initializer",
    "beta_init": "beta_initializer",
    "bias": "use_bias",
    "output_dim": "units",
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "pool_length": "pool_size",
    "subsample": "strides",
    "subsample_length": "strides",
    "stride": "strides",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "atrous_rate": "dilation_rate",
    "p": "rate",
    "sigma": "stddev",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "b_constraint": "bias_constraint",
}
_ORDERINGS = {"tf": "channels_last", "th": "channels_first", "default": "channels_last"}
# How it was computed or first fed; nothing of it changes what is computed.
_IGNORED = frozenset({"consume_less", "input_length", "weights"})
# Keys that only Keras 1 writes.
_MARKS = frozenset(
    {"init", "nb_filter", "border_mode", "dim_ordering", "p", "inner_init", "input_dtype", "W_regularizer"}
)


def is_keras_1(config: Any) -> bool:
    """Whether a model's configuration is in the words of Keras 1."""
    return any(
        _MARKS & set(layer["config"]) for layer in _layers(config) if isinstance(layer.get("config"), dict)
    )


def to_keras_2(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns a model's configuration in the words of Keras 2.

    Args:
        config: What `Model.to_json` of Keras 1 wrote, parsed.
        source: The file, for messages.

    Raises:
        UnreadableFile: It holds something that Keras 2 has no word for.
    """
    name, inner = config["class_name"], config["config"]
    if name == "Sequential":
        layers = inner if isinstance(inner, list) else inner["layers"]
        return {
            "class_name": name,
            "config": {"name": "sequential", "layers": [_layer(one, source) for one in layers]},
        }
    return {
        "class_name": "Model",
        "config": {**inner, "layers": [_layer(one, source) for one in inner["layers"]]},
    }


def _layers(config: Any) -> list[dict[str, Any]]:
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner if isinstance(inner, list) else inner.get("layers", []) if isinstance(inner, dict) else []
    nested = [one for layer in layers if isinstance(layer, dict) for one in _layers(layer)]
    return [layer for layer in layers if isinstance(layer, dict)] + nested


def _layer(layer: dict[str, Any], source: str) -> dict[str, Any]:
    name, old = layer["class_name"], layer["config"]
    if name in ("Sequential", "Model"):
        return {**layer, **to_keras_2(layer, source)}
    if name == "Merge":
        return {**layer, **_merge(old, source)}
    new = {}
    for key, value in old.items():
        if key in _IGNORED or (key == "input_dim" and name != "Embedding"):
            continue
        if key == "layer":  # TimeDistributed, Bidirectional
            value = _layer(value, source)
        elif key == "dim_ordering":
            value = _ORDERINGS[value]
        elif key.endswith("_regularizer") and isinstance(value, dict):
            value = {"class_name": "L1L2", "config": {k: value.get(k, 0.0) for k in ("l1", "l2")}}
        elif key.endswith("_constraint") and isinstance(value, dict):
            value = _constraint(value, source)
        new[_KEYS.get(key, key)] = value
    _reshape(name, new, old, source)
    return {**layer, "class_name": _CLASSES.get(name, name), "config": new}


def _reshape(name: str, new: dict[str, Any], old: dict[str, Any], source: str) -> None:
    """What is said in another number of words."""
    dtype = new.pop("input_dtype", None)
    if name == "InputLayer" and dtype:
        new["dtype"] = dtype
    if "nb_row" in old:
        new["kernel_size"] = [new.pop("nb_row"), new.pop("nb_col")]
    if "kernel_dim1" in old:
        new["kernel_size"] = [new.pop(f"kernel_dim{i}") for i in (1, 2, 3)]
    if "forget_bias_init" in old:
        new["unit_forget_bias"] = new.pop("forget_bias_init") in ("one", "ones")
    if name == "GRU":
        new["reset_after"] = False
    if name == "Embedding":
        new["output_dim"] = new.pop("units")
        new["embeddings_initializer"] = new.pop("kernel_initializer", "uniform")
        for key in ("kernel_regularizer", "kernel_constraint"):
            new[key.replace("kernel", "embeddings")] = new.pop(key, None)
        if new.pop("dropout", 0.0):
            raise UnreadableFile(
                f"{source!r}: the Embedding {new.get('name')!r} drops out words; Keras 2 cannot."
            )
    if name == "BatchNormalization" and new.pop("mode", 0) != 0:
        raise UnreadableFile(
            f"{source!r}: {new.get('name')!r} normalizes in mode {old['mode']}; Keras 2 knows mode 0 only."
        )


def _merge(old: dict[str, Any], source: str) -> dict[str, Any]:
    mode = old.get("mode")
    if mode not in _MERGES or "layers" in old:
        raise UnreadableFile(
            f"{source!r}: the Merge layer {old.get('name')!r} has mode {mode!r} or layers inside; "
            f"only {', '.join(_MERGES)} in a functional model can be brought over."
        )
    config: dict[str, Any] = {"name": old.get("name")}
    if mode == "concat":
        config["axis"] = old.get("concat_axis", -1)
    return {"class_name": _MERGES[mode], "config": config}


def _constraint(value: dict[str, Any], source: str) -> dict[str, Any]:
    name = {"maxnorm": "MaxNorm", "nonneg": "NonNeg", "unitnorm": "UnitNorm"}.get(
        str(value.get("name")).lower()
    )
    if name is None:
        raise UnreadableFile(
            f"{source!r} names the constraint {value.get('name')!r}, which Keras 2 does not have."
        )
    keys = {"MaxNorm": {"m": "max_value", "axis": "axis"}, "UnitNorm": {"axis": "axis"}, "NonNeg": {}}[name]
    return {"class_name": name, "config": {new: value[old] for old, new in keys.items() if old in value}}
