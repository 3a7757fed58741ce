"""What a training step needs of Keras that Keras gives no public name, on one device and across replicas.

`tests/backend/test_distribution.py` fails loudly when one of these moves.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import keras, tf

# Apart by more than the groups of devices that one strategy can have.
_KEY_BASES = itertools.count(100_000, 100_000)


@functools.cache
def mirrored_strategy(devices: tuple[str, ...]) -> Any:
    """Returns the `MirroredStrategy` over these devices, the same one each time.

    Every `MirroredStrategy` numbers its exchanges between devices from the same start, and TensorFlow remembers
    their shapes by number for the life of the process: a second strategy that trains another model fails with
    "Shape mismatch in the collective instance". Publicly nothing moves the start; TensorFlow's own tests move it
    as here.
    """
    base = {"_collective_key_base": next(_KEY_BASES)}
    return type("MirroredStrategy", (tf.distribute.MirroredStrategy,), base)(list(devices))


def pipeline_stages(stream: Any) -> Iterator[Any]:
    """Yields a `tf.data.Dataset` and all datasets that it is made of; nothing for anything else.

    Publicly a dataset does not say what it was made of.
    """
    if not isinstance(stream, tf.data.Dataset):
        return
    yield stream
    for part in stream._inputs():
        yield from pipeline_stages(part)


def shuffles_of(stream: Any) -> list[tuple[bool, bool]]:
    """Returns, for each `shuffle` in a `tf.data.Dataset`, whether it has a seed and whether each iteration differs.

    Publicly nothing tells; only the type's name does, which is no public one either.
    """
    return [
        (
            bool(int(stage._seed) or int(stage._seed2)),
            stage._reshuffle_each_iteration is not False,
        )
        for stage in pipeline_stages(stream)
        if type(stage).__name__ == "_ShuffleDataset"
    ]


def build_for(model: Any, batch: Any) -> None:
    """Makes every variable that training will need: of the model, its loss, metrics and optimizer.

    Inside a strategy's scope variables must exist before a step is traced; publicly Keras makes those of metrics
    and loss only while it trains.

    Args:
        model: A compiled model.
        batch: (x, y, sample_weight) of tensors or specs with shape and dtype; nothing is computed.
    """
    model._symbolic_build(data_batch=batch)


def compiled_loss(model: Any) -> Callable[..., Any] | None:
    """Returns the function of (y, outputs, sample_weight) that `compile` made of the losses.

    The public `compute_loss` adds the regularization, already divided by the replicas.
    """
    return model._compile_loss


def compiled_metrics(model: Any) -> Any:
    """Returns the metrics of `compile` as one; the public `compute_metrics` also works out their values each time."""
    return model._compile_metrics


def loss_tracker(model: Any) -> Any:
    """Returns the metric behind "loss" in the logs, which `model.metrics` lists without saying which it is."""
    return model._loss_tracker


def record_losses_as_they_are(model: Any, replicas: int) -> None:
    """Lets the losses of several outputs into the logs unchanged, on a model that is built and trains over replicas.

    Keras multiplies each by the number of replicas first, to undo the division of its own losses in each; those of
    `GlobalLoss` are whole already.
    """
    for tracker in [] if model._compile_loss is None else model._compile_loss.metrics:
        update = tracker.update_state
        tracker.update_state = functools.partial(_update_divided, update, replicas)


def _update_divided(update: Callable[..., Any], replicas: int, value: Any, sample_weight: Any = None) -> Any:
    return update(value / replicas, sample_weight=sample_weight)


def compile_arguments(model: Any) -> dict[str, Any]:
    """Returns what `compile` was called with, as the objects themselves.

    Publicly they come serialized only, which functions do not survive.
    """
    return dict(model._compile_config.config)


def note_compiled_with(model: Any, **arguments: Any) -> None:
    """Has a saved model say that it was compiled with these arguments instead of those it really was.

    What `compile` is given is also what `save` writes down, and publicly the two cannot differ.
    """
    model._compile_config.config.update(arguments)


def profiles_batches(tensorboard: Any) -> bool:
    """Whether a `keras.callbacks.TensorBoard` profiles some batch; publicly it does not say what it was told."""
    return bool(tensorboard._should_trace)


def name_in_logs(function: Callable[..., Any]) -> str:
    """Returns what `compile` calls a function that it is given as a metric; it has no public name for that."""
    from keras.src.utils.naming import get_object_name

    return str(get_object_name(function))


def mask_of(outputs: Any) -> Any:
    """Returns the mask of steps that outputs carry, which Keras has metrics weigh them by, or None; no public way."""
    return getattr(outputs, "_keras_mask", None)


def as_loss(identifier: Any) -> Any:
    """Returns the `keras.losses.Loss` that `compile` makes of a name, a function or a loss."""
    from keras.src.losses.losses import LossFunctionWrapper

    loss = keras.losses.get(identifier)
    if isinstance(loss, keras.losses.Loss):
        return loss
    return LossFunctionWrapper(loss, name=getattr(loss, "__name__", "loss"))


def home_of(model: Any) -> Any:
    """Returns the strategy in whose scope a model was made; None for one made outside of any.

    Publicly `model.distribute_strategy` gives a strategy in either case.
    """
    return model._distribute_strategy


@contextlib.contextmanager
def undistributed(model: Any) -> Iterator[None]:
    """Lets Keras's `fit` and `evaluate` loop as for one device, whose step then spreads the work by itself.

    A model made in a strategy's scope is bound to it for good, and Keras's own loop over a strategy fails on a
    first batch that does not split evenly, and on every batch of several workers.
    """
    strategy = home_of(model)
    model._distribute_strategy = None
    try:
        yield
    finally:
        model._distribute_strategy = strategy


@contextlib.contextmanager
def gradients_reduced_already(optimizer: Any) -> Iterator[None]:
    """Lets `optimizer.apply` be called once for all replicas, outside of them, with gradients added up before.

    Keras's optimizers expect to be called in each replica: there they clip before gradients are added up, and
    cannot accumulate, since an update that waits for the other replicas may not stand in a condition. Outside of
    any replica and scope all of it works on mirrored variables, but for the sum, which would be taken again.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # LossScaleOptimizer wraps the one that updates
    inner._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        del inner._all_reduce_sum_gradients
