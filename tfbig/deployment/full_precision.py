"""Models of other precisions as float32 models, which is what LiteRT computes."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tfbig.backend import keras
from tfbig.backend.autocast import variables_read_as
from tfbig.backend.internals import every_layer
from tfbig.deployment.integer_forms import calls, looked_up_in
from tfbig.deployment.modes import MODES

# The mode whose files round as coarsely as the precision does: 11 bits of each number, and 8.
_AS_COARSE = {"float16": "float16", "bfloat16": "dynamic"}


@contextlib.contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Lets all layers compute in float32 in the block, whatever their dtype policy.

    LiteRT has no convolution in float16 or bfloat16 and nothing in float64. The weights of mixed precision are float32
    already. What a model says itself, as `keras.ops.cast(x, "float16")`, stays.

    Args:
        model: A built Keras model. It is left as found.
    """
    others = [layer for layer in every_layer(model) if _is_other_float(layer)]
    before = [_policy(layer) for layer in others]
    with contextlib.ExitStack() as stack:
        for layer, policy in zip(others, before, strict=True):
            stack.callback(setattr, layer, "dtype_policy", policy)
            layer.dtype_policy = keras.DTypePolicy("float32")
            if type(layer) is keras.layers.Embedding and policy.variable_dtype != "float32":
                # Keras's own would read rows of the variable as it is.
                stack.enter_context(calls(layer, looked_up_in(layer)))
        if others:
            stack.enter_context(variables_read_as("float32"))
        yield


def own_tolerance(model: Any) -> float:
    """Returns by what share of its outputs' range a model's own answers may differ from those of float32 arithmetic."""
    coarse = [
        _AS_COARSE[layer.compute_dtype] for layer in every_layer(model) if layer.compute_dtype in _AS_COARSE
    ]
    return max((MODES[mode].tolerance for mode in coarse), default=0.0)


def _is_other_float(layer: Any) -> bool:
    return layer.compute_dtype in ("float16", "bfloat16", "float64") and not _policy(layer).quantization_mode


def _policy(layer: Any) -> Any:
    policy = layer.dtype_policy
    return policy[layer.path] if isinstance(policy, keras.dtype_policies.DTypePolicyMap) else policy
