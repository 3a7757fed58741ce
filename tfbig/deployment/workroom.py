"""Where the files of one export are made and examined: what its modes share is done once."""

import gzip
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.deployment.arena import arena_bytes
from tfbig.deployment.contents import read_contents
from tfbig.deployment.convert import job_beside, run_job
from tfbig.deployment.full_precision import own_tolerance
from tfbig.deployment.metadata import LABELS
from tfbig.deployment.modes import MODES, is_integer, label
from tfbig.deployment.plans import Plan
from tfbig.deployment.proof import compare
from tfbig.deployment.reports import ExportReport, FloatFile, Latency
from tfbig.deployment.serving import as_given, output_names
from tfbig.deployment.signature import TURNS, has_own_trace, write_saved_model
from tfbig.errors import ExportFailed


class Workroom:
    """Makes files of one model, in a folder of its own, and reports on them.

    Attributes:
        model: A built Keras model.
        rows: Input name to rows, of calibration and proof.
        source: Where the rows come from: "calibration" or "synthetic".
        folder: An empty one.
        batch_size: Rows per call of the files; None leaves it open.
        metadata: Name to text, put into each file.
        timeout: Seconds that each conversion, and each proof, may take.
    """

    def __init__(
        self,
        model: Any,
        rows: Mapping[str, np.ndarray],
        source: str,
        folder: Path,
        *,
        batch_size: int | None,
        metadata: Mapping[str, str],
        timeout: float,
    ):
        self.model, self.rows, self.source, self.folder = model, rows, source, folder
        self.batch_size, self.metadata, self.timeout = batch_size, metadata, timeout
        self._saved: dict[str, tuple[Path, dict[str, str]]] = {}
        self._float: FloatFile | None = None
        self._answers: dict[Plan, dict[str, Any] | ExportFailed] = {}
        np.savez(folder / "rows.npz", allow_pickle=False, **rows)

    def file(self, mode: str | None) -> Path:
        """Returns where the file of a mode is made."""
        return self.folder / f"{label(mode)}.tflite"

    def convert(self, plans: Sequence[Plan]) -> None:
        """Converts the model for several modes, the slowest in a process beside that of the others.

        Files are run and timed by `make`, when nothing else keeps the machine busy. There too is raised what the
        converter refused.
        """
        *others, slowest = sorted(plans, key=lambda plan: (is_integer(plan.mode), plan.calibrated))
        with job_beside(self._job(slowest, self.file(slowest.mode)), self.timeout) as answer:
            for plan in others:
                self._answers[plan] = _tried(self._convert, plan, self.file(plan.mode))
            self._answers[slowest] = _tried(answer)

    def make(self, plan: Plan, *, strict: bool, tolerance: float | None) -> ExportReport:
        """Converts the model to the mode's file, runs it on the rows, and returns what it is.

        Raises:
            ExportFailed: The converter refused; or, with `strict`, operators of an integer file are in float.
        """
        output = self.file(plan.mode)
        answer = self._answers.pop(plan, None) or self._convert(plan, output)
        if isinstance(answer, ExportFailed):
            raise answer
        if answer["not_refined"]:
            warnings.warn(
                f"refine=True left the {label(plan.mode)} file as the converter made it: {answer['not_refined']}.",
                stacklevel=3,
            )
        content = output.read_bytes()
        contents = read_contents(content)
        if strict and is_integer(plan.mode) and contents.float_ops():
            raise ExportFailed(
                f"strict=True allows no operator in float; left are {', '.join(contents.float_ops())}. Change the "
                "layers that they come from, or export without strict."
            )
        got, (one_thread, all_threads) = self._run(output)
        if plan.mode is None and not answer["sparse"]:
            self._float = FloatFile(len(content), one_thread, all_threads)
        return ExportReport(
            quantize=plan.mode,
            bytes=len(content),
            gzip_bytes=len(gzip.compress(content, 9)),
            ops=contents.count_ops(),
            float_ops=contents.float_ops(),
            inputs={name: contents.tensors[i].dtype for name, i in contents.inputs.items()},
            outputs={name: contents.tensors[i].dtype for name, i in contents.outputs.items()},
            proof=compare(self.source, self._expected, got, tolerance or self._tolerance(plan.mode)),
            latency=one_thread,
            latency_all_threads=all_threads,
            float_file=None if plan.mode is None else self._float_file(plan),
            arena_bytes=arena_bytes(contents),
            recurrent=self._saved_model(plan)[1],
            ranges={name: (float(np.nanmin(x)), float(np.nanmax(x))) for name, x in self.rows.items()},
            compact=answer["compact"],
            sparse=answer["sparse"],
            refined=answer["refined"],
            sha256=hashlib.sha256(content).hexdigest(),
            converter_mib=answer["mib"],
            seconds=answer["seconds"],
        )

    def _convert(self, plan: Plan, output: Path) -> dict[str, Any]:
        return run_job(self._job(plan, output), self.timeout, meanwhile=lambda: self._expected)

    def _job(self, plan: Plan, output: Path) -> dict[str, Any]:
        saved_model, _ = self._saved_model(plan)
        return {
            "do": "convert",
            "saved_model": str(saved_model),
            "output": str(output),
            "mode": plan.mode,
            "calibration": str(self.folder / "rows.npz") if plan.calibrated else None,
            "names": list(self.rows),
            "batch_size": self.batch_size,
            "input_type": plan.edge,
            "float_front": plan.float_front,
            "compact": plan.compact,
            "sparse": plan.sparse,
            "refine": plan.refine,
            "outputs": output_names(self.model),
            "metadata": dict(self.metadata),
        }

    @cached_property
    def _expected(self) -> list[np.ndarray]:
        """The model's own answers."""
        with TURNS:
            outputs = self.model(as_given(self.model, list(self.rows.values())), training=False)
        return [np.asarray(output) for output in keras.tree.flatten(outputs)]

    def _tolerance(self, mode: str | None) -> float:
        """What the mode allows, or what the model's own answers are off by, where it computes in 16 bits."""
        return max(MODES[mode].tolerance, own_tolerance(self.model))

    def _saved_model(self, plan: Plan) -> tuple[Path, dict[str, str]]:
        """A SavedModel that suits the plan, and the forms of its recurrent layers.

        Modes share one, unless recurrent layers take another form in it.
        """
        if plan.trained:
            return self._written("trained", None, trained_for=plan.mode)
        path, forms = self._written("float", None)
        if has_own_trace(self.model, plan.mode, forms):
            return self._written(str(plan.mode), plan.mode)
        return path, forms

    def _written(
        self, name: str, mode: str | None, *, trained_for: str | None = None
    ) -> tuple[Path, dict[str, str]]:
        if name not in self._saved:
            path = self.folder / f"saved_model_{name}"
            forms = write_saved_model(self.model, path, self.batch_size, mode, trained_for=trained_for)
            self._saved[name] = path, forms
        return self._saved[name]

    def _float_file(self, plan: Plan) -> FloatFile | None:
        """The same model's float32 file, timed once; a model that holds its ranges has none."""
        if plan.trained:
            return None
        if self._float is None:
            path = self.folder / "beside.tflite"
            self._convert(Plan(None, "float32", False, False, False, False), path)
            self._float = FloatFile(path.stat().st_size, *self._run(path)[1])
        return self._float

    def _run(self, file: Path) -> tuple[list[np.ndarray], tuple[Latency, Latency | None]]:
        """The file's answers to the rows, and its latency with one thread and, if there are more cores, with all."""
        job = {
            "do": "probe",
            "file": str(file),
            "inputs": str(self.folder / "rows.npz"),
            "output": str(self.folder / "answers.npz"),
        }
        one, *more = [Latency.from_dict(values) for values in run_job(job, self.timeout)["latencies"]]
        with np.load(self.folder / "answers.npz") as arrays:
            answers = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
        return answers, (one, more[0] if more else None)


def _tried(convert: Callable[..., dict[str, Any]], *job: Any) -> dict[str, Any] | ExportFailed:
    """The answer of a conversion, or why there is none."""
    try:
        return convert(*job)
    except ExportFailed as error:
        return error


def file_metadata(model: Any, labels: Any) -> dict[str, str]:
    """Returns what a file says of itself: names of the classes, and the constants of a normalizer inside.

    Args:
        model: A Keras model.
        labels: Names of the classes, or None.
    """
    entries = {}
    if labels is not None:
        entries[LABELS] = json.dumps([str(name) for name in labels])
    for layer in getattr(model, "layers", []):
        if isinstance(layer, keras.layers.Normalization) and not layer.invert:
            constants = {"mean": layer.mean, "variance": layer.variance}
            entries["tfbig.normalization"] = json.dumps(
                {name: np.ravel(value).astype(float).tolist() for name, value in constants.items()}
            )
            break
    return entries
