"""What a stream of batches gives, known before training: the variables are made for it, and endless ones refused."""

import warnings
from collections.abc import Iterator
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.distribution import compiled_loss, shuffles_of
from tfbig.errors import InvalidData
from tfbig.training.train_step import has_own_rules


def check_stream(stream: Any, epochs: int, name: str = "x") -> None:
    """Raises `InvalidData` for a stream that says it has no batches, that it never ends, or that it ends too early."""
    if hasattr(stream, "__next__") and epochs > 1:
        # Keras would go on with the first two batches, which it keeps to look at, and say nothing.
        raise InvalidData(
            f"{name} is a generator, which can be gone through once, and {epochs} epochs are asked for. Pass epochs=1, "
            "or a tf.data.Dataset or a keras.utils.PyDataset, which begin again."
        )
    if hasattr(stream, "cardinality"):
        count = int(stream.cardinality())
        endless, empty = count == tf.data.INFINITE_CARDINALITY, count == 0
    elif hasattr(stream, "num_batches"):
        endless, empty = stream.num_batches is None, stream.num_batches == 0
    else:
        return
    if endless:
        raise InvalidData(
            f"{name} is a stream that never ends, so an epoch would not either. Say how many batches an epoch has: "
            "dataset.take(steps) for tf.data, num_batches for a PyDataset."
        )
    if empty:
        raise InvalidData(f"{name} is a stream without batches; at least one is needed.")


def check_order(stream: Any, name: str, several_workers: bool, resumable: bool) -> None:
    """Refuses a `shuffle` in a `tf.data.Dataset` that differs between workers; warns of one that a restart changes.

    Raises:
        InvalidData: Each of several workers would shuffle in an order of its own.
    """
    shuffles = shuffles_of(stream)
    if several_workers and not all(seeded for seeded, _ in shuffles):
        raise InvalidData(
            f"{name} is shuffled without a seed, so each worker would cut its rows out of other batches: some would be "
            "seen twice and others never. Pass the same seed in each: dataset.shuffle(buffer, seed=0)."
        )
    if resumable and not all(seeded and not anew for seeded, anew in shuffles):
        warnings.warn(
            f"{name} is shuffled by tf.data in an order that a process started again cannot repeat, so a training "
            "that is resumed sees other batches than one that was not interrupted. Arrays, a keras.utils.PyDataset, "
            "tfbig.stream_csv and tfbig.stream_tfrecord are shuffled by epoch and seed; so does dataset.shuffle("
            "buffer, seed=0, reshuffle_each_iteration=False) give one order.",
            stacklevel=4,
        )


def check_targets(model: Any, batch: Any) -> None:
    """Raises `InvalidData` where a batch (or its spec) brings no targets and the model's loss needs them."""
    if compiled_loss(model) is None or has_own_rules(model):
        return
    if keras.utils.unpack_x_y_sample_weight(batch)[1] is None:
        raise InvalidData(
            f"The stream must give (x, y) or (x, y, sample_weight); it gives {type(batch).__name__} without targets, "
            "which the loss needs. Pair them, such as by tf.data.Dataset.zip((x, y))."
        )


def first_batch(stream: Any) -> tuple[Any, Any]:
    """Returns shapes and dtypes of a batch (as specs, or in form of the first batch), and the stream still whole.

    Raises:
        InvalidData: The stream gives no batch.
    """
    specs = getattr(stream, "element_spec", None)
    if specs is not None and all(_says_its_shape(spec) for spec in keras.tree.flatten(specs)):
        return specs, stream
    if hasattr(stream, "num_batches"):
        return stream[0], stream
    batches = iter(stream)
    batch = next(batches, None)
    if batch is None:
        raise InvalidData("x is a stream without batches; at least one is needed.")
    # What can be iterated once only has given its first batch away.
    return batch, _beginning_with(batch, batches) if batches is stream else stream


def stream_steps(stream: Any) -> int | None:
    """Returns how many batches a stream has, or None where it does not say or never ends."""
    if hasattr(stream, "cardinality"):
        count = int(stream.cardinality())
        return count if count >= 0 else None
    return getattr(stream, "num_batches", None)


def _beginning_with(batch: Any, others: Iterator[Any]) -> Iterator[Any]:
    """A generator, which is the one kind of iterator that Keras takes."""
    yield batch
    yield from others


def _says_its_shape(spec: Any) -> bool:
    return isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None
