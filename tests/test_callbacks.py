import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.callbacks import LearningRate, ResourceUse, StopOnNaN, Throughput
from tfbig.errors import InvalidOption, TrainingDiverged, UnknownOption

X = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)
Y = np.arange(70) % 2


def model():
    made = tfbig.models.mlp((4,), 2, hidden=(4,))
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def linear():
    """Without a ReLU, which makes 0 of NaN on a CPU."""
    made = tfbig.models.mlp((4,), 2, hidden=())
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


class Clock:
    """Stands in for time.perf_counter: it moves when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def play(callback, clock, seconds, first_epoch=0):
    """An epoch of batches that take so many seconds each; then validation of 1000 seconds."""
    logs = {}
    callback.on_epoch_begin(first_epoch)
    for batch, taken in enumerate(seconds):
        callback.on_train_batch_begin(batch)
        clock.now += taken
        callback.on_train_batch_end(batch, {"loss": 1.0})
    clock.now += 1000
    callback.on_epoch_end(first_epoch, logs)
    return logs


def test_throughput_leaves_out_the_first_batch_and_validation(clock):
    callback = Throughput(batch_size=10)
    callback.on_train_begin()
    # 9 s of tracing; then two batches of 10 rows in 1 s each.
    assert play(callback, clock, [9, 1, 1]) == {"examples_per_second": 20 / 2}
    # A warm epoch counts whole: 30 rows in 6 s.
    assert play(callback, clock, [2, 2, 2], 1) == {"examples_per_second": 30 / 6}


def test_throughput_of_a_single_batch_counts_it(clock):
    callback = Throughput(batch_size=10)
    callback.on_train_begin()
    assert play(callback, clock, [4]) == {"examples_per_second": 10 / 4}


def test_throughput_warms_up_again_in_another_training(clock):
    callback = Throughput(batch_size=10)
    for _ in range(2):
        callback.on_train_begin()
        assert play(callback, clock, [9, 1]) == {"examples_per_second": 10 / 1}


def test_throughput_of_an_epoch_without_batches_is_not_written(clock):
    callback = Throughput(batch_size=10)
    callback.on_train_begin()
    assert play(callback, clock, []) == {}


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_throughput_counts_the_rows_of_a_last_smaller_batch(clock, steps_per_execution):
    class Ticking(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            clock.now += 1

    trained = model()
    trained.steps_per_execution = steps_per_execution
    options = {"batch_size": 20, "epochs": 2, "verbose": 0, "validation_data": (X, Y)}
    history = trained.fit(X, Y, callbacks=[Ticking(), Throughput()], **options).history
    # 20, 20, 20 and 10 rows: a second per execution, the first of which holds the tracing.
    executions = 4 // steps_per_execution
    warm_up = 20 * steps_per_execution
    expected = [(70 - warm_up) / (executions - 1), 70 / executions]
    np.testing.assert_allclose(history["examples_per_second"], expected)


def test_throughput_needs_a_batch_size_where_nothing_counts_rows():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            return {"loss": keras.ops.mean(self(data[0]))}

        @property
        def metrics(self):
            return []

    own = Own()
    own.compile("sgd", "mse")
    with pytest.raises(InvalidOption, match="no loss metric to count rows by .*: pass batch_size="):
        own.fit(X, X[:, :2], verbose=0, callbacks=[Throughput()])
    history = own.fit(X, X[:, :2], verbose=0, callbacks=[Throughput(batch_size=32)]).history
    assert history["examples_per_second"][0] > 0


def test_resource_use_writes_the_epochs_seconds_validation_included(clock):
    logs = play(ResourceUse(), clock, [1, 2])
    assert logs["seconds"] == 1003


GROWING = """
import json
import numpy as np
from tfbig.callbacks import peak_memory_mb

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

