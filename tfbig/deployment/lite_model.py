"""A LiteRT file as an object with `predict`. Loads no TensorFlow."""

import hashlib
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfbig.data.checking import rows_fit
from tfbig.deployment.contents import read_contents
from tfbig.deployment.edges import to_file, to_float
from tfbig.deployment.metadata import read_labels
from tfbig.deployment.modes import is_integer
from tfbig.deployment.reports import ExportReport, Latency
from tfbig.deployment.runner import Runner
from tfbig.deployment.trial import check_runs
from tfbig.errors import InvalidData, InvalidModel, UnreadableFile, unknown_choice
from tfbig.options import checked, positive_int

# Rows so few tell little of what a file is fed.
_ROWS_THAT_TELL = 32
# A row counts as beyond the calibration where a value is, by more than this share of the range.
_MARGIN, _SHARE_BEYOND = 0.05, 0.05


def report_path(path: Path) -> Path:
    """Returns where the report of a LiteRT file stands: beside it, as `<name>.report.json`."""
    return path.with_name(path.stem + ".report.json")


class LiteModel:
    """A LiteRT (.tflite) file, ready to predict. It takes and gives floats, whatever the file holds inside.

    Every row is predicted for itself: states, as of an LSTM, begin anew with each. Predictions from several threads
    are safe; they take turns. `with LiteModel(path) as model:` frees its memory at the end, as `close` does.

    Attributes:
        path: Of the file.
        signature: Key of the function that predicts; "" where the file names none.
        signatures: Keys of all functions that the file offers.
        labels: Names of the classes, if the file holds them, else None.
        report: The `ExportReport` that `tfbig.export` left beside the file, or None for files made by others.
        ops: Operator and dtype, such as "CONV_2D int8", to how many there are.
        inputs: Name of each input to its NumPy dtype.
        outputs: Name of each output to its NumPy dtype.
    """

    @checked()
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 1,
        signature: str | None = None,
        trusted: bool = False,
    ):
        """Loads the file.

        A damaged file can crash the process that runs it. So a file is first tried in a process of its own, unless
        the report beside it holds its digest, which shows that it is whole.

        Args:
            path: A .tflite file, made by tfbig or by others.
            threads: How many threads LiteRT may use.
            signature: Key of the function to predict with; None for the file's first.
            trusted: Whether to load a file untried although no report vouches for it.

        Raises:
            UnreadableFile: There is no such file, it is no LiteRT file that this runtime can run, or not the one that
                the report beside it describes.
            InvalidOption: The file has no such signature, or `threads` is less than 1.
        """
        self.path = Path(path)
        self.threads = positive_int("threads", threads)
        self._trusted = trusted
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UnreadableFile(f"{str(self.path)!r} cannot be read: {error.strerror or error}.") from error
        self.report = _report_of(self.path, content)
        self._contents = read_contents(content)
        if not trusted and (self.report is None or self.report.sha256 is None):
            check_runs(content, repr(str(self.path)))
        self.signatures = tuple(self._contents.signatures)
        self.signature = self.signatures[0] if signature is None else signature
        if self.signature not in self.signatures:
            raise unknown_choice("signature", signature, self.signatures)
        self.labels = read_labels(self._contents)
        self._runner: Runner | None
        try:
            self._runner = Runner(content, self._contents, self.signature, self.threads)
        except (ValueError, RuntimeError, KeyError) as error:
            raise UnreadableFile(f"LiteRT cannot load {str(self.path)!r}: {error}") from error
        self._in, self._out = self._runner.inputs, self._runner.outputs
        self._row_shapes = [tuple(map(int, detail["shape_signature"][1:])) for detail in self._in.values()]
        self._lock = threading.Lock()
        self._ranges = _calibrated_ranges(self.report, self._in)

    @property
    def ops(self) -> dict[str, int]:
        """Operator and dtype to how many there are."""
        return self._contents.count_ops()

    @property
    def takes_missing(self) -> bool:
        """Whether rows may hold NaN: the file asks which values differ from themselves, as `tfbig.encoder` does."""
        return any(op.name == "NOT_EQUAL" and len(set(op.inputs)) == 1 for op in self._contents.operations)

    @property
    def inputs(self) -> dict[str, str]:
        """Name of each input to its dtype."""
        return {name: np.dtype(detail["dtype"]).name for name, detail in self._in.items()}

    @property
    def outputs(self) -> dict[str, str]:
        """Name of each output to its dtype."""
        return {name: np.dtype(detail["dtype"]).name for name, detail in self._out.items()}

    def predict(self, x: Any) -> Any:
        """Runs the file on rows of inputs.

        Args:
            x: Numbers of shape (rows, ...), in the units of the model, also where the file takes int8. For several
                inputs: a dict by input name, or a list in their order. Whole numbers where the file takes integers
                as they are, such as token ids.

        Returns:
            float32 outputs of shape (rows, ...); a list of them for several outputs. Integers and booleans that stand
            for themselves, such as a class id, stay what they are.

        Raises:
            InvalidData: An input is missing, has another shape than the file takes, or values that it cannot take.
            InvalidModel: The model is closed, or the file's rows cannot be told apart.
        """
        columns = self._columns(x)
        self._warn_beyond_ranges(x, len(columns[0]))
        with self._lock:
            results = self._open_runner().run(columns)
        outputs = [
            to_float(values, detail) for values, detail in zip(results, self._out.values(), strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else outputs

    def benchmark(self, *, seconds: float = 0.3) -> Latency:
        """Times predictions of one batch of zeros; axes left open are as long as in what was predicted last.

        Args:
            seconds: How long to go on, after a warm-up.

        Returns:
            A `Latency`, in microseconds.

        Raises:
            InvalidModel: The model is closed, or runs neither on zeros nor on ones.
        """
        with self._lock:
            times = self._open_runner().times(seconds)
        return Latency(float(np.median(times)), float(np.percentile(times, 95)), len(times), self.threads)

    def close(self) -> None:
        """Frees the memory that predicting takes. What the file holds can still be asked."""
        with self._lock:
            self._runner = None

    def _open_runner(self) -> Runner:
        if self._runner is None:
            raise InvalidModel(f"This model is closed. Load it again: LiteModel({str(self.path)!r}).")
        return self._runner

    def _columns(self, x: Any) -> list[np.ndarray]:
        """The inputs in the file's order, checked against it and brought to its dtypes."""
        columns = []
        for (name, detail), wanted, given in zip(
            self._in.items(), self._row_shapes, self._by_position(x), strict=True
        ):
            values = to_file(given, detail, name)
            if not rows_fit(wanted, values) or not len(values):
                raise InvalidData(
                    f"Input {name!r} of {self.path.name} takes rows of shape {wanted}; got an array of shape "
                    f"{values.shape}."
                )
            columns.append(values)
        if len(columns) > 1 and len({len(values) for values in columns}) > 1:
            counts = {name: len(values) for name, values in zip(self._in, columns, strict=True)}
            raise InvalidData(f"Inputs differ in rows: {counts}.")
        return columns

    def _warn_beyond_ranges(self, x: Any, rows: int) -> None:
        """Warns, once, where many rows reach beyond what an integer file was calibrated with: it clips them."""
        if self._ranges is None or rows < _ROWS_THAT_TELL:
            return
        for (name, (lowest, highest)), given in zip(self._ranges.items(), self._by_position(x), strict=True):
            values = np.asarray(given).reshape(rows, -1)
            margin = _MARGIN * (highest - lowest)
            beyond = (values < lowest - margin) | (values > highest + margin)
            share = float(beyond.any(axis=1).mean())
            if share > _SHARE_BEYOND:
                self._ranges = None
                warnings.warn(
                    f"{share:.0%} of the rows of input {name!r} reach beyond what {self.path.name} was calibrated with "
                    f"({lowest:.4g} to {highest:.4g}); an integer file clips them. Calibrate with rows as they look "
                    "in use, or pass them in the same units.",
                    stacklevel=3,
                )
                return

    def _by_position(self, x: Any) -> Sequence[Any]:
        """The inputs, one after the other, from a dict, a list or a lone array."""
        names = list(self._in)
        if isinstance(x, Mapping):
            if set(x) != set(names):
                raise InvalidData(f"{self.path.name} takes the inputs {names}; got {list(x)}.")
            return [x[name] for name in names]
        if len(names) == 1:
            return [x]
        if not isinstance(x, list | tuple) or len(x) != len(names):
            got = f"{len(x)} of them" if isinstance(x, list | tuple) else f"a {type(x).__name__}"
            raise InvalidData(f"{self.path.name} takes the inputs {names}, as a dict or a list; got {got}.")
        return x

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        size = f"{self.path.stat().st_size:,} bytes" if self.path.exists() else "deleted"
        return f"LiteModel({str(self.path)!r}, {size})"

    def __reduce__(self) -> Any:
        return _load, (str(self.path), self.threads, self.signature, self._trusted)


def _load(path: str, threads: int, signature: str, trusted: bool) -> LiteModel:
    return LiteModel(path, threads=threads, signature=signature, trusted=trusted)


def _calibrated_ranges(
    report: ExportReport | None, inputs: Mapping[str, Any]
) -> dict[str, tuple[float, ...]] | None:
    """The range of each input that an integer file was calibrated with; None where there is none to keep to."""
    if report is None or not is_integer(report.quantize) or report.proof.inputs != "calibration":
        return None
    if report.ranges is None or set(report.ranges) != set(inputs):
        return None
    return {name: report.ranges[name] for name in inputs}


def _report_of(path: Path, content: bytes) -> ExportReport | None:
    """The report beside a file, or None where there is none."""
    beside = report_path(path)
    if not beside.exists():
        return None
    report = ExportReport.from_json(beside)
    if report.sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise UnreadableFile(
            f"{str(path)!r} is not the file that {beside.name} describes: its digest differs, so it was damaged or "
            "replaced. Export it again, or delete the report if the file is the one you want."
        )
    return report
