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


def magnitude_mask(
    weights: Any, sparsity: float, block_size: tuple[int, int] = (1, 1), block_pooling: str = "AVG"
) -> Any:
    """Returns TFMOT's mask for `weights`: 0 where the smallest magnitudes are, 1 elsewhere.

    TFMOT has no public call for one mask; its engine is reached through `pruning_impl.Pruning`, which takes
    the schedule as a function of the step. The method is Zhu and Gupta, 2017 (https://arxiv.org/abs/1710.01878).

    Args:
        weights: A kernel, of any shape; with blocks, of two axes.
        sparsity: The share of zeros wanted, in [0, 1).
        block_size: Rows and columns of the blocks that are kept or dropped whole; (1, 1) for single weights.
        block_pooling: How a block's magnitude follows from its weights': "AVG" or "MAX".

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
        block_pooling_type=block_pooling,
    )
    weights = tf.convert_to_tensor(weights)
    if block_size == (1, 1):
        return engine._update_mask(weights)[1]
    # TFMOT's own pooling fails where one block spans an axis, and misplaces blocks where the border cuts one;
    # where neither happens this is its mask.
    _, mask = engine._update_mask(_block_magnitudes(tf.abs(weights), block_size, block_pooling))
    height, width = weights.shape
    return tf.repeat(tf.repeat(mask, block_size[0], axis=0), block_size[1], axis=1)[:height, :width]


def m_by_n_mask(weights: Any, m_by_n: tuple[int, int]) -> Any:
    """Returns TFMOT's mask with m zeros in every n consecutive input channels, as sparse hardware wants it.

    Args:
        weights: A kernel of shape (inputs, outputs) or (height, width, inputs, outputs).
        m_by_n: Zeros m among n weights, m below n.

    Returns:
        A tensor of 0s and 1s with the shape and dtype of `weights`.
    """
    tfmot()
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_utils

    weights = tf.convert_to_tensor(weights)
    mask = pruning_utils.generate_m_by_n_mask(pruning_utils.weights_rearrange(weights), m_by_n)
    return tf.cast(pruning_utils.m_by_n_sparsity_mask_prepare(mask, weights.shape), weights.dtype)


def _block_magnitudes(magnitudes: Any, block_size: tuple[int, int], pooling: str) -> Any:
    """Pools each block of a matrix to one number; blocks that the border cuts count what they hold."""
    (rows, columns), (height, width) = block_size, magnitudes.shape
    padding = [[0, -height % rows], [0, -width % columns]]

    def blocks(values: Any) -> Any:
        padded = tf.pad(values, padding)
        down, across = padded.shape[0] // rows, padded.shape[1] // columns
        return tf.reshape(padded, (down, rows, across, columns))

    if pooling == "MAX":
        return tf.reduce_max(blocks(magnitudes), axis=(1, 3))
    counts = tf.reduce_sum(blocks(tf.ones_like(magnitudes)), axis=(1, 3))
    return tf.reduce_sum(blocks(magnitudes), axis=(1, 3)) / counts
