"""How many cores TensorFlow takes in a process that joblib, Dask or Ray has started as one of several."""

import contextlib
import multiprocessing
import os
from collections.abc import Mapping

import tensorflow as tf


def share_of(environment: Mapping[str, str], process_name: str) -> int | None:
    """Returns the threads that whoever started this process wants it to use; None where nobody did, or did not say.

    joblib and Dask tell the libraries in their workers by OMP_NUM_THREADS, which TensorFlow does not read.

    Args:
        environment: Of the process.
        process_name: As `multiprocessing` has it.

    Example:
        >>> share_of({"OMP_NUM_THREADS": "1"}, "LokyProcess-1"), share_of({"OMP_NUM_THREADS": "1"}, "MainProcess")
        (1, None)
    """
    is_worker = process_name != "MainProcess" or "RAY_RAYLET_PID" in environment
    asked = environment.get("OMP_NUM_THREADS", "")
    if not is_worker or not asked.isdigit() or int(asked) == 0 or "TF_NUM_INTRAOP_THREADS" in environment:
        return None
    return int(asked)


def take_share() -> None:
    """Has TensorFlow use as many threads as this worker process should; where it runs already, nothing is changed."""
    share = share_of(os.environ, multiprocessing.current_process().name)
    if share is None or tf.config.threading.get_intra_op_parallelism_threads():
        return
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(share)
        tf.config.threading.set_inter_op_parallelism_threads(share)
