"""Fails loudly when Keras moves the two functions that `tfbig.backend.hidden_scores` stands in for."""

import importlib

import keras
import numpy as np
import pytest

from tfbig.backend.hidden_scores import bounded_hidden_scores
from tfbig.backend.keras_functions import PLACES

_PLACES = [PLACES["hidden score of attention"], PLACES["hidden score of softmax"]]
SEEN = np.array([[True, True, False]])


def lowest_score_of_a_softmax_layer(monkeypatch):
    """What the layer gives to the softmax proper."""
    module, given = importlib.import_module(_PLACES[1][0]), []
    softmax = module.activations.softmax
    with monkeypatch.context() as patch:
        patch.setattr(
            module.activations, "softmax", lambda x, axis=-1: given.append(x) or softmax(x, axis=axis)
        )
        keras.layers.Softmax()(np.ones((1, 3), "float32"), mask=SEEN)
    return float(np.min(given[0]))


def lowest_score_of_attention():
    """What `keras.ops.dot_product_attention` gives to its softmax."""
    module = importlib.import_module(_PLACES[0][0])
    return float(np.min(module._apply_masks(np.ones((1, 3), "float32"), SEEN, False)))


def test_hidden_steps_get_the_small_score_inside_only(monkeypatch):
    with bounded_hidden_scores():
        assert lowest_score_of_a_softmax_layer(monkeypatch) == -20
        assert lowest_score_of_attention() == -20
    assert lowest_score_of_a_softmax_layer(monkeypatch) < -1e8
    assert lowest_score_of_attention() < -1e38


def test_attention_gives_the_same_inside():
    layer = keras.layers.MultiHeadAttention(2, 4)
    x = keras.random.normal((2, 5, 6), seed=0)
    outside = layer(x, x, use_causal_mask=True)
    with bounded_hidden_scores():
        assert np.allclose(layer(x, x, use_causal_mask=True), outside, atol=1e-6)  # exp(-20) is 2e-9


def test_the_places_are_where_keras_has_them_and_are_put_back():
    places = [(importlib.import_module(module), name) for module, name in _PLACES]
    before = [getattr(module, name) for module, name in places]
    with pytest.raises(ZeroDivisionError), bounded_hidden_scores():
        assert all(getattr(module, name)("float32") == -20 for module, name in places)
        1 / 0  # noqa: B018
    assert [getattr(module, name) for module, name in places] == before
