"""What makes two trainings the same one: for a checkpoint to go on with, and for workers to train together."""

import hashlib
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.distribution import compile_arguments
from tfbig.data.stream_order import orders_in
from tfbig.errors import InvalidData
from tfbig.training.checkpoints import fingerprint
from tfbig.training.described import described, without_names
from tfbig.training.first_batch import stream_steps

# What `compile` was given that decides what is trained, or which variables a checkpoint holds.
_COMPILED = ("loss", "loss_weights", "metrics", "weighted_metrics")
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
    compiled = compile_arguments(model)
    return {
        "model": _layers(model),
        "optimizer": described(model.optimizer),
        **{name: described(compiled.get(name)) for name in _COMPILED},
        "data": _described(data),
        "validation_data": _described(validation),
        **options,
    }


def check_workers_agree(strategy: Any, identity: dict[str, Any], advice: str = _ONE_SCRIPT) -> None:
    """Raises `InvalidData` in every worker where they are about to train different models, or on different data."""
    digests = [int(hashlib.sha256(repr(value).encode()).hexdigest()[:15], 16) for value in identity.values()]
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
    return without_names(described(config))


def _described(data: Any) -> Any:
    if data is None:
        return None
    if isinstance(data, tuple):
        return fingerprint(*keras.tree.flatten(data))
    return {
        "batches_of": str(getattr(data, "element_spec", type(data).__name__)),
        "batches": stream_steps(data),
        "read_from": [order.identity() for order in orders_in(data)],
    }
