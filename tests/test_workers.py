"""The launcher, with scripts that load no framework. What it is for: `training/test_multi_worker.py`."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tfbig.cli import main
from tfbig.errors import InvalidOption
from tfbig.workers import environments, free_ports, run_workers

# More than enough for starting a Python on a busy machine, and a limit for what should be at once.
PATIENCE = 30


def launcher(tmp_path, code, *options, arguments=()):
    script = tmp_path / "script.py"
    script.write_text(
        f"import json, os, signal, sys, time\nworker = json.loads(os.environ['TF_CONFIG'])\n{code}"
    )
    command = [sys.executable, "-m", "tfbig", "workers", *options, str(script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def launch(*what, **arguments):
    process = launcher(*what, **arguments)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # a zombie that nobody has collected is dead all the same
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def all_end(pids):
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit and any(map(is_alive, pids)):
        time.sleep(0.02)
    return not any(map(is_alive, pids))


# A child of its own, as a data loader would be: it must not be left behind either.
SLEEPING = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
print("pids", os.getpid(), child.pid)
time.sleep(600)
"""


def pids_of(process, workers=2):
    lines = [process.stdout.readline() for _ in range(workers)]
    return [int(pid) for line in lines for pid in re.search(r"pids (\d+) (\d+)", line).groups()]


def test_each_worker_knows_the_cluster_and_its_place_in_it(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)  # the word of a user, as conftest.py is one
    code = "print(json.dumps([worker, sys.argv[1:], os.environ['TF_NUM_INTRAOP_THREADS']]))"
    status, out, err = launch(tmp_path, code, "-n", "3", arguments=("--epochs", "2", "-n", "7"))
    assert (status, err) == (0, "")
    found = {
        int(i): json.loads(text) for i, text in re.findall(r"^\[worker (\d)\] (.*)$", out, flags=re.MULTILINE)
    }
    assert sorted(found) == [0, 1, 2]
    for i, (config, arguments, threads) in found.items():
        assert config["task"] == {"type": "worker", "index": i}
        assert config["cluster"] == found[0][0]["cluster"]
        assert arguments == ["--epochs", "2", "-n", "7"]
        assert int(threads) == max(1, len(os.sched_getaffinity(0)) // 3)
    assert len(set(found[0][0]["cluster"]["worker"])) == 3


def test_output_keeps_its_stream_and_its_lines_stay_whole(tmp_path):
    code = """
for i in range(200):
    print("x" * 300)
print("at 1\\rat 2\\rat 3")
print("trouble", file=sys.stderr)
print("no newline at the end", end="")
"""
    status, out, err = launch(tmp_path, code)
    assert status == 0
    assert len(re.findall(r"^\[worker [01]\] x{300}$", out, flags=re.MULTILINE)) == 400
    assert len(re.findall(r"^\[worker [01]\] at 3$", out, flags=re.MULTILINE)) == 2
    assert len(re.findall(r"^\[worker [01]\] no newline at the end$", out, flags=re.MULTILINE)) == 2
    assert sorted(err.splitlines()) == ["[worker 0] trouble", "[worker 1] trouble"]


def test_the_first_failure_gives_the_status_and_the_others_may_say_why(tmp_path):
    code = """
if worker["task"]["index"] == 1:
    sys.exit(3)
time.sleep(0.3)
print("the other one left")
sys.exit(4)
"""
    status, out, err = launch(tmp_path, code)
    assert status == 3
    assert out == "[worker 0] the other one left\n"
    assert "worker 1 ended with status 3; the others have 15 s" in err


@pytest.mark.parametrize("deaf", [False, True])
def test_a_worker_that_goes_on_after_anothers_failure_is_ended(tmp_path, deaf):
    # Worker 0 fails once the other is ready for the signal, and the other says what it heard of it.
    ready = tmp_path / "ready"
    code = f"""
from pathlib import Path
ready = Path({str(ready)!r})
if worker["task"]["index"] == 0:
    while not ready.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

def heard(*_):
    print("asked to end", flush=True)
    if not {deaf}:
        sys.exit(0)

signal.signal(signal.SIGTERM, heard)
ready.touch()
while True:
    time.sleep(600)
"""
    began = time.monotonic()
    status, out, err = launch(tmp_path, code, "--grace", "0.2")
    assert status == 128 + signal.SIGKILL
    assert "worker 0 ended with status 137" in err
    assert out == "[worker 1] asked to end\n"
    # One that does not listen is asked first, and made to end 5 s later.
    assert not deaf or time.monotonic() - began > 5


def test_ctrl_c_reaches_the_workers_and_nothing_is_left(tmp_path):
    # From its first word on, a worker is inside of the try: the signal may follow at once.
    code = f"try:{SLEEPING.replace(chr(10), chr(10) + '    ')}\nexcept KeyboardInterrupt: print('bye')"
    process = launcher(tmp_path, code)
    pids = pids_of(process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out.count("bye") == 2
    assert all_end(pids)


def test_nothing_is_left_when_the_launcher_is_killed(tmp_path):
    process = launcher(tmp_path, SLEEPING)
    pids = pids_of(process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert all_end(pids)


def test_what_a_worker_started_ends_with_it(tmp_path):
    status, out, _ = launch(tmp_path, SLEEPING.replace("time.sleep(600)", ""), "-n", "1")
    assert status == 0
    assert all_end([int(pid) for pid in re.search(r"pids (\d+) (\d+)", out).groups()])


def test_a_module_runs_as_python_m_does():
    command = [sys.executable, "-m", "tfbig", "workers", "-n", "1", "-m", "json.tool", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0
    assert result.stdout.startswith("[worker 0] usage:")


def test_bad_input_is_refused_before_anything_starts(tmp_path, capsys):
    assert main(["workers", str(tmp_path / "nothing.py")]) == 2
    assert "There is no script" in capsys.readouterr().err
    with pytest.raises(InvalidOption, match="number of workers must be a whole number of at least 1; got 0"):
        run_workers([sys.executable, "-c", ""], 0)
    with pytest.raises(InvalidOption, match="grace must be a number of seconds, 0 or more; got -1"):
        run_workers([sys.executable, "-c", ""], grace=-1)
    with pytest.raises(InvalidOption, match=r"'/no/such/program' cannot be run \(No such file"):
        run_workers(["/no/such/program"])


def test_the_launcher_loads_no_framework():
    code = (
        "import sys, tfbig.workers; print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_ports_are_free_and_different():
    assert len(set(free_ports(20))) == 20


@pytest.mark.parametrize(
    ("visible", "shares"),
    [
        pytest.param("0,1,2,3", ["0,1", "2,3"], id="even"),
        pytest.param("0,1,2", ["0", "1"], id="workers are alike"),
        pytest.param("5", ["-1", "-1"], id="fewer than workers"),
        pytest.param("-1", ["-1", "-1"], id="none"),
    ],
)
def test_gpus_are_shared(visible, shares):
    found = environments(2, {"CUDA_VISIBLE_DEVICES": visible})
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found] == shares


def test_threads_that_the_user_chose_stay():
    assert environments(2, {"TF_NUM_INTRAOP_THREADS": "7"})[0]["TF_NUM_INTRAOP_THREADS"] == "7"
