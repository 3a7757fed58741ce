"""TFMOT's pruning engine, imported so that the process is left as found.

Importing TFMOT sets TF_USE_LEGACY_KERAS=1 for good, and rebinds a `tf.keras` that was not touched before to
legacy Keras. Here `tf.keras` is touched first and the variable restored.
"""

import functools
import os
from types import ModuleType
from typing import Any

from tfbig.backend import tf

_VARIABLE = "TF_USE_LEGACY_KERAS"


@functools.cache
def tfmot() -> ModuleType:
    """Returns the `tensorflow_model_optimization` module (about 2 s the first time)."""
    import tensorflow.compat.v1
    import tensorflow.compat.v2

    # `keras` is resolved lazily, once, in each of these: touching it pins it to what the user's process uses.
    _ = [module.keras.Model for module in (tf, tensorflow.compat.v1, tensorflow.compat.v2)]
    before = os.environ.get(_VARIABLE)
    try:
        import tensorflow_model_optimization
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
    return tensorflow_model_optimization


def schedules() -> ModuleType:
    """Returns the module with TFMOT's schedules: `ConstantSparsity`, `PolynomialDecay`, `PruningSchedule`."""
    return tfmot().sparsity.keras


def magnitude_mask(weights: Any, sparsity: float, block_size: tuple[int, int] = (1, 1)) -> Any:
    """Returns TFMOT's mask for `weights`: 0 where the smallest magnitudes are, 1 elsewhere.

    TFMOT has no public call for one mask; its engine is reached through `pruning_impl.Pruning`, which takes
    the schedule as a function of the step. The method is Zhu and Gupta, 2017 (https://arxiv.org/abs/1710.01878).

    Args:
        weights: A kernel, of any shape.
        sparsity: The share of zeros wanted, in [0, 1).
        block_size: Rows and columns of the blocks that are kept or dropped whole; (1, 1) for single weights.

    Returns:
        A tensor of 0s and 1s with the shape and dtype of `weights`.
    """
    tfmot()
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

    engine = pruning_impl.Pruning(
        training_step_fn=lambda: 0,
        pruning_vars=[],
        pruning_schedule=lambda step: (True, sparsity),
        block_size=(1, 1),
        block_pooling_type="AVG",
    )
    weights = tf.convert_to_tensor(weights)
    rows, columns = block_size
    if (rows, columns) == (1, 1):
        return engine._update_mask(weights)[1]
    # TFMOT's own pooling fails where one block spans an axis, and misplaces blocks where the border cuts one;
    # where neither happens this is its mask.
    height, width = weights.shape
    means = _block_sums(tf.abs(weights), rows, columns) / _block_sums(tf.ones_like(weights), rows, columns)
    _, mask = engine._update_mask(means)
    return tf.repeat(tf.repeat(mask, rows, axis=0), columns, axis=1)[:height, :width]


def _block_sums(values: Any, rows: int, columns: int) -> Any:
    """Sums each block of a matrix; blocks that the border cuts are filled up with zeros."""
    height, width = values.shape
    padded = tf.pad(values, [[0, -height % rows], [0, -width % columns]])
    down, across = padded.shape[0] // rows, padded.shape[1] // columns
    return tf.reduce_sum(tf.reshape(padded, (down, rows, across, columns)), axis=(1, 3))
