"""How channels pass layers that make none: activations, pooling, normalization, and changes of shape."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.compression.channels import Ids, NotFollowed
from tfbig.models.step_layers import AverageOfSteps, Positions

_L = keras.layers

# Functions of each value alone. Softmax and its like look at all channels, glu halves them.
_OF_EACH_VALUE = {
    getattr(keras.activations, name)
    for name in (
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh"),
        *("leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu"),
        *("soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh"),
        *("tanh_shrink", "threshold"),
    )
}
_ACTIVATION_LAYERS = (_L.ReLU, _L.LeakyReLU, _L.ELU)


def activated(site: Any, ids: Ids, *activations: Any) -> Ids:
    """Returns the channels behind activations; those that look at all channels at once keep all of them."""
    for activation in activations:
        if activation not in _OF_EACH_VALUE and type(activation) not in _ACTIVATION_LAYERS:
            name = getattr(activation, "__name__", type(activation).__name__)
            site.lock(ids, f"may look at all channels together (activation {name})")
    return ids


def _same(site: Any) -> Ids:
    return site.input.ids


def _activation(site: Any) -> Ids:
    return activated(site, site.input.ids, site.layer.activation)


def _softmax(site: Any) -> Ids:
    return _unless_over_channels(site, "divides by a sum over all channels")


def _prelu(site: Any) -> Ids:
    ids, alpha = site.input.ids, site.layer.alpha
    per_channel = ids if alpha.shape[-1] == len(ids) else None
    site.weight(alpha, *[None] * (len(alpha.shape) - 1), per_channel)
    return ids


def _batch_normalization(site: Any) -> Ids:
    layer, ids = site.layer, site.input.ids
    if layer.axis not in (-1, len(site.input.shape) - 1):
        raise NotFollowed("does not normalize along the last axis")
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        site.weight(getattr(layer, name, None), ids)
    return ids


def _group_normalization(site: Any) -> Ids:
    layer, ids = site.layer, site.input.ids
    if layer.axis not in (-1, len(site.input.shape) - 1):
        raise NotFollowed("does not normalize along the last axis")
    size = len(ids) // layer.groups
    # Statistics are of one group each: whole groups can go, and the others do not notice.
    site.tie(ids, np.repeat(ids[::size], size))
    site.weight(layer.gamma, ids)
    site.weight(layer.beta, ids)
    site.setting("groups", ids[::size])
    return ids


def _layer_normalization(site: Any) -> Ids:
    return _unless_over_channels(site, "takes its statistics over all channels")


def _unless_over_channels(site: Any, why: str) -> Ids:
    axis = getattr(site.layer, "axis", -1)
    axes = axis if isinstance(axis, list | tuple) else [axis]
    over_channels = any(one in (-1, len(site.input.shape) - 1) for one in axes)
    return site.lock(site.input.ids, why) if over_channels else site.input.ids


def _normalization(site: Any) -> Ids:
    return site.lock(site.input.ids, "holds statistics of each channel")


def _rescaling(site: Any) -> Ids:
    if np.ndim(site.layer.scale) or np.ndim(site.layer.offset):
        return site.lock(site.input.ids, "holds a scale of each channel")
    return site.input.ids


def _masking(site: Any) -> Ids:
    return site.lock(site.input.ids, "masks steps by the values of all channels")


def _flatten(site: Any) -> Ids:
    sides = site.input.shape[1:-1]
    if None in sides:
        raise NotFollowed("flattens an axis of unknown length")
    # Channels are the last axis, so they stand in a row at every position.
    return np.tile(site.input.ids, int(np.prod(sides)))


def _reshape(site: Any) -> Ids:
    ids, count = site.input.ids, site.outputs[0][-1]
    if not count or not len(ids) or (count % len(ids) and len(ids) % count):
        raise NotFollowed("mixes channels with other axes")
    if count >= len(ids):
        ids = np.tile(ids, count // len(ids))
    else:
        # A long axis is broken into rows: what comes to stand in one column is one channel.
        rows = ids.reshape(-1, count)
        for row in rows[1:]:
            site.tie(rows[0], row)
        ids = rows[0]
    site.setting("target_shape", ids, lambda n: (*site.layer.target_shape[:-1], n))
    return ids


def _positions(site: Any) -> Ids:
    if site.layer.kind != "learned":
        return site.lock(site.input.ids, "computes a wave for each channel from how many there are")
    site.weight(site.layer.table, None, site.input.ids)
    return site.input.ids


def _permute(site: Any) -> Ids:
    if site.layer.dims[-1] != len(site.input.shape) - 1:
        raise NotFollowed("moves the channels to another axis")
    return site.input.ids


_SAME = (
    *(_L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.AlphaDropout),
    *(_L.GaussianDropout, _L.GaussianNoise, _L.ActivityRegularization, _L.Identity, *_ACTIVATION_LAYERS),
    *(_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D, _L.Cropping1D, _L.Cropping2D, _L.Cropping3D),
    *(_L.UpSampling1D, _L.UpSampling2D, _L.UpSampling3D, _L.Resizing, _L.RepeatVector),
    *(_L.MaxPooling1D, _L.MaxPooling2D, _L.MaxPooling3D),
    *(_L.AveragePooling1D, _L.AveragePooling2D, _L.AveragePooling3D),
    *(_L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.GlobalMaxPooling3D),
    *(_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D),
    AverageOfSteps,
)
RULES: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys(_SAME, _same),
    _L.Activation: _activation,
    _L.Softmax: _softmax,
    _L.PReLU: _prelu,
    _L.BatchNormalization: _batch_normalization,
    _L.GroupNormalization: _group_normalization,
    _L.LayerNormalization: _layer_normalization,
    _L.RMSNormalization: _layer_normalization,
    _L.UnitNormalization: _layer_normalization,
    _L.Normalization: _normalization,
    _L.Rescaling: _rescaling,
    _L.Masking: _masking,
    _L.Flatten: _flatten,
    _L.Reshape: _reshape,
    _L.Permute: _permute,
    Positions: _positions,
}
