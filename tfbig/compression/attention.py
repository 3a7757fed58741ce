"""Multi-head attention taken apart into layers whose ranges can be watched one by one."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.compression import integer_rules as rules
from tfbig.compression.fresh import adopt
from tfbig.compression.wiring import Call, Edge
from tfbig.layers.attending import HiddenScores, Remasked

_L = keras.layers


def why_not_integer(call: Call) -> str:
    """Returns why the call of an attention layer cannot be taken apart, or ""."""
    config = call.op.get_config()
    given = {
        name: value
        for name, value in call.kwargs.items()
        if name not in ("query", "value", "key", "training", "attention_mask", "use_causal_mask")
    }
    if any(value is not None and value is not False for value in given.values()) or len(call.args) > 3:
        return f"it is called with {', '.join(sorted(given)) or 'a mask'}"
    if any(len(edge.shape) != 3 for edge in _operands(call)):
        return "it attends over more than one axis"
    if config.get("use_gate") or config.get("sliding_window"):
        return "gates and sliding windows are not taken apart"
    if any(config.get(name) for name in ("activity_regularizer", "kernel_constraint", "bias_constraint")):
        return "its constraints and activity regularizer act on its parts as they are"
    return ""


def attention_calls(call: Call, made: dict[str, Any]) -> list[tuple[Call, str]]:
    """Returns dense layers, products and a softmax that compute what the attention layer does, with their kinds.

    Args:
        call: Of a `MultiHeadAttention` for which `why_not_integer` has nothing to say.
        made: The layers made for an earlier call of the same layer; filled at the first.
    """
    attention = call.op
    config = attention.get_config()
    heads, dim = config["num_heads"], config["key_dim"]
    value_dim = config["value_dim"] or dim
    if not made:
        _make(made, attention, config["dropout"])
    query, value, key = _operands(call)
    calls: list[tuple[Call, str]] = []

    def add(op: Any, part: str, args: tuple[Any, ...], shape: tuple[Any, ...], kind: str) -> Edge:
        edge = Edge(shape, "float32")
        calls.append((Call(op, f"{call.name}_{part}", args, {}, (edge,)), kind))
        return edge

    def project(source: Edge, part: str, features: int) -> Edge:
        shape = (*source.shape[:2], features)
        flat = add(made[part], part, (source,), shape, rules.KERNEL)
        if part != "query" or made["scale"] is None:
            return flat
        return add(made["scale"], "query_scale", (flat,), shape, rules.AFFINE)

    def headed(source: Edge, part: str, size: int, order: tuple[int, ...] = (2, 1, 3)) -> Edge:
        batch, steps = source.shape[:2]
        flat = project(source, part, heads * size)
        if source.masked:  # reshaping would warn that it loses the mask, which the scores have by then
            flat = add(Remasked(), f"{part}_unmasked", ([flat],), flat.shape, rules.KEEP)
        split = (batch, steps, heads, size)
        parted = add(_L.Reshape((steps or -1, heads, size)), f"{part}_heads", (flat,), split, rules.KEEP)
        turned = (batch, *(split[axis] for axis in order))
        return add(_L.Permute(order), f"{part}_turned", (parted,), turned, rules.KEEP)

    queries, keys = headed(query, "query", dim), headed(key, "key", dim, (2, 3, 1))
    values = headed(value, "value", value_dim)
    square = (*queries.shape[:3], keys.shape[3])
    scores = add(keras.ops.matmul, "scores", (queries, keys), square, rules.OWN)
    causal, pairs = bool(call.kwargs.get("use_causal_mask")), call.kwargs.get("attention_mask")
    if causal or pairs is not None or any(edge.masked for edge in (query, value, key)):
        read = (scores, query, value, key, pairs)
        scores = add(HiddenScores(causal), "hidden", read, square, rules.HIDE)
    weights = add(_L.Softmax(), "softmax", (scores,), square, rules.ACTIVATION)
    if made["dropout"] is not None:
        weights = add(made["dropout"], "dropout", (weights,), square, rules.TRAINING)
    context = add(keras.ops.matmul, "context", (weights, values), (*square[:3], value_dim), rules.OWN)
    batch, _, steps, _ = square
    turned = add(_L.Permute((2, 1, 3)), "back", (context,), (batch, steps, heads, value_dim), rules.KEEP)
    joined = (batch, steps, heads * value_dim)
    flat = add(_L.Reshape((steps or -1, heads * value_dim)), "joined", (turned,), joined, rules.KEEP)
    result = add(made["output"], "output", (flat,), (batch, steps, made["output"].units), rules.KERNEL)
    features = call.outputs[0].shape[2:]
    if len(features) > 1:
        shape = (batch, steps, *features)
        result = add(_L.Reshape((steps or -1, *features)), "parted", (result,), shape, rules.KEEP)
    if call.outputs[0].masked:
        add(Remasked(), "masked", ([result, query],), call.outputs[0].shape, rules.KEEP)
    last, _ = calls[-1]  # what is last gives what the attention gave, by its name
    last.name, last.outputs = call.name, call.outputs
    return calls


def _operands(call: Call) -> tuple[Edge, Edge, Edge]:
    given = dict(zip(("query", "value", "key"), call.args, strict=False)) | call.kwargs
    key = given.get("key")
    return given["query"], given["value"], given["value"] if key is None else key


def _make(made: dict[str, Any], attention: Any, dropout: float) -> None:
    """Dense layers with the weights of the attention layer's own, whose kernels have an axis for heads."""
    config = attention.get_config()
    scale = 1 / np.sqrt(config["key_dim"])
    # A regularizer must see the kernel as it is; then the scale is a factor, which is folded in like a normalization.
    regularized = bool(config["kernel_regularizer"] or config["bias_regularizer"])
    made["scale"] = _L.Rescaling(scale) if regularized else None
    for part in ("query", "key", "value", "output"):
        inner = getattr(attention, f"{part}_dense")
        kernel = np.asarray(inner.kernel)
        # The output's kernel is (heads, size, features); the others' (features, heads, size).
        rows = kernel.shape[0] if part != "output" else int(np.prod(kernel.shape[:2]))
        weights: list[Any] = [kernel.reshape(rows, -1)]
        if config["use_bias"]:
            weights.append(np.asarray(inner.bias).reshape(-1))
        if (
            part == "query" and not regularized
        ):  # Keras divides the queries by √key_dim: the kernel does it here
            weights = [weight * scale for weight in weights]
        kept = {name: getattr(inner, name) for name in ("kernel_regularizer", "bias_regularizer")}
        made[part] = _L.Dense(weights[0].shape[1], use_bias=len(weights) == 2, **kept)
        adopt(made[part], weights, rows)
        made[part].trainable = attention.trainable
    made["dropout"] = _L.Dropout(dropout) if dropout else None
