import subprocess
import sys
import threading

import numpy as np
import pytest

from tfbig.backend import tf
from tfbig.training import feeding
from tfbig.training.feeding import Feed, weights_of_rows
from tfbig.training.order import epoch_order

ROWS, BATCH = 50, 8  # 7 batches, the last one of 2 rows


@pytest.fixture
def arrays():
    x = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)
    return x, np.arange(ROWS), np.linspace(0, 1, ROWS, dtype=np.float32)


@pytest.fixture
def mapped(arrays, tmp_path, monkeypatch):
    """The same rows with x in a file, float64, of which 2 batches are read at once."""
    np.save(tmp_path / "x.npy", arrays[0].astype(np.float64))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    size = x.nbytes + arrays[1].nbytes + arrays[2].nbytes
    monkeypatch.setattr(feeding, "_CHUNK_BYTES", 2 * BATCH * size // ROWS + 1)
    return (x, *arrays[1:])


def rows_of(feed, step, count):
    data, rows = feed.take(step, count)
    return [tf.gather(part, rows).numpy() for part in data]


def epoch_of(feed, count):
    taken = [rows_of(feed, step, min(count, feed.steps - step)) for step in range(0, feed.steps, count)]
    return [np.concatenate(parts) for parts in zip(*taken, strict=True)]


@pytest.fixture(params=["memory", "file"])
def either(request, arrays, mapped):
    feeds = []

    def make(**options):
        given = arrays if request.param == "memory" else mapped
        feeds.append(Feed(*given, batch_size=BATCH, **options))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_an_epoch_holds_every_row_once_in_its_order(either, arrays, count):
    feed = either(seed=3, shuffle=True)
    assert (feed.rows, feed.steps) == (ROWS, 7)
    for epoch in (0, 1, 4):
        feed.begin(epoch)
        order = epoch_order(ROWS, epoch, 3)
        for got, array in zip(epoch_of(feed, count), arrays, strict=True):
            np.testing.assert_array_equal(got, array[order])


def test_without_shuffling_the_order_is_that_of_the_data(either, arrays):
    feed = either()
    feed.begin(2)
    np.testing.assert_array_equal(epoch_of(feed, 3)[1], arrays[1])


def test_rows_are_taken_from_the_middle(either, arrays):
    feed = either(seed=1, shuffle=True)
    order = epoch_order(ROWS, 0, 1)
    for step in (5, 2, 6):  # a resumed training begins anywhere
        np.testing.assert_array_equal(rows_of(feed, step, 1)[1], order[step * BATCH : (step + 1) * BATCH])


def test_dtypes_are_those_that_are_trained_in(either):
    feed = either()
    assert [part.dtype.name for part in rows_of(feed, 0, 1)] == ["float32", "int64", "float32"]
    assert [spec.dtype.name for spec in feed.specs()] == ["float32", "int64", "float32"]
    assert [tuple(spec.shape) for spec in feed.specs()] == [(BATCH, 3), (BATCH,), (BATCH,)]


def test_a_batch_larger_than_the_data_is_the_data(arrays):
    feed = Feed(*arrays, batch_size=1000)
    assert feed.steps == 1
    assert feed.specs()[0].shape == (ROWS, 3)
    np.testing.assert_array_equal(rows_of(feed, 0, 1)[1], arrays[1])


def test_rows_in_memory_need_no_limit_and_those_in_a_file_do(arrays, mapped):
    assert Feed(*arrays, batch_size=BATCH).most_steps is None
    feed = Feed(*mapped, batch_size=BATCH)
    assert feed.most_steps == 2
    feed.close()


def test_arrays_too_large_for_a_second_copy_stay_where_they_are(arrays, monkeypatch):
    monkeypatch.setattr(feeding, "_IN_MEMORY_BYTES", 100)
    feed = Feed(*arrays, batch_size=BATCH, seed=2, shuffle=True)
    assert feed.most_steps is not None
    np.testing.assert_array_equal(epoch_of(feed, 2)[1], epoch_order(ROWS, 0, 2))
    feed.close()


@pytest.mark.parametrize("count", [2, 3])
def test_the_rows_to_come_are_read_while_these_are_trained_on_and_none_twice(mapped, monkeypatch, count):
    feed = Feed(*mapped, batch_size=BATCH, seed=0, shuffle=True)
    read, threads = [], []
    inner = feed._read

    def reading(start, stop):
        read.append((start, stop))
        threads.append(threading.current_thread() is threading.main_thread())
        return inner(start, stop)

    monkeypatch.setattr(feed, "_read", reading)
    epoch_of(feed, count)
    feed.close()
    width = count * BATCH
    assert read == [(start, min(ROWS, start + width)) for start in range(0, ROWS, width)]
    assert threads == [True] + [False] * (len(read) - 1)


def test_what_was_read_ahead_in_one_epoch_is_not_taken_for_the_next(mapped, arrays):
    feed = Feed(*mapped, batch_size=BATCH, seed=0, shuffle=True)
    feed.take(0, 2)  # reads (16, 32) of epoch 0 ahead
    feed.begin(1)
    np.testing.assert_array_equal(rows_of(feed, 2, 2)[1], epoch_order(ROWS, 1, 0)[16:32])
    feed.close()


def test_a_feed_that_is_closed_leaves_no_thread(mapped):
    before = threading.active_count()
    feed = Feed(*mapped, batch_size=BATCH)
    feed.take(0, 2)
    assert threading.active_count() == before + 1
    feed.close()
    assert threading.active_count() == before


def test_weights_are_those_of_the_samples():
    weights = weights_of_rows(np.arange(3), np.array([1.0, 0.5, 2.0]), None)
    assert weights.dtype == np.float32
    assert weights.tolist() == [1, 0.5, 2]
    assert weights_of_rows(np.arange(3), None, None) is None


@pytest.mark.parametrize(
    "y",
    [
        np.array([2, 0, 1, 2]),
        np.array([[2], [0], [1], [2]]),
        np.array([2.0, 0, 1, 2], np.float32),
        np.eye(3)[[2, 0, 1, 2]],
    ],
    ids=["labels", "column", "float", "one-hot"],
)
def test_weights_are_those_of_the_labels_and_1_where_none_is_named(y):
    weights = weights_of_rows(y, None, {0: 3.0, 2: 0.25})
    assert weights.dtype == np.float32
    assert weights.tolist() == [0.25, 3, 1, 0.25]


GROWTH = """
import sys
import numpy as np, tensorflow as tf, keras, tfbig

def resident():
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("RssAnon") or line.startswith("VmRSS")][:1]
    return int(line.split()[1]) / 1024

def peak(counter=[0]):
    counter[0] = max(counter[0], resident())
    return counter[0]

class Watch(keras.callbacks.Callback):
    steps_between = 8
    def on_train_batch_end(self, batch, logs=None):
        peak()

def build():
    return keras.Sequential([keras.Input((1024,)), keras.layers.Dense(2, name="logits")])

small = np.random.default_rng(0).normal(size=(256, 1024)).astype("float32")
tfbig.fit(build, small, np.arange(256) % 2, epochs=1, batch_size=64, verbose=0)  # TensorFlow's own memory
x = np.load(sys.argv[1], mmap_mode="r")
before = resident()
run = tfbig.fit(build, x, np.arange(len(x)) % 2, epochs=1, batch_size=64, seed=0, callbacks=[Watch()], verbose=0)
assert np.isfinite(run.history["loss"]).all()
print(x.nbytes / 2**20, peak() - before)
"""


def test_memory_stays_flat_whatever_the_size_of_the_file(tmp_path):
    rows = 75_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, 1024))
    x[::512] = 1  # the file has holes elsewhere, which cost no disk
    x.flush()
    del x
    result = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path / "x.npy")], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    size, growth = map(float, result.stdout.split())
    assert size > 290
    # Two chunks of 32 MiB, one read ahead, as they are gathered and as tensors.
    assert growth < 120
