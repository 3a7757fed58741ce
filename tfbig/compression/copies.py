"""Copies of a model, so that a technique never changes the one it was given."""

from typing import Any

from tfbig.backend.graph import graph_of
from tfbig.errors import InvalidModel
from tfbig.training.replicas import copied


def copy_model(model: Any, callback: str) -> Any:
    """Returns a copy with the same layers, names, weights and compile settings, and a fresh optimizer.

    Args:
        model: A built Keras model.
        callback: The technique's callback, which messages name for models that cannot be copied.

    Raises:
        InvalidModel: The model is subclassed, so Keras cannot make a second one of it; or a layer of the user's own
            does not come back from its `get_config`.
    """
    copy = copied(model)
    if copy is not None:
        return copy
    if graph_of(model) is None:
        raise InvalidModel(
            f"The model {model.name!r} cannot be copied: it is subclassed. Sequential and functional models can; for a "
            f"subclassed one, train it in place with the {callback} callback."
        )
    raise InvalidModel(
        f"The model {model.name!r} cannot be copied: a layer in it does not come back from its get_config(). It must "
        "name all arguments of __init__; inside a nested model, decorate the class with "
        f"@keras.saving.register_keras_serializable(). Or train the model in place with the {callback} callback."
    )
