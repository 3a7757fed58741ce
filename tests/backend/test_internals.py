"""Fails loudly when TensorFlow or Keras moves a private name that tfbig.backend.internals relies on."""

import pytest
from keras.src.backend.common import global_state
from tensorflow.python.eager import context

from tfbig.backend import internals, keras, tf
from tfbig.backend.internals import keras_seed_state, tensorflow_seed_state


@pytest.fixture(autouse=True)
def seeds_put_back():
    with keras_seed_state(), tensorflow_seed_state():
        yield


def changed_by(action, namespace):
    before = dict(namespace)
    action()
    return {name for name, value in namespace.items() if name not in before or before[name] is not value}


def test_set_random_seed_writes_the_keras_state_that_is_restored_and_no_other():
    keras.utils.set_random_seed(1)
    keras.random.uniform([])  # makes the generator, which the next seed removes
    state = vars(global_state.GLOBAL_STATE_TRACKER)
    assert changed_by(lambda: keras.utils.set_random_seed(2), state) == set(internals._KERAS_SEED_STATE)


def test_keras_keeps_its_seed_and_its_generator_under_the_names_that_are_restored():
    keras.utils.set_random_seed(1234)
    keras.random.uniform([])
    seed, generator = map(global_state.get_global_attribute, internals._KERAS_SEED_STATE)
    assert seed == 1234
    assert isinstance(generator, keras.random.SeedGenerator)


def test_set_seed_writes_the_tensorflow_state_that_is_restored_and_no_other():
    eager = context.context()
    tf.random.set_seed(1)
    assert changed_by(lambda: tf.random.set_seed(2), vars(eager)) == {"_seed", "_rng"}


def test_tensorflow_draws_op_seeds_from_the_generator_whose_position_is_restored():
    tf.random.set_seed(1234)
    eager = context.context()
    assert eager._seed == 1234
    before = eager._rng.getstate()
    tf.random.uniform([])
    assert eager._rng.getstate() != before


def test_a_process_that_set_no_seed_has_none_after_the_block():
    tf.random.set_seed(None)
    global_state.set_global_attribute("global_random_seed", None)
    with keras_seed_state(), tensorflow_seed_state():
        keras.utils.set_random_seed(7)
    assert context.global_seed() is None
    assert global_state.get_global_attribute("global_random_seed") is None
