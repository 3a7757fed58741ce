"""Random rows for the proof of a model whose user gave none, as its first layers say that rows look."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, nodes, operation_name, structures
from tfbig.deployment.serving import as_given
from tfbig.deployment.signature import TURNS
from tfbig.errors import InvalidData

_L = keras.layers
# Layers and operations whose results are their inputs' values, in the same order: what they are read for, inputs are.
_PASSING = (
    _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.GaussianDropout, _L.GaussianNoise,
    _L.AlphaDropout, _L.ActivityRegularization, _L.Identity, _L.Masking, _L.Flatten, _L.Reshape,
)  # fmt: skip
_PASSING_OPERATIONS = {"Cast", "ExpandDims", "Reshape", "Squeeze"}
_MISSING = 0.1
# For axes that a model leaves open, in the order in which they are tried: a proof on longer rows says more, where
# convolutions leave something of them and tables of positions reach as far.
_LENGTHS = (16, 32, 64, 128, 256, 8, 4, 2, 1)
# Each input's name with the shape of a row, None for open axes, and its dtype.
_Inputs = Mapping[str, tuple[tuple[int | None, ...], str]]


def sample_rows(
    model: Any,
    inputs: _Inputs,
    count: int,
    ranges: Mapping[str, tuple[float, float] | None] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns random rows in the units that a model takes, as far as it tells.

    Values too far from those in use would prove nothing: a normalizer fitted on values near 1,000 turns random ones
    near 0 into a thousand deviations, beside which every difference between two rows is rounding.

    A Normalization, BatchNormalization or `tfbig.encoder` tells mean and variance of each feature, a Rescaling what
    becomes 0 to 1 (or, with an offset, -1 to 1), and an Embedding, or whatever else counts categories, how many there
    are. They are found behind layers that pass values on, behind slices, and inside nested models.

    Args:
        model: A built Keras model.
        inputs: Each input's name with its shape, without the batch axis, and its dtype. All open axes get the first
            length at which the model runs.
        count: How many rows.
        ranges: Smallest and largest value of inputs whose range is known otherwise, drawn evenly, whole numbers below
            the end.
        seed: Of the draw.

    Returns:
        Input name to array. Inputs of which the model says nothing are standard normal, whole numbers 0 or 1.

    Raises:
        InvalidData: The model runs with open axes of none of the lengths that are tried.
    """
    generator = np.random.default_rng(seed)
    tensors = {tensor.name: tensor for tensor in model.inputs}
    rows = {}
    for name, (shape, dtype) in _closed(model, inputs).items():
        full, is_float = (count, *shape), np.dtype(dtype).kind == "f"
        known = (ranges or {}).get(name)
        if known is not None:
            values = generator.uniform(*known, size=full)
        else:
            values = (
                generator.normal(size=full) if is_float else generator.integers(2, size=full).astype(float)
            )
            values = _as_read(model, tensors[name], values, generator)
        rows[name] = values.astype(dtype) if is_float else _whole(values, dtype)
    return rows


def _closed(model: Any, inputs: _Inputs) -> dict[str, tuple[tuple[int, ...], str]]:
    """The inputs with a length for each axis that is left open."""

    def with_axes(length: int) -> dict[str, tuple[tuple[int, ...], str]]:
        return {
            name: (tuple(length if size is None else size for size in shape), dtype)
            for name, (shape, dtype) in inputs.items()
        }

    if all(None not in shape for shape, _ in inputs.values()):
        return with_axes(1)
    for closed in map(with_axes, _LENGTHS):
        zeros = [np.zeros((1, *shape), dtype) for shape, dtype in closed.values()]
        # Whatever a layer raises on rows too short or too long for it.
        with contextlib.suppress(Exception), TURNS:
            model(as_given(model, zeros), training=False)
            return closed
    shapes = {name: shape for name, (shape, _) in inputs.items()}
    raise InvalidData(
        f"The model {model.name!r} leaves axes of its inputs open, {shapes}, and runs with none of the lengths "
        f"{', '.join(map(str, sorted(_LENGTHS)))} in their place. Pass calibration=: some rows that it takes."
    )


