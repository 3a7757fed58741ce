import concurrent.futures
import random

import numpy as np
import pytest

from tfbig.backend import keras, tf
from tfbig.backend.internals import keras_seed_state
from tfbig.backend.seeds import reseed, seeded

STREAMS = {
    "python": random.random,
    "numpy": lambda: float(np.random.random()),
    "tensorflow": lambda: float(tf.random.uniform([])),
    "keras": lambda: float(keras.random.uniform([])),
}


@pytest.fixture(autouse=True)
def generators_put_back():
    python, numpy = random.getstate(), np.random.get_state()
    with keras_seed_state():
        yield
    random.setstate(python)
    np.random.set_state(numpy)
    tf.random.set_seed(None)


def some_work(seed, error=None):
    with seeded(seed):
        for draw in STREAMS.values():
            draw()
            draw()
        if error is not None:
            raise error


@pytest.mark.parametrize("draw", STREAMS.values(), ids=STREAMS)
def test_the_same_seed_gives_the_same_stream_inside_and_another_seed_another(draw):
    streams = []
    for seed in (3, 3, 4):
        with seeded(seed):
            streams.append([draw(), draw()])
    assert streams[0] == streams[1]
    assert streams[0] != streams[2]


@pytest.mark.parametrize("error", [None, ZeroDivisionError("inside")], ids=["ends", "raises"])
@pytest.mark.parametrize("draw", STREAMS.values(), ids=STREAMS)
def test_a_stream_that_the_user_had_seeded_continues_as_if_the_block_had_not_been(draw, error):
    keras.utils.set_random_seed(11)
    undisturbed = [draw() for _ in range(4)]
    keras.utils.set_random_seed(11)
    disturbed = [draw(), draw()]
    try:
        some_work(7, error)
    except ZeroDivisionError:
        assert error is not None
    disturbed += [draw(), draw()]
    assert disturbed == undisturbed


def test_an_error_inside_reaches_the_caller():
    with pytest.raises(ZeroDivisionError, match="inside"):
        some_work(7, ZeroDivisionError("inside"))


@pytest.mark.parametrize("draw", STREAMS.values(), ids=STREAMS)
def test_no_seed_leaves_every_generator_alone(draw):
    keras.utils.set_random_seed(11)
    undisturbed = [draw() for _ in range(3)]
    keras.utils.set_random_seed(11)
    with seeded(None):
        inside = [draw(), draw()]
    assert [*inside, draw()] == undisturbed


@pytest.mark.parametrize("draw", STREAMS.values(), ids=STREAMS)
def test_a_block_inside_a_block_does_not_disturb_the_outer_one(draw):
    with seeded(3):
        undisturbed = [draw(), draw()]
    with seeded(3):
        disturbed = [draw()]
        some_work(3)
        disturbed.append(draw())
    assert disturbed == undisturbed


def dropout_model():
    layers = [keras.Input((64,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5, name="second")]
    return keras.Sequential(layers)


def dropped(model):
    return model(np.ones((1, 64), np.float32), training=True).numpy().tolist()


def test_reseed_restarts_dropout():
    model = dropout_model()
    reseed(model, 5)
    first = [dropped(model), dropped(model)]
    reseed(model, 5)
    assert [dropped(model), dropped(model)] == first


def test_reseed_with_another_seed_gives_other_dropout():
    model = dropout_model()
    reseed(model, 5)
    first = dropped(model)
    reseed(model, 6)
    assert dropped(model) != first


def test_reseed_gives_two_models_the_same_dropout_however_they_were_made():
    masks = []
    for seed in (1, 2):
        with seeded(seed):
            model = dropout_model()
        reseed(model, 5)
        masks.append(dropped(model))
    assert masks[0] == masks[1]


def test_reseed_gives_each_layer_its_own_seed():
    model = dropout_model()
    reseed(model, 5)
    one, two = (layer.seed_generator.state.numpy().tolist() for layer in model.layers)
    assert one != two


def test_reseed_with_no_seed_changes_nothing():
    model = dropout_model()
    before = [variable.numpy().tolist() for variable in model.non_trainable_variables]
    reseed(model, None)
    assert [variable.numpy().tolist() for variable in model.non_trainable_variables] == before


def test_in_a_thread_the_seeds_of_layers_are_the_same_whatever_other_threads_draw():
    def first_weights():
        with seeded(5):
            random.random()  # somebody else's draw
            return keras.layers.Dense(3).kernel_initializer((2, 3)).numpy()

    with seeded(5):
        expected = keras.layers.Dense(3).kernel_initializer((2, 3)).numpy()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        np.testing.assert_array_equal(threads.submit(first_weights).result(), expected)
