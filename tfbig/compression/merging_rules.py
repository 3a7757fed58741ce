"""How channels of several tensors come together: added, compared, concatenated; by layers or by operators."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.compression.channels import Ids, NotFollowed

_L = keras.layers


def _elementwise(site: Any) -> Ids:
    shapes = [wire.shape for wire in site.inputs]
    if len({len(shape) for shape in shapes}) > 1:
        raise NotFollowed(f"joins tensors of shapes {shapes}")
    wide = max(site.inputs, key=lambda wire: len(wire.ids)).ids
    for wire in site.inputs:
        # One channel beside many is spread over all of them, and is theirs none the less.
        if len(wire.ids) > 1 or len(wide) == 1:
            site.tie(wire.ids, wide)
    return wide


def _concatenate(site: Any) -> Ids:
    ids = [wire.ids for wire in site.inputs]
    if site.layer.axis in (-1, len(site.input.shape) - 1):
        return np.concatenate(ids)
    for other in ids[1:]:
        site.tie(ids[0], other)
    return ids[0]


def _indexed(site: Any) -> Ids:
    key = site.args[1] if len(site.args) > 1 else None
    key = tuple(key) if isinstance(key, list | tuple) else (key,)
    rank = len(site.input.shape)
    plain = all(isinstance(part, int | slice) for part in key)
    # x[:, -1] and x[:, -1, :] leave the last axis as it is.
    if not plain or len(key) > rank or (len(key) == rank and key[-1] != slice(None)):
        raise NotFollowed("picks among the channels")
    return site.input.ids


RULES: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum), _elementwise),
    _L.Concatenate: _concatenate,
}
# What Python's operators and `keras.ops` leave in a functional model, by name.
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("Add", "Subtract", "Multiply", "TrueDivide", "Maximum", "Minimum"), _elementwise),
    **dict.fromkeys(("Negative", "Absolute", "Square", "Exp", "Tanh"), _elementwise),
    **dict.fromkeys(("Relu", "Relu6", "Sigmoid", "Silu", "Softplus", "Elu", "HardSwish"), _elementwise),
    "GetItem": _indexed,
}
