import datetime
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.errors import InvalidModel, InvalidOption, OutputNotWritable
from tfbig.training.checkpoints import CheckpointFolder

ROWS, BATCH, STEPS = 150, 16, 10  # the last batch holds 6 rows


class Die(keras.callbacks.Callback):
    """Raises KeyboardInterrupt at (epoch, moment) of DEATH, a moment being a batch, "validation" or "end"."""

    steps_between = 1

    def on_epoch_begin(self, epoch, logs=None):
        self.reached = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._die(batch)

    def on_test_begin(self, logs=None):
        self._die("validation")

    def on_epoch_end(self, epoch, logs=None):
        self._die("end")

    def _die(self, moment):
        if (self.reached, moment) == DEATH:
            raise KeyboardInterrupt


DEATH = None


@pytest.fixture(autouse=True)
def nobody_dies():
    yield
    dies_at(None)


def dies_at(moment):
    global DEATH
    DEATH = moment


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 2 * ROWS)
    x = (np.eye(3, 4)[y] * 2 + generator.normal(size=(2 * ROWS, 4))).astype(np.float32)
    return (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:])


def build():
    return tfbig.models.mlp((4,), 3, hidden=(8,), dropout=0.3)


def watching(patience=2):
    """Callbacks that remember: on these rows the rate falls and training stops before the epochs are over."""
    return [
        keras.callbacks.EarlyStopping(
            "val_loss", patience=patience, min_delta=0.02, restore_best_weights=True
        ),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=0.05, factor=0.5),
    ]


def train(rows, folder, callbacks=watching, **options):
    train, valid = rows
    options = {
        "epochs": 8,
        "batch_size": BATCH,
        "seed": 1,
        "optimizer": keras.optimizers.Adam(0.03),
        "validation_data": valid,
        "checkpoint_every": 3,
        "verbose": 0,
        **options,
    }
    return tfbig.fit(build, *train, callbacks=[*callbacks(), Die()], checkpoint_dir=folder, **options)


def state(run):
    optimizer = [variable.numpy() for variable in run.model.optimizer.variables]
    return [*run.model.get_weights(), *optimizer]


def assert_same(run, other):
    assert run.history == other.history
    assert run.epoch == other.epoch
    assert len(run.epoch_seconds) == len(run.epoch)
    for one, two in zip(state(run), state(other), strict=True):
        np.testing.assert_array_equal(one, two)


def killed_and_started_again(rows, folder, *deaths, **options):
    for death in deaths:
        dies_at(death)
        with pytest.raises(KeyboardInterrupt):
            train(rows, folder, **options)
    dies_at(None)
    return train(rows, folder, **options)


@pytest.fixture(scope="module")
def unbroken(rows):
    run = train(rows, None)
    # Or the test would not show that the callbacks' memory counts.
    assert 3 < len(run.epoch) < 8
    assert len(set(run.history["learning_rate"])) > 1
    return run


@pytest.mark.parametrize(
    "deaths",
    [
        [(0, 1)],  # before the first checkpoint
        [(0, 4), (0, 7)],
        [(1, 9)],
        [(2, "validation")],
        [(2, "end")],
        [(1, 2), (3, "validation"), (3, "end")],
    ],
    ids=str,
)
def test_a_training_that_was_killed_ends_as_if_it_had_not_been(rows, unbroken, tmp_path, deaths):
    assert_same(killed_and_started_again(rows, tmp_path, *deaths), unbroken)


@pytest.mark.parametrize("death", [(1, "validation"), (1, "end"), (2, 4)], ids=str)
def test_a_checkpoint_at_the_last_step_of_an_epoch_is_no_end_of_the_epoch(rows, unbroken, tmp_path, death):
    run = killed_and_started_again(rows, tmp_path, death, checkpoint_every=5)
    assert_same(run, unbroken)


@pytest.mark.parametrize("every", ["epoch", datetime.timedelta(microseconds=1), 1000], ids=str)
def test_however_often_checkpoints_are_written_the_end_is_the_same(rows, unbroken, tmp_path, every):
    assert_same(killed_and_started_again(rows, tmp_path, (2, 4), checkpoint_every=every), unbroken)


