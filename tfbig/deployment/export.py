"""`export`: a Keras model becomes a LiteRT file, proven before it appears."""

import gzip
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.calibration import check_calibration, synthetic_rows
from tfbig.deployment.contents import read_contents
from tfbig.deployment.convert import run_job, warm_up
from tfbig.deployment.lite_model import LiteModel, report_path
from tfbig.deployment.proof import TOLERANCES, compare
from tfbig.deployment.reports import ExportReport, Latency
from tfbig.deployment.signature import input_shapes, write_saved_model
from tfbig.deployment.trained_ranges import TrainedRanges, trained_ranges
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, ProofFailed, unknown_choice
from tfbig.files import check_output, written_whole
from tfbig.options import checked, positive_int

MODES = tuple(TOLERANCES)
_EDGES = ("float32", "int8", "uint8")
# Calibration beyond a few hundred rows changes ranges little; the proof needs enough rows to be believed.
_CALIBRATION_ROWS, _PROOF_ROWS = 512, 512


@checked()
def export(
    model: Any,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    calibration: Any = None,
    input_type: str | None = None,
    batch_size: int | None = 1,
    verify: bool | str = True,
    overwrite: bool = False,
    timeout: float = 300.0,
) -> LiteModel:
    """Converts a model to a LiteRT file, runs the file, compares it with the model, and then puts it at `path`.

    The conversion runs in a process of its own: a crash there is an exception here. The file is loaded by LiteRT
    with its default delegate and run on real rows; one that does not give the model's answers is not written.
    Beside it, `<name>.report.json` holds the evidence.

    Args:
        model: A built Keras model.
        path: Where the file is to appear; ends in ".tflite".
        quantize: None for float32; "float16" halves the weights; "dynamic" stores weights in 8 bits; "int8"
            computes in 8 bits throughout, with a scale per output channel of each kernel. A model made by
            `quantize_aware` takes "int8" only: it was trained for that file.
        calibration: Rows as they look in use, shape (rows, ...); a dict or list for several inputs. "int8" needs
            them for the ranges of activations (up to 512 are drawn), unless the model comes from
            `quantize_aware` and has its ranges in it; in every mode they are the rows of the proof. Without
            them the file is proven on random rows, drawn from the ranges if known, and the report says so.
        input_type: Edges of an "int8" file: "int8", "uint8" or "float32". By default "int8"; but "float32" for a
            model that begins with a per-feature Normalization, which then stays in float, since one 8-bit
            scale cannot carry features of different units; and for one from `quantize_aware` that begins or
            ends in float.
        batch_size: Rows per call of the file; None leaves it open, at the price of some shape arithmetic.
        verify: True refuses a file that fails the proof; "warn" writes it all the same, with a warning.
        overwrite: Whether a file that is already there may be replaced.
        timeout: Seconds that the conversion, and the proof, may take.

    Returns:
        The `LiteModel`; its `.report` is the evidence.

    Raises:
        InvalidOption: An unknown mode or edge, or one that this model cannot have.
        InvalidData: "int8" without calibration, or rows of another shape or dtype than the model takes.
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
    if quantize not in MODES:
        raise unknown_choice("quantize", quantize, MODES)
    if verify not in (True, "warn"):
        raise InvalidOption(f'verify must be True or "warn"; got {verify!r}. No file is written unproven.')
    if not isinstance(model, keras.Model):
        raise InvalidModel(f"Expected a keras.Model; got {type(model).__name__}.")
    shapes = input_shapes(model)
    trained = trained_ranges(model, quantize, input_type)
    edge, float_front = _edges(model, quantize, input_type, trained)
    batch_size = None if batch_size is None else positive_int("batch_size", batch_size)
    if quantize == "int8" and calibration is None and trained is None:
        raise InvalidData(
            'quantize="int8" needs calibration= rows, as they look in use, to find the range of each activation. '
            "A hundred training rows will do. A model from tfbig.quantize_aware needs none."
        )
    target = check_output(path, suffix=".tflite", overwrite=overwrite)
    warm_up()  # the child imports TensorFlow while the model is traced here
    rows = _rows(calibration, shapes, batch_size, trained)
    with tempfile.TemporaryDirectory(prefix="tfbig-export-") as work, written_whole(target) as staged:
        folder = Path(work)
        write_saved_model(model, folder / "saved_model", batch_size)
        np.savez(folder / "rows.npz", allow_pickle=False, **rows)
        job = {
            "do": "convert",
            "saved_model": str(folder / "saved_model"),
            "output": str(staged),
            "quantize": quantize,
            "calibration": None if trained else str(folder / "rows.npz"),
            "names": list(shapes),
            "batch_size": batch_size,
            "input_type": edge,
            "float_front": float_front,
        }
        run_job(job, timeout)
        source = "synthetic" if calibration is None else "calibration"
        report = _examine(model, staged, rows, quantize, source, folder, timeout)
        _judge(report, verify)
        report.to_json(report_path(target))
    return LiteModel(target)


def _edges(
    model: Any, quantize: str | None, input_type: str | None, trained: TrainedRanges | None
) -> tuple[str, bool]:
    """The dtype at the file's edges, and whether arithmetic before the first layer stays in float."""
    if input_type is not None and input_type not in _EDGES:
        raise unknown_choice("input_type", input_type, _EDGES)
    if quantize != "int8":
        if input_type not in (None, "float32"):
            raise InvalidOption(
                f'input_type={input_type!r} is for quantize="int8"; other modes take float32.'
            )
        return "float32", False
    if trained is not None:
        return input_type or ("int8" if trained.reach_the_edges else "float32"), False
    per_feature = _begins_with_per_feature_normalization(model)
    edge = input_type or ("float32" if per_feature else "int8")
    return edge, per_feature and edge == "float32"


