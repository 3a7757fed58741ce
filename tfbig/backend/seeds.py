"""Seeding that is undone: inside the block everything is reproducible, outside nothing has changed."""

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.internals import keras_seed_state, keras_seeds_from, tensorflow_seed_state
from tfbig.errors import InvalidOption
from tfbig.options import positive_int


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seeds Python, NumPy, Keras and TensorFlow for the block, and restores all four after it.

    One thing cannot be put back: seeding clears TensorFlow's cache of kernels, so an eager random op with a seed
    of its own, `tf.random.uniform([], seed=5)`, starts its private sequence again after the block.

    Args:
        seed: The seed, from 0 to 2³² - 1, or None to leave every generator alone.

    Raises:
        InvalidOption: The seed is no such number.

    Example:
        >>> random.seed(1)
        >>> expected = random.random()
        >>> random.seed(1)
        >>> with seeded(7):
        ...     _ = random.random()
        >>> random.random() == expected
        True
    """
    if seed is None:
        yield
        return
    if positive_int("seed", seed, minimum=0) >= 2**32:
        raise InvalidOption(f"seed must be below 2**32, NumPy's limit; got {seed!r}.")
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with keras_seed_state(), tensorflow_seed_state(), _undisturbed(int(seed)):
        try:
            keras.utils.set_random_seed(int(seed))
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _undisturbed(seed: int) -> contextlib.AbstractContextManager[None]:
    """Outside the main thread, the same seeds from a generator that no other thread draws from.

    There somebody else runs the process, as Dask does in its workers, whose event loop draws random numbers too:
    one of them between the seeding and a layer's making, and the layer has other weights.
    """
    if threading.current_thread() is threading.main_thread():
        return contextlib.nullcontext()
    return keras_seeds_from(random.Random(seed))


def reseed(model: Any, seed: int | None) -> None:
    """Restarts the generators that the model's own layers hold (dropout, noise) from `seed`; None changes nothing.

    Such a generator took its seed when the layer was made, so seeding the globals later does not reach it.
    """
    if seed is None:
        return
    states = [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
    for i, state in enumerate(states):
        state.assign([int(seed) + i, 0])
