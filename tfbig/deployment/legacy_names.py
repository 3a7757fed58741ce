"""What a legacy file may ask for: the classes and functions of stock Keras that run no stored code.

Both `tf_keras` and Keras import the module that a file names and call what they find there. So a file's
configuration is read here first, as plain data, and everything it names must be on these lists.
"""

from typing import Any

from tfbig.errors import UnreadableFile, did_you_mean

MODELS = frozenset({"Functional", "Model", "Sequential"})
_CONVOLUTIONS = {
    f"{kind}{d}D" for kind in ("Conv", "ConvLSTM", "UpSampling", "ZeroPadding", "Cropping") for d in (1, 2, 3)
}
_CONVOLUTIONS |= {f"Conv{d}DTranspose" for d in (1, 2, 3)}
_CONVOLUTIONS |= {f"{kind}Conv{d}D" for kind in ("Depthwise", "Separable") for d in (1, 2)}
_POOLINGS = {
    f"{kind}Pooling{d}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for d in (1, 2, 3)
}
_RECURRENT = {"RNN", "StackedRNNCells", "Bidirectional", "TimeDistributed", "Masking"}
_RECURRENT |= {f"{kind}{cell}" for kind in ("LSTM", "GRU", "SimpleRNN") for cell in ("", "Cell")}
_MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"}
_NORMALIZATIONS = {f"{kind}Normalization" for kind in ("Batch", "Layer", "Group", "Unit")} | {"Normalization"}
_DROPOUTS = {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"}
_DROPOUTS |= {"GaussianDropout", "GaussianNoise", "ActivityRegularization"}
_ACTIVATIONS = {"Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax"}
_IMAGES = {"Rescaling", "Resizing", "CenterCrop"} | {
    f"Random{kind}" for kind in ("Brightness", "Contrast", "Crop", "Flip", "Rotation", "Translation", "Zoom")
}
_OTHERS = {"InputLayer", "Dense", "EinsumDense", "Embedding", "Flatten", "Reshape", "Permute", "RepeatVector"}
_OTHERS |= {"Attention", "AdditiveAttention", "MultiHeadAttention", "Discretization", "CategoryEncoding"}

LAYERS = frozenset(
    _CONVOLUTIONS
    | _POOLINGS
    | _RECURRENT
    | _MERGES
    | _NORMALIZATIONS
    | _DROPOUTS
    | _ACTIVATIONS
    | _IMAGES
    | _OTHERS
)
# Objects of a layer's configuration. Files of TensorFlow 1 write some of them in other ways.
_INITIALIZERS = {
    f"{name}{version}"
    for name in (
        *("Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling"),
        *("Orthogonal", "Identity", "GlorotUniform", "GlorotNormal", "HeNormal", "HeUniform", "LecunNormal"),
        "LecunUniform",
    )
    for version in ("", "V2")
}
_INITIALIZERS |= {f"{kind}_{shape}" for kind in ("glorot", "he", "lecun") for shape in ("normal", "uniform")}
_OBJECTS = frozenset(
    _INITIALIZERS
    | {
        "L1",
        "L2",
        "L1L2",
        "OrthogonalRegularizer",
        "MaxNorm",
        "MinMaxNorm",
        "NonNeg",
        "UnitNorm",
        "RadialConstraint",
    }
    | {"Policy"}
)
FUNCTIONS = frozenset(
    {
        "linear",
        "relu",
        "relu6",
        "sigmoid",
        "hard_sigmoid",
        "tanh",
        "softmax",
        "softplus",
        "softsign",
        "elu",
        "selu",
    }
    | {"gelu", "swish", "silu", "mish", "exponential", "leaky_relu"}
)
_FORMERLY = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}
_HOMES = ("keras", "tf_keras", "tensorflow", "builtins")


def check_names(config: Any, source: str) -> Any:
    """Returns a configuration as plain values, after checking every class and function that it names.

    Args:
        config: A model's configuration, as read from JSON.
        source: The file, for messages.

    Returns:
        The configuration without wrappers: tuples, shapes and function objects are lists and names.

    Raises:
        UnreadableFile: It holds a Lambda layer, or names something that is not stock Keras.
    """
    return _checked(config, source, "the model")


def in_float32(config: Any) -> Any:
    """Returns a configuration whose layers all compute in float32.

    Two models are compared so: 16 bits round as coarsely as outputs often vary, and hide what differs.
    """
    if isinstance(config, list):
        return [in_float32(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and value in _IN_16_BITS else in_float32(value)
        for key, value in config.items()
    }


_IN_16_BITS = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def _checked(value: Any, source: str, where: str) -> Any:
    if isinstance(value, list):
        return [_checked(entry, source, where) for entry in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {key: _checked(entry, source, where) for key, entry in value.items()}
    name, config = str(value["class_name"]), value.get("config")
    if name in ("__tuple__", "TensorShape"):
        items = config["value"] if isinstance(config, dict) else value["items"]
        return [_checked(entry, source, where) for entry in items]
    if name in LAYERS | MODELS and isinstance(config, dict):
        where = f"the layer {config.get('name') or value.get('name') or name!r}"
    _refuse_code(name, value, source, where)
    if name in ("function", "builtin_function_or_method"):
        return _function(config, source, where)
    # Dtype policies of TensorFlow 2.0 to 2.3: a name that is none, and a loss scale that training needs only.
    if name in ("Policy", "PolicyV1") and isinstance(config, dict):
        policy = str(config.get("name"))
        return "float32" if policy.startswith("infer") else policy
    plain = {key: _checked(entry, source, where) for key, entry in value.items() if key != "registered_name"}
    return {**plain, "class_name": _FORMERLY.get(name, name)}


def _refuse_code(name: str, value: dict[str, Any], source: str, where: str) -> None:
    """Raises for what is code, custom, or unknown."""
    if name in ("Lambda", "__lambda__"):
        named = (value.get("config") or {}).get("name") if isinstance(value.get("config"), dict) else None
        raise UnreadableFile(
            f"{source!r} holds code: the Lambda layer {named or where!r}. It is not run. Rebuild the model without "
            "the layer, where the file was made, and save it again."
        )
    if name in ("TFOpLambda", "SlicingOpLambda"):
        named = value.get("name") or (value.get("config") or {}).get("name")
        raise UnreadableFile(
            f"{source!r} holds the TensorFlow operation {named!r} in place of a layer; Keras 3 has no such layer. "
            "Rebuild the model with layers (Add, Rescaling, …), where the file was made, and save it again."
        )
    known = (
        LAYERS | MODELS | _OBJECTS | set(_FORMERLY) | {"function", "builtin_function_or_method", "PolicyV1"}
    )
    module = value.get("module")
    at_home = module is None or str(module).split(".")[0] in _HOMES
    if name not in known or not at_home:
        shown = name if at_home else f"{module}.{name}"
        raise UnreadableFile(
            f"{source!r} names {shown!r} in {where}: a custom class, or one of Keras that load_model cannot bring "
            f"over. Only stock layers are loaded.{did_you_mean(name, LAYERS) if at_home else ''}"
        )


def _function(name: Any, source: str, where: str) -> str:
    if name not in FUNCTIONS:
        raise UnreadableFile(
            f"{source!r} names the function {name!r} in {where}: it is not one of Keras. Only stock "
            "activations are loaded."
        )
    return str(name)
