import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidModel
from tfbig.evaluation.predicting import outputs_of


class Given:
    def __init__(self, outputs):
        self.outputs = outputs

    def predict(self, x):
        return self.outputs


def rows(count):
    return np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)


def small(outputs=3, **options):
    return tfbig.models.mlp((4,), outputs, hidden=(8,), **options)


@pytest.mark.parametrize("count", [1, 128, 129, 4096, 4097])
def test_outputs_of_a_keras_model_are_those_of_predict(count):
    model, x = small(), rows(count)
    # Batches of other sizes round float32 sums in another order.
    np.testing.assert_allclose(outputs_of(model, x), model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [100, 4097])
def test_a_keras_model_predicts_as_it_does_in_use(count):
    model, x = small(dropout=0.5), rows(count)
    np.testing.assert_array_equal(outputs_of(model, x), outputs_of(model, x))


def test_a_keras_models_weights_stay_as_they_are():
    model = small(batch_norm=True)
    before = [np.copy(weight) for weight in model.get_weights()]
    outputs_of(model, rows(10))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    "outputs", [np.ones(3), np.ones((3, 2)), [[1.0], [2.0], [3.0]]], ids=["row", "rows", "list"]
)
def test_outputs_of_an_object_are_what_its_predict_gives(outputs):
    np.testing.assert_array_equal(outputs_of(Given(outputs), rows(3)), outputs)


def test_labels_of_an_objects_predict_become_floats():
    assert outputs_of(Given(np.array([0, 1, 2])), rows(3)).dtype.kind == "f"


def test_bfloat16_outputs_become_floats():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="mixed_bfloat16")])
    assert outputs_of(model, rows(3)).dtype.kind == "f"


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        (np.ones((3, 2, 2, 2)), r"float64 values of shape \(3, 2, 2, 2\)"),
        (np.ones((2, 3)), r"float64 values of shape \(2, 3\)"),
        (np.float64(1), r"float64 values of shape \(\)"),
        (np.array(["cat", "dog", "cat"]), r"<U3 values of shape \(3,\)"),
        ({"a": np.ones(3)}, r"object values of shape \(\)"),
        (None, r"object values of shape \(\)"),
        ([np.ones((3, 1)), np.ones((3, 2))], "Expected outputs of shape"),
    ],
    ids=["four axes", "other rows", "a number", "text", "a dict", "None", "two outputs"],
)
def test_outputs_of_another_form_are_refused(outputs, got):
    with pytest.raises(InvalidModel, match=got):
        outputs_of(Given(outputs), rows(3))


def several_outputs(form):
    x = keras.Input((4,))
    return keras.Model(x, form(keras.layers.Dense(2)(x), keras.layers.Dense(3)(x)))


@pytest.mark.parametrize(
    "form", [lambda a, b: [a, b], lambda a, b: {"a": a, "b": b}], ids=["list of outputs", "dict of outputs"]
)
def test_a_keras_model_of_several_outputs_is_refused(form):
    with pytest.raises(InvalidModel, match=r"Expected outputs of shape \(rows,\) or \(rows, outputs\)"):
        outputs_of(several_outputs(form), rows(3))


@pytest.mark.parametrize("model", ["mlp", None, lambda x: x], ids=["text", "None", "function"])
def test_what_has_no_predict_is_refused(model):
    with pytest.raises(InvalidModel, match=f"Expected a model with predict; got {type(model).__name__}"):
        outputs_of(model, rows(3))
