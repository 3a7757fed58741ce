"""A `keras.utils.PyDataset` in an order that a resumed training can work out again."""

from typing import Any

from tfbig.backend import keras
from tfbig.training.order import epoch_order


class OrderedBatches(keras.utils.PyDataset):
    """The batches of another PyDataset in the order that seed and epoch decide; Keras draws one it cannot repeat."""

    def __init__(self, inner: Any, seed: int):
        """Takes a PyDataset of known length, and reads it in as many workers as it asks for."""
        super().__init__(inner.workers, inner.use_multiprocessing, inner.max_queue_size)
        self.inner, self._seed = inner, seed
        self.begin(0)

    @property
    def num_batches(self) -> Any:
        """Batches of an epoch."""
        return self.inner.num_batches

    def begin(self, epoch: int) -> None:
        """Starts an epoch, counted from 0."""
        self._order = epoch_order(self.num_batches, epoch, self._seed)

    def __getitem__(self, index: int) -> Any:
        """Returns the batch that is at this place of the epoch."""
        return self.inner[int(self._order[index])]

    def on_epoch_begin(self) -> None:
        """Is passed on."""
        self.inner.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Is passed on."""
        self.inner.on_epoch_end()
