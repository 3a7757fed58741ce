"""A loss whose replicas' shares add up to exactly what one device would compute over the whole batch."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.distribution import as_loss
from tfbig.errors import InvalidModel

_NOT_SPREAD = (None, "none")
# In how many replicas each row is, and how much of the batch's rows this replica has; None where it has all.
_REPLICAS_OF_A_ROW: contextvars.ContextVar[Any] = contextvars.ContextVar("replicas_of_a_row", default=1)
_SHARE: contextvars.ContextVar[Any] = contextvars.ContextVar("share", default=None)


@contextlib.contextmanager
def rows_in_replicas(count: Any, share: Any = None) -> Iterator[None]:
    """Says where a batch's rows are, for losses and metrics computed in the block.

    Args:
        count: In how many replicas each row is: 1, or all of a very small batch.
        share: This replica's share of the batch, of shares that sum to 1.
    """
    tokens = _REPLICAS_OF_A_ROW.set(count), _SHARE.set(share)
    try:
        yield
    finally:
        _REPLICAS_OF_A_ROW.reset(tokens[0])
        _SHARE.reset(tokens[1])


def share_of_batch() -> Any:
    """Returns what part of the batch's rows this replica counts: 1 for a very small batch, which one counts alone."""
    share = _SHARE.get()
    return None if share is None else share * tf.cast(_REPLICAS_OF_A_ROW.get(), share.dtype)


class GlobalLoss(keras.losses.Loss):
    """Wraps a loss for use inside replicas that each hold some rows of a batch.

    Each replica divides the sum over its rows by the count (or the weight, as the loss's reduction has it) of all
    replicas' rows. The gradient is that of the replica's share, so gradients are to be summed over replicas. The
    value is that of the whole batch, the same in each. Outside of replicas it is the loss itself.

    Rows may appear in several replicas instead of in one, if `rows_in_replicas` says so.
    """

    def __init__(self, identifier: Any):
        """Takes a Keras loss, or the name or function of one.

        Raises:
            InvalidModel: The loss is not reduced to one number, so there is nothing to share.
        """
        self.inner = as_loss(identifier)
        if self.inner.reduction in _NOT_SPREAD:
            raise InvalidModel(
                f"The loss {self.inner.name!r} has reduction={self.inner.reduction!r}; over replicas a loss must "
                'be one number: use "sum_over_batch_size", "sum" or "mean_with_sample_weight".'
            )
        super().__init__(name=self.inner.name, reduction=self.inner.reduction)
        self._ones = _Ones(self.inner)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the loss of the whole batch; its gradient is this replica's share."""
        context = tf.distribute.get_replica_context()
        if (context or tf.distribute.get_strategy()).num_replicas_in_sync == 1:
            return self.inner(y_true, y_pred, sample_weight)
        weights = sample_weight if self.reduction == "mean_with_sample_weight" else None
        # Held constant: its gradient is zero, but would be sent between replicas all the same.
        count = tf.stop_gradient(self._ones(y_true, y_pred, weights))
        if context is None:  # where the step is prepared
            return self.inner(y_true, y_pred, sample_weight)
        share = self._summed(y_true, y_pred, sample_weight)
        if self.reduction == "sum":
            share = share / tf.cast(_REPLICAS_OF_A_ROW.get(), share.dtype)
        else:  # sums and counts grow alike
            share = tf.math.divide_no_nan(share, context.all_reduce(tf.distribute.ReduceOp.SUM, count))
        whole = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(share))
        return share + tf.stop_gradient(whole - share)

    def _summed(self, y_true: Any, y_pred: Any, sample_weight: Any) -> Any:
        reduction, self.inner.reduction = self.inner.reduction, "sum"
        try:
            return self.inner(y_true, y_pred, sample_weight)
        finally:
            self.inner.reduction = reduction


class _Ones(keras.losses.Loss):
    """Adds up 1 for each value of a loss, so that masks and weights count as Keras itself counts them.

    Raises:
        InvalidModel: The loss does not give a value for each row, so that its values do not add up over replicas.
    """

    def __init__(self, inner: Any):
        super().__init__(name="count", reduction="sum", dtype=inner.dtype)
        self.inner = inner

    def call(self, y_true: Any, y_pred: Any) -> Any:
        values = tf.convert_to_tensor(self.inner.call(y_true, y_pred))
        if not _is_by_row(values, y_true, y_pred):
            shape = tuple(values.shape)
            raise InvalidModel(
                f"The loss {self.inner.name!r} gives {f'values of shape {shape}' if shape else 'one number'} for a "
                "whole batch. Over replicas, which hold some of its rows each, that cannot be put together exactly: "
                "return one value per row, of shape (rows,), as tf.reduce_mean(..., axis=-1) does, or "
                "keras.losses.Dice(axis=(1, 2, 3)) for images; or train on one device, strategy=None."
            )
        return tf.ones_like(values)


def _is_by_row(values: Any, *of_rows: Any) -> bool:
    """Whether a loss's values may belong to single rows, or to several places in each."""
    if not values.shape.rank:
        return values.shape.rank is None
    rows = {value.shape[0] for value in of_rows if value.shape.rank} - {None}
    # A number of its own, where that of rows is open or another one, is of features, or a mean with kept axes.
    return values.shape[0] is None or any(values.shape[0] % count == 0 for count in rows)
