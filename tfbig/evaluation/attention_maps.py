"""Attention maps: what each step looks at, in every attention layer of a Keras model."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, run_graph
from tfbig.errors import InvalidModel

# Those that give their weights beside their result when asked with return_attention_scores=True.
_KINDS = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
_BATCH = 64


def attention_maps(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the weights of each attention layer, in the order they run.

    A weight says how much of a key's value goes into a query's result, in that head of that layer; it need not say how
    much the answer depends on it (Jain and Wallace, "Attention is not Explanation", 2019,
    https://arxiv.org/abs/1902.10186).

    Args:
        model: A Sequential or functional Keras model.
        x: Its input, shape (rows, ...).

    Returns:
        Name of the layer to weights of shape (rows, heads, queries, keys); each query's add up to 1. A layer that is
        called again gets a number.

    Raises:
        InvalidModel: The model has no graph to follow, or no attention layer in it.
    """
    if graph_of(model) is None:
        raise InvalidModel(
            f"Attention is read from the graph of a Sequential or functional model; {model.name!r} is a "
            f"{type(model).__name__}. Give it a functional model."
        )
    parts = [_maps(model, x[start : start + _BATCH]) for start in range(0, len(x), _BATCH)]
    if not parts[0]:
        raise InvalidModel(f"{model.name!r} has no attention layer, so it has no attention to show.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _maps(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    maps: dict[str, np.ndarray] = {}

    def visit(operation: Any, args: tuple, kwargs: dict, outputs: Any) -> Any:
        if isinstance(operation, keras.Model) and graph_of(operation) is not None:
            return run_graph(graph_of(operation), args[0], visit)
        if not isinstance(operation, _KINDS):
            return operation(*args, **kwargs)
        result = operation(*args, **{**kwargs, "return_attention_scores": True})
        weights = np.asarray(result[1]).astype(np.float32)
        calls = sum(name.split(" (call")[0] == operation.name for name in maps)
        name = operation.name if not calls else f"{operation.name} (call {calls + 1})"
        maps[name] = weights if weights.ndim == 4 else weights[:, None]
        return result if kwargs.get("return_attention_scores") else result[0]

    run_graph(graph_of(model), [x], visit)
    return maps
