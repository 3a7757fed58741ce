import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tfbig.deployment import convert
from tfbig.deployment.convert import job_beside, run_job, warm_up
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
    """Process ids of idle converters; the next job goes to the last."""
    return lambda: [process._child.pid for process in convert._idle]


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
    used = idle_pids()[-1]
    with pytest.raises(ZeroDivisionError):
        run_job({"do": "hang", "seconds": 600}, timeout=60, meanwhile=lambda: 1 / 0)
    assert gone(used)
    assert used not in idle_pids()


def test_a_job_beside_another_has_a_process_of_its_own(idle_pids):
    for seconds in (0, 2):  # at first both have to load TensorFlow
        begun = time.monotonic()
        with job_beside({"do": "hang", "seconds": seconds}, timeout=60) as answer:
            assert run_job({"do": "hang", "seconds": seconds}, timeout=60)["ok"]
            assert answer()["ok"]
    assert time.monotonic() - begun < 3.9  # not one after the other
    assert len(set(idle_pids())) >= 2


def test_a_job_beside_that_nobody_asks_about_is_stopped(idle_pids):
    warm_up()
    used = idle_pids()[-1]
    with pytest.raises(KeyboardInterrupt), job_beside({"do": "hang", "seconds": 600}, timeout=60):
        raise KeyboardInterrupt
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
    used = idle_pids()[-1]
    monkeypatch.setattr(convert, "_JOBS_PER_PROCESS", 1)
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    assert used not in idle_pids()
    assert gone(used)


def test_the_next_process_is_started_before_one_ends(monkeypatch, idle_pids):
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    aging = convert._idle[-1]
    monkeypatch.setattr(convert, "_JOBS_PER_PROCESS", aging.jobs_done + 3)
    monkeypatch.setattr(convert, "_JOBS_AHEAD", 2)
    before = set(idle_pids())
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    (new,) = set(idle_pids()) - before
    assert idle_pids()[-1] == aging._child.pid  # it goes on first
    assert new == idle_pids()[0]
    run_job({"do": "hang", "seconds": 0}, timeout=60)
    assert idle_pids()[0] == new


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
from tfbig.deployment import convert
with convert.job_beside({"do": "hang", "seconds": 600}, 600) as answer:
    print(answer.__self__._child.pid, flush=True)
    answer()
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
