"""Fully connected networks."""

from collections.abc import Sequence
from typing import Any

from tfbig.backend import keras
from tfbig.models.heads import check_input_shape, check_sizes, check_task, head, regularizer
from tfbig.options import checked, fraction


@checked()
def mlp(
    input_shape: int | Sequence[int],
    outputs: int,
    *,
    task: str | None = None,
    hidden: Sequence[int] = (128, 64),
    activation: str = "relu",
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    batch_norm: bool = False,
    normalizer: Any = None,
    denormalizer: Any = None,
    name: str = "mlp",
) -> "keras.Sequential":
    """Builds a fully connected network that gives logits, or values for regression.

    With input size n₀ and hidden sizes n₁ … nₖ it has Σ (nᵢ₋₁ + 1)·nᵢ + (nₖ + 1)·outputs trainable parameters
    (with `batch_norm`, a bias of each hidden layer makes room for a scale and an offset: + Σ nᵢ).

    Args:
        input_shape: Shape of one example, without the batch axis; several axes are flattened.
        outputs: Classes, labels or values per example; 1 for a binary task.
        task: "binary", "multiclass", "multilabel" or "regression"; None is "multiclass" for 2 or more outputs.
        hidden: Units of each hidden layer.
        activation: Of the hidden layers; any of Keras's names.
        dropout: Share of hidden units dropped while training, in [0, 1).
        l1: L1 penalty on every kernel.
        l2: L2 penalty on every kernel.
        batch_norm: Batch normalization between each hidden layer and its activation.
        normalizer: First layer, from `tfbig.normalizer(x_train)`.
        denormalizer: Last layer of a regression, from `tfbig.normalizer(y_train, invert=True)`.
        name: Of the model.

    Returns:
        A `keras.Sequential`, built and not compiled.

    Raises:
        InvalidOption: A size, share or task makes no sense.

    Example:
        >>> mlp((64,), 10, hidden=(32,)).count_params() == (64 + 1) * 32 + (32 + 1) * 10
        True
    """
    shape = check_input_shape(input_shape, ranks=(1, 2, 3, 4), example="(64,)")
    task = check_task(task, outputs)
    dropout = fraction("dropout", dropout)
    layers = [keras.Input(shape, name="x")]
    if normalizer is not None:
        layers.append(normalizer)
    if len(shape) > 1:
        layers.append(keras.layers.Flatten())
    for units in check_sizes("hidden", hidden):
        penalty = regularizer(l1, l2)
        layers.append(keras.layers.Dense(units, use_bias=not batch_norm, kernel_regularizer=penalty))
        if batch_norm:
            layers.append(keras.layers.BatchNormalization())
        layers.append(keras.layers.Activation(activation))
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
    layers += head(task, outputs, l1=l1, l2=l2, denormalizer=denormalizer)
    return keras.Sequential(layers, name=name)
