"""Convolutional networks for images and for sequences."""

from collections.abc import Sequence
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption
from tfbig.models.heads import check_input_shape, check_sizes, check_task, head, regularizer
from tfbig.options import checked, fraction, positive_int


@checked()
def cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    task: str | None = None,
    filters: Sequence[int] = (32, 64),
    kernel_size: int = 3,
    pool_size: int = 2,
    dense: Sequence[int] = (64,),
    activation: str = "relu",
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    batch_norm: bool = False,
    normalizer: Any = None,
    denormalizer: Any = None,
    name: str = "cnn",
) -> "keras.Sequential":
    """Builds blocks of convolution and max pooling, then dense layers, that give logits or values.

    Args:
        input_shape: (height, width, channels) for images, (steps, channels) for sequences.
        outputs: Classes, labels or values per example; 1 for a binary task.
        task: "binary", "multiclass", "multilabel" or "regression"; None is "multiclass" for 2 or more outputs.
        filters: Filters of each block.
        kernel_size: Side of every convolution's window; the border is padded, so only pooling shrinks.
        pool_size: Side of every pooling window; 1 for no pooling.
        dense: Units of each dense layer between the blocks and the head.
        activation: Of all layers but the head; any of Keras's names.
        dropout: Share of units dropped before each dense layer and the head while training, in [0, 1).
        l1: L1 penalty on every kernel.
        l2: L2 penalty on every kernel.
        batch_norm: Batch normalization between each convolution and its activation.
        normalizer: First layer, from `tfbig.normalizer(x_train)`.
        denormalizer: Last layer of a regression, from `tfbig.normalizer(y_train, invert=True)`.
        name: Of the model.

    Returns:
        A `keras.Sequential`, built and not compiled.

    Raises:
        InvalidOption: A size, share or task makes no sense, or pooling would leave nothing: the block is named.

    Example:
        >>> model = cnn((8, 8, 1), 10, filters=(4,), dense=())
        >>> model.count_params() == (3 * 3 * 1 + 1) * 4 + (4 * 4 * 4 + 1) * 10
        True
    """
    shape = check_input_shape(input_shape, ranks=(2, 3), example="(28, 28, 1) or (steps, channels)")
    task = check_task(task, outputs)
    dropout = fraction("dropout", dropout)
    filters, dense = check_sizes("filters", filters), check_sizes("dense", dense)
    pool_size = positive_int("pool_size", pool_size)
    if not filters:
        raise InvalidOption("filters must name at least one block's filters; got none. Without any, use mlp.")
    _check_pooling(shape[:-1], len(filters), pool_size)
    is_image = len(shape) == 3
    convolution = keras.layers.Conv2D if is_image else keras.layers.Conv1D
    pooling = keras.layers.MaxPooling2D if is_image else keras.layers.MaxPooling1D

    layers = [keras.Input(shape, name="x")]
    if normalizer is not None:
        layers.append(normalizer)
    for count in filters:
        layers.append(
            convolution(
                count,
                positive_int("kernel_size", kernel_size),
                padding="same",
                use_bias=not batch_norm,
                kernel_regularizer=regularizer(l1, l2),
            )
        )
        if batch_norm:
            layers.append(keras.layers.BatchNormalization())
        layers.append(keras.layers.Activation(activation))
        if pool_size > 1:
            layers.append(pooling(pool_size))
    layers.append(keras.layers.Flatten())
    for units in dense:
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
        layers.append(
            keras.layers.Dense(units, activation=activation, kernel_regularizer=regularizer(l1, l2))
        )
    if dropout:
        layers.append(keras.layers.Dropout(dropout))
    layers += head(task, outputs, l1=l1, l2=l2, denormalizer=denormalizer)
    return keras.Sequential(layers, name=name)


def _check_pooling(sides: Sequence[int], blocks: int, pool_size: int) -> None:
    for block in range(blocks):
        smaller = [side // pool_size for side in sides]
        if min(smaller) < 1:
            raise InvalidOption(
                f"Pooling by {pool_size} in block {block + 1} of {blocks} would shrink {tuple(sides)} below 1. "
                "Use fewer filters, a smaller pool_size or larger inputs."
            )
        sides = smaller
