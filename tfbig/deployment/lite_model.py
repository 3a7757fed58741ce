"""A LiteRT file as an object with `predict`. Loads no TensorFlow."""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.data.checking import rows_fit
from tfbig.deployment.contents import read_contents
from tfbig.deployment.reports import ExportReport, Latency
from tfbig.errors import InvalidData, UnreadableFile

_WARM_UP_RUNS = 10


def report_path(path: Path) -> Path:
    """Returns where the report of a LiteRT file stands: beside it, as `<name>.report.json`."""
    return path.with_name(path.stem + ".report.json")


class LiteModel:
    """A LiteRT (.tflite) file, ready to predict. It takes and gives floats, whatever the file holds inside.

    Predictions from several threads are safe; they take turns.

    Attributes:
        path: Of the file.
        report: The `ExportReport` that `tfbig.export` left beside the file, or None for files made by others.
        ops: Operator and dtype, such as "CONV_2D int8", to how many there are.
        inputs: Name of each input to its NumPy dtype.
        outputs: Name of each output to its NumPy dtype.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1):
        """Loads the file.

        Args:
            path: A .tflite file, made by tfbig or by others.
            threads: How many threads LiteRT may use.

        Raises:
            UnreadableFile: There is no such file, or it is no LiteRT file that this runtime can load.
        """
        self.path = Path(path)
        self.threads = threads
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UnreadableFile(f"{str(self.path)!r} cannot be read: {error.strerror or error}.") from error
        self._contents = read_contents(content)
        self._interpreter = _interpreter(content, threads, self.path)
        details = {int(detail["index"]): detail for detail in self._interpreter.get_input_details()}
        self._in = {name: details[index] for name, index in self._contents.inputs.items()}
        details = {int(detail["index"]): detail for detail in self._interpreter.get_output_details()}
        self._out = {name: details[index] for name, index in self._contents.outputs.items()}
        self._lock = threading.Lock()
        beside = report_path(self.path)
        self.report = ExportReport.from_json(beside) if beside.exists() else None

    @property
    def ops(self) -> dict[str, int]:
        """Operator and dtype to how many there are."""
        return self._contents.count_ops()

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
            x: Floats of shape (rows, ...). For several inputs: a dict by input name, or a list in their order.

        Returns:
            float32 outputs of shape (rows, ...); a list of them for several outputs.

        Raises:
            InvalidData: An input is missing, or has another shape than the file takes.
        """
        columns = self._columns(x)
        rows = len(next(iter(columns.values())))
        with self._lock:
            batch = self._batch(rows)
            results: dict[str, list[np.ndarray]] = {name: [] for name in self._out}
            for start in range(0, rows, batch):
                for name, values in columns.items():
                    part = values[start : start + batch]
                    if len(part) < batch:  # the last rows of a file with a fixed batch: padded, then cut
                        part = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
                    self._interpreter.set_tensor(self._in[name]["index"], part)
                self._interpreter.invoke()
                for name, detail in self._out.items():
                    results[name].append(self._interpreter.get_tensor(detail["index"])[: rows - start])
        outputs = [_to_float(np.concatenate(results[name]), detail) for name, detail in self._out.items()]
        return outputs[0] if len(outputs) == 1 else outputs

    def benchmark(self, *, seconds: float = 0.3) -> Latency:
        """Times predictions of one batch of zeros.

        Args:
            seconds: How long to go on, after a warm-up.

        Returns:
            A `Latency`, in microseconds.
        """
        times: list[float] = []
        with self._lock:
            self._batch(1)
            for detail in self._in.values():
                shape = self._interpreter.get_tensor(detail["index"]).shape
                self._interpreter.set_tensor(detail["index"], np.zeros(shape, detail["dtype"]))
            for _ in range(_WARM_UP_RUNS):
                self._interpreter.invoke()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < _WARM_UP_RUNS:
                start = time.perf_counter()
                self._interpreter.invoke()
                times.append((time.perf_counter() - start) * 1e6)
        return Latency(float(np.median(times)), float(np.percentile(times, 95)), len(times), self.threads)

    def _columns(self, x: Any) -> dict[str, np.ndarray]:
        """The inputs by name, checked against the file and brought to its dtypes."""
        if isinstance(x, Mapping):
            given = dict(x)
        elif isinstance(x, list | tuple) and len(self._in) > 1:
            given = dict(zip(self._in, x, strict=False))
        else:
            given = {next(iter(self._in)): x}
        if set(given) != set(self._in):
            raise InvalidData(f"{self.path.name} takes the inputs {list(self._in)}; got {list(given)}.")
        columns = {}
        for name, detail in self._in.items():
            values = np.asarray(given[name])
            fixed = detail["shape_signature"][1:]
            if not rows_fit(fixed, values) or not len(values):
                raise InvalidData(
                    f"Input {name!r} of {self.path.name} takes rows of shape {tuple(map(int, fixed))}; got an "
                    f"array of shape {values.shape}."
                )
            columns[name] = _from_float(values, detail)
        if len({len(values) for values in columns.values()}) != 1:
            raise InvalidData(f"Inputs differ in rows: { ({n: len(v) for n, v in columns.items()}) }.")
        return columns

    def _batch(self, rows: int) -> int:
        """Rows to run at once: the file's own batch, or all of them where the file leaves it open."""
        signature = next(iter(self._in.values()))["shape_signature"]
        batch = int(signature[0]) if len(signature) else 1
        if batch != -1:
            return batch
        for detail in self._in.values():
            self._interpreter.resize_tensor_input(detail["index"], [rows, *map(int, detail["shape"][1:])])
        self._interpreter.allocate_tensors()
        return rows

    def __repr__(self) -> str:
        return f"LiteModel({str(self.path)!r}, {self.path.stat().st_size:,} bytes)"

    def __reduce__(self) -> Any:
        return _load, (str(self.path), self.threads)


def _load(path: str, threads: int) -> LiteModel:
    return LiteModel(path, threads=threads)


def _interpreter(content: bytes, threads: int, path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UnreadableFile(f"LiteRT cannot load {str(path)!r}: {error}") from error
    return interpreter


def _from_float(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if dtype.kind in "iu" and scale:
        limits = np.iinfo(dtype)
        values = np.clip(np.round(values / np.float32(scale)) + zero_point, limits.min, limits.max)
    return np.ascontiguousarray(values, dtype)


def _to_float(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    if values.dtype.kind in "iu" and scale:
        return (values.astype(np.float32) - zero_point) * np.float32(scale)
    return values.astype(np.float32) if values.dtype == np.float16 else values
