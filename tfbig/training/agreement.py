"""What workers settle between them: seeds and initial weights are the chief's, steps in a call the fewest of all."""

from typing import Any

import numpy as np

from tfbig.backend import tf
from tfbig.training.strategies import is_multi_worker


def chief_values(strategy: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the chief's values in every worker; all workers call this with arrays of the same shapes."""
    if not is_multi_worker(strategy) or not values:
        return values
    # Integers go as float64, in which every 32-bit one is exact: not every collective takes unsigned ones.
    own = [value if value.dtype == np.float32 else value.astype(np.float64) for value in values]

    @tf.function
    def add_up() -> Any:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        # Of all replicas only the first adds anything but zeros.
        mine = [tf.where(first, value, tf.zeros_like(value)) for value in own]
        return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in mine]

    summed = strategy.run(add_up)
    local = [strategy.experimental_local_results(value)[0].numpy() for value in summed]
    return [total.astype(value.dtype) for total, value in zip(local, values, strict=True)]


def smallest(strategy: Any, number: int) -> int:
    """Returns the smallest of all workers' numbers in each."""
    if not is_multi_worker(strategy):
        return number
    own = tf.constant([number], tf.int64)
    gathered = strategy.run(lambda: tf.distribute.get_replica_context().all_gather(own, axis=0))
    return int(strategy.experimental_local_results(gathered)[0].numpy().min())


def take_from_chief(strategy: Any, variables: list[Any]) -> None:
    """Sets the variables of this worker to the chief's values."""
    if is_multi_worker(strategy):
        values = chief_values(strategy, [v.numpy() for v in variables])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