resident, before = status("VmRSS"), peak_memory_mb()
held = np.ones(int(before - resident + 100) * 2**20, np.uint8)  # writes every page
print(json.dumps([resident, before, peak_memory_mb()]))
"""


def test_peak_memory_is_this_process_own_and_grows_with_what_it_holds():
    """In a process of its own, whose peak is not that of whichever test was the largest."""
    held = np.ones(1000 * 2**20, np.uint8)  # by the process that starts it
    result = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    resident, before, after = json.loads(result.stdout)
    assert held[-1] == 1
    assert resident <= before < 1000  # TensorFlow takes about half of that
    assert after - before == pytest.approx(100, abs=50)


def test_learning_rate_is_written_at_each_epochs_end():
    trained = model()
    rate = keras.optimizers.schedules.PolynomialDecay(0.4, decay_steps=8, end_learning_rate=0.0)
    trained.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    history = trained.fit(X, Y, batch_size=20, epochs=2, verbose=0, callbacks=[LearningRate()]).history
    np.testing.assert_allclose(history["learning_rate"], [0.2, 0.0], atol=1e-7)


def test_learning_rate_of_a_constant_rate():
    history = model().fit(X, Y, epochs=2, verbose=0, callbacks=[LearningRate()]).history
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.01], rtol=1e-6)


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (ResourceUse(), "seconds"),
        (LearningRate(), "learning_rate"),
        (Throughput(batch_size=1), "examples_per_second"),
    ],
    ids=["resources", "rate", "throughput"],
)
def test_an_epoch_without_logs_leaves_the_next_one_whole(clock, callback, name):
    """As a training loop of the user's own may call it."""
    callback.set_model(model())
    callback.on_train_begin()
    for epoch, logs in enumerate((None, {})):
        callback.on_epoch_begin(epoch)
        clock.now += 4
        callback.on_train_batch_end(0)
        callback.on_epoch_end(epoch, logs)
    assert logs[name] == pytest.approx(
        {"seconds": 4, "learning_rate": 0.01, "examples_per_second": 1 / 4}[name]
    )


def poisoned(batch):
    """Batches of 10 rows, of which one holds a NaN."""
    x = X.copy()
    x[10 * batch + 3, 1] = np.nan
    return tf.data.Dataset.from_tensor_slices((x, Y)).batch(10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_named_with_its_batch(value):
    callback = StopOnNaN()
    callback.on_train_begin()
    callback.on_epoch_begin(2)
    callback.on_train_batch_begin(4)
    callback.on_train_batch_end(4, {"loss": 1.0})
    callback.on_train_batch_begin(5)
    with pytest.raises(
        TrainingDiverged,
        match=rf"The loss became {value} in batch 5 of epoch 2\. Look for NaN in the data; else lower",
    ):
        callback.on_train_batch_end(5, {"loss": value})
    assert (callback.epoch, callback.batches) == (2, range(5, 6))


@pytest.mark.parametrize("logs", [None, {}, {"accuracy": math.nan}])
def test_logs_without_a_loss_are_let_pass(logs):
    callback = StopOnNaN()
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0, logs)
    assert (callback.epoch, callback.batches) == (None, None)
    # and do not stop it from looking at those that come after
    callback.on_train_batch_begin(1)
    with pytest.raises(TrainingDiverged, match="in batch 1 of epoch 0"):
        callback.on_train_batch_end(1, {"loss": math.nan})


@pytest.mark.parametrize("bad", [0, 4, 6])
def test_in_a_bare_fit_the_very_batch_is_named(bad):
    with pytest.raises(TrainingDiverged, match=f"The loss became nan in batch {bad} of epoch 0"):
        linear().fit(poisoned(bad), verbose=0, callbacks=[StopOnNaN()])


def test_with_several_steps_in_one_execution_the_range_is_named():
    trained = linear()
    trained.steps_per_execution = 3
    message = r"one of batches 3 to 5 of epoch 0\. StopOnNaN\(every=1\) in tfbig.fit names the batch"
    with pytest.raises(TrainingDiverged, match=message):
        trained.fit(poisoned(4), verbose=0, callbacks=[StopOnNaN()])


