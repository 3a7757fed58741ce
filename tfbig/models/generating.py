"""Continuing sequences of tokens with a model that predicts the next one."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel, InvalidOption
from tfbig.models.sequences import check_tokens
from tfbig.options import checked, positive_int


@checked()
def generate(
    model: Any,
    prompt: Any,
    *,
    steps: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Continues sequences of tokens, each next token drawn from what the model predicts.

    The model always reads as many steps as it was built for, so that one compiled function serves every call; once a
    text has grown longer, it reads its last steps.

    Args:
        model: Gives logits of the next token at every step, such as `tfbig.models.transformer(…, causal=True)` or
            `tfbig.models.rnn`, both with `task="sequence"`.
        prompt: Whole numbers, shape (length,) or (rows, length), no longer than the model reads.
        steps: How many tokens to add.
        temperature: Divides the logits: 1 draws as predicted, less draws likely tokens more often, 0 takes the
            likeliest.
        top_k: Draws among so many likeliest tokens only (Fan et al., 2018, https://arxiv.org/abs/1805.04833); None
            for all.
        seed: The same one draws the same tokens; None draws others each time.

    Returns:
        The prompt and what follows, int64, shape (length + steps,) or (rows, length + steps).

    Raises:
        InvalidModel: It gives no logits of tokens at every step, or they depend on later tokens.
        InvalidData: The prompt is empty, longer than the model reads, or holds a token unknown to it.
        InvalidOption: A value makes no sense.

    Example:
        >>> import tfbig
        >>> options = {"task": "sequence", "causal": True, "depth": 1, "width": 8}
        >>> model = tfbig.models.transformer((8,), 20, vocabulary=20, **options)
        >>> tfbig.models.generate(model, [3, 1, 4], steps=5, seed=0).shape
        (8,)
    """
    steps = positive_int("steps", steps)
    _check_temperature(temperature)
    window, vocabulary = _check_model(model)
    if top_k is not None and positive_int("top_k", top_k) > vocabulary:
        raise InvalidOption(f"top_k must be at most the vocabulary, {vocabulary}; got {top_k}.")
    tokens = _check_prompt(model, prompt, window)
    rows, length = tokens.shape
    text = np.concatenate([tokens, np.zeros((rows, steps), np.int64)], axis=1)
    _check_causal(model, rows, window)
    generator = np.random.default_rng(seed)
    for end in range(length, length + steps):
        seen = text[:, max(0, end - window) : end]
        # What follows the text is not looked at by a causal model: any token will do.
        filled = np.pad(seen, [(0, 0), (0, window - seen.shape[1])])
        logits = _logits(model, filled)[:, seen.shape[1] - 1]
        text[:, end] = _drawn(logits, temperature, top_k, generator)
    return text[0] if np.ndim(prompt) == 1 else text


def _drawn(logits: np.ndarray, temperature: float, top_k: int | None, generator: Any) -> np.ndarray:
    """Returns one token per row of logits."""
    if temperature == 0:
        return logits.argmax(axis=1)
    logits = logits.astype(np.float64)
    if top_k is not None:
        # Ranks, not a threshold: of equal logits, no more than top_k may remain.
        order = np.argsort(-logits, axis=1, kind="stable")
        np.put_along_axis(logits, order[:, top_k:], -np.inf, axis=1)
    # The largest of logits with Gumbel noise is a draw from their softmax.
    return (logits / temperature + generator.gumbel(size=logits.shape)).argmax(axis=1)


def _logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(tokens.astype(np.int32)))


def _check_model(model: Any) -> tuple[int, int]:
    """Returns how many steps the model reads, and its vocabulary."""
    if not isinstance(model, keras.Model):
        raise InvalidModel(f"Expected a keras.Model; got {type(model).__name__}.")
    read: Any = getattr(model, "input_shape", None)
    given: Any = getattr(model, "output_shape", None)
    fits = isinstance(read, tuple) and isinstance(given, tuple) and len(read) == 2 and len(given) == 3
    if not fits or read[1] is None or given[1] != read[1]:
        raise InvalidModel(
            "generate needs a model from tokens of shape (batch, steps) to logits of shape (batch, steps, "
            f'vocabulary), as built with task="sequence"; {model.name!r} maps {read} to {given}.'
        )
    embeddings = [layer for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    if embeddings and embeddings[0].input_dim != given[2]:
        raise InvalidModel(
            f"The model {model.name!r} reads {embeddings[0].input_dim} tokens and predicts {given[2]} classes; a "
            "language model is built with outputs=vocabulary."
        )
    return read[1], given[2]


def _check_prompt(model: Any, prompt: Any, window: int) -> np.ndarray:
    tokens = np.asarray(prompt)
    if tokens.ndim not in (1, 2) or tokens.size == 0 or tokens.dtype.kind not in "iu":
        raise InvalidData(
            "prompt must hold whole numbers, at least one, in the shape (length,) or (rows, length); got shape "
            f"{tokens.shape} and dtype {tokens.dtype}."
        )
    tokens = np.atleast_2d(tokens).astype(np.int64)
    if tokens.shape[1] > window:
        raise InvalidData(
            f"The model {model.name!r} reads {window} tokens; the prompt has {tokens.shape[1]}. Pass its last {window}."
        )
    check_tokens(model, tokens)
    return tokens


def _check_causal(model: Any, rows: int, window: int) -> None:
    """A model that sees later tokens would look at the filling: found by changing the last one."""
    tokens = np.ones((rows, window), np.int64)
    before = _logits(model, tokens)[:, :-1]
    tokens[:, -1] = 0
    after = _logits(model, tokens)[:, :-1]
    # Equal, but for a sum in another order.
    if not np.allclose(before, after, rtol=1e-4, atol=1e-5):
        raise InvalidModel(
            f"What the model {model.name!r} predicts at a step depends on later tokens, so it cannot continue a text. "
            "Build it with causal=True, or as an rnn that is not bidirectional."
        )


def _check_temperature(temperature: Any) -> None:
    try:
        good = 0 <= float(temperature) < np.inf
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InvalidOption(f"temperature must be a number of at least 0; got {temperature!r}.")
