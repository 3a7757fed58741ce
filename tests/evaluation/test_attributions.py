"""The axioms of integrated gradients, and what saliency, occlusion and permutation say of models that are known."""

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.errors import InvalidModel
from tfbig.evaluation.attributions import Gradients, integrals, quadrature

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(12, 4)).astype(np.float32)
WEIGHTS = np.array([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0], [-1.5, 1.0]], np.float32)
TOKENS = GENERATOR.integers(1, 10, (6, 8))
# float32 gradients against float64 arithmetic.
SAME = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def linear():
    inputs = keras.Input((4,))
    layer = keras.layers.Dense(2)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([WEIGHTS, np.array([0.3, -0.3], np.float32)])
    return model


def language(**options):
    options = {"vocabulary": 10, "depth": 1, "width": 8, "heads": 2, **options}
    return tfbig.models.transformer((8,), 3, **options)


MODELS = {
    "mlp": lambda: (tfbig.models.mlp((4,), 3, hidden=(32, 32)), X),
    "gelu": lambda: (tfbig.models.mlp((4,), 3, hidden=(16,), activation="gelu"), X),
    "cnn": lambda: (tfbig.models.cnn((8, 8, 1), 3), GENERATOR.random((4, 8, 8, 1)).astype(np.float32)),
    "lstm": lambda: (tfbig.models.rnn((6, 3), 2), GENERATOR.normal(size=(4, 6, 3)).astype(np.float32)),
    "patches": lambda: (
        tfbig.models.transformer((8, 8, 1), 3, patch_size=4, depth=1, width=8, heads=2),
        GENERATOR.random((4, 8, 8, 1)).astype(np.float32),
    ),
    "tokens": lambda: (language(), TOKENS),
    "padded tokens": lambda: (language(padding=0), np.where(np.arange(8) < 5, TOKENS, 0)),
    "subclass": lambda: (Own(), X),
}


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(2)

    def call(self, inputs):
        return self.outer(self.inner(inputs))


@pytest.mark.parametrize("name", MODELS)
def test_values_add_up_to_the_change_of_the_output(name):
    model, x = MODELS[name]()
    result = tfbig.explain(
        model, x, method="integrated_gradients", target=1, baseline=3 if "tokens" in name else 0.1
    )
    sums = result.values.reshape(len(x), -1).sum(axis=1)
    # Token 3 everywhere but where there is padding.
    empty = np.where(x == 0, 0, 3) if "tokens" in name else np.full_like(x, 0.1)
    change = (np.asarray(model(x)) - np.asarray(model(empty)))[:, 1]
    assert np.abs(change).min() > 1e-4
    np.testing.assert_allclose(sums, change, rtol=0.01)
    assert result.gaps.max() <= 0.01
    assert result.gaps == pytest.approx(np.abs(sums - change) / np.abs(change), abs=2e-3)


def test_values_add_up_for_a_trained_network(digits, digits_model):
    result = tfbig.explain(digits_model, digits.x_test[:20], method="integrated_gradients")
    logits = np.asarray(digits_model(digits.x_test[:20])).max(axis=1)
    black = np.asarray(digits_model(np.zeros((1, 8, 8, 1), np.float32)))[0][result.target]
    np.testing.assert_allclose(result.values.sum(axis=(1, 2, 3)), logits - black, rtol=0.01)


def test_few_steps_are_made_more_until_they_do():
    model = tfbig.models.mlp((4,), 1, task="regression", hidden=(64, 64))
    refined = tfbig.explain(model, X * 5, method="integrated_gradients", steps=2, baseline=0.5)
    # Two gradients on a line with many bends are off by more than 1%.
    values = integrals(Gradients(model, np.full(4, 0.5)), X * 5, refined.target, steps=2)
    change = (np.asarray(model(X * 5)) - np.asarray(model(np.full((1, 4), 0.5))))[:, 0]
    unrefined = np.abs(values.sum(axis=1) - change) / np.abs(change)
    assert unrefined.max() > 0.02
    assert refined.gaps.max() < unrefined.max() / 2


