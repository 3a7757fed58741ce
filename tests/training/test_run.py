import json
from types import SimpleNamespace

import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.errors import UnreadableFile
from tfbig.training.run import Run


@pytest.fixture
def run():
    run = Run(examples=100)
    run.epoch = [0, 1, 2]
    run.history = {"loss": [1.5, 0.75, 0.5], "accuracy": [0.5, 0.75, 1.0], "val_loss": [2.0, 1.0, 1.25]}
    run.seconds, run.epoch_seconds = 13.5, [8.0, 2.0, 3.0]
    return run


FIELDS = ("epoch", "history", "seconds", "epoch_seconds", "examples")


def fields(run):
    return {name: getattr(run, name) for name in FIELDS}


def test_a_run_is_a_keras_history(run):
    assert isinstance(run, keras.callbacks.History)


@pytest.mark.parametrize(
    ("examples", "epoch_seconds", "expected"),
    [
        pytest.param(100, [8.0, 2.0, 3.0], 40.0, id="the first epoch is left out"),
        pytest.param(100, [8.0], 12.5, id="the only epoch counts"),
        pytest.param(None, [8.0, 2.0], None, id="a stream"),
        pytest.param(100, [], None, id="no epoch"),
    ],
)
def test_examples_per_second(examples, epoch_seconds, expected):
    run = Run(examples)
    run.epoch_seconds = epoch_seconds
    assert run.examples_per_second == expected


def test_seconds_are_those_of_the_epochs_and_of_the_whole(monkeypatch):
    clock = iter([10.0, 11.0, 15.0, 16.0, 18.0, 19.0])
    monkeypatch.setattr("tfbig.training.run.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    run = Run(100)
    run.set_model(SimpleNamespace())
    run.on_train_begin()
    for epoch in range(2):
        run.on_epoch_begin(epoch)
        run.on_epoch_end(epoch, {"loss": 1.0})
    run.on_train_end()
    assert (run.epoch_seconds, run.seconds) == ([4.0, 2.0], 9.0)


def test_json_and_back_keeps_every_field(run):
    assert fields(Run.from_json(run.to_json())) == fields(run)


def test_a_file_and_back_keeps_every_field(run, tmp_path):
    path = tmp_path / "run.json"
    text = run.to_json(path)
    assert json.loads(path.read_text()) == json.loads(text)
    assert fields(Run.from_json(path)) == fields(run)


def test_json_holds_numpy_numbers_as_numbers(run):
    run.history = {"loss": [np.float32(0.5)], "learning_rate": [np.float64(0.25)]}
    assert Run.from_json(run.to_json()).history == {"loss": [0.5], "learning_rate": [0.25]}


def test_json_holds_metrics_of_several_values(run):
    run.history = {"f1_score": [np.array([0.5, 0.25], np.float32)]}
    assert Run.from_json(run.to_json()).history == {"f1_score": [[0.5, 0.25]]}


def test_a_run_from_json_has_no_model(run):
    assert Run.from_json(run.to_json()).model is None


def test_a_run_from_json_knows_its_throughput(run):
    assert Run.from_json(run.to_json()).examples_per_second == run.examples_per_second


@pytest.mark.parametrize("text", ["epoch: 1", "[1, 2]", "3", "{}", '{"examples": 3}', "null"])
def test_broken_json_is_an_unreadable_file(text):
    with pytest.raises(UnreadableFile, match="not a Run that to_json wrote|Expected a Run as"):
        Run.from_json(text)


def test_a_missing_file_is_an_unreadable_file(tmp_path):
    with pytest.raises(UnreadableFile, match="gone.json"):
        Run.from_json(tmp_path / "gone.json")


def test_a_file_that_is_no_text_is_an_unreadable_file(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UnreadableFile, match=r"run\.json|not a Run"):
        Run.from_json(path)


def test_a_plot_draws_loss_and_metric_for_training_and_validation(run):
    loss, accuracy = run.plot().axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [
        run.history["loss"],
        run.history["val_loss"],
    ]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [run.history["accuracy"]]


def test_a_plot_is_saved_at_the_path(run, tmp_path):
    run.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
