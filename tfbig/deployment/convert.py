"""Runs jobs in the converter's own process, so that its crash, its hang and its leaks are not the caller's."""

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from tfbig.deployment.children import cause_of_death, last_words, module_command, tensorflow_environment
from tfbig.deployment.converter_process import IDLE_SECONDS
from tfbig.errors import ConversionCrashed, ConversionTimedOut, ExportFailed

# The converter leaks some 20 MB a job: a process is replaced before that matters.
_JOBS_PER_PROCESS = 20
# So many jobs before its end the next one is started, which takes seconds to import TensorFlow.
_JOBS_AHEAD = 6
_LAST_WORDS = 30


def run_job(
    job: dict[str, Any], timeout: float, meanwhile: Callable[[], object] | None = None
) -> dict[str, Any]:
    """Runs one job in a warm converter process, starting one when none is idle.

    Args:
        job: What to do, as `converter_process` reads it.
        timeout: Seconds after which the process is stopped.
        meanwhile: Work that the caller does here while the process is busy.

    Returns:
        The answer.

    Raises:
        ExportFailed: The converter refused; the message holds its own words.
        ConversionCrashed: Its process died.
        ConversionTimedOut: It took longer than `timeout`.
    """
    with job_beside(job, timeout) as answer:
        if meanwhile is not None:
            meanwhile()
        return answer()


@contextlib.contextmanager
def job_beside(job: dict[str, Any], timeout: float) -> Iterator[Callable[[], dict[str, Any]]]:
    """Starts one job, to be done beside what the caller does inside of the `with`.

    Args:
        job: As for `run_job`.
        timeout: Seconds after which the process is stopped.

    Yields:
        What waits for the answer when called, and raises as `run_job` does. Left uncalled, the process is stopped.
    """
    with _borrowed() as process:
        process.begin(job, timeout)
        yield process.answer


def warm_up(processes: int = 1) -> None:
    """Starts converter processes, so that they import TensorFlow while the caller does other work."""
    with contextlib.ExitStack() as borrowed:
        for _ in range(processes):
            borrowed.enter_context(_borrowed())


class _ConverterProcess:
    """One child process, kept for several jobs."""

    def __init__(self) -> None:
        self.jobs_done = 0
        self._last_used = time.monotonic()
        self.healthy = True
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._child = subprocess.Popen(
            module_command("tfbig.deployment.converter_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=tensorflow_environment(TF_CPP_MIN_LOG_LEVEL="1"),
            text=True,
        )
        self._replies: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read_replies, daemon=True).start()

    @property
    def reusable(self) -> bool:
        # Well before the child ends by itself for want of jobs, so that the two cannot cross.
        fresh = time.monotonic() - self._last_used < IDLE_SECONDS / 2
        return self.healthy and fresh and self.jobs_done < _JOBS_PER_PROCESS and self._child.poll() is None

    def begin(self, job: dict[str, Any], timeout: float) -> None:
        """Hands the job over."""
        self._timeout, self._end = timeout, time.monotonic() + timeout
        self._start = self._log.seek(0, os.SEEK_END)
        self.healthy = False  # until an answer has come: a KeyboardInterrupt here must not leave it in use
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: the missing reply says so
            self._child.stdin.write(json.dumps(job) + "\n")
            self._child.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Waits for the answer to the job."""
        try:
            line = self._replies.get(timeout=max(self._end - time.monotonic(), 0.001))
        except queue.Empty:
            raise ConversionTimedOut(
                f"The conversion took longer than timeout={self._timeout:g} seconds and was stopped. Allow more, or "
                f"calibrate with fewer rows. Its last words:\n{self._words_of_job()}"
            ) from None
        if not line:
            raise ConversionCrashed(
                f"The converter's process died ({self._cause_of_death()}); nothing was written. Its last words:\n"
                f"{self._words_of_job()}"
            )
        self.healthy, self.jobs_done, self._last_used = True, self.jobs_done + 1, time.monotonic()
        answer = json.loads(line)
        if not answer["ok"]:
            raise ExportFailed(f"The converter refused: {answer['error']}")
        return answer

    def close(self) -> None:
        """Stops the process, whatever it does."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._log):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _read_replies(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as pipe:
            for line in pipe:
                self._replies.put(line)
        self._replies.put("")

    def _words_of_job(self) -> str:
        self._log.seek(self._start)
        return last_words(self._log.read().decode(errors="replace"), _LAST_WORDS)

    def _cause_of_death(self) -> str:
        code = self._child.wait()
        if code == -signal.SIGKILL:
            return "signal SIGKILL, as the system sends when memory runs out"
        return cause_of_death(code)


_idle: list[_ConverterProcess] = []
_idle_lock = threading.Lock()


@contextlib.contextmanager
def _borrowed() -> Iterator[_ConverterProcess]:
    """Lends a process that no other thread uses; a healthy one is kept for the next job, others are stopped."""
    process = _take() or _ConverterProcess()
    try:
        yield process
    finally:
        if process.reusable:
            with _idle_lock:
                _idle.append(process)
                if process.jobs_done == _JOBS_PER_PROCESS - _JOBS_AHEAD:
                    _idle.insert(0, _ConverterProcess())
        else:
            process.close()


def _take() -> _ConverterProcess | None:
    while True:
        with _idle_lock:
            if not _idle:
                return None
            process = _idle.pop()
        if process.reusable:
            return process
        process.close()


@atexit.register
def _close_all() -> None:
    with _idle_lock:
        while _idle:
            _idle.pop().close()


# A forked child (multiprocessing) must not talk through its parent's pipes.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
