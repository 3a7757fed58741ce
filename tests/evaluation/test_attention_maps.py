import numpy as np
import pytest

import tfbig
from tfbig.backend import keras

GENERATOR = np.random.default_rng(0)
TOKENS = GENERATOR.integers(1, 10, (70, 6))


def transformer(**options):
    options = {"vocabulary": 10, "depth": 2, "width": 8, "heads": 2, **options}
    return tfbig.models.transformer((6,), options.pop("outputs", 3), **options)


def test_every_layer_has_a_map_per_row_and_head():
    result = tfbig.explain(transformer(), TOKENS, method="attention")
    assert list(result.maps) == ["block_1_attention", "block_2_attention"]
    assert all(weights.shape == (70, 2, 6, 6) for weights in result.maps.values())
    np.testing.assert_allclose(result.values, result.maps["block_2_attention"].mean(axis=1))


def test_what_a_query_gives_adds_up_to_1():
    result = tfbig.explain(transformer(), TOKENS[:5], method="attention")
    for weights in result.maps.values():
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)


def test_the_weights_are_those_of_the_formula():
    model = transformer(depth=1)
    layer = model.get_layer("block_1_attention")
    inside = keras.Model(model.inputs[0], layer.input[0] if isinstance(layer.input, list) else layer.input)
    normalized = np.asarray(inside(TOKENS[:3]))
    query, key = (
        np.einsum("bsw,whd->bshd", normalized, np.asarray(dense.kernel)) + np.asarray(dense.bias)
        for dense in (layer.query_dense, layer.key_dense)
    )
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(4)
    expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    found = tfbig.explain(model, TOKENS[:3], method="attention").maps["block_1_attention"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_causal_model_looks_back_only():
    model = transformer(outputs=10, task="sequence", causal=True)
    for weights in tfbig.explain(model, TOKENS[:4], method="attention").maps.values():
        assert not np.triu(weights, k=1).any()


def test_padding_is_not_looked_at():
    padded = np.where(np.arange(6) < 4, TOKENS[:4], 0)
    for weights in tfbig.explain(transformer(padding=0), padded, method="attention").maps.values():
        assert not weights[..., :4, 4:].any()


def test_patches_of_an_image_look_at_each_other():
    model = tfbig.models.transformer((8, 8, 1), 3, patch_size=4, depth=1, width=8, heads=2)
    images = GENERATOR.random((2, 8, 8, 1)).astype(np.float32)
    assert tfbig.explain(model, images, method="attention").values.shape == (2, 4, 4)


def test_the_model_is_left_as_it_was():
    model = transformer()
    before = np.asarray(model(TOKENS[:3]))
    tfbig.explain(model, TOKENS[:3], method="attention")
    tfbig.explain(model, TOKENS[:3])
    np.testing.assert_array_equal(np.asarray(model(TOKENS[:3])), before)
    assert len(model.layers) == len(transformer().layers)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.Attention(name="look"),
        lambda: keras.layers.AdditiveAttention(name="look"),
        lambda: keras.layers.GroupQueryAttention(4, 4, 2, name="look"),
    ],
    ids=["Attention", "AdditiveAttention", "GroupQueryAttention"],
)
def test_other_attention_layers_are_read_too(layer):
    inputs = keras.Input((6, 8))
    made = layer()
    result = made([inputs, inputs]) if "Group" not in type(made).__name__ else made(inputs, inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(result))
    x = GENERATOR.normal(size=(3, 6, 8)).astype(np.float32)
    weights = tfbig.explain(model, x, method="attention").maps["look"]
    assert weights.shape in ((3, 1, 6, 6), (3, 4, 6, 6))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)


def test_layers_inside_a_nested_model_and_called_again_are_read():
    inner_inputs = keras.Input((6, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, name="look")
    inner = keras.Model(inner_inputs, attention(attention(inner_inputs, inner_inputs), inner_inputs))
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, keras.layers.Flatten()(inner(inputs)))
    x = GENERATOR.normal(size=(3, 6, 8)).astype(np.float32)
    assert list(tfbig.explain(model, x, method="attention").maps) == ["look", "look (call 2)"]
