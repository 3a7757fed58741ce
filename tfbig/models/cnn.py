"""Convolutional networks for images and for sequences."""

from collections.abc import Sequence
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.models.convolutions import Convolutions
from tfbig.models.heads import check_input_shape, check_sizes, check_task
from tfbig.models.style import make_style, with_preset
from tfbig.options import checked, positive_int

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {
        "tiny": {"filters": (8, 16), "blocks": 1, "dense": (32,)},
        "small": {"filters": (32, 64), "blocks": 1, "dense": (64,)},
        "base": {"filters": (64, 128, 256), "blocks": 2, "dense": (256,)},
        "large": {"filters": (64, 128, 256, 512), "blocks": 2, "dense": (512,)},
    },
    "residual": {
        "tiny": {"filters": (8, 16, 32), "blocks": 1, "dense": ()},
        "small": {"filters": (16, 32, 64), "blocks": 1, "dense": ()},
        "base": {"filters": (16, 32, 64), "blocks": 3, "dense": ()},
        "large": {"filters": (64, 128, 256, 512), "blocks": 2, "dense": ()},
    },
    "separable": {
        "tiny": {"filters": (16, 32), "blocks": 1, "dense": ()},
        "small": {"filters": (32, 64, 128), "blocks": 1, "dense": ()},
        "base": {"filters": (64, 128, 256), "blocks": 2, "dense": ()},
        "large": {"filters": (64, 128, 256, 512), "blocks": 4, "dense": ()},
    },
}


