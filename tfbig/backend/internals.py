"""The only place that touches private names of TensorFlow and Keras.

Each function says why no public name will do. `tests/backend/test_internals.py` fails loudly when one of them
moves.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

from tfbig.backend import tf

# What `keras.utils.set_random_seed` writes: the last seed, and the generator behind `keras.random`.
_KERAS_SEED_STATE = ("global_random_seed", "global_seed_generator")


@contextlib.contextmanager
def keras_seed_state() -> Iterator[None]:
    """Restores Keras's own seed and generator after the block; Keras can set both and read neither."""
    from keras.src.backend.common import global_state

    state = {name: global_state.get_global_attribute(name) for name in _KERAS_SEED_STATE}
    try:
        yield
    finally:
        for name, value in state.items():
            global_state.set_global_attribute(name, value)


@contextlib.contextmanager
def keras_seeds_from(generator: random.Random) -> Iterator[None]:
    """Lets the seeds of layers and initializers made in the block come from `generator`.

    Keras draws them from Python's own generator, which every thread of the process shares.
    """
    from keras.src.random import seed_generator

    before = seed_generator.python_random
    seed_generator.python_random = generator
    try:
        yield
    finally:
        seed_generator.python_random = before


@contextlib.contextmanager
def tensorflow_seed_state() -> Iterator[None]:
    """Restores TensorFlow's global seed and the position of its op-seed generator after the block.

    `tf.random.set_seed` has no getter, and setting the same seed again would rewind the generator.
    """
    from tensorflow.python.eager import context

    eager = context.context()
    seed, generator = eager._seed, getattr(eager, "_rng", None)
    position = generator.getstate() if generator is not None else None
    try:
        yield
    finally:
        tf.random.set_seed(seed)
        if generator is not None:
            generator.setstate(position)
            eager._rng = generator


def settings_of(optimizer: Any) -> dict[str, Any]:
    """Returns an optimizer's settings, for `from_config`; a schedule among them is the object itself.

    Publicly `get_config` writes a schedule down, and Keras finds no class of the user's own again that was not
    registered. `learning_rate` gives what the schedule says at this step, never the schedule.
    """
    config = optimizer.get_config()
    schedule = getattr(optimizer, "_learning_rate", None)
    if isinstance(config.get("learning_rate"), dict) and callable(schedule):
        config["learning_rate"] = schedule
    return config


def layers_inside(layer: Any) -> list[Any]:
    """Returns the layers that a layer holds directly, in the order they were attached.

    Publicly Keras lists the layers of a model only; those inside a wrapper, a recurrent layer or an attention
    layer are found nowhere else.
    """
    return list(layer._layers)


def every_layer(model: Any) -> list[Any]:
    """Returns the model and all layers inside it at any depth, each once; see `layers_inside`."""
    return list(model._flatten_layers())
