"""`export`: a Keras model becomes a LiteRT file, proven before it appears."""

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.calibration import check_calibration, check_ranges, stratified_sample
from tfbig.data.checking import takes_missing
from tfbig.deployment.c_source import check_c_source, write_c_source
from tfbig.deployment.contents import read_contents
from tfbig.deployment.convert import warm_up
from tfbig.deployment.lite_model import LiteModel, report_path
from tfbig.deployment.modes import MODES, asked_modes, label
from tfbig.deployment.plans import Plan, make_plans
from tfbig.deployment.reports import ExportReport, Trial
from tfbig.deployment.sample_rows import sample_rows
from tfbig.deployment.serving import as_given
from tfbig.deployment.signature import TURNS, input_shapes
from tfbig.deployment.trained_ranges import TrainedRanges
from tfbig.deployment.workroom import Workroom, file_metadata
from tfbig.errors import ExportFailed, InvalidData, InvalidModel, InvalidOption, ProofFailed
from tfbig.files import check_output, written_whole
from tfbig.models.sequences import check_tokens
from tfbig.options import checked, positive_int

_SAMPLE_ROWS = 64
# Among so many times the rows asked for, rows of every class are looked for.
_CANDIDATES = 8
# Conversions at once.
_PROCESSES = 2


@checked()
def export(
    model: Any,
    path: str | os.PathLike[str],
    *,
    quantize: str | Sequence[str | None] | None = None,
    calibration: Any = None,
    calibration_rows: int = 512,
    input_type: str | None = None,
    batch_size: int | None = 1,
    compact: bool = False,
    refine: bool = False,
    strict: bool = False,
    labels: Sequence[str] | None = None,
    c_array: bool = False,
    tolerance: float | None = None,
    verify: bool | str = True,
    overwrite: bool = False,
    timeout: float = 300.0,
) -> Any:
    """Converts a model to a LiteRT file, runs the file, compares it with the model, and then puts it at `path`.

    The conversion runs in a process of its own: a crash there is an exception here. The file is loaded by LiteRT
    with its default delegate and run on real rows; one that does not give the model's answers is not written.
    Beside it, `<name>.report.json` holds the evidence. A file has LiteRT's own operators only, never TensorFlow's
    ("Flex"), which LiteRT does not run. Kernels that are mostly zeros are stored without them where that is smaller
    and loads (float32 and float16). A model of another precision, such as "mixed_float16", becomes a file that computes
    in float32 with its weights.

    Args:
        model: A built Keras model.
        path: Where the file is to appear; ends in ".tflite".
        quantize: None for float32; "float16" halves the weights; "dynamic" stores weights in 8 bits; "int8"
            computes in 8 bits throughout, with a scale per output channel of each kernel; "int16x8" has weights in
            8 and activations in 16 bits. A list makes a file of each, `<name>.<mode>.tflite`, all or none. "auto"
            tries them all and keeps the smallest that is close enough. A model made by `quantize_aware` takes
            "int8" only: it was trained for that file.
        calibration: Rows as they look in use, shape (rows, ...); a dict or list for several inputs; a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator of rows, batches or (x, y) pairs. "int8" and
            "int16x8" need them for the ranges of activations, unless the model comes from `quantize_aware` and has
            its ranges in it; in every mode they are the rows of the proof. Without them the file is proven on
            random rows, in the units that the first layers were fitted on, and the report says so.
        calibration_rows: How many of the rows to use, drawn by seed; each class that the model names has its share.
        input_type: Edges of an "int8" file: "int8", "uint8" or "float32"; of an "int16x8" file: "int16" or
            "float32". By default "int8"; but "float32" for a model that begins with a per-feature Normalization,
            which then stays in float, since one 8-bit scale cannot carry features of different units; for one
            from `quantize_aware` that begins or ends in float; and for "int16x8".
        batch_size: Rows per call of the file; None leaves it open, at the price of some shape arithmetic.
        compact: Tries one scale for each dense kernel in place of one per unit, and keeps what is smaller.
        refine: Looks for other numbers of an integer file (ranges, biases, which way kernels are rounded) whose
            answers are closer to the model's, with the same operators, size and speed; some seconds for a small
            model. Keeps what is closer on every fourth row of calibration, which the search does not see;
            `report.refined` says by how much; a warning says why not, for a model too large to search or too few rows.
        strict: Refuses an integer file in which an operator computes in float.
        labels: Names of the classes, kept in the file (`LiteModel.labels`).
        c_array: Writes `<name>.h` and `<name>.c` too, for TensorFlow Lite Micro.
        tolerance: Mean error allowed, as a share of the range of the model's outputs. By default by mode: 1e-5 in
            float32, 2e-3 "float16", 3e-2 "dynamic" and "int16x8", 5e-2 "int8"; at least 2e-3 for models that compute
            in float16, and 3e-2 in bfloat16, whose own answers are no closer to those of float32.
        verify: True refuses a file that fails the proof; "warn" writes it all the same, with a warning.
        overwrite: Whether files that are already there may be replaced.
        timeout: Seconds that each conversion, and each proof, may take.

    Returns:
        The `LiteModel`, whose `.report` is the evidence; for a list of modes, a dict of them by mode.

    Raises:
        InvalidOption: An unknown mode or edge, or one that this model cannot have.
        InvalidModel: It is no Keras model, not built, or cannot be a file, as a stateful layer.
        InvalidData: Ranges are needed and there is no calibration, or its rows do not fit the model.
        OutputExists, OutputNotWritable: The path cannot be had.
        ExportFailed, ConversionCrashed, ConversionTimedOut: The converter refused, died or took too long.
        ProofFailed: The file's answers are not the model's.

    Example:
        >>> import tempfile, tfbig
        >>> path = tempfile.mkdtemp() + "/model.tflite"
        >>> lite = tfbig.export(tfbig.models.mlp((4,), 3), path)
        >>> lite.report.proof.holds
        True
    """
    modes, auto = asked_modes(quantize), quantize == "auto"
    _check_options(model, modes, labels, strict, tolerance, verify)
    shapes = input_shapes(model)
    batch_size = None if batch_size is None else positive_int("batch_size", batch_size)
    count = max(positive_int("calibration_rows", calibration_rows), batch_size or 1)
    plans, trained = make_plans(model, modes, auto, calibration, input_type, compact, refine)
    several = isinstance(quantize, list | tuple)
    targets = {plan.mode: _target(path, plan.mode, several, c_array, overwrite) for plan in plans}
    # Children import TensorFlow while the model is traced here.
    warm_up(processes=min(len(plans), _PROCESSES))
    rows = _rows(model, calibration, shapes, count, batch_size, trained)
    if any(plan.calibrated for plan in plans):
        check_ranges(rows)
    source = "synthetic" if calibration is None else "calibration"
    with tempfile.TemporaryDirectory(prefix="tfbig-export-") as work, contextlib.ExitStack() as placed:
        room = Workroom(
            model,
            rows,
            source,
            Path(work),
            batch_size=batch_size,
            metadata=file_metadata(model, labels),
            timeout=timeout,
        )
        if len(plans) > 1:
            room.convert(plans)
        if auto:
            reports = _smallest(room, plans, strict, tolerance)
        else:
            # float32 first: the others are timed beside its file.
            ordered = sorted(plans, key=lambda plan: plan.mode is not None)
            made = [room.make(plan, strict=strict, tolerance=tolerance) for plan in ordered]
            reports = {report.quantize: report for report in made}
        contents = {}
        for mode, report in reports.items():
            _judge(report, verify)
            content = room.file(mode).read_bytes()
            if c_array:
                contents[mode] = read_contents(content)
                check_c_source(contents[mode])
            placed.enter_context(written_whole(targets[mode])).write_bytes(content)
    for mode, report in reports.items():
        report.to_json(report_path(targets[mode]))
        if c_array:
            write_c_source(targets[mode].read_bytes(), targets[mode].with_suffix(""), contents[mode])
    files = {mode: LiteModel(targets[mode]) for mode in reports}
    return files if several else next(iter(files.values()))


