"""Sequences going into a model: of tokens or of features, with steps that are padding."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidOption
from tfbig.options import positive_int


def check_sequence(
    shape: tuple[int, ...], vocabulary: int | None, padding: float | None, normalizer: Any
) -> int | None:
    """Returns the size of the vocabulary; None for steps of features.

    Raises:
        InvalidOption: The options do not fit the shape or each other.
    """
    if vocabulary is None:
        if len(shape) == 1:
            raise InvalidOption(
                f"input_shape={shape} is that of tokens: pass vocabulary=, how many there are. Steps of numbers have "
                f"the shape (steps, features), such as ({shape[0]}, 1)."
            )
        if padding is not None and not isinstance(padding, int | float | np.number):
            raise InvalidOption(f"padding must be the number that fills a step, or None; got {padding!r}.")
        return None
    if len(shape) != 1:
        raise InvalidOption(
            f"With vocabulary=, inputs are tokens of shape (steps,); got input_shape={shape}."
        )
    if normalizer is not None:
        raise InvalidOption("A normalizer scales numbers; tokens are names. Leave it out, or the vocabulary.")
    if padding not in (None, 0):
        raise InvalidOption(f"Of tokens, 0 is the one that can stand for padding; got padding={padding!r}.")
    return positive_int("vocabulary", vocabulary, minimum=2)


def steps_of_features(
    vocabulary: int | None, width: int, padding: float | None, normalizer: Any, initializer: Any = "uniform"
) -> list[Any]:
    """Returns the first layers: an embedding of tokens; or, of steps of features, the mask and the normalizer.

    The mask comes first: it compares with the data as they are, and a normalizer passes it on.
    """
    if vocabulary is not None:
        return [
            keras.layers.Embedding(
                vocabulary, width, mask_zero=padding is not None, embeddings_initializer=initializer
            )
        ]
    layers = [] if padding is None else [keras.layers.Masking(padding)]
    return layers if normalizer is None else [*layers, normalizer]


def check_tokens(model: Any, x: Any) -> None:
    """Raises `InvalidData` for a token that an embedding at the model's input has no vector for.

    Keras reads zeros in its place on a GPU and fails on a CPU, far from the cause.

    Args:
        model: A Keras model; without an embedding at an input nothing is checked.
        x: Its input, an array; or a dict of arrays by the names of its inputs.
    """
    inputs = {id(tensor): tensor.name for tensor in getattr(model, "inputs", None) or []}
    for layer in model.layers:
        name = inputs.get(id(getattr(layer, "input", None)))
        # A wrapper, such as the one of a quantized layer, holds the embedding.
        embedding = getattr(layer, "layer", layer)
        tokens = x.get(name) if isinstance(x, Mapping) else x
        if name is not None and tokens is not None and isinstance(embedding, keras.layers.Embedding):
            _check_tokens_of(embedding, tokens, model.name)


def _check_tokens_of(layer: Any, tokens: Any, model_name: str) -> None:
    tokens = np.asarray(tokens)
    known = (tokens >= 0) & (tokens < layer.input_dim) & (tokens == np.floor(tokens))
    if known.all():
        return
    first = tuple(np.argwhere(~known)[0])
    raise InvalidData(
        f"The model {model_name!r} knows the tokens 0 to {layer.input_dim - 1}; row {first[0]} holds "
        f"{tokens[first]}. Build it with a larger vocabulary, or give all other tokens one number in it."
    )
