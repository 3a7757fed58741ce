"""A first run of an unknown file in a process of its own: what a damaged one crashes there is not the caller's.

LiteRT checks a file's outline, not every number in it, so one flipped bit can be a segmentation fault.
"""

import contextlib
import hashlib
import signal
import subprocess
import sys
from typing import Any

from tfbig.deployment.children import child_environment, module_command
from tfbig.errors import UnreadableFile

_SECONDS = 60
_LAST_WORDS = 3
# Digests of the files that ran; a process need not try a file twice.
_sound: set[str] = set()


def check_runs(content: bytes, name: str) -> None:
    """Loads a LiteRT file and runs it once, on zeros, in a child process. Costs some 0.3 s, once per file.

    Args:
        content: The file's bytes.
        name: What messages call it.

    Raises:
        UnreadableFile: LiteRT refused it, crashed, or did not end.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest in _sound:
        return
    try:
        result = subprocess.run(
            module_command("tfbig.deployment.trial"),
            input=content,
            capture_output=True,
            env=child_environment(),
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UnreadableFile(
            f"{name} did not end within {_SECONDS} seconds when it was tried: it is damaged, or too large to "
            "try. Pass trusted=True to load it untried."
        ) from None
    except OSError as error:
        raise UnreadableFile(
            f"{name} could not be tried in a process of its own ({error}). If you know where it comes from, pass "
            "trusted=True."
        ) from error
    if result.returncode:
        raise UnreadableFile(
            f"LiteRT cannot run {name} ({_cause(result.returncode)}): {_words(result.stderr)}"
        )
    _sound.add(digest)


def _cause(code: int) -> str:
    with contextlib.suppress(ValueError):
        return f"it crashed: {signal.Signals(-code).name}" if code < 0 else "it was refused"
    return f"exit status {code}"


def _words(log: bytes) -> str:
    lines = log.decode(errors="replace").strip().splitlines()
    return (
        "\n".join([line for line in lines if not line.startswith("INFO")][-_LAST_WORDS:]) or "it said nothing"
    )


def _run(content: bytes, size: int, value: int) -> None:
    """Runs every function of a file once, on one value; an axis that is left open gets the size."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    def full(detail: Any) -> Any:
        shape = [size if length == -1 else length for length in detail["shape_signature"]]
        return np.full(shape, value, detail["dtype"])

    interpreter = Interpreter(model_content=content)
    inputs = interpreter.get_input_details()
    for detail in inputs:
        interpreter.resize_tensor_input(detail["index"], full(detail).shape)
    interpreter.allocate_tensors()
    for detail in inputs:
        interpreter.set_tensor(detail["index"], full(detail))
    interpreter.invoke()
    for detail in interpreter.get_output_details():
        interpreter.get_tensor(detail["index"])
    for key in interpreter.get_signature_list():
        function = interpreter.get_signature_runner(key)
        function(**{name: full(detail) for name, detail in function.get_input_details().items()})


def main() -> int:
    """Tries the file on standard input; the exit status says whether it ran, standard error why not."""
    content = sys.stdin.buffer.read()
    # A sound file may divide by its input, or convolve an open axis that one value is too short for.
    for size, value in ((1, 0), (1, 1), (64, 1)):
        try:
            _run(content, size, value)
            return 0
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
