import subprocess
import sys

import pytest

from tfbig.deployment import trial
from tfbig.errors import UnreadableFile


@pytest.fixture
def content(digits_lite):
    return digits_lite.path.read_bytes()


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(trial, "_sound", set())


def test_a_sound_file_is_tried_once(content, monkeypatch):
    trial.check_runs(content, "m")
    monkeypatch.setattr(subprocess, "run", None)  # would fail
    trial.check_runs(content, "m")


def test_what_litert_refuses_is_unreadable_with_its_last_words(content):
    damaged = bytearray(content)
    damaged[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    with pytest.raises(UnreadableFile, match=r"(?s)LiteRT cannot run m \(it (was refused|crashed).*\): \w+"):
        trial.check_runs(bytes(damaged), "m")


def test_a_crash_stays_in_the_child(content, monkeypatch):
    crash = [sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"]
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run(crash, **options))
    with pytest.raises(UnreadableFile, match=r"cannot run m \(it crashed: SIGSEGV\): it said nothing"):
        trial.check_runs(content, "m")


def test_a_file_without_end_is_stopped(content, monkeypatch):
    endless = [sys.executable, "-c", "import time; time.sleep(60)"]
    run = subprocess.run
    monkeypatch.setattr(trial, "_SECONDS", 0.5)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run(endless, **options))
    with pytest.raises(UnreadableFile, match=r"did not end within 0\.5 seconds.*trusted=True"):
        trial.check_runs(content, "m")


def test_a_process_that_cannot_start_says_what_to_do(content, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(UnreadableFile, match="could not be tried.*trusted=True"):
        trial.check_runs(content, "m")


def test_a_file_that_refuses_zeros_is_tried_on_ones():
    import tensorflow as tf

    divide = tf.function(lambda x: 7 // x, input_signature=[tf.TensorSpec([1, 2], tf.int32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([divide.get_concrete_function()], divide)
    content = converter.convert()
    with pytest.raises(RuntimeError):
        trial._run(content, size=1, value=0)
    trial.check_runs(content, "m")


def test_the_child_loads_no_framework():
    heavy = "('tensorflow', 'keras', 'sklearn', 'numpy')"
    code = f"import sys, tfbig.deployment.trial; print([m for m in sys.modules if m in {heavy}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
