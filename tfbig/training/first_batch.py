"""What a stream of batches gives, known before training: the variables are made for it, and endless ones refused."""

from collections.abc import Iterator
from typing import Any

from tfbig.backend import keras, tf
from tfbig.errors import InvalidData


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


def _beginning_with(batch: Any, others: Iterator[Any]) -> Iterator[Any]:
    """A generator, which is the one kind of iterator that Keras takes."""
    yield batch
    yield from others


def _says_its_shape(spec: Any) -> bool:
    return isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None
