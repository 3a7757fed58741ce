"""LiteRT's interpreter behind one signature of a file: rows in, rows out, whatever batch the file was made for."""

import itertools
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfbig.deployment.contents import Contents
from tfbig.errors import InvalidData, InvalidModel

# Where a file leaves its batch open: more rows at once are no faster, and every one of them takes memory.
_MOST_ROWS = 256
_WARM_UP_RUNS = 10
# For open axes of a file that has run nothing yet: a convolution may need more than the shortest.
_LENGTHS = (1, 64)
# The inputs of one run, or its outputs.
_Parts = tuple[np.ndarray, ...]


class Runner:
    """One signature of a file, ready to run. Not safe for several threads at once.

    Attributes:
        inputs: Name of each input to what LiteRT says of it.
        outputs: Likewise.
    """

    def __init__(self, content: bytes, contents: Contents, key: str, threads: int):
        """Loads the file.

        Raises:
            ValueError, RuntimeError, KeyError: LiteRT cannot.
        """
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        signature = contents.signatures[key]
        # An LSTM's state outlives a run, and would leak from one row into the next.
        self._stateful = any(tensor.variable for graph in contents.graphs for tensor in graph.tensors)
        self._runs: Callable[[Iterable[_Parts]], Iterator[_Parts]]
        if signature.graph == 0:
            details = {int(detail["index"]): detail for detail in self._interpreter.get_input_details()}
            self.inputs = {name: details[index] for name, index in signature.inputs.items()}
            details = {int(detail["index"]): detail for detail in self._interpreter.get_output_details()}
            self.outputs = {name: details[index] for name, index in signature.outputs.items()}
            self._runs = self._runs_main
        else:  # LiteRT offers no other way to graphs besides the main one
            self._function = self._interpreter.get_signature_runner(key)
            self.inputs = self._function.get_input_details()
            self.outputs = self._function.get_output_details()
            self._runs = self._runs_function
        self._shapes: list[tuple[int, ...]] = []  # what memory is allocated for
        self._row_shapes: list[tuple[int, ...]] = []  # of the rows that ran last
        open_axes = any(-1 in detail["shape_signature"] for detail in self.inputs.values())
        if signature.graph == 0 and not open_axes:  # else at the first run
            self._interpreter.allocate_tensors()
            self._shapes = [tuple(map(int, detail["shape"])) for detail in self.inputs.values()]
        self._indices = [detail["index"] for detail in self.inputs.values()]
        self._out_indices = [detail["index"] for detail in self.outputs.values()]
        self._scalars = [not len(detail["shape_signature"]) for detail in self.inputs.values()]
        self._batches = {_first(detail) for detail in self.inputs.values()} - {-1}
        self._singly = any(_first(detail) != -1 for detail in self.outputs.values())

    def run(self, columns: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs for rows of inputs, as the file gives them.

        Args:
            columns: Each input, of shape (rows, ...), in the file's dtype.

        Returns:
            Each output, of shape (rows, ...). One that has no axis of rows in the file is that of one row.

        Raises:
            InvalidModel: The file's inputs or outputs cannot be told apart by rows.
            InvalidData: LiteRT refuses the values, or rows give outputs of different shapes.
        """
        rows, fixed = len(columns[0]), self._fixed_batch()
        batch = fixed or min(rows, _MOST_ROWS)
        if fixed and rows % fixed:  # padded here, cut at the end
            columns = [_padded(values, -rows % fixed) for values in columns]
        try:
            pieces = [
                _pieces(values, batch, scalar) for values, scalar in zip(columns, self._scalars, strict=True)
            ]
            runs = list(self._runs(zip(*pieces, strict=True)))
            joined = [_joined(values, batch) for values in zip(*runs, strict=True)]
        except (RuntimeError, ValueError) as error:
            raise InvalidData(f"LiteRT cannot run these inputs: {error}") from error
        if all(values is not None for values in joined):
            self._row_shapes = [values.shape[1:] for values in columns]
            return [values[:rows] for values in joined if values is not None]
        if fixed:
            raise InvalidModel(
                f"The outputs of this file, of shapes {[values.shape for values in runs[0]]}, do not have one row for "
                f"each of the {batch} of its batch. Make the file for a batch of 1."
            )
        self._singly = True  # rows are mixed where there are several: from now on one at a time
        return self.run(columns)

    def times(self, seconds: float) -> list[float]:
        """Returns how many microseconds single runs on zeros take: one batch, or one row where that is open.

        Other open axes are as long as in the rows that ran last.

        Raises:
            InvalidModel: LiteRT refuses zeros and ones.
        """
        parts = self._warmed_up()
        main = self._runs == self._runs_main
        once = self._interpreter.invoke if main else lambda: next(self._runs([parts]))
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < _WARM_UP_RUNS:
            start = time.perf_counter()
            once()
            times.append((time.perf_counter() - start) * 1e6)
        return times

    def _warmed_up(self) -> _Parts:
        """Inputs that have run a few times: zeros, or ones where zeros are refused, as divisors are."""
        for shapes, value in itertools.product(self._shapes_to_time(), (0, 1)):
            parts = tuple(
                np.full(shape, value, detail["dtype"])
                for shape, detail in zip(shapes, self.inputs.values(), strict=True)
            )
            try:
                for _ in self._runs([parts] * _WARM_UP_RUNS):
                    pass
                return parts
            except (RuntimeError, ValueError) as error:
                refusal = error
        raise InvalidModel(f"LiteRT cannot run this file on zeros or ones: {refusal}") from refusal

    def _shapes_to_time(self) -> Iterator[list[tuple[int, ...]]]:
        """Shapes of the inputs, in the order to try them."""
        signatures = [tuple(map(int, detail["shape_signature"])) for detail in self.inputs.values()]
        batches = [tuple(map(abs, shape[:1])) for shape in signatures]  # an open one, -1, is one row
        unknown = (
            [tuple(length if size == -1 else size for size in shape[1:]) for shape in signatures]
            for length in _LENGTHS
        )
        for rows in [self._row_shapes] if self._row_shapes else unknown:
            yield [(*batch, *row) for batch, row in zip(batches, rows, strict=True)]

    def _fixed_batch(self) -> int | None:
        """Rows that the file takes at once; None where it takes any number."""
        if len(self._batches) > 1:
            shapes = {name: tuple(map(int, detail["shape"])) for name, detail in self.inputs.items()}
            raise InvalidModel(f"The inputs of this file take different numbers of rows at once: {shapes}.")
        if self._batches:
            return next(iter(self._batches))
        return 1 if self._singly else None

    def _runs_main(self, pieces: Iterable[_Parts]) -> Iterator[_Parts]:
        # One loop, its lookups made before: a small model runs in a microsecond.
        interpreter, shape_of = self._interpreter, operator.attrgetter("shape")
        set_tensor, get_tensor, invoke = interpreter.set_tensor, interpreter.get_tensor, interpreter.invoke
        for parts in pieces:
            shapes = [*map(shape_of, parts)]
            if shapes != self._shapes:
                self._shapes = []  # none, should LiteRT refuse these
                for index, shape in zip(self._indices, shapes, strict=True):
                    interpreter.resize_tensor_input(index, shape)
                interpreter.allocate_tensors()
                self._shapes = shapes
            if self._stateful:
                interpreter.reset_all_variables()
            for index, part in zip(self._indices, parts, strict=True):
                set_tensor(index, part)
            invoke()
            yield tuple(map(get_tensor, self._out_indices))

    def _runs_function(self, pieces: Iterable[_Parts]) -> Iterator[_Parts]:
        for parts in pieces:
            if self._stateful:
                self._interpreter.reset_all_variables()
            results = self._function(**dict(zip(self.inputs, parts, strict=True)))
            yield tuple(results[name] for name in self.outputs)


def _first(detail: Any) -> int:
    """The first axis of a tensor: -1 if it is left open, 1 if there is none."""
    return int(detail["shape_signature"][0]) if len(detail["shape_signature"]) else 1


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], rows, axis=0)])


def _pieces(values: np.ndarray, batch: int, scalar: bool) -> Iterator[np.ndarray]:
    starts = range(0, len(values), batch)
    return (
        (values[start].reshape(()) for start in starts) if scalar else (values[s : s + batch] for s in starts)
    )


def _joined(values: Sequence[np.ndarray], batch: int) -> np.ndarray | None:
    """One output of all runs by rows; None where a run of several rows does not give one for each."""
    if values[0].ndim and len(values[0]) == batch:
        return values[0] if len(values) == 1 else np.concatenate(values)
    return np.stack(values) if batch == 1 else None
