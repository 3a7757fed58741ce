"""Transformers: encoders of tokens, of steps of features and of image patches, and a decoder that models language."""

from collections.abc import Sequence
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.models.heads import check_input_shape, check_task
from tfbig.models.sequences import check_sequence, steps_of_features
from tfbig.models.step_layers import KINDS, AverageOfSteps, Positions
from tfbig.models.style import Style, make_style, with_preset
from tfbig.options import checked, positive_int

# The BERT miniatures: Turc et al., 2019, table 1, https://arxiv.org/abs/1908.08962
PRESETS = {
    "tiny": {"depth": 2, "width": 128, "heads": 2},
    "mini": {"depth": 4, "width": 256, "heads": 4},
    "small": {"depth": 4, "width": 512, "heads": 8},
    "medium": {"depth": 8, "width": 512, "heads": 8},
    "base": {"depth": 12, "width": 768, "heads": 12},
}
# Next to the variance of layers that are hardly wider than a hundred, Keras's 1e-3 would not be small.
_EPSILON = 1e-6


@checked()
def transformer(
    input_shape: int | Sequence[int],
    outputs: int,
    *,
    task: str | None = None,
    preset: str = "tiny",
    depth: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    feedforward: int | None = None,
    vocabulary: int | None = None,
    patch_size: int | None = None,
    causal: bool = False,
    positions: str = "learned",
    padding: float | None = None,
    activation: str = "gelu",
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    norm: str = "layer",
    initializer: Any = "glorot_uniform",
    normalizer: Any = None,
    denormalizer: Any = None,
    name: str = "transformer",
) -> "keras.Model":
    """Builds a Transformer over tokens, steps of features or patches of an image; gives logits or values.

    Its blocks are attention and two dense layers, each normalized first and added to what went in (Vaswani et al.,
    2017, https://arxiv.org/abs/1706.03762; Xiong et al., 2020, https://arxiv.org/abs/2002.04745, for normalizing
    first). Their average over the steps goes to the head (for images as in Beyer et al., 2022,
    https://arxiv.org/abs/2205.01580); with `task="sequence"` every step does. `causal=True` makes it a language
    model, which `tfbig.models.generate` continues texts with.

    A block of width w and feedforward f has 4·(w + 1)·w + (w + 1)·f + (f + 1)·w + 4·w parameters. Around them are a
    normalization, 2·w; learned positions, steps·w; the head, (w + 1)·outputs; and for tokens vocabulary·w, for
    features (features + 1)·w, for patches (patch_size²·channels + 1)·w.

    | preset   | depth | width | heads | parameters of its blocks |
    |----------|-------|-------|-------|--------------------------|
    | "tiny"   | 2     | 128   | 2     | 396,544                  |
    | "mini"   | 4     | 256   | 4     | 3,159,040                |
    | "small"  | 4     | 512   | 8     | 12,609,536               |
    | "medium" | 8     | 512   | 8     | 25,219,072               |
    | "base"   | 12    | 768   | 12    | 85,054,464               |

    Args:
        input_shape: (steps,) for tokens, with a `vocabulary`; (steps, features); or (height, width, channels) for
            images, with a `patch_size`.
        outputs: Classes, labels or values per example, or classes per step for "sequence" (of a language model its
            vocabulary); 1 for a binary task.
        task: "binary", "multiclass", "multilabel", "regression", or "sequence" for logits at every step, shape
            (batch, steps, outputs); None is "multiclass" for 2 or more outputs.
        preset: Sizes by name, as above.
        depth: How many blocks; None for those of the preset, as of the next two.
        width: Features of each step inside.
        heads: Of each attention; a divisor of width.
        feedforward: Units between the two dense layers of a block; None for 4·width.
        vocabulary: How many tokens there are: 0 to vocabulary − 1. None for other inputs.
        patch_size: Side of the squares that an image is cut into (Dosovitskiy et al., 2021,
            https://arxiv.org/abs/2010.11929).
        causal: Whether each step sees the steps up to itself only; for "sequence".
        positions: "learned" or "sinusoidal".
        padding: The value that fills the steps after a sequence's end, which are then ignored: with a
            vocabulary 0, and no other token may be 0. None where every sequence is as long as the input.
        activation: Between the two dense layers of a block; any of Keras's names.
        dropout: Share of values dropped after the positions, in the attention's weights, and before each sum, while
            training, in [0, 1).
        l1: L1 penalty on every kernel.
        l2: L2 penalty on every kernel.
        norm: "layer", "batch" or "group" normalization before attention, dense layers and head; a causal model,
            where no step may learn of later ones, has "layer".
        initializer: Of every kernel; a name or an object of `keras.initializers`.
        normalizer: First layer, from `tfbig.normalizer(x_train)`; after the mask where there is one.
        denormalizer: Last layer of a regression, from `tfbig.normalizer(y_train, invert=True)`: without it, outputs
            begin around 0, and take many epochs to reach a y that is far from it.
        name: Of the model.

    Returns:
        A functional `keras.Model`, built and not compiled.

    Raises:
        InvalidOption: A size, share, name or task makes no sense, or the options do not fit the input's shape.

    Example:
        >>> model = transformer((16,), 50, vocabulary=50, task="sequence", causal=True, depth=1, width=8)
        >>> block = 4 * (8 + 1) * 8 + (8 + 1) * 32 + (32 + 1) * 8 + 4 * 8
        >>> model.count_params() == 50 * 8 + 16 * 8 + block + 2 * 8 + (8 + 1) * 50
        True
    """
    shape = check_input_shape(input_shape, ranks=(1, 2, 3), example="(steps,) or (steps, features)")
    is_image = len(shape) == 3
    task = check_task(task, outputs, has_steps=not is_image)
    if is_image:
        patch_size = _check_patches(shape, patch_size, vocabulary, padding)
    else:
        vocabulary = check_sequence(shape, vocabulary, padding, normalizer)
        if patch_size is not None:
            raise InvalidOption(f"patch_size is for images of shape (height, width, channels); got {shape}.")
    style = make_style(
        activation=activation, dropout=dropout, l1=l1, l2=l2, norm=norm, initializer=initializer
    )
    _check_causal(causal, task, norm)
    if positions not in KINDS:
        raise unknown_choice("positions", positions, KINDS)
    sizes = with_preset(PRESETS, preset, depth=depth, width=width, heads=heads)
    width, heads = _check_width(sizes["width"], sizes["heads"], positions)
    feedforward = positive_int("feedforward", 4 * width if feedforward is None else feedforward)

    inputs = keras.Input(shape, dtype="float32" if vocabulary is None else "int32", name="x")
    values = inputs
    if patch_size is not None:
        first = _patches(shape, width, patch_size, normalizer, style)
    else:
        small = keras.initializers.RandomNormal(stddev=0.02 if positions == "learned" else 1.0)
        first = steps_of_features(vocabulary, width, padding, normalizer, small)
        if vocabulary is None:
            first.append(keras.layers.Dense(width, name="features", **style.kernel()))
    for layer in [*first, Positions(positions, name="positions"), *style.dropping()]:
        values = layer(values)
    for i in range(positive_int("depth", sizes["depth"])):
        values = _block(values, f"block_{i + 1}", heads, feedforward, causal, style)
    values = _normalized(values, "last_norm", style)
    if task != "sequence":
        averages = keras.layers.GlobalAveragePooling1D if padding is None else AverageOfSteps
        values = averages(name="average")(values)
    for layer in style.head(task, outputs, denormalizer):
        values = layer(values)
    return keras.Model(inputs, values, name=name)


