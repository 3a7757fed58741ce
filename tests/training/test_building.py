import functools

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.errors import InvalidModel
from tfbig.training.building import build_model, is_builder

X, Y = np.zeros((6, 4)), np.arange(6) % 3


def small():
    return tfbig.models.mlp((4,), 3, hidden=(8,))


class Caller:
    def __call__(self):
        return small()


@pytest.mark.parametrize(
    "build",
    [small, lambda x: small(), functools.partial(small), Caller()],
    ids=["function", "lambda", "partial", "object"],
)
def test_what_can_be_called_is_a_builder(build):
    assert is_builder(build)


@pytest.mark.parametrize(
    "make",
    [small, lambda: keras.layers.Dense(3), lambda: "mlp", lambda: None],
    ids=["model", "layer", "text", "None"],
)
def test_models_layers_and_other_things_are_no_builders(make):
    assert not is_builder(make())


@pytest.mark.parametrize(
    ("builder", "expected"),
    [
        (lambda note: lambda: note(), ()),
        (lambda note: lambda x: note(x), (X,)),
        (lambda note: lambda x, y: note(x, y), (X, Y)),
        (lambda note: lambda x, /, y: note(x, y), (X, Y)),
        (lambda note: lambda x, units=8: note(x), (X,)),
        (lambda note: lambda x, *, units=8: note(x), (X,)),
        (lambda note: lambda units=8: note(), ()),
        (lambda note: lambda **options: note(), ()),
    ],
    ids=["()", "(x)", "(x, y)", "(x, /, y)", "(x, units=8)", "(x, *, units=8)", "(units=8)", "(**options)"],
)
def test_a_builder_gets_what_it_asks_for_in_order(builder, expected):
    got = []

    def note(*values):
        got.extend(values)
        return small()

    build_model(builder(note), X, Y)
    assert [id(value) for value in got] == [id(value) for value in expected]


def test_the_model_that_the_builder_returns_is_returned():
    model = small()
    assert build_model(lambda: model, X, Y) is model


def test_a_partial_with_the_rest_bound_is_a_builder():
    def build(x_train, y_train, units):
        return tfbig.models.mlp((x_train.shape[1],), 3, hidden=(units,))

    assert build_model(functools.partial(build, units=5), X, Y).layers[0].units == 5


def three(x_train, y_train, units):
    return small()


def keyword(*, units):
    return small()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            three,
            r"takes no arguments, or \(x_train\).*three asks for \(x_train, y_train, units\)\. Bind the rest",
        ),
        (keyword, r"keyword asks for \(units\)\. Bind the rest in a lambda"),
        (lambda: None, "returns a keras.Model; <lambda> returned NoneType"),
        (lambda: keras.layers.Dense(3), "returns a keras.Model; <lambda> returned Dense"),
        (lambda: small, "returns a keras.Model; <lambda> returned function"),
    ],
    ids=["three arguments", "keyword-only", "nothing", "a layer", "a function"],
)
def test_a_builder_of_another_kind_is_refused(build, message):
    with pytest.raises(InvalidModel, match=message):
        build_model(build, X, Y)


@pytest.mark.parametrize("options", [{}, {"strategy": "one"}, {"precision": "mixed_bfloat16"}], ids=str)
@pytest.mark.parametrize("data", ["arrays", "tf.data", "generator"])
def test_a_sequential_without_weights_is_built_for_the_rows(blobs, options, data):
    x, y = blobs
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(3)])
    given = {
        "arrays": (x, y),
        "tf.data": (tf.data.Dataset.from_tensor_slices((x, y)).batch(32),),
        "generator": (((x[i : i + 50], y[i : i + 50]) for i in range(0, 200, 50)),),
    }[data]
    options = dict(options)
    if "strategy" in options:
        options["strategy"] = tf.distribute.MirroredStrategy(["CPU:0"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    run = tfbig.fit(model, *given, loss=loss, epochs=1, seed=0, verbose=0, **options)
    assert model.count_params() == 4 * 4 + 4 + 4 * 3 + 3
    evaluated = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert evaluated < run.history["loss"][0]  # the weights that were trained have come back


def test_a_sequential_without_weights_gets_the_loss_of_its_task(blobs):
    model = keras.Sequential([keras.layers.Dense(3)])
    assert "accuracy" in tfbig.fit(model, *blobs, epochs=1, verbose=0).history
