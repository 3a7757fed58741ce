"""Copies of a model, so that a technique never changes the one it was given."""

from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidModel
from tfbig.training.replicas import carry_weights


def copy_model(model: Any, callback: str) -> Any:
    """Returns a copy with the same layers, names, weights and compile settings, and a fresh optimizer.

    Args:
        model: A built Keras model.
        callback: The technique's callback, which messages name for models that cannot be copied.

    Raises:
        InvalidModel: The model is subclassed, so Keras cannot make a second one of it.
    """
    try:
        copy = keras.models.clone_model(model)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise InvalidModel(
            f"The model {model.name!r} cannot be copied: {error}. Sequential and functional models can; for a "
            f"subclassed one, train it in place with the {callback} callback."
        ) from error
    carry_weights(model, copy)
    copy.trainable = model.trainable
    for mine, theirs in zip(copy.layers, model.layers, strict=True):
        mine.trainable = theirs.trainable
    carry_compile_settings(model, copy)
    return copy


def carry_compile_settings(model: Any, copy: Any) -> None:
    """Compiles the copy as the model is, with a fresh optimizer, if the model is compiled."""
    if model.compiled:
        copy.compile_from_config(model.get_compile_config())
