import keras
import numpy as np
import pytest

from tfbig.layers.attending import HiddenScores, Remasked

L = keras.layers


def test_scores_are_hidden_where_any_mask_says_so():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(2, 3, 4, 5)).astype("float32")
    query, value = np.zeros((2, 4, 1)), np.zeros((2, 5, 1))
    seen = {
        "attention_mask": generator.random((2, 4, 5)) < 0.7,
        "query_mask": generator.random((2, 4)) < 0.7,
        "value_mask": generator.random((2, 5)) < 0.7,
        "key_mask": generator.random((2, 5)) < 0.7,
    }
    together = seen["attention_mask"] & seen["query_mask"][:, :, None]
    together &= (seen["value_mask"] & seen["key_mask"])[:, None] & np.tri(4, 5, dtype=bool)
    got = np.asarray(HiddenScores(causal=True)(scores, query, value, **seen))
    assert np.array_equal(got, np.where(together[:, None], scores, -20))
    assert np.array_equal(HiddenScores()(scores, query, value), scores)


def test_masks_of_heads_may_differ():
    scores = np.zeros((2, 3, 4, 4), "float32")
    seen = np.random.default_rng(0).random((2, 3, 4, 4)) < 0.5
    got = HiddenScores()(scores, scores[:, 0], scores[:, 0], attention_mask=seen)
    assert np.array_equal(got == 0, seen)


@pytest.mark.filterwarnings("error")
def test_a_mask_is_taken_off_and_put_on():
    tokens = np.array([[1, 2, 0], [3, 0, 0]])
    masked = L.Embedding(4, 2, mask_zero=True)(tokens)
    bare = Remasked()([masked])
    again = Remasked()([L.Reshape((3, 2))(bare), masked])
    assert getattr(bare, "_keras_mask", None) is None
    assert np.array_equal(again._keras_mask, tokens > 0)
    assert np.array_equal(again, masked)