@pytest.mark.parametrize("steps", [1, 2, 8, 20, 64])
def test_the_line_is_measured_exactly(steps):
    places, weights = quadrature(steps)
    assert len(places) >= steps
    assert 0 < places.min() < places.max() < 1 or steps == 1
    assert weights.sum() == pytest.approx(1)
    assert weights @ places == pytest.approx(1 / 2)
    assert steps == 1 or weights @ places**3 == pytest.approx(1 / 4)


def test_a_linear_model_gives_each_feature_its_weight_times_its_distance(linear):
    baseline = np.array([0.5, -1.0, 0.0, 2.0], np.float32)
    result = tfbig.explain(linear, X, method="integrated_gradients", target=1, baseline=baseline, steps=1)
    np.testing.assert_allclose(result.values, (X - baseline) * WEIGHTS[:, 1], **SAME)


def test_a_feature_without_weight_gets_nothing(linear):
    for method in ("integrated_gradients", "saliency", "occlusion"):
        assert not tfbig.explain(linear, X, method=method, target=1).values[:, 1].any()


def test_models_that_compute_the_same_get_the_same_values():
    first = tfbig.models.mlp((4,), 2, hidden=(8,))
    second = tfbig.models.mlp((4,), 2, hidden=(8,))
    kernel, bias, last, constant = first.get_weights()
    order = np.random.default_rng(1).permutation(8)
    second.set_weights(
        [kernel[:, order] * 2, bias[order] * 2, last[order] / 2, constant]
    )  # ReLU scales along
    values = [
        tfbig.explain(model, X, method="integrated_gradients", target=0).values for model in (first, second)
    ]
    np.testing.assert_allclose(*values, **SAME)


def test_a_row_that_is_its_own_baseline_gets_nothing():
    model = tfbig.models.mlp((4,), 2, hidden=(8,))
    result = tfbig.explain(model, X[:1], method="integrated_gradients", baseline=X[0])
    assert not result.values.any()
    assert result.gaps.tolist() == [0]


def test_padding_gets_nothing():
    model, x = MODELS["padded tokens"]()
    for method in ("integrated_gradients", "saliency"):
        assert not tfbig.explain(model, x, method=method).values[:, 5:].any()


def test_what_a_row_gets_does_not_depend_on_its_neighbours():
    model, x = MODELS["cnn"]()
    together = tfbig.explain(model, x, target=0).values
    np.testing.assert_allclose(together[2:3], tfbig.explain(model, x[2:3], target=0).values, **SAME)


def test_dropout_is_off():
    model = tfbig.models.mlp((4,), 2, hidden=(8,), dropout=0.5)
    first, second = (tfbig.explain(model, X, method="saliency").values for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_saliency_is_the_size_of_the_gradient(linear):
    values = tfbig.explain(linear, X, method="saliency", target=0).values
    np.testing.assert_allclose(values, np.broadcast_to(np.abs(WEIGHTS[:, 0]), X.shape), **SAME)


def test_saliency_of_tokens_is_the_length_of_their_vectors_gradient():
    model, tokens = (
        language(),
        np.arange(1, 9)[None],
    )  # each token once: its vector's gradient is that of its step
    embedding = next(layer for layer in model.layers if isinstance(layer, keras.layers.Embedding))
    with tf.GradientTape() as tape:
        output = model(tokens)[0, 2]
    gradient = tf.convert_to_tensor(tape.gradient(output, embedding.embeddings.value)).numpy()
    values = tfbig.explain(model, tokens, method="saliency", target=2).values[0]
    np.testing.assert_allclose(values, np.linalg.norm(gradient[tokens[0]], axis=1), **SAME)


def test_half_precision_models_are_explained():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="mixed_bfloat16")(inputs))
    assert tfbig.explain(model, X, method="integrated_gradients").values.dtype == np.float64


def test_outputs_without_a_gradient_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.cast(keras.ops.argmax(inputs, axis=1, keepdims=True), "float32"))
    with pytest.raises(
        InvalidModel, match='no gradient with respect to its input; method="occlusion" needs none'
    ):
        tfbig.explain(model, X, method="saliency")


def test_tokens_that_go_into_two_embeddings_are_refused():
    inputs = keras.Input((8,), dtype="int32")
    both = [keras.layers.Embedding(10, 4)(inputs) for _ in range(2)]
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Add()(both))))
    with pytest.raises(InvalidModel, match="go into 2 embeddings; explain takes one"):
        tfbig.explain(model, TOKENS)
