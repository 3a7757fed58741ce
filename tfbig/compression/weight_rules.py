"""How layers with kernels make channels of channels, and where those stand in their weights."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.internals import layers_inside
from tfbig.compression.channels import Ids, NotFollowed
from tfbig.compression.passing_rules import activated

_L = keras.layers


def _dense(site: Any) -> Ids:
    layer, read = site.layer, site.input.ids
    made = site.makes(layer.units)
    site.weight(layer.kernel, read, made, reads=0, makes=1)
    site.weight(layer.bias, made)
    site.setting("units", made)
    return activated(site, made, layer.activation)


def _convolution(site: Any) -> Ids:
    layer, read = site.layer, site.input.ids
    if layer.groups != 1:
        return _grouped_convolution(site)
    made = site.makes(layer.filters)
    sides = [None] * layer.rank
    site.weight(layer.kernel, *sides, read, made, reads=layer.rank, makes=layer.rank + 1)
    site.weight(layer.bias, made)
    site.setting("filters", made)
    return activated(site, made, layer.activation)


def _grouped_convolution(site: Any) -> Ids:
    layer, read = site.layer, site.input.ids
    made = site.makes(layer.filters)
    # Each group sees its own channels only: it goes as a whole, with what it reads and what it makes.
    first = read[:: len(read) // layer.groups]
    site.tie(read, np.repeat(first, len(read) // layer.groups))
    site.tie(made, np.repeat(first, len(made) // layer.groups))
    site.weight(layer.kernel, *[None] * (layer.rank + 1), made, makes=layer.rank + 1)
    site.weight(layer.bias, made)
    site.setting("filters", made)
    site.setting("groups", first)
    return activated(site, made, layer.activation)


def _transposed_convolution(site: Any) -> Ids:
    layer, read = site.layer, site.input.ids
    made = site.makes(layer.filters)
    sides = [None] * layer.rank
    site.weight(layer.kernel, *sides, made, read, reads=layer.rank + 1, makes=layer.rank)
    site.weight(layer.bias, made)
    site.setting("filters", made)
    return activated(site, made, layer.activation)


def _depthwise_convolution(site: Any) -> Ids:
    layer, ids = site.layer, site.input.ids
    site.weight(layer.kernel, *[None] * layer.rank, ids, None, makes=layer.rank)
    made = np.repeat(ids, layer.depth_multiplier)
    site.weight(layer.bias, made)
    return activated(site, made, layer.activation)


def _separable_convolution(site: Any) -> Ids:
    layer, read = site.layer, site.input.ids
    sides = [None] * layer.rank
    made = site.makes(layer.filters)
    between = np.repeat(read, layer.depth_multiplier)
    site.weight(layer.depthwise_kernel, *sides, read, None)
    site.weight(layer.pointwise_kernel, *sides, between, made, reads=layer.rank, makes=layer.rank + 1)
    site.weight(layer.bias, made)
    site.setting("filters", made)
    return activated(site, made, layer.activation)


def _einsum_dense(site: Any) -> Ids:
    layer, read = site.layer, site.input.ids
    inputs, kernel, outputs = (part.strip() for part in layer.equation.replace("->", ",").split(","))
    first, last = inputs[-1], outputs[-1]
    if "." in (first, last) or first not in kernel or first in outputs[:-1] or last in inputs[:-1]:
        raise NotFollowed(f"computes {layer.equation!r}, where channels cannot be followed")
    # Where the last letter stays last, each channel is only scaled and summed by itself.
    made = read if first == last else site.makes(layer.partial_output_shape[-1])
    letters = {first: read, last: made}
    roles = {} if first == last else {"reads": kernel.index(first), "makes": kernel.index(last)}
    site.weight(layer.kernel, *[letters.get(letter) for letter in kernel], **roles)
    if layer.bias is not None:
        behind = made if last in layer.bias_axes else None
        site.weight(layer.bias, *[None] * (len(layer.bias.shape) - 1), behind)
    site.setting("output_shape", made, lambda n: (*layer.partial_output_shape[:-1], n))
    return activated(site, made, layer.activation)


def _embedding(site: Any) -> Ids:
    made = site.makes(site.layer.output_dim)
    site.weight(site.layer.embeddings, None, made, makes=1)
    site.setting("output_dim", made)
    return made


def _recurrent(site: Any) -> list[Ids]:
    layer, cell = site.layer, site.layer.cell
    if layer.stateful:
        raise NotFollowed("keeps its state between batches")
    copies = _GATES[type(layer)]
    made = site.makes(layer.units)
    gates = np.tile(made, copies)
    site.weight(cell.kernel, site.input.ids, gates, reads=0, makes=1, copies=copies)
    site.weight(cell.recurrent_kernel, made, gates, reads=0, makes=1, copies=copies)
    if cell.bias is not None:
        # A GRU that resets after its product has two biases, one below the other.
        site.weight(cell.bias, *[None] * (len(cell.bias.shape) - 1), gates)
    site.setting("units", made)
    for state in site.inputs[1:]:
        site.tie(state.ids, made)
    inner = getattr(cell, "recurrent_activation", keras.activations.linear)
    activated(site, made, layer.activation, inner)
    return [made] * len(site.outputs)


def _attention(site: Any) -> list[Ids]:
    layer = site.layer
    projections = {part.name: part for part in layers_inside(layer)}
    output = projections["attention_output"]
    if len(output.kernel.shape) != 3:
        raise NotFollowed("gives an output of several axes")
    named = site.named
    query, value = named["query"].ids, named["value"].ids
    key = named["key"].ids if named.get("key") is not None else value
    heads = site.makes(layer.num_heads, "/heads")
    made = site.makes(output.kernel.shape[-1])
    for name, read in (("query", query), ("key", key), ("value", value), ("gate", query)):
        if name in projections:
            kernel, bias = projections[name].kernel, projections[name].bias
            site.weight(kernel, read, heads, None, reads=0, makes=1, part="/heads")
            site.weight(bias, heads, None, part="/heads")
    site.weight(output.kernel, heads, None, made, reads=0, makes=2)
    site.weight(output.bias, made)
    site.setting("num_heads", heads)
    # Keras takes the query's width by default, which may be cut otherwise.
    site.setting("output_shape", made, lambda n: (n,))
    for mask in (named.get(name) for name in named if name.endswith("_mask")):
        if hasattr(mask, "ids"):
            site.lock(mask.ids, "takes it for a mask")
    if len(site.outputs) == 1:
        return [made]
    site.lock(heads, "gives out the scores of each head")
    return [made, site.fixed(site.outputs[1])]


_GATES = {_L.LSTM: 4, _L.GRU: 3, _L.SimpleRNN: 1}
RULES: dict[type, Callable[[Any], Any]] = {
    _L.Dense: _dense,
    **dict.fromkeys((_L.Conv1D, _L.Conv2D, _L.Conv3D), _convolution),
    **dict.fromkeys((_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose), _transposed_convolution),
    **dict.fromkeys((_L.DepthwiseConv1D, _L.DepthwiseConv2D), _depthwise_convolution),
    **dict.fromkeys((_L.SeparableConv1D, _L.SeparableConv2D), _separable_convolution),
    _L.EinsumDense: _einsum_dense,
    _L.Embedding: _embedding,
    **dict.fromkeys(_GATES, _recurrent),
    _L.MultiHeadAttention: _attention,
}