def _check_options(
    model: Any, modes: Sequence[str | None], labels: Any, strict: bool, tolerance: Any, verify: Any
) -> None:
    if verify not in (True, "warn"):
        raise InvalidOption(f'verify must be True or "warn"; got {verify!r}. No file is written unproven.')
    if tolerance is not None and not 0 < tolerance < 1:
        raise InvalidOption(f"tolerance must be a share of the outputs' range, in (0, 1); got {tolerance!r}.")
    if strict and not any(MODES[mode].integer for mode in modes):
        raise InvalidOption(
            'strict=True refuses operators in float, so it is for quantize="int8" and "int16x8".'
        )
    if not isinstance(model, keras.Model):
        raise InvalidModel(f"Expected a keras.Model; got {type(model).__name__}.")
    if labels is not None and getattr(model, "outputs", None):
        classes = model.outputs[0].shape[-1]
        # A single logit decides between two classes.
        if len(labels) != max(2, classes or 0):
            raise InvalidOption(
                f"labels must name each of the {max(2, classes or 0)} classes; got {len(labels)} names."
            )


def _target(
    path: str | os.PathLike[str], mode: str | None, several: bool, c_array: bool, overwrite: bool
) -> Path:
    target = Path(path)
    if several:
        target = target.with_name(f"{target.stem}.{label(mode)}{target.suffix}")
    check_output(target, suffix=".tflite", overwrite=overwrite)
    for suffix in (".h", ".c") if c_array else ():
        check_output(target.with_suffix(suffix), suffix=suffix, overwrite=overwrite)
    return target


