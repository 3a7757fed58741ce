import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tfbig.deployment import convert
from tfbig.deployment.convert import run_job
from tfbig.errors import ConversionCrashed, ConversionTimedOut, ExportFailed


def alive(pid):
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, seconds=10):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


@pytest.fixture
def idle_pids():
    return lambda: {process._child.pid for process in convert._idle}


def test_a_crash_is_an_exception_with_the_signal_and_the_last_words():
    with pytest.raises(ConversionCrashed, match=r"signal SIGSEGV.*\n(.*\n)*the converter's last words"):
        run_job({"do": "crash"}, timeout=60)
    assert run_job({"do": "hang", "seconds": 0}, timeout=60)["ok"]


def test_a_process_killed_for_want_of_memory_says_so():
    with pytest.raises(ConversionCrashed, match="SIGKILL, as the system sends when memory runs out"):
        run_job({"do": "crash", "signal": "SIGKILL"}, timeout=60)


def test_a_hang_is_stopped_at_the_time_limit():
    with pytest.raises(ConversionTimedOut, match="longer than timeout=0.2 seconds") as caught:
        run_job({"do": "hang", "seconds": 600}, timeout=0.2)
    assert isinstance(caught.value, TimeoutError)


def test_work_done_meanwhile_counts_in_the_time_limit():
    done = []
    assert run_job({"do": "hang", "seconds": 0}, timeout=60, meanwhile=lambda: done.append("first"))["ok"]
    begun = time.monotonic()
    with pytest.raises(ConversionTimedOut):
        run_job({"do": "hang", "seconds": 600}, timeout=3, meanwhile=lambda: done.append(time.sleep(3)))
    assert time.monotonic() - begun < 6  # not 3 seconds for each
    assert done == ["first", None]


def test_work_that_fails_meanwhile_stops_the_process(idle_pids):
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    (used,) = idle_pids()
    with pytest.raises(ZeroDivisionError):
        run_job({"do": "hang", "seconds": 600}, timeout=60, meanwhile=lambda: 1 / 0)
    assert gone(used)
    assert used not in idle_pids()


def test_an_error_carries_the_converters_own_words(tmp_path):
    job = {"do": "convert", "saved_model": str(tmp_path / "none"), "quantize": None}
    with pytest.raises(ExportFailed, match=r"The converter refused: OSError: SavedModel file does not exist"):
        run_job(job, timeout=60)


def test_the_process_is_warm_for_the_next_job(idle_pids):
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    before = idle_pids()
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    assert idle_pids() == before
    assert before


def test_a_process_is_replaced_after_so_many_jobs(monkeypatch, idle_pids):
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    (used,) = idle_pids()
    monkeypatch.setattr(convert, "_JOBS_PER_PROCESS", 1)
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    assert used not in idle_pids()
    assert gone(used)


def test_two_threads_get_a_process_each():
    began = time.monotonic()
    jobs = [threading.Thread(target=run_job, args=({"do": "hang", "seconds": 1.5}, 60)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(convert._idle) >= 2
    assert time.monotonic() - began < 60


CALLER = """
import os, sys, threading
from tfbig.deployment import convert
thread = threading.Thread(target=convert.run_job, args=({"do": "hang", "seconds": 600}, 600), daemon=True)
original = convert._ConverterProcess.run
def run(self, job, timeout, meanwhile):
    print(self._child.pid, flush=True)
    return original(self, job, timeout, meanwhile)
convert._ConverterProcess.run = run
thread.start()
thread.join()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_converter_outlives_its_caller(how):
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CALLER)], stdout=subprocess.PIPE, text=True
    ) as caller:
        pid = int(caller.stdout.readline())
        assert alive(pid)
        os.kill(caller.pid, how)
        caller.wait()
    assert gone(pid)
