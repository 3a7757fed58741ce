"""What processes that run a module of tfbig for the caller have in common."""

import contextlib
import os
import signal
import sys
from pathlib import Path


def module_command(module: str) -> list[str]:
    """Returns the command that runs a module with this Python.

    Args:
        module: Its full name.
    """
    # -P: the current folder must not shadow modules the child imports.
    return [sys.executable, "-P", "-m", module]


def child_environment(**more: str) -> dict[str, str]:
    """Returns this process's environment for a child that imports this tfbig, with variables added."""
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def tensorflow_environment(**more: str) -> dict[str, str]:
    """Returns the environment for a child that loads TensorFlow: without the caller's GPUs and legacy Keras."""
    # It would take the caller's GPU memory for nothing.
    environment = child_environment(CUDA_VISIBLE_DEVICES="-1", **more)
    environment.pop("TF_USE_LEGACY_KERAS", None)
    return environment


def cause_of_death(code: int) -> str:
    """Returns in words how a process ended that gave this return code: by a signal, or with a status."""
    with contextlib.suppress(ValueError):
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"


def last_words(log: str, lines: int) -> str:
    """Returns the last so many lines of what a process printed."""
    return "\n".join(log.strip().splitlines()[-lines:]) or "(none)"
