"""The program of the converter's own process: reads jobs as lines of JSON, answers each with one.

Whatever happens here (a segmentation fault, a runaway conversion, leaked memory) stays here. The process stays
warm between jobs, since importing TensorFlow takes longer than converting most models.
"""

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from typing import Any

IDLE_SECONDS = 60
_TIMED_SECONDS = 0.06


def main() -> None:
    """Serves jobs until standard input closes, or none has come for a minute."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle.
    # The converter prints to standard output from C++; replies go where nothing else writes.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    import tensorflow  # noqa: F401 - loaded while the caller still prepares its first job

    # Every conversion collects garbage, which among all of TensorFlow's objects takes longer than the converter's work.
    gc.freeze()

    while True:
        try:
            job = jobs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        try:
            answer = {"ok": True, **(_JOBS[job["do"]](job) or {})}
        except Exception as error:
            traceback.print_exc()
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def _read_jobs(jobs: "queue.Queue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    # The caller is gone: nobody waits for what is being converted.
    os._exit(0)


def _convert(job: dict[str, Any]) -> dict[str, Any]:
    """Converts a SavedModel to a LiteRT file."""
    from tfbig.deployment.conversion import convert

    begun = time.perf_counter()
    kept = convert(job)
    return {**kept, "seconds": time.perf_counter() - begun, "mib": _most_memory()}


def _probe(job: dict[str, Any]) -> dict[str, Any]:
    """Loads a LiteRT file as a user will, runs it on inputs, and times it with one thread and with all."""
    import numpy as np

    from tfbig.deployment.lite_model import LiteModel

    # This process may crash, so the file need not be tried in yet another one.
    model = LiteModel(job["file"], trusted=True)
    with np.load(job["inputs"]) as arrays:
        rows = {name: arrays[name] for name in model.inputs}
    outputs = model.predict(rows)
    np.savez(job["output"], *(outputs if isinstance(outputs, list) else [outputs]))
    latencies = [model.benchmark(seconds=_TIMED_SECONDS)]
    if (os.cpu_count() or 1) > 1:
        every = LiteModel(job["file"], threads=os.cpu_count() or 1, trusted=True)
        every.predict({name: values[:1] for name, values in rows.items()})  # it is timed on such rows
        latencies.append(every.benchmark(seconds=_TIMED_SECONDS))
    return {"latencies": [latency.to_dict() for latency in latencies]}


def _most_memory() -> float:
    """The largest resident set of this process so far, in MiB."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _hang(job: dict[str, Any]) -> None:
    """Stands in for a conversion without end, for the tests of the time limit."""
    time.sleep(job["seconds"])


def _crash(job: dict[str, Any]) -> None:
    """Stands in for a bug in the converter, for the tests of isolation."""
    print("the converter's last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), getattr(signal, job.get("signal", "SIGSEGV")))


_JOBS = {"convert": _convert, "probe": _probe, "hang": _hang, "crash": _crash}

if __name__ == "__main__":
    main()
