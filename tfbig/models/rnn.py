"""Recurrent networks for sequences."""

from collections.abc import Sequence
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.models.heads import check_input_shape, check_sizes, check_task
from tfbig.models.sequences import check_sequence, steps_of_features
from tfbig.models.style import Style, make_style, with_preset
from tfbig.options import checked, positive_int

CELLS = ("lstm", "gru", "simple")
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"units": (16,), "embedding": 16},
    "small": {"units": (64,), "embedding": 32},
    "base": {"units": (128, 128), "embedding": 64},
    "large": {"units": (512, 512), "embedding": 256},
}


@checked()
def rnn(
    input_shape: int | Sequence[int],
    outputs: int,
    *,
    task: str | None = None,
    cell: str = "lstm",
    bidirectional: bool = False,
    preset: str = "small",
    units: Sequence[int] | None = None,
    vocabulary: int | None = None,
    embedding: int | None = None,
    padding: float | None = None,
    dense: Sequence[int] = (),
    activation: str = "relu",
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    norm: str | None = None,
    initializer: Any = "glorot_uniform",
    normalizer: Any = None,
    denormalizer: Any = None,
    name: str = "rnn",
) -> "keras.Sequential":
    """Builds stacked recurrent layers over tokens or steps of features, then dense layers, giving logits or values.

    A recurrent layer of u units on n features has 4·(n + u + 1)·u parameters as "lstm", 3·(n + u + 2)·u as "gru" and
    (n + u + 1)·u as "simple"; twice as many, and 2·u outputs, where it is bidirectional. An embedding has
    vocabulary·embedding.

    | preset  | units      | embedding | parameters of "lstm" for steps of 16 features and 10 outputs |
    |---------|------------|-----------|--------------------------------------------------------------|
    | "tiny"  | (16,)      | 16        | 2,282                                                        |
    | "small" | (64,)      | 32        | 21,386                                                       |
    | "base"  | (128, 128) | 64        | 207,114                                                      |
    | "large" | (512, 512) | 256       | 3,187,722                                                    |

    Args:
        input_shape: (steps, features); or (steps,) for tokens, with a `vocabulary`.
        outputs: Classes, labels or values per example, or classes per step for "sequence"; 1 for a binary task.
        task: "binary", "multiclass", "multilabel", "regression", or "sequence" for logits at every step, shape
            (batch, steps, outputs); None is "multiclass" for 2 or more outputs.
        cell: "lstm" (Hochreiter and Schmidhuber, 1997), "gru" (Cho et al., 2014, https://arxiv.org/abs/1406.1078)
            or "simple".
        bidirectional: Whether every recurrent layer also reads backwards; the two results are joined.
        preset: Sizes by name, as above.
        units: Of each recurrent layer; None for those of the preset.
        vocabulary: How many tokens there are: 0 to vocabulary − 1. None for steps of features.
        embedding: Features that each token becomes; None for the preset's.
        padding: The value that fills the steps after a sequence's end, which are then skipped: with a
            vocabulary 0, and no other token may be 0. None where every sequence is as long as the input.
        dense: Units of each dense layer between the last recurrent layer and the head.
        activation: Of the dense layers; recurrent layers keep tanh and sigmoid, for which fast code exists.
        dropout: Share of values dropped after each recurrent and dense layer while training, in [0, 1).
        l1: L1 penalty on every kernel, the recurrent ones included.
        l2: L2 penalty on the same.
        norm: "batch", "layer" or "group" normalization after each recurrent layer, and between each dense layer
            and its activation.
        initializer: Of every kernel but the recurrent ones, which start orthogonal.
        normalizer: First layer, from `tfbig.normalizer(x_train)`; after the mask where there is one.
        denormalizer: Last layer of a regression, from `tfbig.normalizer(y_train, invert=True)`: without it, outputs
            begin around 0, and take many epochs to reach a y that is far from it.
        name: Of the model.

    Returns:
        A `keras.Sequential`, built and not compiled.

    Raises:
        InvalidOption: A size, share, name or task makes no sense, or the options do not fit the input's shape.

    Example:
        >>> model = rnn((20,), 2, vocabulary=100, embedding=8, units=(4,), padding=0)
        >>> model.count_params() == 100 * 8 + 4 * (8 + 4 + 1) * 4 + (4 + 1) * 2
        True
    """
    shape = check_input_shape(input_shape, ranks=(1, 2), example="(steps, features)")
    task = check_task(task, outputs, has_steps=True)
    vocabulary = check_sequence(shape, vocabulary, padding, normalizer)
    if cell not in CELLS:
        raise unknown_choice("cell", cell, CELLS)
    style = make_style(
        activation=activation, dropout=dropout, l1=l1, l2=l2, norm=norm, initializer=initializer
    )
    sizes = with_preset(PRESETS, preset, units=units, embedding=embedding)
    units, dense = check_sizes("units", sizes["units"]), check_sizes("dense", dense)
    if not units:
        raise InvalidOption("units must name at least one recurrent layer's units; got none.")

    layers = [keras.Input(shape, dtype="float32" if vocabulary is None else "int32", name="x")]
    layers += steps_of_features(
        vocabulary, positive_int("embedding", sizes["embedding"]), padding, normalizer
    )
    for i, count in enumerate(units):
        every_step = task == "sequence" or i < len(units) - 1
        layers.append(_recurrent(cell, count, bidirectional, every_step, style))
        layers += style.normalization(count * 2 if bidirectional else count)
        layers += style.dropping()
    for count in dense:
        layers.append(keras.layers.Dense(count, use_bias=style.use_bias, **style.kernel()))
        layers += style.normalization(count)
        layers.append(keras.layers.Activation(activation))
        layers += style.dropping()
    layers += style.head(task, outputs, denormalizer)
    return keras.Sequential(layers, name=name)


def _recurrent(cell: str, units: int, bidirectional: bool, every_step: bool, style: Style) -> Any:
    kinds = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple": keras.layers.SimpleRNN}
    layer = kinds[cell](
        units, return_sequences=every_step, recurrent_regularizer=style.penalty(), **style.kernel()
    )
    return keras.layers.Bidirectional(layer) if bidirectional else layer