@checked()
def cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    task: str | None = None,
    variant: str = "plain",
    preset: str = "small",
    filters: Sequence[int] | None = None,
    blocks: int | None = None,
    kernel_size: int = 3,
    pool_size: int = 2,
    dense: Sequence[int] | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    norm: str | None = "auto",
    batch_norm: bool = False,
    initializer: Any = "glorot_uniform",
    normalizer: Any = None,
    denormalizer: Any = None,
    name: str = "cnn",
) -> "keras.Model":
    """Builds stages of convolutions that shrink the input step by step, then dense layers; gives logits or values.

    - "plain": each stage is `blocks` convolutions and a max pooling; what is left is flattened.
    - "residual": a convolution, then stages of `blocks` pairs of convolutions, each pair added to what went into it
      (He et al., 2016, section 4.2, https://arxiv.org/abs/1512.03385); averages over all places are left. Every
      stage but the first begins with strides. "small" is a ResNet-8, "base" a ResNet-20.
    - "separable": the same with `blocks` pairs of a depthwise and a 1×1 convolution (MobileNet: Howard et al., 2017,
      https://arxiv.org/abs/1704.04861): a ninth of the arithmetic, for small processors.

    Parameters, all counted, for images of shape (32, 32, 3) and 10 outputs:

    | variant     | preset  | filters             | blocks | dense  | parameters |
    |-------------|---------|---------------------|--------|--------|------------|
    | "plain"     | "tiny"  | (8, 16)             | 1      | (32,)  | 34,522     |
    |             | "small" | (32, 64)            | 1      | (64,)  | 282,250    |
    |             | "base"  | (64, 128, 256)      | 2      | (256,) | 2,196,810  |
    |             | "large" | (64, 128, 256, 512) | 2      | (512,) | 5,739,594  |
    | "residual"  | "tiny"  | (8, 16, 32)         | 1      | ()     | 20,290     |
    |             | "small" | (16, 32, 64)        | 1      | ()     | 78,714     |
    |             | "base"  | (16, 32, 64)        | 3      | ()     | 274,042    |
    |             | "large" | (64, 128, 256, 512) | 2      | ()     | 11,183,562 |
    | "separable" | "tiny"  | (16, 32)            | 1      | ()     | 2,202      |
    |             | "small" | (32, 64, 128)       | 1      | ()     | 16,106     |
    |             | "base"  | (64, 128, 256)      | 2      | ()     | 148,362    |
    |             | "large" | (64, 128, 256, 512) | 4      | ()     | 1,287,178  |

    Args:
        input_shape: (height, width, channels) for images, (steps, channels) for sequences.
        outputs: Classes, labels or values per example; 1 for a binary task.
        task: "binary", "multiclass", "multilabel" or "regression"; None is "multiclass" for 2 or more outputs.
        variant: "plain", "residual" or "separable", as above.
        preset: Sizes by name, as above.
        filters: Filters of each stage; None for those of the preset, as of the next two.
        blocks: Blocks in each stage.
        kernel_size: Side of every convolution's window; the border is padded, so only pooling shrinks.
        pool_size: How many times smaller each stage makes the sides, but the first of "residual" and "separable";
            1 for never.
        dense: Units of each dense layer between the stages and the head.
        activation: Of all layers but the head; any of Keras's names.
        dropout: Share of units dropped before each dense layer and the head while training, in [0, 1).
        l1: L1 penalty on every kernel but depthwise ones, whose few weights need none.
        l2: L2 penalty on the same.
        norm: "batch", "layer" or "group" normalization between each convolution and its activation, or None;
            "auto" is None for "plain" and "batch" for the others, which are deeper.
        batch_norm: True is short for `norm="batch"`.
        initializer: Of every kernel; a name or an object of `keras.initializers`.
        normalizer: First layer, from `tfbig.normalizer(x_train)`.
        denormalizer: Last layer of a regression, from `tfbig.normalizer(y_train, invert=True)`: without it, outputs
            begin around 0, and take many epochs to reach a y that is far from it.
        name: Of the model.

    Returns:
        A `keras.Sequential`, of "residual" a functional `keras.Model`; built and not compiled.

    Raises:
        InvalidOption: A size, share, name or task makes no sense, or pooling would leave nothing: the block is
            named.

    Example:
        >>> model = cnn((8, 8, 1), 10, filters=(4,), dense=())
        >>> model.count_params() == (3 * 3 * 1 + 1) * 4 + (4 * 4 * 4 + 1) * 10
        True
    """
    shape = check_input_shape(input_shape, ranks=(2, 3), example="(28, 28, 1) or (steps, channels)")
    task = check_task(task, outputs)
    if variant not in PRESETS:
        raise unknown_choice("variant", variant, PRESETS)
    if norm == "auto":
        norm = None if variant == "plain" or batch_norm else "batch"
    style = make_style(
        activation=activation,
        dropout=dropout,
        l1=l1,
        l2=l2,
        norm=norm,
        batch_norm=batch_norm,
        initializer=initializer,
    )
    sizes = with_preset(PRESETS[variant], preset, filters=filters, blocks=blocks, dense=dense)
    filters, dense = check_sizes("filters", sizes["filters"]), check_sizes("dense", sizes["dense"])
    blocks, pool_size = positive_int("blocks", sizes["blocks"]), positive_int("pool_size", pool_size)
    if not filters:
        raise InvalidOption("filters must name at least one block's filters; got none. Without any, use mlp.")
    _check_pooling(variant, shape[:-1], len(filters), pool_size)

    parts = Convolutions(len(shape) - 1, positive_int("kernel_size", kernel_size), pool_size, style)
    inputs = keras.Input(shape, name="x")
    first = [] if normalizer is None else [normalizer]
    last = _dense_layers(dense, style) + style.head(task, outputs, denormalizer)
    if variant != "residual":
        stages = parts.plain if variant == "plain" else parts.separable
        return keras.Sequential([inputs, *first, *stages(filters, blocks), *last], name=name)
    values = inputs
    for layer in first:
        values = layer(values)
    values = parts.residual(values, filters, blocks)
    for layer in last:
        values = layer(values)
    return keras.Model(inputs, values, name=name)


def _dense_layers(sizes: Sequence[int], style: Any) -> list[Any]:
    layers = []
    for units in sizes:
        layers += style.dropping()
        layers.append(keras.layers.Dense(units, activation=style.activation, **style.kernel()))
    return layers + style.dropping()


def _check_pooling(variant: str, sides: Sequence[int], blocks: int, pool_size: int) -> None:
    # Pooling drops an uneven border; strides keep it, and the first stage has none.
    strided = variant != "plain"
    for block in range(int(strided), blocks):
        if min(sides) < pool_size:
            raise InvalidOption(
                f"Pooling by {pool_size} in block {block + 1} of {blocks} would shrink {tuple(sides)} below 1. "
                "Use fewer filters, a smaller pool_size or larger inputs."
            )
        sides = [-(-side // pool_size) if strided else side // pool_size for side in sides]
