"""Normalization as a Keras layer, fitted on training rows and shipped inside the model."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.checking import check_array
from tfbig.options import checked


@checked()
def normalizer(x: Any, *, invert: bool = False) -> "keras.layers.Normalization":
    """Returns a layer that brings values to mean 0 and variance 1, fitted on `x`.

    Rows of features get one mean and variance per feature. Images and sequences, shape (rows, ..., channels),
    get one per channel. A feature that is constant in `x` is centred and not scaled: Keras's own `adapt` would
    divide by its zero variance, and turn the first unseen value into millions.

    Args:
        x: The training rows, and only those: shape (rows,), (rows, features) or (rows, ..., channels).
        invert: Return the layer that undoes it; fitted on y, it closes a regression model.

    Returns:
        A `keras.layers.Normalization` with fixed mean and variance.

    Raises:
        InvalidData: x is empty, holds text, NaN or infinite values.

    Example:
        >>> layer = normalizer([[1.0, 5.0], [3.0, 5.0]])
        >>> layer(np.array([[3.0, 6.0]], "float32")).numpy().tolist()
        [[1.0, 1.0]]
    """
    values = check_array(x).astype(np.float64)
    values = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    # Rounding leaves a constant column with a variance near, but not at, zero.
    constant = variance <= np.square(np.finfo(np.float32).eps * mean)
    variance = np.where(constant | (variance == 0), 1.0, variance)
    return keras.layers.Normalization(
        axis=-1, mean=mean.astype(np.float32), variance=variance.astype(np.float32), invert=invert
    )
