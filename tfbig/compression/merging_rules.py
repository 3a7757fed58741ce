"""How channels of several tensors come together: added, compared, concatenated."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.compression.channels import Ids, NotFollowed

_L = keras.layers


def elementwise(site: Any) -> Ids:
    """Ties the channels that meet; one tensor goes through as it is."""
    shapes = [wire.shape for wire in site.inputs]
    if len({len(shape) for shape in shapes}) > 1:
        raise NotFollowed(f"joins tensors of shapes {shapes}")
    wide = max(site.inputs, key=lambda wire: len(wire.ids)).ids
    for wire in site.inputs:
        # One channel beside many is spread over all of them, and is theirs none the less.
        if len(wire.ids) > 1 or len(wide) == 1:
            site.tie(wire.ids, wide)
    return wide


def concatenate(site: Any) -> Ids:
    """Puts the channels one after the other, or ties them where another axis grows."""
    ids = [wire.ids for wire in site.inputs]
    if site.layer.axis in (-1, len(site.input.shape) - 1):
        return np.concatenate(ids)
    for other in ids[1:]:
        site.tie(ids[0], other)
    return ids[0]


RULES: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum), elementwise),
    _L.Concatenate: concatenate,
}
