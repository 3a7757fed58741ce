"""One conversion, as the converter's own process runs it: from a SavedModel to a LiteRT file."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfbig.backend.conversion import calibration_changed_by, one_scale_per_dense_kernel
from tfbig.deployment.contents import read_contents
from tfbig.deployment.copied_values import mend_copies
from tfbig.deployment.dead_ranges import widen_dead_ranges
from tfbig.deployment.finer_averages import take_averages_in_parts
from tfbig.deployment.lstm_mending import mend_lstms
from tfbig.deployment.metadata import with_metadata
from tfbig.deployment.modes import is_integer
from tfbig.deployment.packing import repacked, shorten_names
from tfbig.deployment.refine import NotRefined, refine
from tfbig.deployment.sparse_blocks import with_readable_blocks
from tfbig.deployment.wide_biases import mend_biases


def convert(job: dict[str, Any]) -> dict[str, Any]:
    """Converts a SavedModel with builtin operators only, and writes the file.

    Args:
        job: "saved_model" and "output", paths; "mode"; "calibration", the path of an .npz of "names", or None where
            the model holds its ranges; "batch_size"; "input_type", the dtype at the edges; "float_front", whether
            arithmetic before the first layer stays in float; "compact", "sparse" and "refine", what to try; "outputs",
            their names; "metadata", name to text.

    Returns:
        "compact" and "sparse": which of these made the file smaller, and were kept. "refined": None, or "before" and
        "after", mean errors on rows of calibration that were held back. "not_refined": why not, where it was
        asked for.
    """
    content = _converted(job)
    kept: dict[str, Any] = {"compact": False, "sparse": False, "refined": None, "not_refined": None}
    if job["compact"]:
        smaller = _converted(job, prepare=one_scale_per_dense_kernel)
        kept["compact"], content = len(smaller) < len(content), min(content, smaller, key=len)
    if job["sparse"]:
        smaller = with_readable_blocks(_converted(job, prepare=_without_zeros), content)
        if len(smaller) < len(content) and _loads(smaller):
            kept["sparse"], content = True, smaller
    entries = {name: text.encode() for name, text in job["metadata"].items()}
    content = with_metadata(content, entries, outputs=job["outputs"], changes=_changes(job))
    if job["refine"]:
        floats = repacked(_converted({**job, "mode": None}), *_forms(job))
        try:
            content, kept["refined"] = refine(content, floats, _rows(job), job["batch_size"] or 1)
        except NotRefined as reason:
            kept["not_refined"] = str(reason)
    Path(job["output"]).write_bytes(content)
    return kept


def _changes(job: dict[str, Any]) -> list[Callable[[Any], None]]:
    """What is changed in the file that the converter made."""
    changes: list[Callable[[Any], None]] = [functools.partial(mend_lstms, mode=job["mode"]), *_forms(job)]
    if is_integer(job["mode"]):
        changes.append(mend_copies)
    if job["mode"] == "int16x8":
        changes.append(mend_biases)
    return [*changes, shorten_names]


def _forms(job: dict[str, Any]) -> list[Callable[[Any], None]]:
    """What gets another form in integer files; a model that was trained in integers ships as it was trained."""
    return [take_averages_in_parts] if job["mode"] == "int8" and job["calibration"] is not None else []


def _converted(job: dict[str, Any], prepare: Callable[[Any], None] | None = None) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(job["saved_model"])
    kinds = tf.lite.OpsSet
    converter.target_spec.supported_ops = [kinds.TFLITE_BUILTINS]
    if job["mode"] is None:
        if prepare:
            prepare(converter)
        return converter.convert()
    front: tuple[str, ...] = ()
    if job["float_front"]:
        front = read_contents(converter.convert()).elementwise_front()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["mode"] == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if job["mode"] == "int16x8":
        widened = kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [widened, kinds.TFLITE_BUILTINS]
        # It is not used for 16 bits, but runs the calibration once more.
        converter.experimental_new_quantizer = job["calibration"] is None
    if is_integer(job["mode"]):
        if job["calibration"] is not None:
            converter.representative_dataset = _calibration(job)
        if not front:
            edge = getattr(tf, job["input_type"])
            converter.inference_input_type = converter.inference_output_type = edge
    if prepare:
        prepare(converter)
    with calibration_changed_by(widen_dead_ranges):
        return _with_floats(converter, front) if front else converter.convert()


def _with_floats(converter: Any, names: tuple[str, ...]) -> bytes:
    """Keeps named tensors in float; this is the one public way."""
    import tensorflow as tf

    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=converter.representative_dataset,
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=list(names)),
    )
    return debugger.get_nondebug_quantized_model()


def _without_zeros(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations = [*(converter.optimizations or []), tf.lite.Optimize.EXPERIMENTAL_SPARSITY]


def _loads(content: bytes) -> bool:
    """Whether LiteRT, with its default delegate, loads and runs the file."""
    from ai_edge_litert.interpreter import Interpreter

    with contextlib.suppress(ValueError, RuntimeError):
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        interpreter.invoke()
        return True
    return False


def _calibration(job: dict[str, Any]) -> Callable[[], Iterator[dict[str, Any]]]:
    columns = _rows(job)
    rows, batch = len(columns[job["names"][0]]), job["batch_size"] or 1

    def samples() -> Iterator[dict[str, Any]]:
        for start in range(0, rows - batch + 1, batch):
            yield {name: values[start : start + batch] for name, values in columns.items()}

    return samples


def _rows(job: dict[str, Any]) -> dict[str, Any]:
    """The rows of calibration by input name."""
    import numpy as np

    with np.load(job["calibration"]) as arrays:
        return {name: arrays[name] for name in job["names"]}
