import numpy as np

import tfbig
from tfbig.backend import keras
from tfbig.training.batch_order import OrderedBatches
from tfbig.training.order import epoch_order


class Batches(keras.utils.PyDataset):
    """Each batch holds its own number."""

    def __init__(self, read, **options):
        super().__init__(**options)
        self.read = read

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.read.append(index)
        return np.full((2, 4), index, np.float32), np.full(2, index % 3)

    def on_epoch_begin(self):
        self.read.append("begin")

    def on_epoch_end(self):
        self.read.append("end")


def test_every_batch_comes_once_in_the_order_of_seed_and_epoch():
    batches = OrderedBatches(Batches([], workers=2, max_queue_size=3), seed=5)
    assert (batches.num_batches, batches.workers, batches.max_queue_size) == (6, 2, 3)
    for epoch in (0, 1):
        batches.begin(epoch)
        assert [batches[i][0][0, 0] for i in range(6)] == epoch_order(6, epoch, 5).tolist()


def read_in_fit(**options):
    read = []
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tfbig.fit(tfbig.models.mlp((4,), 3), Batches(read), loss=loss, epochs=2, seed=3, verbose=0, **options)
    # What comes before the first epoch is Keras's look at shapes.
    epochs = [[]]
    for entry in read[read.index("begin") + 1 :]:
        if entry == "begin":
            epochs.append([])
        else:
            epochs[-1].append(entry)
    return epochs


def test_fit_reads_in_that_order_and_passes_on_when_epochs_begin_and_end():
    assert read_in_fit() == [[*epoch_order(6, epoch, 3).tolist(), "end"] for epoch in (0, 1)]


def test_fit_reads_in_the_datasets_order_where_asked():
    assert read_in_fit(shuffle=False) == [[*range(6), "end"]] * 2
