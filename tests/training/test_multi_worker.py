"""Two processes on this machine train one model, started by `tfbig workers`; `worker_script.py` is what they run.

Four launches, since starting TensorFlow twice is most of what one costs.
"""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("worker_script.py")
cases = runpy.run_path(str(SCRIPT))
CASES = cases["CASES"]
TIMEOUT = 280


def launch(what, folder):
    """Runs the script in two workers; returns the exit status and what each printed."""
    command = [sys.executable, "-m", "tfbig", "workers", "-n", "2", "--grace", "70", SCRIPT, what, folder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    text = result.stdout + result.stderr
    return result.returncode, [
        "\n".join(line[11:] for line in text.splitlines() if line.startswith(f"[worker {i}] "))
        for i in (0, 1)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def table(folder):
    """The launch that trains every case, and ends with a chief whose data has a NaN."""
    return launch("table", folder)


@pytest.fixture(scope="module")
def killed(folder):
    """The launch whose worker 1 dies in the middle of an epoch."""
    return launch("die", folder)


@pytest.fixture(scope="module")
def resumed(folder, killed):
    """The same line again, which then gives the workers models of different sizes."""
    return launch("resume", folder)


def results(folder, name):
    found = []
    for worker in (0, 1):
        with np.load(folder / f"{name}-{worker}.npz") as stored:
            weights = [stored[key] for key in stored.files if key.startswith("weight/")]
            found.append((weights, json.loads(str(stored["history"])), str(stored["on"])))
    return found


def largest_difference(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_two_workers_give_the_weights_and_history_of_one_device(table, folder, name):
    (first, history, on), (second, other_history, _) = results(folder, name)
    assert on == "MultiWorkerMirroredStrategy, 2 workers, 2 replicas"
    assert history == other_history
    assert largest_difference(first, second) == 0.0
    alone = cases["train"](name, strategy=None)
    assert largest_difference(alone.model.get_weights(), first) <= CASES[name][-1]
    for metric, series in alone.history.items():
        # Values near 1, of weights that differ as allowed; an accuracy that differs by a row differs by 3e-3.
        assert history[metric] == pytest.approx(series, abs=1e-4)


@pytest.mark.parametrize("name", ["unseeded", "unseeded_stream"])
def test_without_any_seed_workers_agree_and_see_each_row_once(table, folder, name):
    (first, history, _), (second, other_history, _) = results(folder, name)
    assert history == other_history
    assert largest_difference(first, second) == 0.0
    # The sum over all rows of (times seen − 1)².
    assert history["rows"] == [0.0, 0.0]


def test_the_check_of_rows_seen_can_fail():
    rows = cases["Rows"](4)
    rows.update_state(np.array([[0.0, 1], [0, 1], [0, 2]]), None)
    assert float(rows.result()) == 3  # rows 0 and 3 are missing, row 1 came twice


def test_only_the_chief_writes_checkpoints(table, folder):
    assert len(list((folder / "checkpoints-0").iterdir())) == 2
    assert list((folder / "checkpoints-1").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows", r"they differ in data\. In this worker, data: \[\[\[{rows}, 8, 8, 1\]"),
        ("values", "they differ in data"),
        ("model", r"they differ in model\. In this worker, model: \[\['{layer}'"),
        ("batch_size", r"they differ in batch_size\. In this worker, batch_size: {batch_size}"),
        ("epochs", r"they differ in epochs\. In this worker, epochs: {epochs}"),
        ("checkpoint_dir", r"they differ in checkpoint_dir\. In this worker, checkpoint_dir: {given}"),
        ("checkpoint", "they differ in checkpoint.*checkpoint_dir must be one folder that all workers see"),
    ],
)
def test_workers_that_do_not_fit_together_are_refused_in_each(table, folder, name, message):
    own = [
        {"rows": 301, "layer": "Flatten", "batch_size": 32, "epochs": 2, "given": "given"},
        {"rows": 296, "layer": "Conv2D", "batch_size": 16, "epochs": 1, "given": "none"},
    ]
    for worker in (0, 1):
        told = json.loads((folder / f"refusals-{worker}.json").read_text())[name]
        expected = message
        for key, value in own[worker].items():
            expected = expected.replace(f"{{{key}}}", str(value))
        assert re.match(rf"InvalidData: The workers are about to train different things: {expected}", told), (
            told
        )


def test_workers_that_would_shuffle_a_stream_each_in_its_own_way_are_refused(table, folder):
    for worker in (0, 1):
        told = json.loads((folder / f"refusals-{worker}.json").read_text())["shuffle"]
        assert re.match(r"InvalidData: x is shuffled without a seed, so each worker", told), told


def test_a_callback_that_only_the_chief_has_writes_and_hinders_nobody(resumed, folder):
    assert resumed[0] == 1  # the last part of that script, which is to fail, was reached
    lines = (folder / "checkpoints.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "2"]


def test_a_chief_that_refuses_its_data_does_not_leave_the_other_waiting(table):
    status, (chief, other) = table
    assert status == 1
    assert re.search(r"InvalidData: x must be finite; got 64 NaN", chief), chief[-2000:]
    assert re.search(r"WorkerLost: Another worker of this training died or cannot be reached", other), other[
        -2000:
    ]


def test_a_killed_worker_ends_the_other_with_an_error_within_a_minute(killed):
    status, (survivor, dead) = killed
    assert status == 128 + 9
    assert "WorkerLost: Another worker of this training died" in survivor, survivor[-2000:]
    seconds = float(re.search(r"lost at ([\d.]+)", survivor)[1]) - float(
        re.search(r"killed at ([\d.]+)", dead)[1]
    )
    print(f"The other worker ended {seconds:.1f} s after the kill.")
    assert 0 <= seconds <= 60


def test_a_frozen_worker_ends_the_other_as_a_dead_one_does_and_itself_once_it_is_thawed(folder):
    status, (chief, other) = launch("freeze", folder)
    assert status == 1
    at = {what: float(re.search(rf"{what} at ([\d.]+)", chief + other)[1]) for what in ("frozen", "ended")}
    print(f"The other worker ended {at['ended'] - at['frozen']:.1f} s after the chief was frozen.")
    # TensorFlow's heartbeat: 10 s without an answer, and what a busy machine adds.
    assert 0 < at["ended"] - at["frozen"] <= 20
    assert "thawed at" in chief
    for text in (chief, other):
        assert "WorkerLost: Another worker of this training died" in text, text[-2000:]


def test_the_restarted_workers_end_as_if_nothing_had_happened(table, resumed, folder):
    (weights, history, _), (other, _, _) = results(folder, "resumed")
    (uninterrupted, its_history, _), _ = results(folder, "uninterrupted")
    assert history == its_history
    assert largest_difference(weights, other) == 0.0
    # Adding up two workers' gradients has no order that could change.
    assert largest_difference(weights, uninterrupted) == 0.0


def test_builders_of_different_models_are_an_error_in_each(resumed):
    status, printed = resumed
    assert status == 1
    for text in printed:
        # Whoever notices second may only see that the first has gone.
        assert re.search(r"InvalidModel: The workers are making different models|WorkerLost: ", text), text[
            -2000:
        ]
    assert any("InvalidModel: The workers are making different models" in text for text in printed)
