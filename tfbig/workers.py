"""`tfbig workers`: several copies of a script on this machine, as the workers of one training.

Loads no TensorFlow. What the workers train with is the `tfbig.fit` line of the script itself, which finds them
through TF_CONFIG.
"""

import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from tfbig.errors import InvalidOption
from tfbig.options import positive_int

# Below the range from which kernels take ports for outgoing connections, the workers' own among them.
_PORTS = range(15_000, 32_000)
# Between asking the rest to end and making them.
_SECONDS_TO_OBEY = 5.0
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_workers(command: Sequence[str], count: int = 2, *, grace: float = 15.0) -> int:
    """Runs a command several times, as the workers of one training on this machine, until all have ended.

    Each gets TF_CONFIG, its share of the cores (and of the GPUs), and a prefix before each line it prints. When one
    fails, the others have `grace` seconds to say why before they are ended too. None outlives this process, also
    when it is killed.

    Args:
        command: The program and its arguments, such as `[sys.executable, "train.py"]`.
        count: Workers, at least 1.
        grace: Seconds that the others have, once one has failed.

    Returns:
        The exit status of the first worker that failed, as a shell has it (128 + signal); 0 when none did.

    Raises:
        InvalidOption: `count` or `grace` makes no sense, or the program does not exist.

    Example:
        >>> run_workers([sys.executable, "-c", "import os; assert 'TF_CONFIG' in os.environ"], 2)
        0
    """
    count = positive_int("the number of workers", count)
    if grace < 0:
        raise InvalidOption(f"grace must be a number of seconds, 0 or more; got {grace!r}.")
    ended: queue.SimpleQueue[tuple[str, int, int]] = queue.SimpleQueue()
    workers: list[_Worker] = []
    with _guard() as watch_over, _signals_into(ended):
        try:
            for i, environment in enumerate(environments(count, os.environ)):
                workers.append(_Worker(i, command, environment, ended))
                watch_over(workers[-1].process.pid)
            return _wait_for_all(workers, ended, grace)
        finally:
            for worker in workers:
                worker.signal(signal.SIGKILL)  # and whatever it started itself
            for worker in workers:
                worker.finish()


def environments(count: int, inherited: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns the environment of each worker: TF_CONFIG, and its share of this machine's cores and GPUs.

    Example:
        >>> first, second = environments(2, {"CUDA_VISIBLE_DEVICES": "4,5,6"})
        >>> json.loads(second["TF_CONFIG"])["task"], second["CUDA_VISIBLE_DEVICES"]
        ({'type': 'worker', 'index': 1}, '5')
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    gpus = _gpus(inherited)
    each = len(gpus) // count  # workers must be alike, or they cannot add up gradients
    made = []
    for i in range(count):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
        environment = {
            "TF_NUM_INTRAOP_THREADS": str(threads_each(count)),
            "TF_NUM_INTEROP_THREADS": str(threads_each(count)),
            **inherited,
            "TF_CONFIG": json.dumps(config),
            "PYTHONUNBUFFERED": "1",
        }
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[i * each : (i + 1) * each]) or "-1"
        made.append(environment)
    return made


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nobody listens on."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("", port))
                found.append(port)
    if len(found) < count:
        raise InvalidOption(f"{count} workers need as many free ports; this machine has {len(found)}.")
    return found


class _Worker:
    """One worker's process, in a process group of its own, and the threads that pass on what it prints."""

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        environment: dict[str, str],
        ended: "queue.SimpleQueue[tuple[str, int, int]]",
    ):
        self.index = index
        try:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            raise InvalidOption(f"{command[0]!r} cannot be run ({error.strerror or error}).") from error
        streams = ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        self._readers = [
            threading.Thread(target=_pass_on, args=(f"[worker {index}] ", *pair), daemon=True)
            for pair in streams
        ]
        self._waiter = threading.Thread(target=self._wait, args=(ended,), daemon=True)
        for thread in (*self._readers, self._waiter):
            thread.start()

    def signal(self, number: int) -> None:
        """Sends a signal to the worker and to all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says so of a group of zombies
            os.killpg(self.process.pid, number)

    def finish(self) -> None:
        """Waits until everything that was printed is passed on."""
        self._waiter.join()
        for reader in self._readers:
            reader.join(timeout=_SECONDS_TO_OBEY)

    def _wait(self, ended: "queue.SimpleQueue[tuple[str, int, int]]") -> None:
        status = self.process.wait()
        ended.put(("worker", self.index, 128 - status if status < 0 else status))


def _wait_for_all(
    workers: list[_Worker], ended: "queue.SimpleQueue[tuple[str, int, int]]", grace: float
) -> int:
    running, first = set(range(len(workers))), 0
    # What is sent to those that still run, and when.
    measures = [(grace, signal.SIGTERM), (grace + _SECONDS_TO_OBEY, signal.SIGKILL)]
    failed_at, interrupted = float("inf"), False
    while running:
        due = failed_at + measures[0][0] if measures else float("inf")
        try:
            patience = None if due == float("inf") else max(0.0, due - time.monotonic())
            what, number, status = ended.get(timeout=patience)
        except queue.Empty:
            _, chosen = measures.pop(0)
            for i in running:
                workers[i].signal(chosen)
            continue
        if what == "signal":
            for i in running:
                workers[i].signal(signal.SIGKILL if interrupted else number)
            interrupted = True
            status = 128 + number
        else:
            running.discard(number)
            if status and running and not first:
                _note(
                    f"worker {number} ended with status {status}; the others have {grace:g} s to end by themselves"
                )
        if status and not first:
            first, failed_at = status, time.monotonic()
    return first


_printing = threading.Lock()


def _pass_on(prefix: str, source: IO[bytes], target: IO[str]) -> None:
    """Copies lines as they come. A progress bar that returns to its line's start is passed on as it ends up."""
    for line in source:
        text = line.decode(errors="replace").rstrip("\r\n").rsplit("\r", 1)[-1]
        with _printing, contextlib.suppress(OSError, ValueError):  # whoever read our output has gone
            print(f"{prefix}{text}", file=target, flush=True)


def _note(text: str) -> None:
    with _printing:
        print(f"tfbig workers: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _guard() -> Iterator[Callable[[int], None]]:
    """Yields a function that makes sure a process group does not outlive this process, however it ends.

    A shell that waits for this process's end of a pipe to close, as it does when the process is killed with -9.
    """
    script = 'while read -r group; do groups="$groups -$group"; done; kill -s KILL -- $groups'
    guard = subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    assert guard.stdin is not None
    pipe = guard.stdin

    def watch_over(group: int) -> None:
        pipe.write(f"{group}\n".encode())
        pipe.flush()

    try:
        yield watch_over
    finally:
        guard.kill()
        guard.wait()
        pipe.close()


@contextlib.contextmanager
def _signals_into(ended: "queue.SimpleQueue[tuple[str, int, int]]") -> Iterator[None]:
    """Has Ctrl-C and its like forwarded, instead of ending this process before its workers."""
    if threading.current_thread() is not threading.main_thread():  # only there Python takes signals
        yield
        return
    before = {
        number: signal.signal(number, lambda number, _: ended.put(("signal", number, 0)))
        for number in _FORWARDED
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def threads_each(processes: int) -> int:
    """Returns how many threads each of several processes may use, so that together they fill the cores."""
    # What a container or `taskset` left us, where the system says so.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


def _gpus(environment: Mapping[str, str]) -> list[str]:
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
