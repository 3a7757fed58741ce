import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.errors import InvalidOption
from tfbig.models.heads import check_input_shape, check_task, head, head_of, kind_of_outputs, regularizer


@pytest.mark.parametrize(
    ("task", "outputs", "decided"),
    [
        (None, 2, "multiclass"),
        ("multiclass", np.int64(10), "multiclass"),
        ("binary", 1, "binary"),
        ("multilabel", 1, "multilabel"),
        ("regression", 3, "regression"),
    ],
)
def test_the_task_is_the_one_named_or_multiclass(task, outputs, decided):
    assert check_task(task, outputs) == decided


@pytest.mark.parametrize(
    ("task", "outputs", "message"),
    [
        (None, 1, 'One output may be a class or a number: pass task="binary" or task="regression"'),
        ("binary", 2, 'task="binary" has 1 output, the logit of class 1; got outputs=2'),
        ("multiclass", 1, 'task="multiclass" needs an output per class, so at least 2; got 1'),
        ("regresion", 1, r"task must be one of 'binary', .*; got 'regresion'\. Did you mean 'regression'\?"),
        ("binary", 0, "outputs must be a whole number of at least 1; got 0"),
        (None, 2.0, r"outputs must be a whole number of at least 1; got 2\.0"),
    ],
)
def test_a_task_at_odds_with_the_outputs_is_refused(task, outputs, message):
    with pytest.raises(InvalidOption, match=message):
        check_task(task, outputs)


def test_a_sequence_task_is_for_models_with_steps():
    assert check_task("sequence", 3, has_steps=True) == "sequence"
    with pytest.raises(InvalidOption, match="answers once per example. Use tfbig.models.rnn, or"):
        check_task("sequence", 3)
    with pytest.raises(InvalidOption, match='task="sequence" needs an output per class'):
        check_task("sequence", 1, has_steps=True)


@pytest.mark.parametrize(
    ("given", "shape"),
    [(4, (4,)), (np.int64(4), (4,)), ((4,), (4,)), ([8, 8], (8, 8)), (np.zeros((5, 3)).shape, (5, 3))],
)
def test_an_input_shape_becomes_a_tuple_of_ints(given, shape):
    got = check_input_shape(given, ranks=(1, 2), example="(64,)")
    assert got == shape
    assert all(type(size) is int for size in got)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((8, 8, 1), r"must have 1 or 2 axes besides the batch, such as \(64,\); got \(8, 8, 1\)"),
        ((), r"must have 1 or 2 axes besides the batch, such as \(64,\); got \(\)"),
        ((0,), "each axis of input_shape must be a whole number of at least 1; got 0"),
        ((None, 4), "each axis of input_shape must be a whole number of at least 1; got None"),
        (None, "input_shape must .*got None"),
        (3.5, r"input_shape must .*got 3\.5"),
    ],
)
def test_an_input_shape_that_makes_no_sense_is_refused(given, message):
    with pytest.raises(InvalidOption, match=message):
        check_input_shape(given, ranks=(1, 2), example="(64,)")


def test_no_penalty_needs_no_regularizer():
    assert regularizer(0, 0.0) is None


def test_a_regularizer_adds_both_penalties():
    # 0.1 · (|1| + |-2|) + 0.01 · (1² + 2²), with float32 rounding.
    assert float(regularizer(0.1, 0.01)(np.array([1.0, -2.0], np.float32))) == pytest.approx(0.35, rel=1e-6)


@pytest.mark.parametrize(("l1", "l2"), [(-0.1, 0), (0, -1)])
def test_a_negative_penalty_is_refused(l1, l2):
    with pytest.raises(InvalidOption, match=f"l1 and l2 are penalties of at least 0; got l1={l1}, l2={l2}"):
        regularizer(l1, l2)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("binary", "logits"),
        ("multiclass", "logits"),
        ("multilabel", "label_logits"),
        ("regression", "values"),
        ("sequence", "step_logits"),
    ],
)
def test_the_heads_name_says_whether_it_gives_logits_or_values(task, name):
    (layer,) = head(task, 3, l1=0, l2=0)
    assert (layer.name, layer.units, layer.activation) == (name, 3, keras.activations.linear)


def test_a_denormalizer_comes_after_the_head():
    denormalizer = keras.layers.Normalization(mean=1.0, variance=4.0, invert=True)
    layers = head("regression", 1, l1=0, l2=0, denormalizer=denormalizer)
    assert [layer.name for layer in layers] == ["values", denormalizer.name]


def test_a_denormalizer_of_a_classifier_is_refused():
    with pytest.raises(InvalidOption, match="A denormalizer .* for task=\"regression\"; got 'binary'"):
        head("binary", 1, l1=0, l2=0, denormalizer=keras.layers.Normalization(mean=1.0, variance=4.0))


def outputs_of(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


def by_operation(operation):
    x = keras.Input((4,))
    return keras.Model(x, operation(keras.layers.Dense(3, name="logits")(x)))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: outputs_of(keras.layers.Dense(3)), "linear"),
        (lambda: outputs_of(keras.layers.Dense(3, activation="softmax")), "probabilities"),
        (lambda: outputs_of(keras.layers.Dense(1), keras.layers.Activation("sigmoid")), "probabilities"),
        (lambda: outputs_of(keras.layers.Dense(3), keras.layers.Softmax()), "probabilities"),
        (lambda: outputs_of(keras.layers.Dense(3, activation="relu")), None),
        (lambda: outputs_of(*head("multilabel", 3, l1=0, l2=0)), "logits"),
        (lambda: outputs_of(*head("regression", 3, l1=0, l2=0), keras.layers.Rescaling(2.0)), "values"),
        (lambda: outputs_of(outputs_of(keras.layers.Dense(3, activation="softmax"))), "probabilities"),
        (lambda: by_operation(keras.ops.sigmoid), "probabilities"),
        (lambda: by_operation(lambda logits: logits / 2), "logits"),
    ],
    ids=[
        "linear",
        "softmax",
        "activation",
        "layer",
        "relu",
        "logits",
        "values",
        "nested",
        "sigmoid",
        "divided",
    ],
)
def test_what_a_models_outputs_are_shows_in_its_head(make, kind):
    assert kind_of_outputs(head_of(make())) == kind


def test_strictly_the_head_is_what_comes_last():
    assert kind_of_outputs(head_of(by_operation(lambda logits: logits / 2), strict=True)) is None
    assert kind_of_outputs(head_of(by_operation(keras.ops.softmax), strict=True)) == "probabilities"
