"""The program of the converter's own process: reads jobs as lines of JSON, answers each with one.

Whatever happens here (a segmentation fault, a runaway conversion, leaked memory) stays here. The process stays
warm between jobs, since importing TensorFlow takes longer than converting most models.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

IDLE_SECONDS = 60


def main() -> None:
    """Serves jobs until standard input closes, or none has come for a minute."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle.
    # The converter prints to standard output from C++; replies go where nothing else writes.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    import tensorflow  # noqa: F401 - loaded while the caller still prepares its first job

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


def _convert(job: dict[str, Any]) -> None:
    """Converts a SavedModel to a LiteRT file, with builtin ops only."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(job["saved_model"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if job["quantize"] == "int8":
        content = _convert_int8(converter, job)
    else:
        if job["quantize"] is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if job["quantize"] == "float16":
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
    Path(job["output"]).write_bytes(content)


def _convert_int8(converter: Any, job: dict[str, Any]) -> bytes:
    import tensorflow as tf

    from tfbig.deployment.contents import read_contents

    front = read_contents(converter.convert()).elementwise_front() if job["float_front"] else ()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["calibration"] is not None:  # else the model holds its ranges
        converter.representative_dataset = _calibration(job)
    if not front:
        edge = {"float32": tf.float32, "int8": tf.int8, "uint8": tf.uint8}[job["input_type"]]
        converter.inference_input_type = converter.inference_output_type = edge
        return converter.convert()
    # The one public way to keep named tensors in float.
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=converter.representative_dataset,
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=list(front)),
    )
    return debugger.get_nondebug_quantized_model()


def _calibration(job: dict[str, Any]) -> Any:
    import numpy as np

    with np.load(job["calibration"]) as arrays:
        columns = {name: arrays[name] for name in job["names"]}
    rows, batch = len(columns[job["names"][0]]), job["batch_size"] or 1

    def samples() -> Any:
        for start in range(0, rows - batch + 1, batch):
            yield {name: values[start : start + batch] for name, values in columns.items()}

    return samples


def _probe(job: dict[str, Any]) -> dict[str, Any]:
    """Loads a LiteRT file as a user will, runs it on inputs, and times it."""
    import numpy as np

    from tfbig.deployment.lite_model import LiteModel

    model = LiteModel(job["file"])
    with np.load(job["inputs"]) as arrays:
        outputs = model.predict({name: arrays[name] for name in model.inputs})
    np.savez(job["output"], *(outputs if isinstance(outputs, list) else [outputs]))
    return {"latency": model.benchmark().to_dict()}


def _hang(job: dict[str, Any]) -> None:
    """Stands in for a conversion without end, for the tests of the time limit."""
    time.sleep(job["seconds"])


def _crash(job: dict[str, Any]) -> None:
    """Stands in for a bug in the converter, for the tests of isolation."""
    print("the converter's last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


_JOBS = {"convert": _convert, "probe": _probe, "hang": _hang, "crash": _crash}

if __name__ == "__main__":
    main()