def test_checkpoints_are_written_as_often_as_asked(rows, monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(CheckpointFolder, "save", lambda self, checkpoint, step: written.append(step))
    train(rows, tmp_path, callbacks=list, epochs=2, checkpoint_every=4)
    # After each epoch of 10 steps, and once more when training ends, whatever happened inside.
    assert written == [4, 8, 10, 14, 18, 20, 21]


@pytest.mark.parametrize(
    "compressing",
    [
        lambda: [tfbig.Prune(0.75)],
        lambda: [tfbig.Cluster(4)],
    ],
    ids=["Prune", "Cluster"],
)
def test_compression_goes_on_where_it_was(rows, tmp_path, compressing):
    options = {"callbacks": compressing, "epochs": 4}
    whole = train(rows, None, **options)
    run = killed_and_started_again(rows, tmp_path, (1, 4), (3, 6), **options)
    assert_same(run, whole)


def test_a_training_that_is_over_is_not_trained_again(rows, unbroken, tmp_path):
    train(rows, tmp_path)
    dies_at((0, 0))  # no batch is to be trained on
    again = train(rows, tmp_path)
    assert_same(again, unbroken)
    assert again.model.evaluate(*rows[1], verbose=0) == unbroken.model.evaluate(*rows[1], verbose=0)


def test_more_epochs_than_before_go_on(rows, tmp_path):
    whole = train(rows, None, callbacks=list, epochs=4)
    train(rows, tmp_path, callbacks=list, epochs=2)
    dies_at((1, 0))
    assert_same(train(rows, tmp_path, callbacks=list, epochs=4), whole)


def test_fewer_epochs_than_before_are_refused(rows, tmp_path):
    run = train(rows, tmp_path, callbacks=list, epochs=2)
    dies_at((2, 4))
    with pytest.raises(KeyboardInterrupt):
        train(rows, tmp_path, callbacks=list, epochs=4)  # stops inside its third epoch
    dies_at(None)
    with pytest.raises(InvalidOption, match="is in its epoch 3 already; epochs=2 asks for fewer"):
        train(rows, tmp_path, callbacks=list, epochs=2)
    assert len(train(rows, tmp_path, callbacks=list, epochs=3).epoch) == 3
    assert len(run.epoch) == 2


def test_the_order_of_rows_goes_on_where_no_seed_is_given(rows, tmp_path):
    run = train(rows, tmp_path, callbacks=list, epochs=2, seed=None)
    facts = CheckpointFolder(tmp_path).load().facts
    order = facts["order_seed"]
    train(rows, tmp_path, callbacks=list, epochs=3, seed=None)
    assert CheckpointFolder(tmp_path).load().facts["order_seed"] == order
    assert len(run.epoch) == 2


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        part = slice(BATCH * index, BATCH * (index + 1))
        return self.x[part], self.y[part]


@pytest.fixture(scope="module")
def csv_files(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    (x, y), _ = rows
    for i in range(3):
        part = [
            f"{','.join(map(str, values))},{label}" for values, label in zip(x[i::3], y[i::3], strict=True)
        ]
        (folder / f"{i}.csv").write_text("\n".join(["a,b,c,d,kind", *part]))
    return str(folder / "*.csv")


FROM_FILES = {
    "epochs": 3,
    "callbacks": list,
    "batch_size": 32,
    "validation_data": None,
    "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}


@pytest.mark.parametrize("seed", [None, 4])
def test_a_shuffled_stream_from_files_goes_on_in_the_order_of_the_epoch(csv_files, tmp_path, seed):
    def data():  # made anew in each process
        stream = tfbig.stream_csv(csv_files, target="kind", classes="012", batch_size=BATCH, seed=seed)
        return (stream.map(lambda x, y: (x, y)),), None

    whole = train(data(), None, **FROM_FILES)
    for death in ((0, 4), (1, "end"), (2, 4)):
        dies_at(death)
        with pytest.raises(KeyboardInterrupt):
            train(data(), tmp_path, **FROM_FILES)
    dies_at(None)
    assert_same(train(data(), tmp_path, **FROM_FILES), whole)


def test_a_stream_without_a_seed_follows_that_of_the_training(csv_files):
    def trained(seed):
        stream = tfbig.stream_csv(csv_files, target="kind", classes="012", batch_size=BATCH)
        return train(((stream,), None), None, **{**FROM_FILES, "epochs": 2, "seed": seed})

    assert_same(trained(1), trained(1))
    one, other = (run.model.get_weights()[0] for run in (trained(1), trained(2)))
    assert (one != other).any()


def without_length(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).filter(lambda *_: True).batch(BATCH)


@pytest.mark.parametrize(
    "stream",
    [lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH), Batches, without_length],
    ids=["tf.data", "PyDataset", "unknown length"],
)
def test_a_stream_goes_on_at_the_batch_where_it_was(rows, tmp_path, stream):
    streams = ((stream(*rows[0]),), rows[1])
    options = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "batch_size": 32}
    options |= {"epochs": 3, "callbacks": list}
    whole = train(streams, None, **options)
    assert_same(killed_and_started_again(streams, tmp_path, (0, 4), (1, 9), (2, 2), **options), whole)


def test_a_stream_that_is_over_gives_back_the_optimizers_state(rows, tmp_path):
    streams = ((Batches(*rows[0]),), None)
    options = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "batch_size": 32}
    options |= {"epochs": 2, "callbacks": list}
    run = train(streams, tmp_path, **options)
    dies_at((0, 0))
    assert_same(train(streams, tmp_path, **options), run)


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = ()

    def on_epoch_begin(self, epoch, logs=None):
        self.batches += (f"epoch {epoch}",)

    def on_train_batch_begin(self, batch, logs=None):
        self.batches += (batch,)

    def on_train_batch_end(self, batch, logs=None):
        self.batches += (f"{batch} done",)


