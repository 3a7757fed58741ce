"""Runs `legacy_process` on a file: its crash, its hang and its traces are not the caller's."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tfbig.deployment.children import cause_of_death, last_words, module_command, tensorflow_environment
from tfbig.errors import UnreadableFile

_LAST_WORDS = 10


def read_apart(job: dict[str, Any], folder: Path, timeout: float) -> dict[str, Any]:
    """Runs one job of `legacy_process` in a new process.

    Args:
        job: What to do, as `legacy_process` reads it; "source" is the file's name, for messages.
        folder: An empty folder of the caller's, for the answer and what comes with it.
        timeout: Seconds after which the process is stopped.

    Returns:
        The answer.

    Raises:
        UnreadableFile: The file was refused, crashed its reader, or took longer than `timeout`.
    """
    (folder / "job.json").write_text(json.dumps({**job, "folder": str(folder)}))
    log = folder / "log.txt"
    with log.open("wb") as words:
        child = subprocess.Popen(
            [*module_command("tfbig.deployment.legacy_process"), str(folder)],
            stdin=subprocess.PIPE,  # closes when the caller dies, which ends the child
            stdout=words,
            stderr=words,
            env=tensorflow_environment(TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND="tensorflow"),
        )
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise UnreadableFile(
                f"{job['source']!r} took longer than timeout={timeout:g} seconds to read. Allow more, if it is a "
                "large model of yours."
            ) from None
        finally:
            child.kill()
            child.wait()
            assert child.stdin is not None
            child.stdin.close()
    answer_file = folder / "answer.json"
    if child.returncode != 0 or not answer_file.exists():
        raise UnreadableFile(
            f"{job['source']!r} crashed the process that read it ({cause_of_death(child.returncode)}): it is "
            "damaged, or made to do so. The last words:\n"
            f"{last_words(log.read_text(errors='replace'), _LAST_WORDS)}"
        )
    answer: dict[str, Any] = json.loads(answer_file.read_text())
    if not answer["ok"]:
        raise UnreadableFile(answer["error"])
    return answer
