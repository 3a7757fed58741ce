"""A metric function that gives one number for a batch: over replicas, of which each has a share, as on one device."""

from collections.abc import Callable
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.distribution import mask_of, name_in_logs
from tfbig.training.global_loss import share_of_batch


class GlobalMetric(keras.metrics.MeanMetricWrapper):
    """The mean of a function's values, as Keras makes it of a function that is passed to `compile`.

    A value for each row adds up over replicas by itself. One number for a batch counts in each by the replica's share
    of the batch's rows, so that a mean over rows is exactly that of the whole batch. What is no mean, such as the
    root of one, is the mean of the replicas' own numbers, which the whole batch's may differ from: no replica sees
    it. `keras.metrics` keep sums for such, which do add up: `RootMeanSquaredError`.
    """

    def __init__(self, function: Callable[[Any, Any], Any]):
        """Takes a function of (y_true, y_pred)."""
        super().__init__(self._noting_its_rank, name=name_in_logs(function))
        self.function = function
        self._gives_one_number = False  # known once the model is built

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds the values of a batch, or of this replica's share of it."""
        # Weights of rows, and masks, say by themselves how much of the batch is here.
        if self._gives_one_number and sample_weight is None and mask_of(y_pred) is None:
            sample_weight = share_of_batch()
        return super().update_state(y_true, y_pred, sample_weight)

    def _noting_its_rank(self, y_true: Any, y_pred: Any) -> Any:
        values = tf.convert_to_tensor(self.function(y_true, y_pred))
        self._gives_one_number = values.shape.rank == 0
        return values