def _whole(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bool":
        return values >= 1
    limits = np.iinfo(dtype)
    return np.clip(np.floor(values), limits.min, limits.max).astype(dtype)


def _as_read(model: Any, tensor: Any, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Values for a tensor of the model as its readers want them; those given, where these tell nothing."""
    if graph_of(model) is None:
        return values
    readers = [node for node in nodes(model) if any(x is tensor for x in node.inputs)]
    # Of several tables that are read by one input, the smallest decides.
    for node in sorted(readers, key=lambda node: -getattr(node.operation, "input_dim", 0)):
        operation = node.operation
        if graph_of(operation) is not None:
            inside = keras.tree.flatten(structures(operation)[0])
            for outer, inner in zip(node.inputs, inside, strict=True):
                if outer is tensor:
                    values = _as_read(operation, inner, values, generator)
        elif (behind := _shape_behind(operation, node.outputs[0], values)) is not None:
            result = values.reshape(behind)
            values = _as_read(model, node.outputs[0], result, generator).reshape(values.shape)
        elif operation_name(operation) == "GetItem":
            key = node.args[1] if len(node.args) > 1 else node.kwargs["key"]
            key = tuple(key) if isinstance(key, list) else key
            values = values.copy()
            values[key] = _as_read(model, node.outputs[0], values[key], generator)
        elif isinstance(operation, _L.Rescaling):
            scale, offset = np.asarray(operation.scale), np.asarray(operation.offset)
            scaled = generator.uniform(-1.0 if offset.any() else 0.0, 1.0, size=values.shape)
            scaled = _as_read(model, node.outputs[0], scaled, generator)
            values = (scaled - offset) / scale
        else:
            values = _as_told(operation, values, generator)
    return values


def _shape_behind(operation: Any, output: Any, values: np.ndarray) -> tuple[int, ...] | None:
    """The shape in which an operation passes the values on; None for one that does not."""
    if not (isinstance(operation, _PASSING) or operation_name(operation) in _PASSING_OPERATIONS):
        return None
    sizes, given = tuple(output.shape[1:]), values.shape[1:]
    if len(sizes) == len(given) and all(a in (None, b) for a, b in zip(sizes, given, strict=True)):
        return values.shape
    known, count = math.prod(size for size in sizes if size), math.prod(given)
    if sizes.count(None) > 1 or count % known or (None not in sizes and count != known):
        return None
    return (len(values), *(-1 if size is None else size for size in sizes))


def _as_told(layer: Any, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Values as one layer or operation says that it takes them."""
    if isinstance(layer, _L.Normalization) and not layer.invert:
        return _spread(layer.mean, layer.variance, generator, values.shape)
    if isinstance(layer, _L.BatchNormalization):
        axes = [1] * values.ndim
        axes[layer.axis] = -1
        mean, variance = (np.reshape(x, axes) for x in (layer.moving_mean, layer.moving_variance))
        return _spread(mean, variance, generator, values.shape)
    if getattr(layer, "takes_missing", False) and hasattr(layer, "categories"):
        return _raw_columns(layer, values, generator)
    if isinstance(layer, _L.Discretization):
        bounds = np.asarray(layer.bin_boundaries, float)
        margin = (np.ptp(bounds) or 1.0) / len(bounds)
        return generator.uniform(bounds.min() - margin, bounds.max() + margin, size=values.shape)
    for told in _category_counts(layer):
        return generator.integers(told, size=values.shape).astype(float)
    return values


def _category_counts(layer: Any) -> Iterator[int]:
    if isinstance(layer, _L.Embedding):
        yield layer.input_dim
    elif isinstance(layer, _L.CategoryEncoding):
        yield layer.num_tokens
    elif operation_name(layer) == "OneHot":
        yield layer.num_classes


def _spread(mean: Any, variance: Any, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(mean, float) + np.sqrt(np.asarray(variance, float)) * generator.normal(size=shape)


def _raw_columns(encoder: Any, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows as `tfbig.encoder` was fitted on: numbers, codes, and gaps in the columns where it saw some."""
    values = values.copy()
    shape = (len(values), len(encoder.numbers))
    values[:, encoder.numbers] = _spread(encoder.mean, encoder.variance, generator, shape)
    for column, categories in encoder.categories.items():
        values[:, column] = generator.integers(categories, size=len(values))
    for column in encoder.indicators:
        values[generator.random(len(values)) < _MISSING, column] = np.nan
    return values
