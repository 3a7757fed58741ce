"""Second layers of a layer's settings, in the process that has the first."""

from typing import Any

import keras


def remade(layer: Any, config: dict[str, Any] | None = None) -> Any:
    """Returns a new layer, or operation, of the same settings, without weights.

    Keras reads no Python lambda back from a configuration, and a function of the user's own only under a registered
    name. Both are at hand here.

    Args:
        layer: A Keras layer or operation. It is not changed.
        config: What `get_config` gave, with changes; None for as it is.

    Raises:
        TypeError, ValueError, NotImplementedError: `get_config` does not name what `__init__` takes.
    """
    config = layer.get_config() if config is None else config
    if type(layer) is keras.layers.Lambda:
        return keras.layers.Lambda(**{**config, "function": layer.function})
    activation: Any = getattr(layer, "activation", None)
    own = {activation.__name__: activation} if hasattr(activation, "__name__") else {}
    with keras.saving.custom_object_scope(own):
        return type(layer).from_config(config)
