"""Models that are not there yet: builders, given the training rows if they ask for them, and those without weights."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import InvalidModel

_NEEDED_OF_A_BUILDER = (
    "A builder takes no arguments, or (x_train), or (x_train, y_train), and returns a keras.Model"
)


def is_builder(model: Any) -> bool:
    """Whether `model` is a function that makes a model, rather than a model."""
    if isinstance(model, keras.layers.Layer) or type(model).__module__.startswith("tf_keras"):
        return False  # Layers and models can be called too, on data.
    return callable(model)


def build_model(build: Callable[..., Any], x_train: Any, y_train: Any) -> Any:
    """Calls the builder; one with parameters is given the training rows, so that what it fits is fitted on those.

    Args:
        build: `build()`, `build(x_train)` or `build(x_train, y_train)`.
        x_train: The training rows.
        y_train: Their targets.

    Returns:
        The model.

    Raises:
        InvalidModel: The builder asks for more, or returns something else than a Keras model.
    """
    name = getattr(build, "__name__", repr(build))
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [
        p for p in inspect.signature(build).parameters.values() if p.default is inspect.Parameter.empty
    ]
    wanted = [p for p in parameters if p.kind in kinds]
    if len(wanted) > 2 or any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters):
        asked = ", ".join(p.name for p in parameters)
        raise InvalidModel(f"{_NEEDED_OF_A_BUILDER}; {name} asks for ({asked}). Bind the rest in a lambda.")
    model = build(*(x_train, y_train)[: len(wanted)])
    if not isinstance(model, keras.Model):
        raise InvalidModel(f"{_NEEDED_OF_A_BUILDER}; {name} returned {type(model).__name__}.")
    return model


def make_weights(model: Any, x: Any) -> None:
    """Makes the weights of a Sequential that has none before it sees rows, so that it can be made again elsewhere.

    Args:
        model: A model; others than Sequentials without weights are left alone.
        x: Inputs of shape (rows, ...): an array, or a batch of a stream or its spec.
    """
    if model.built or not isinstance(model, keras.Sequential) or not hasattr(x, "shape"):
        return
    # As the step will give it to the model.
    dtype = np.dtype(np.float32) if x.dtype == np.float64 else x.dtype
    model(keras.KerasTensor((None, *x.shape[1:]), keras.backend.standardize_dtype(dtype)))