def test_callbacks_hear_of_no_batch_twice(rows, tmp_path):
    seen = []

    def callbacks():
        seen.append(Seen())
        return [seen[-1]]

    whole = train(rows, None, callbacks=callbacks, epochs=2)
    killed_and_started_again(rows, tmp_path, (1, 4), callbacks=callbacks, epochs=2)
    # 3 steps of the second epoch were saved; all that was seen until then is remembered, too.
    assert seen[-1].batches == seen[0].batches
    assert seen[0].batches[:3] == ("epoch 0", 0, "0 done")
    assert len(whole.epoch) == 2


def other_model():
    return tfbig.models.mlp((4,), 3, hidden=(9,), dropout=0.3)


ANOTHER = {
    "batch_size": ({"batch_size": 8}, "batch_size: 16 there, 8 here"),
    "seed": ({"seed": 2}, "seed: 1 there, 2 here"),
    "optimizer": ({"optimizer": "sgd"}, "optimizer: .*Adam.* there, .*SGD.* here"),
    "learning rate": (
        {"optimizer": keras.optimizers.Adam(0.5)},
        r"optimizer\[1\]\.learning_rate: 0\.0\d+ there, 0\.5 here",
    ),
    "validation": ({"validation_data": None}, "validation_data: .* there, None here"),
    "callbacks": ({"callbacks": list}, r"callbacks: \[\['EarlyStopping', .* there, \[\['Die', {}\]\] here"),
    "a callback's patience": (
        {"callbacks": lambda: watching(patience=50)},
        r"callbacks\[0\]\[1\]\.patience: 2 there, 50 here",
    ),
    "metrics": ({"metrics": ["accuracy", "mae"]}, "metrics: .* there, .*mae.* here"),
    "order": ({"shuffle": False}, "shuffle: True there, False here"),
    "loss": (
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)},
        r"loss\[1\]\.ignore_class: None there, 2 here",
    ),
}


