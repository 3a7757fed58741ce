"""Sums that are traced for one row, as sums: Keras takes a term for a bias where only its shape looks like one.

Of two terms the second is a bias to Keras when its one axis that is longer than 1 is as long as the first's last or
second axis. Where the number of rows is open, little else looks so. For one row the shape (1, 5, 1) does: added to
(1, 5, 6) it becomes an operator that LiteRT's converter refuses, and added to (1, 5, 5) it goes along the wrong axis.
There is no public option.
"""

import contextlib
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.keras_functions import keras_function, keras_functions


def plain_sums() -> contextlib.AbstractContextManager[None]:
    """Lets models traced inside add as arrays do; true biases, along the last axis, stay such."""
    return keras_functions({"add": _add})


def _add(x1: Any, x2: Any) -> Any:
    numbers = isinstance(x1, int | float) or isinstance(x2, int | float)
    shape = () if numbers else tf.convert_to_tensor(x2).shape
    if all(size == 1 for size in shape[:-1]):
        return keras_function("add")(x1, x2)
    x1, x2 = tf.convert_to_tensor(x1), tf.convert_to_tensor(x2)
    dtype = keras.backend.result_type(x1.dtype.name, x2.dtype.name)
    return tf.add(tf.cast(x1, dtype), tf.cast(x2, dtype))
