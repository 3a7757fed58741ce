"""Integer files that answer more like their model: the same operators and size, other numbers.

The converter takes the range of every activation from its extremes and the nearest integer for every weight. Here
channels are evened out, ranges are narrowed where that pays, and kernels are rounded by what they do to results, each
judged on rows of calibration; what does not help on rows that were held back is not kept.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tfbig.deployment.integer_graph import IntegerGraph, Layer, along, layers_of
from tfbig.deployment.integer_numbers import Numbers
from tfbig.deployment.rounding import by_products, few_values, patches, products

# Of so many rows, one is held back to judge by.
_HELD_BACK = 4
_FEWEST_ROWS = 32
_SEARCH_ROWS, _ROUNDING_ROWS, _MOST_PATCHES = 256, 128, 10_000
# Beyond this, inverting what the inputs of a kernel have in common takes seconds.
_MOST_WEIGHTS_PER_UNIT = 1_200
# One step of a range, and how much of the error must be left after it: smaller gains are those of the rows searched.
_NARROWER, _WORTH = 0.85, 0.99
# Multiplications of one row times layers, which takes some 10 seconds. Larger models are given fewer rows instead;
# those for which fewer than 8 would be left are not refined.
_MOST_WORK, _FEWEST_ROUNDING_ROWS = 4e8, 8
# Channels are evened out; where that does not help, only ranges and rounding are tried.
_SHARES = (1.0, 0.0)
_Columns = Mapping[str, np.ndarray]


class NotRefined(Exception):
    """A file's numbers stay as the converter chose them; the message says why."""


def refine(
    content: bytes, float_content: bytes, columns: _Columns, batch: int
) -> tuple[bytes, dict[str, float]]:
    """Returns an integer file whose answers are closer to the float file's, and by how much.

    Args:
        content: The integer file, as the converter made it.
        float_content: The same model's float32 file.
        columns: Input name to rows of calibration.
        batch: Rows that the files take at once.

    Returns:
        The file's bytes, the given ones where nothing better was found; and "before" and "after", mean errors on the
        rows held back, as shares of the range of the float file's answers.

    Raises:
        NotRefined: There is nothing that could be changed, there are too few rows, or it would take minutes.
    """
    graph, floats = IntegerGraph(content), IntegerGraph(float_content)
    rows = len(next(iter(columns.values())))
    if rows < _FEWEST_ROWS * batch:
        raise NotRefined(f"it takes {_FEWEST_ROWS * batch} rows of calibration; got {rows}")
    if len(graph.contents.graphs) > 1 or len(floats.contents.graphs) > 1:
        raise NotRefined("the file holds loops or several functions")
    layers = layers_of(graph, floats)
    if not layers:
        raise NotRefined("no dense layer or convolution of it is computed in integers")
    work = len(layers) * _products_per_row(graph, layers)
    part = min(1.0, _MOST_WORK / work)
    if part * _ROUNDING_ROWS < _FEWEST_ROUNDING_ROWS:
        most = _MOST_WORK * _ROUNDING_ROWS / _FEWEST_ROUNDING_ROWS
        raise NotRefined(
            f"{work:.1e} multiplications × layers are more than {most:.1e}: it would take minutes"
        )
    held, fitted = _split(columns, rows, batch)
    search = _Refinement(graph, floats, layers, fitted, batch, part)
    judge = _error(graph, floats, held, batch)
    before = judge(content)
    for share in _SHARES:
        made = search.done(share, columns)
        after = judge(made)
        if after < before:
            return made, {"before": before, "after": after}
    return content, {"before": before, "after": before}


