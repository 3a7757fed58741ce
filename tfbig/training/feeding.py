"""Arrays, cut into what one call of the compiled step is given."""

import concurrent.futures
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.data.mapped import from_file
from tfbig.data.row_reading import read_rows
from tfbig.training.order import epoch_order

# Up to here a copy lives beside the step, which picks its rows itself; beyond, rows are read as they are needed.
_IN_MEMORY_BYTES = 1 << 30
# What one reading of rows may take, once they are not all in memory.
_CHUNK_BYTES = 32 << 20


class Feed:
    """The rows of one epoch after the other, in the order that seed and epoch decide.

    Attributes:
        rows: Rows of the data.
        steps: Gradient steps of an epoch.
        most_steps: Steps that one call may take without reading too much at once; None when all is in memory.
    """

    def __init__(
        self,
        x: Any,
        y: np.ndarray,
        weight: np.ndarray | None,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
    ):
        """Takes checked arrays of equal length. Arrays mapped from files, or larger than 1 GiB, stay where they are.

        Args:
            x: Inputs of shape (rows, ...), or a dict of such arrays.
            y: Targets of shape (rows, ...).
            weight: Weights of shape (rows,), or None.
            batch_size: Rows of a gradient step.
            seed: Decides every epoch's order.
            shuffle: Whether rows are shuffled in each epoch.
        """
        self._data = (x, y) if weight is None else (x, y, weight)
        arrays = keras.tree.flatten(self._data)
        self.rows, self.batch_size = len(y), batch_size
        self.steps = -(-self.rows // batch_size)
        self._seed, self._shuffle = seed, shuffle
        size = sum(array.nbytes for array in arrays)
        self._resident: Any = None
        self.most_steps: int | None = None
        if size <= _IN_MEMORY_BYTES and not any(map(from_file, arrays)):
            with tf.device("CPU:0"):
                self._resident = keras.tree.map_structure(tf.constant, self._data)
        else:
            self.most_steps = max(1, _CHUNK_BYTES * self.rows // (size * batch_size))
            self._reader = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="tfbig-feed")
        self._ahead: tuple[int, int, Any] | None = None
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Starts an epoch, counted from 0."""
        self._order = epoch_order(self.rows, epoch, self._seed, self._shuffle)
        self._ahead = None

    def take(self, step: int, count: int) -> tuple[Any, Any]:
        """Returns (data, row numbers in it) for `count` steps from `step` on."""
        start, stop = step * self.batch_size, min(self.rows, (step + count) * self.batch_size)
        if self._resident is not None:
            return self._resident, tf.constant(self._order[start:stop])
        ahead, self._ahead = self._ahead, None
        data = ahead[2].result() if ahead and ahead[:2] == (start, stop) else self._read(start, stop)
        if stop < self.rows:  # while this is trained on
            following = (stop, min(self.rows, 2 * stop - start))
            self._ahead = (*following, self._reader.submit(self._read, *following))
        return data, tf.range(tf.shape(data[1])[0], dtype=tf.int64)

    def specs(self) -> tuple[Any, ...]:
        """Returns the shape and dtype of one batch's (x, y, weight)."""
        rows = min(self.batch_size, self.rows)
        return keras.tree.map_structure(
            lambda array: tf.TensorSpec((rows, *array.shape[1:]), _trained_dtype(array)), self._data
        )

    def close(self) -> None:
        """Lets go of the data."""
        self._resident = None
        if self.most_steps is not None:
            self._reader.shutdown(cancel_futures=True)

    def _read(self, start: int, stop: int) -> Any:
        rows = self._order[start:stop]
        with tf.device("CPU:0"):
            return keras.tree.map_structure(
                lambda array: tf.constant(read_rows(array, rows).astype(_trained_dtype(array), copy=False)),
                self._data,
            )


def weights_of_rows(
    y: np.ndarray, sample_weight: np.ndarray | None, class_weight: Mapping[int, float] | None
) -> np.ndarray | None:
    """Returns the weight of each row, float32 of shape (rows,); None when all count alike.

    As in Keras a label that `class_weight` does not name weighs 1.
    """
    if class_weight is None:
        return None if sample_weight is None else sample_weight.astype(np.float32)
    labels = y.argmax(axis=-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y))
    known, positions = np.unique(labels.astype(np.int64), return_inverse=True)
    weights = np.array([class_weight.get(int(label), 1.0) for label in known], np.float32)
    return weights[positions.reshape(len(y))]


def _trained_dtype(array: np.ndarray) -> Any:
    return np.dtype(np.float32) if array.dtype == np.float64 else array.dtype
