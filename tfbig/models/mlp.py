"""Fully connected networks."""

from collections.abc import Sequence
from typing import Any

from tfbig.backend import keras
from tfbig.models.heads import check_input_shape, check_sizes, check_task
from tfbig.models.style import make_style, with_preset
from tfbig.options import checked

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": (32,)},
    "small": {"hidden": (128, 64)},
    "base": {"hidden": (512, 256)},
    "large": {"hidden": (1024, 1024, 512)},
}


@checked()
def mlp(
    input_shape: int | Sequence[int],
    outputs: int,
    *,
    task: str | None = None,
    preset: str = "small",
    hidden: Sequence[int] | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    norm: str | None = None,
    batch_norm: bool = False,
    initializer: Any = "glorot_uniform",
    normalizer: Any = None,
    denormalizer: Any = None,
    name: str = "mlp",
) -> "keras.Sequential":
    """Builds a fully connected network that gives logits, or values for regression.

    With input size n₀ and hidden sizes n₁ … nₖ it has Σ (nᵢ₋₁ + 1)·nᵢ + (nₖ + 1)·outputs trainable parameters
    (with a `norm`, a bias of each hidden layer makes room for a scale and an offset: + Σ nᵢ).

    | preset  | hidden             | parameters for 64 inputs and 10 outputs |
    |---------|--------------------|-----------------------------------------|
    | "tiny"  | (32,)              | 2,410                                   |
    | "small" | (128, 64)          | 17,226                                  |
    | "base"  | (512, 256)         | 167,178                                 |
    | "large" | (1024, 1024, 512)  | 1,646,090                               |

    Args:
        input_shape: Shape of one example, without the batch axis; several axes are flattened.
        outputs: Classes, labels or values per example; 1 for a binary task.
        task: "binary", "multiclass", "multilabel" or "regression"; None is "multiclass" for 2 or more outputs.
        preset: Sizes by name, as above.
        hidden: Units of each hidden layer; None for those of the preset.
        activation: Of the hidden layers; any of Keras's names.
        dropout: Share of hidden units dropped while training, in [0, 1).
        l1: L1 penalty on every kernel.
        l2: L2 penalty on every kernel.
        norm: "batch", "layer" or "group" normalization between each hidden layer and its activation.
        batch_norm: True is short for `norm="batch"`.
        initializer: Of every kernel; a name or an object of `keras.initializers`.
        normalizer: First layer, from `tfbig.normalizer(x_train)`.
        denormalizer: Last layer of a regression, from `tfbig.normalizer(y_train, invert=True)`: without it, outputs
            begin around 0, and take many epochs to reach a y that is far from it.
        name: Of the model.

    Returns:
        A `keras.Sequential`, built and not compiled.

    Raises:
        InvalidOption: A size, share, name or task makes no sense.

    Example:
        >>> mlp((64,), 10, hidden=(32,)).count_params() == (64 + 1) * 32 + (32 + 1) * 10
        True
    """
    shape = check_input_shape(input_shape, ranks=(1, 2, 3, 4), example="(64,)")
    task = check_task(task, outputs)
    style = make_style(
        activation=activation,
        dropout=dropout,
        l1=l1,
        l2=l2,
        norm=norm,
        batch_norm=batch_norm,
        initializer=initializer,
    )
    sizes = with_preset(PRESETS, preset, hidden=hidden)
    layers = [keras.Input(shape, name="x")]
    if normalizer is not None:
        layers.append(normalizer)
    if len(shape) > 1:
        layers.append(keras.layers.Flatten())
    for units in check_sizes("hidden", sizes["hidden"]):
        layers.append(keras.layers.Dense(units, use_bias=style.use_bias, **style.kernel()))
        layers += style.normalization(units)
        layers.append(keras.layers.Activation(activation))
        layers += style.dropping()
    layers += style.head(task, outputs, denormalizer)
    return keras.Sequential(layers, name=name)