@pytest.fixture(scope="module")
def trained_folder(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(rows, folder, epochs=1)
    return folder


@pytest.mark.parametrize(("options", "message"), ANOTHER.values(), ids=ANOTHER)
def test_checkpoints_of_another_training_are_refused(rows, trained_folder, options, message):
    before = sorted(trained_folder.iterdir())
    with pytest.raises(InvalidOption, match=f"holds another training.*{message}.*folder of its own"):
        train(rows, trained_folder, epochs=1, **options)
    assert sorted(trained_folder.iterdir()) == before


def test_checkpoints_of_another_model_are_refused(rows, trained_folder, monkeypatch):
    monkeypatch.setitem(globals(), "build", other_model)
    with pytest.raises(InvalidOption, match=r"holds another training\. model: .*4, 8.* there, .*4, 9.* here"):
        train(rows, trained_folder, epochs=1)


def test_checkpoints_of_other_data_are_refused(rows, trained_folder):
    (x, y), valid = rows
    other = x.copy()
    other[7, 1] += 1
    with pytest.raises(InvalidOption, match=r"holds another training\. data\[0\]\[2\]: \w+ there, \w+ here"):
        train(((other, y), valid), trained_folder, epochs=1)


def test_a_delta_that_keras_does_not_write_down_is_no_silent_way_to_go_on(rows, tmp_path):
    (x, y), _ = rows
    values = ((x, np.eye(3, dtype=np.float32)[y]), None)
    options = {"epochs": 1, "callbacks": list, "metrics": []}
    train(values, tmp_path, loss=keras.losses.Huber(1.0), **options)
    train(values, tmp_path, loss=keras.losses.Huber(1.0), **options)
    with pytest.raises(InvalidOption, match=r"loss\[1\]\.fn_kwargs\.delta: 1\.0 there, 2\.0 here"):
        train(values, tmp_path, loss=keras.losses.Huber(2.0), **options)


@pytest.mark.parametrize(
    "every", [0, -1, True, 2.5, "minute", None, datetime.timedelta(0), datetime.timedelta(-1)], ids=str
)
def test_an_interval_that_is_none_is_refused(rows, tmp_path, every):
    with pytest.raises(
        InvalidOption, match='checkpoint_every must be "epoch", a number of gradient steps or a'
    ):
        train(rows, tmp_path / "new", checkpoint_every=every)
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_checkpoint_folder(rows, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputNotWritable, match="checkpoint_dir must be a folder"):
        train(rows, tmp_path / "file")


def test_a_model_that_runs_eagerly_has_no_checkpoints(rows, tmp_path):
    model = build()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    with pytest.raises(InvalidModel, match="checkpoint_dir need.* runs eagerly"):
        tfbig.fit(model, *rows[0], checkpoint_dir=tmp_path, verbose=0)


def test_a_disk_that_fills_up_ends_the_training_and_leaves_the_last_good_checkpoint(
    rows, unbroken, tmp_path, monkeypatch
):
    save, left = CheckpointFolder.save, iter(range(4))

    def full(*_):
        raise OSError(28, "No space left on device")

    def sometimes_full(self, checkpoint, step):
        if next(left, None) is None:
            monkeypatch.setattr("tfbig.training.checkpoints.os.fsync", full)
        return save(self, checkpoint, step)

    with monkeypatch.context():
        monkeypatch.setattr(CheckpointFolder, "save", sometimes_full)
        with pytest.raises(OutputNotWritable, match="No space left on device"):
            train(rows, tmp_path)
        monkeypatch.undo()
    assert CheckpointFolder(tmp_path).load() is not None
    assert_same(train(rows, tmp_path), unbroken)


SCRIPT = """
import json, sys, time
import numpy as np, keras, tfbig

class Slow(keras.callbacks.Callback):
    steps_between = 1
    def __init__(self, seconds):
        super().__init__()
        self.pause = seconds
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(self.pause)  # so that there is a training to kill

def train(folder, seconds=0):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 150)
    x = (np.eye(3, 4)[y] * 2 + generator.normal(size=(150, 4))).astype("float32")
    run = tfbig.fit(
        lambda: tfbig.models.mlp((4,), 3, hidden=(8,), dropout=0.3), x, y, epochs=12, batch_size=16, seed=1,
        verbose=0, callbacks=[Slow(float(seconds))], checkpoint_dir=folder, checkpoint_every=2,
    )
    return [[w.tolist() for w in run.model.get_weights()], run.history, run.epoch]

if __name__ == "__main__":
    print(json.dumps(train(*sys.argv[1:])))
"""


def started(folder, seconds=0):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


def killed_after_a_checkpoint(folder):
    before = set(os.listdir(folder))
    process = started(folder, seconds=0.1)  # 12 s in all, of which it lives less than one after a checkpoint
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and set(os.listdir(folder)) <= before:
        time.sleep(0.005)
    time.sleep(random.Random(len(before)).uniform(0, 0.3))
    assert process.poll() is None, process.communicate()[1][-2000:]
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_is_killed_twice_ends_as_one_that_is_not(tmp_path):
    killed_after_a_checkpoint(tmp_path)
    killed_after_a_checkpoint(tmp_path)
    here = {"__name__": "not killed"}
    exec(SCRIPT, here)
    assert output_of(started(tmp_path)) == here["train"](None)


def test_the_data_is_read_for_its_identity_only_where_one_is_needed(rows, tmp_path, monkeypatch):
    asked = []
    real = tfbig.training.session.identity_of
    monkeypatch.setattr(
        "tfbig.training.session.identity_of", lambda *a, **k: asked.append(1) or real(*a, **k)
    )
    train(rows, None, callbacks=list, epochs=1)
    assert not asked
    train(rows, tmp_path, callbacks=list, epochs=1)
    assert asked


def test_times_of_a_process_that_was_killed_do_not_count(rows, tmp_path, monkeypatch):
    """As if the machine had been started again: its clock begins anew."""
    clock = itertools.count(1e6, 0.5)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))

    def callbacks():
        return [tfbig.callbacks.Throughput(), tfbig.callbacks.ResourceUse()]

    dies_at((1, 7))
    with pytest.raises(KeyboardInterrupt):
        train(rows, tmp_path, callbacks=callbacks, epochs=2)
    clock = itertools.count(0, 0.5)
    dies_at(None)
    history = train(rows, tmp_path, callbacks=callbacks, epochs=2).history
    # A step asks for the time once or twice, at half a second each.
    assert 16 <= history["examples_per_second"][1] <= 32
    assert 0 < history["seconds"][1] < 20
