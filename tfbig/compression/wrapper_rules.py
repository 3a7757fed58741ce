"""How channels pass layers that hold other layers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of
from tfbig.compression.channels import Ids, NotFollowed, Wire

_L = keras.layers
_RECURRENT = (_L.LSTM, _L.GRU, _L.SimpleRNN)


def _time_distributed(site: Any) -> Ids:
    layer, whole = site.layer.layer, site.input
    if graph_of(layer) is not None or isinstance(layer, keras.Model):
        raise NotFollowed("holds a whole model")
    step = Wire(whole.ids, (whole.shape[0], *whole.shape[2:]))
    output = (site.outputs[0][0], *site.outputs[0][2:])
    return site.inside(layer, [step], output, ("layer", "config"))[0]


def _bidirectional(site: Any) -> Ids | list[Ids]:
    layer = site.layer
    directions = (layer.forward_layer, layer.backward_layer)
    if len(site.inputs) != 1 or any(type(one) not in _RECURRENT for one in directions):
        raise NotFollowed("is given its state, or holds no LSTM, GRU or SimpleRNN")
    forward, backward = (
        site.inside(one, [site.input], (None, one.units), (place, "config"))[0]
        for one, place in zip(directions, ("layer", "backward_layer"), strict=True)
    )
    if layer.merge_mode == "concat":
        merged = [np.concatenate([forward, backward])]
    elif layer.merge_mode is None:
        merged = [forward, backward]
    else:
        site.tie(forward, backward)
        merged = [forward]
    states = (len(site.outputs) - len(merged)) // 2
    return [*merged, *[forward] * states, *[backward] * states]


RULES: dict[type, Callable[[Any], Any]] = {
    _L.TimeDistributed: _time_distributed,
    _L.Bidirectional: _bidirectional,
}