def _block(values: Any, name: str, heads: int, feedforward: int, causal: bool, style: Style) -> Any:
    width = values.shape[-1]
    attention = keras.layers.MultiHeadAttention(
        heads, width // heads, dropout=style.dropout, name=f"{name}_attention", **style.kernel()
    )
    seen = {"use_causal_mask": True} if causal else {}
    normalized = _normalized(values, f"{name}_attention_norm", style)
    result = attention(normalized, normalized, **seen)
    values = keras.layers.Add(name=f"{name}_attention_sum")([values, _dropped(result, style)])
    result = _normalized(values, f"{name}_dense_norm", style)
    result = keras.layers.Dense(
        feedforward, activation=style.activation, name=f"{name}_dense_in", **style.kernel()
    )(result)
    result = keras.layers.Dense(width, name=f"{name}_dense_out", **style.kernel())(result)
    return keras.layers.Add(name=f"{name}_dense_sum")([values, _dropped(result, style)])


def _normalized(values: Any, name: str, style: Style) -> Any:
    (layer,) = style.normalization(values.shape[-1], name=name, epsilon=_EPSILON)
    return layer(values)


def _dropped(values: Any, style: Style) -> Any:
    for layer in style.dropping():
        values = layer(values)
    return values


def _patches(shape: tuple[int, ...], width: int, side: int, normalizer: Any, style: Style) -> list[Any]:
    """A convolution that reads every square once, and the squares in a row."""
    cut = keras.layers.Conv2D(width, side, strides=side, name="patches", **style.kernel())
    rows = keras.layers.Reshape(((shape[0] // side) * (shape[1] // side), width), name="patches_in_a_row")
    return [*([] if normalizer is None else [normalizer]), cut, rows]


def _check_patches(shape: tuple[int, ...], side: Any, vocabulary: Any, padding: Any) -> int:
    if vocabulary is not None or padding is not None:
        raise InvalidOption(
            f"vocabulary= and padding= are for sequences; input_shape={shape} is that of an image."
        )
    if side is None:
        raise InvalidOption(
            f"input_shape={shape} is that of an image: pass patch_size=, the side of the squares it is cut into."
        )
    side = positive_int("patch_size", side)
    if shape[0] % side or shape[1] % side:
        raise InvalidOption(f"patch_size must divide both sides of the image, {shape[:2]}; got {side}.")
    return side


def _check_width(width: Any, heads: Any, positions: str) -> tuple[int, int]:
    width, heads = positive_int("width", width), positive_int("heads", heads)
    if width % heads:
        raise InvalidOption(f"width must be a multiple of heads, {heads}; got {width}.")
    if positions == "sinusoidal" and width % 2:
        raise InvalidOption(f'positions="sinusoidal" needs an even width; got {width}.')
    return width, heads


def _check_causal(causal: bool, task: str, norm: str | None) -> None:
    if norm is None:
        raise InvalidOption('A transformer does not train without a norm: "layer", "batch" or "group".')
    if causal and task != "sequence":
        raise InvalidOption(
            f'causal=True is for task="sequence", which answers at every step; got task={task!r}.'
        )
    if causal and norm != "layer":
        raise InvalidOption(
            f'norm={norm!r} takes its statistics from all steps, later ones too; causal=True needs norm="layer".'
        )