def _rows(
    model: Any,
    calibration: Any,
    shapes: Mapping[str, Any],
    count: int,
    batch_size: int | None,
    trained: TrainedRanges | None,
) -> dict[str, np.ndarray]:
    """Rows of calibration and proof, by input name."""
    if calibration is None:
        ranges = trained.inputs if trained else None
        return sample_rows(model, shapes, max(_SAMPLE_ROWS, batch_size or 1), ranges)
    rows = check_calibration(calibration, shapes, _CANDIDATES * count, missing=takes_missing(model))
    check_tokens(model, rows)
    given = len(next(iter(rows.values())))
    if batch_size is not None and given < batch_size:
        raise InvalidData(f"Calibration must have at least batch_size={batch_size} rows; got {given}.")
    if given <= count:
        return rows
    return stratified_sample(rows, count, _named_classes(model, rows))


def _named_classes(model: Any, rows: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The class that the model names for each row; None where it names none."""
    with TURNS:
        outputs = model.predict(as_given(model, list(rows.values())), verbose=0)
    first = np.asarray(keras.tree.flatten(outputs)[0])
    return first.argmax(axis=1) if first.ndim == 2 and first.shape[1] > 1 else None


def _smallest(
    room: Workroom, plans: Sequence[Plan], strict: bool, tolerance: float | None
) -> dict[str | None, ExportReport]:
    """Tries all plans; the report of the smallest file that holds its tolerance, with what was tried."""
    reports, trials = [], []
    for plan in plans:
        try:
            report = room.make(plan, strict=strict, tolerance=tolerance)
        except ExportFailed as error:
            trials.append(Trial(plan.mode, None, None, str(error).splitlines()[0]))
            continue
        reports.append(report)
    holding = [report for report in reports if report.proof.holds]
    if not holding:
        closest = [f"{label(r.quantize)} {r.proof.mean_error:.3g}" for r in reports]
        said = [f"{label(trial.quantize)}: {trial.refused}" for trial in trials]
        raise ProofFailed(
            f"No mode gives the model's answers closely enough; mean errors: {', '.join([*closest, *said])}. "
            "Nothing was written."
        )
    best = min(holding, key=lambda report: report.bytes)
    for report in reports:
        reason = None if report is best else "larger" if report.proof.holds else "not close enough"
        trials.append(Trial(report.quantize, report.bytes, report.proof.mean_error, reason))
    return {best.quantize: dataclasses.replace(best, tried=tuple(trials))}


def _judge(report: ExportReport, verify: bool | str) -> None:
    proof = report.proof
    if proof.holds:
        return
    message = (
        f"The file's answers are not the model's: mean error {proof.mean_error:.3g} of the output range on "
        f"{proof.rows} {proof.inputs} rows; allowed {proof.tolerance:g}. {MODES[report.quantize].advice}"
    )
    if verify == "warn":
        warnings.warn(message, stacklevel=3)
        return
    raise ProofFailed(f"{message} Nothing was written.")