def test_without_raising_training_stops_with_a_warning_and_fit_returns():
    callback = StopOnNaN(raises=False)
    with pytest.warns(UserWarning, match="The loss became nan in batch 4 of epoch 0"):
        history = linear().fit(poisoned(4), epochs=3, verbose=0, callbacks=[callback])
    assert history.epoch == [0]
    assert (callback.epoch, callback.batches) == (0, range(4, 5))


def test_nan_that_a_relu_hides_from_the_loss_is_found_in_the_weights():
    callback = StopOnNaN()
    with pytest.raises(
        TrainingDiverged, match="dense.*/kernel became NaN or infinite in epoch 0, while the loss"
    ):
        model().fit(poisoned(4), verbose=0, callbacks=[callback])
    assert (callback.epoch, callback.batches) == (0, None)


def test_a_second_training_starts_clean():
    callback = StopOnNaN(raises=False)
    with pytest.warns(UserWarning, match="The loss became nan"):
        linear().fit(poisoned(4), verbose=0, callbacks=[callback])
    model().fit(X, Y, verbose=0, callbacks=[callback])
    assert (callback.epoch, callback.batches) == (None, None)


class Steps(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = self.model.steps_per_execution


@pytest.mark.parametrize(
    ("callback", "steps"),
    [
        (StopOnNaN(), 7),
        (StopOnNaN(every=1), 1),
        (StopOnNaN(every=3), 3),
        (Throughput(), 7),
        (ResourceUse(), 7),
        (LearningRate(), 7),
    ],
    ids=["nan", "nan in every step", "nan in every third", "throughput", "resources", "rate"],
)
def test_fit_compiles_as_many_steps_into_one_call_as_the_callback_allows(callback, steps):
    spy = Steps()
    run = tfbig.fit(model(), X, Y, batch_size=10, epochs=1, verbose=0, callbacks=[callback, spy])
    assert spy.seen == steps  # an epoch has 7
    assert len(run.epoch) == 1


def test_all_together_in_tfbigs_fit():
    every = [Throughput(), ResourceUse(), LearningRate(), StopOnNaN()]
    history = tfbig.fit(model(), X, Y, epochs=2, verbose=0, callbacks=every).history
    assert set(history) == {"loss", "examples_per_second", "seconds", "peak_memory_mb", "learning_rate"}
    assert all(math.isfinite(value) and len(values) == 2 for values in history.values() for value in values)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StopOnNaN(every=0), InvalidOption, "every must be a whole number of at least 1; got 0"),
        (lambda: Throughput(batch_size=2.5), InvalidOption, "batch_size must be a whole number .*; got 2.5"),
        (lambda: StopOnNaN(evry=1), UnknownOption, "no option 'evry'. Did you mean 'every'?"),
    ],
    ids=["no steps", "fraction", "misspelt"],
)
def test_bad_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_time_in_which_a_training_was_dead_does_not_count(clock):
    """A checkpoint keeps plain numbers: what is put back in the middle of an epoch, on a machine started anew."""
    dead, alive = Throughput(batch_size=10), Throughput(batch_size=10)
    dead.on_train_begin()
    assert play(dead, clock, [9, 1, 1]) == {"examples_per_second": 20 / 2}
    dead.on_epoch_begin(1)
    clock.now += 2
    dead.on_train_batch_end(0)
    clock.now = 5.0
    alive.on_train_begin()
    alive.on_epoch_begin(1)
    vars(alive).update(
        {name: v for name, v in vars(dead).items() if isinstance(v, bool | int | float | tuple)}
    )
    logs = {}
    for batch in (1, 2):
        clock.now += 2
        alive.on_train_batch_end(batch)
    alive.on_epoch_end(1, logs)
    assert logs == {"examples_per_second": 30 / 6}
