"""Several steps of a stream in one call: as many as can be, and the same numbers as one by one."""

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.training.steps import MOST_STEPS_TOGETHER

ROWS, BATCH, BATCHES = 209, 3, 70  # the last batch holds 2 rows; a call of 64 steps is followed by one of 6
Y = np.arange(ROWS) % 3
X = (np.eye(3, 4)[Y] + np.random.default_rng(0).normal(size=(ROWS, 4))).astype(np.float32)


class Batches(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return BATCHES

    def __getitem__(self, i):
        return X[i * BATCH : (i + 1) * BATCH], Y[i * BATCH : (i + 1) * BATCH]


def known():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)


def unknown():
    return known().filter(lambda *_: True)


def shuffled():
    keras.utils.set_random_seed(1)  # from which, too, the order of tf.data's own shuffle follows
    return known().shuffle(99, seed=3)


def batches():
    return (Batches()[i] for i in range(BATCHES))


def from_generator():
    specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(batches, output_signature=specs).prefetch(2)


STREAMS = {
    "tf.data": known,
    "unknown length": unknown,
    "shuffled": shuffled,
    "from a generator": from_generator,
    "PyDataset": Batches,
}


class Steps(keras.callbacks.Callback):
    """Notes how many steps a call takes, and how many calls there are; watches no single batch."""

    steps_between = 1 << 30

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.together = self.model.steps_per_execution

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(batch)


def fit(stream, **options):
    keras.utils.set_random_seed(1)
    # Each step draws a mask, so that one too many or too few would show.
    model = tfbig.models.mlp((4,), 3, hidden=(8,), dropout=0.3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"loss": loss, "metrics": ["accuracy"], "epochs": 2, "seed": 0, "verbose": 0, **options}
    return tfbig.fit(model, stream, **options)


def assert_same(one, other):
    assert one.history == other.history
    variables = [(*run.model.variables, *run.model.optimizer.variables) for run in (one, other)]
    for mine, theirs in zip(*variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_stream_trains_many_steps_in_a_call_and_ends_bit_for_bit_as_one_by_one(stream):
    steps = Steps()
    together = fit(stream(), validation_data=stream(), callbacks=[steps])
    assert steps.together == MOST_STEPS_TOGETHER == 64
    # The last call of an epoch tells of the last batch that there is.
    assert steps.calls == [63, 69] * 2
    assert int(together.model.optimizer.iterations) == 2 * BATCHES
    assert_same(together, fit(stream(), validation_data=stream(), steps_per_execution=1))


@pytest.mark.parametrize("steps", [3, 69, 70, 200])
def test_any_number_of_steps_trains_on_every_batch_once(steps):
    assert_same(fit(unknown(), epochs=1, steps_per_execution=steps), fit(unknown(), epochs=1))


@pytest.mark.parametrize("stream", [known, unknown])
def test_a_callback_that_watches_batches_sees_every_batch_of_a_stream(stream):
    seen = []
    watching = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    fit(stream().take(9), callbacks=[watching])
    assert seen == [*range(9)] * 2


def test_a_short_stream_of_unknown_length_is_one_call():
    steps = Steps()
    run = fit(unknown().take(5), callbacks=[steps])
    assert steps.calls == [4, 4]
    assert_same(run, fit(unknown().take(5), steps_per_execution=1))


def test_batches_of_a_generator_are_trained_on_as_they_come():
    """It may wait for something, and what is seen of the training must not wait with it."""
    steps = Steps()
    fit(batches(), epochs=1, callbacks=[steps])
    assert steps.together == 1
    assert steps.calls == [*range(BATCHES)]


def test_the_batch_with_nan_is_named_among_many_in_one_call():
    x = X.copy()
    x[200, 1] = np.nan
    for stream in (known, unknown):
        spoilt = tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(x).batch(BATCH), stream())
        spoilt = spoilt.map(lambda x, pair: (x, pair[1]))
        with pytest.raises(tfbig.errors.InvalidData, match="x holds NaN or infinite values in batch 66 of"):
            fit(spoilt, epochs=1)


class DiesBetweenCalls(keras.callbacks.Callback):
    """Raises at (epoch, batch) of `death`, which is no memory of its own that a checkpoint would bring back."""

    steps_between = 10
    death = None

    def on_epoch_begin(self, epoch, logs=None):
        self.reached = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.reached, batch) == self.death:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stream", [unknown, Batches])
def test_a_killed_training_goes_on_inside_a_call_as_if_nothing_had_happened(stream, tmp_path, monkeypatch):
    whole = fit(stream(), validation_data=unknown())
    options = {"validation_data": unknown(), "checkpoint_dir": tmp_path, "callbacks": [DiesBetweenCalls()]}
    for moment in ((0, 39), (1, 29)):
        monkeypatch.setattr(DiesBetweenCalls, "death", moment)
        with pytest.raises(KeyboardInterrupt):
            fit(stream(), checkpoint_every=20, **options)
    monkeypatch.setattr(DiesBetweenCalls, "death", None)
    # Calls of 64 steps, of the first of which the 20 before the checkpoint are passed over.
    monkeypatch.setattr(DiesBetweenCalls, "steps_between", 64)
    assert_same(fit(stream(), checkpoint_every=64, **options), whole)


def test_the_progress_bar_ends_at_the_number_of_batches(capsys):
    fit(known(), epochs=1, verbose=1)
    assert "70/70" in capsys.readouterr().out


def test_a_tensorboard_that_writes_by_epoch_slows_nothing_down(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    steps = Steps()
    run = fit(known(), validation_data=known(), callbacks=[board, steps])
    assert steps.together == 64
    written = {}
    for path in tmp_path.rglob("events*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith("epoch_"):
                    name = {"train": "", "validation": "val_"}[path.parent.name] + value.tag[6:]
                    written.setdefault(name, []).append(tf.make_ndarray(value.tensor).item())
    assert (
        set(written) - {"learning_rate"}
        == set(run.history)
        == {"loss", "accuracy", "val_loss", "val_accuracy"}
    )
    for name, series in run.history.items():
        assert written[name] == pytest.approx(series, rel=1e-6)  # float32 in the file


class OwnBoard(keras.callbacks.TensorBoard):
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: keras.callbacks.TensorBoard(path, update_freq="batch"),
        lambda path: keras.callbacks.TensorBoard(path, update_freq=10),
        lambda path: keras.callbacks.TensorBoard(path, profile_batch=(2, 3)),
        OwnBoard,
    ],
    ids=["each batch", "every tenth", "profiled", "of the user's own"],
)
def test_a_tensorboard_that_looks_at_batches_sees_each(make, tmp_path):
    pytest.importorskip("tensorboard")
    steps = Steps()
    fit(known().take(3), epochs=1, callbacks=[make(tmp_path), steps])
    assert steps.together == 1


def test_a_model_with_a_step_of_its_own_trains_on_a_stream_as_in_keras():
    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    def model():
        keras.utils.set_random_seed(1)
        made = Own([keras.Input((4,)), keras.layers.Dense(3)])
        made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return made

    steps = Steps()
    ours = tfbig.fit(model(), known(), epochs=2, verbose=0, callbacks=[steps]).history["loss"]
    assert steps.together == 1
    assert ours == model().fit(known(), epochs=2, verbose=0).history["loss"]
