"""What makes two trainings the same one: for a checkpoint to go on with, and for workers to train together."""

import json
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.distribution import compile_arguments
from tfbig.errors import InvalidData
from tfbig.training.checkpoints import fingerprint

_ONE_SCRIPT = "Start the same script on the same data in each; tfbig deals out the rows."


def identity_of(model: Any, data: Any, validation: Any, **options: Any) -> dict[str, Any]:
    """Returns plain values that are equal for two trainings of the same model on the same data.

    Layers are known by kind, shapes and settings, not by name: Keras numbers names through the life of a process.

    Args:
        model: The compiled model.
        data: The training's arrays as a tuple, or a stream.
        validation: The same for validation, or None.
        **options: Plain values that decide what a training does, such as batch_size.
    """
    optimizer = model.optimizer
    config = {name: value for name, value in optimizer.get_config().items() if name != "name"}
    loss = keras.tree.map_structure(_loss_name, compile_arguments(model)["loss"])
    return {
        "model": _layers(model),
        "optimizer": [type(optimizer).__name__, config],
        "loss": loss,
        "data": _described(data),
        "validation_data": _described(validation),
        **options,
    }


def check_workers_agree(strategy: Any, identity: dict[str, Any], advice: str = _ONE_SCRIPT) -> None:
    """Raises `InvalidData` in every worker where they are about to train different models, or on different data."""
    digests = [
        int(fingerprint(np.frombuffer(repr(value).encode(), np.uint8))[0][2][:15], 16)
        for value in identity.values()
    ]
    own = tf.constant([digests], tf.int64)
    gathered = strategy.run(lambda: tf.distribute.get_replica_context().all_gather(own, axis=0))
    everyone = strategy.experimental_local_results(gathered)[0].numpy()
    different = [
        name for name, column in zip(identity, everyone.T, strict=True) if len(set(column.tolist())) > 1
    ]
    if different:
        mine = "; ".join(f"{name}: {identity[name]}" for name in different)
        raise InvalidData(
            f"The workers are about to train different things: they differ in {', '.join(different)}. In this "
            f"worker, {mine}. {advice}"
        )


def _layers(model: Any) -> list[Any]:
    return [
        [
            type(layer).__name__,
            [list(v.shape) for v in layer.weights],
            _layers(layer) if isinstance(layer, keras.Model) else _settings(layer),
        ]
        for layer in model.layers
    ]


def _settings(layer: Any) -> Any:
    try:
        config = layer.get_config()
    except NotImplementedError:  # a layer of the user's own: kind and shapes must do
        return None
    return _without_names(json.loads(json.dumps(config, default=_plain)))


def _plain(value: Any) -> Any:
    """What a setting that is no JSON value is known by: at least its kind; its repr may hold an address."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else type(value).__name__


def _without_names(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    return [_without_names(part) for part in config] if isinstance(config, list) else config


def _described(data: Any) -> Any:
    if data is None:
        return None
    if isinstance(data, tuple):
        return fingerprint(*keras.tree.flatten(data))
    return str(getattr(data, "element_spec", type(data).__name__))


def _loss_name(loss: Any) -> Any:
    if isinstance(loss, keras.losses.Loss):
        return [type(loss).__name__, {name: str(value) for name, value in loss.get_config().items()}]
    return str(getattr(loss, "__name__", loss))