def _begins_with_per_feature_normalization(model: Any) -> bool:
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        return isinstance(layer, keras.layers.Normalization) and np.size(layer.variance) > 4
    return False


def _rows(
    calibration: Any, shapes: Any, batch_size: int | None, trained: TrainedRanges | None
) -> dict[str, np.ndarray]:
    if calibration is None:
        return synthetic_rows(shapes, max(64, batch_size or 1), ranges=trained.inputs if trained else None)
    rows = check_calibration(calibration, shapes, max(_CALIBRATION_ROWS, _PROOF_ROWS))
    count = len(next(iter(rows.values())))
    if batch_size is not None and count < batch_size:
        raise InvalidData(f"Calibration must have at least batch_size={batch_size} rows; got {count}.")
    return rows


def _examine(
    model: Any,
    file: Path,
    rows: dict[str, np.ndarray],
    quantize: str | None,
    source: str,
    folder: Path,
    timeout: float,
) -> ExportReport:
    """Runs the file, in the converter's process, on the same rows as the model, and writes down what it is."""
    job = {
        "do": "probe",
        "file": str(file),
        "inputs": str(folder / "rows.npz"),
        "output": str(folder / "out.npz"),
    }
    answer = run_job(job, timeout)
    with np.load(folder / "out.npz") as arrays:
        got = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    content = file.read_bytes()
    contents = read_contents(content)
    return ExportReport(
        quantize=quantize,
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, 9)),
        ops=contents.count_ops(),
        float_ops=contents.float_ops(),
        inputs={name: contents.tensors[i].dtype for name, i in contents.inputs.items()},
        outputs={name: contents.tensors[i].dtype for name, i in contents.outputs.items()},
        proof=compare(quantize, source, _model_outputs(model, rows), got),
        latency=Latency.from_dict(answer["latency"]),
    )


def _model_outputs(model: Any, rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    columns = list(rows.values())
    outputs = model(columns[0] if len(columns) == 1 else columns, training=False)
    return [np.asarray(output) for output in keras.tree.flatten(outputs)]


def _judge(report: ExportReport, verify: bool | str) -> None:
    proof = report.proof
    if proof.holds:
        return
    advice = {
        "int8": 'Calibrate with rows as they look in use, or try quantize="dynamic" or "float16"; inputs of '
        'different units need input_type="float32" and a normalizer.',
        "dynamic": 'Try quantize="float16".',
        "float16": "Try quantize=None.",
        None: "The converter computes something else than Keras: please report this model.",
    }[report.quantize]
    message = (
        f"The file's answers are not the model's: mean error {proof.mean_error:.3g} of the output range on "
        f"{proof.rows} {proof.inputs} rows; allowed {proof.tolerance:g}. {advice}"
    )
    if verify == "warn":
        warnings.warn(message, stacklevel=3)
        return
    raise ProofFailed(f"{message} Nothing was written.")