class _Refinement:
    """The steps by which a file's numbers get better, all on the same rows."""

    def __init__(
        self,
        graph: IntegerGraph,
        floats: IntegerGraph,
        layers: list[Layer],
        rows: _Columns,
        batch: int,
        part: float,
    ):
        self.graph, self.layers, self.batch = graph, layers, batch
        searched = _first(rows, max(batch, int(part * _SEARCH_ROWS)))
        # Squares, since it is the large errors that change an answer.
        self.error = _error(graph, floats, searched, batch, power=2)
        self.rows = _first(rows, max(batch, int(part * _ROUNDING_ROWS)))
        found = _patches(floats, layers, [layer.float_source for layer in layers], self.rows, batch)
        means = [[samples.mean(0) for samples in run] for run in found]
        self.expected = [np.mean(values, axis=0) for values in zip(*means, strict=True)]

    def done(self, share: float, columns: _Columns) -> bytes:
        """Returns the file after all steps, with channels evened out by a share."""
        numbers = Numbers(self.graph, self.layers)
        if numbers.movable:
            numbers.equalize(*_extremes(self.graph, columns, self.batch, numbers.movable), share)
            self.narrow(numbers)
        self.round(numbers)
        if numbers.movable:
            self.narrow(numbers)
            self.correct(numbers)
        return numbers.content()

    def narrow(self, numbers: Numbers) -> None:
        """Narrows the range of one tensor after the other, at either end, as long as answers get closer.

        The last ones come first: an average or a softmax may hide all gains before it.
        """
        best = self.error(numbers.content())
        for tensors in sorted(numbers.range, reverse=True):
            for end in (0,) if tensors in numbers.decisive else (0, 1):
                while numbers.range[tensors][end]:
                    kept = numbers.range[tensors]
                    tried = [*kept]
                    tried[end] *= _NARROWER
                    numbers.range[tensors] = tried[0], tried[1]
                    error = self.error(numbers.content())
                    if not error < _WORTH * best:  # nor where it is NaN
                        numbers.range[tensors] = kept
                        break
                    best = error

    def round(self, numbers: Numbers) -> None:
        """Rounds kernels by their products, one layer after the other, and corrects the mean error of each."""
        for layer, expected in zip(self.layers, self.expected, strict=True):
            given = self.patches(numbers, layer)
            per_unit = given.shape[1]
            dense = layer.kind != "DEPTHWISE_CONV_2D" and per_unit <= _MOST_WEIGHTS_PER_UNIT
            if dense and not few_values(layer.weights):
                weights = numbers.weights(layer)
                scales = np.broadcast_to(numbers.scales(layer), len(weights))
                centred = given - given.mean(0)
                gram = (centred.T @ centred).astype(np.float64) / len(given)
                whole = by_products(weights.reshape(len(weights), -1), scales, gram)
                numbers.whole[layer.op] = whole.reshape(weights.shape)
            _shift(numbers, layer, expected, given.mean(0))

    def correct(self, numbers: Numbers) -> None:
        """Corrects the mean error of each layer's results, one layer after the other."""
        for layer, expected in zip(self.layers, self.expected, strict=True):
            _shift(numbers, layer, expected, self.patches(numbers, layer).mean(0))

    def patches(self, numbers: Numbers, layer: Layer) -> np.ndarray:
        """What a layer's results are computed from, in the file as it is now."""
        content = numbers.content()
        found = _patches(self.graph, [layer], [layer.source], self.rows, self.batch, content)
        return np.concatenate([samples for (samples,) in found])


def _products_per_row(graph: IntegerGraph, layers: list[Layer]) -> int:
    """Multiplications for one run of the file."""
    tensors = graph.contents.graphs[0].tensors
    return sum(layer.weights.size * int(np.prod(tensors[layer.result].shape[1:-1])) for layer in layers)


def _shift(numbers: Numbers, layer: Layer, expected: np.ndarray, given: np.ndarray) -> None:
    """Moves a bias so that the mean result is the float file's, for means of patches there and here."""
    gain = numbers.gain.get(layer.result, 1.0)
    kernel = numbers.integers(layer) * along(numbers.scales(layer), layer.axis, layer.weights.ndim)
    wanted = products(layer, layer.weights, expected) + layer.offset
    numbers.offset[layer.op] = wanted - products(layer, kernel, given) / gain


def _split(columns: _Columns, rows: int, batch: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The rows held back, and the others."""
    held = np.arange(rows) % _HELD_BACK == _HELD_BACK - 1
    return tuple({name: values[places] for name, values in columns.items()} for places in (held, ~held))  # type: ignore[return-value]


def _first(columns: _Columns, rows: int) -> dict[str, np.ndarray]:
    return {name: values[:rows] for name, values in columns.items()}


def _error(
    graph: IntegerGraph, floats: IntegerGraph, columns: _Columns, batch: int, power: int = 1
) -> Callable[[bytes], float]:
    """A function from an integer file to its mean error, as a share of the range of the float file's answers."""
    outputs = list(graph.contents.outputs.values())
    expected = _tensors(floats, columns, batch, list(floats.contents.outputs.values()))
    ranges = [float(np.ptp(values)) or 1.0 for values in expected]

    def error(content: bytes) -> float:
        got = _tensors(graph, columns, batch, outputs, content)
        triples = zip(expected, got, ranges, strict=True)
        return float(np.mean([np.mean(np.abs((e - g) / width) ** power) for e, g, width in triples]))

    return error


def _extremes(
    graph: IntegerGraph, columns: _Columns, batch: int, movable: list[tuple[int, ...]]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """The smallest and largest value of each channel of tensors."""
    wanted = [index for tensors in movable for index in tensors]
    lowest: dict[int, np.ndarray] = {}
    highest: dict[int, np.ndarray] = {}
    for values in graph.run(columns, batch, wanted):
        for index, value in zip(wanted, values, strict=True):
            flat = value.reshape(-1, value.shape[-1])
            lowest[index] = np.minimum(lowest.get(index, np.inf), flat.min(0))
            highest[index] = np.maximum(highest.get(index, -np.inf), flat.max(0))
    return lowest, highest


def _patches(
    graph: IntegerGraph,
    layers: list[Layer],
    sources: list[int],
    columns: _Columns,
    batch: int,
    content: bytes | None = None,
) -> Iterator[list[np.ndarray]]:
    """For each run, samples of what the layers' results are computed from; the same places of either file."""
    runs = len(next(iter(columns.values()))) // batch
    most = -(-_MOST_PATCHES // runs)
    for run, values in enumerate(graph.run(columns, batch, sources, content)):
        yield [patches(layer, value, most, run) for layer, value in zip(layers, values, strict=True)]


def _tensors(
    graph: IntegerGraph, columns: _Columns, batch: int, wanted: list[int], content: bytes | None = None
) -> list[np.ndarray]:
    runs = graph.run(columns, batch, wanted, content)
    return [np.concatenate([np.atleast_1d(v) for v in values]) for values in zip(*runs, strict=True)]
