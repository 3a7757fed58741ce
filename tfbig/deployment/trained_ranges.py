"""Models from `quantize_aware` bring the ranges of their activations along: what that means for their file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, nodes, structures
from tfbig.backend.internals import every_layer
from tfbig.errors import InvalidOption
from tfbig.layers.kernels import QuantizedLayer
from tfbig.layers.ranges import FakeQuant


@dataclass(frozen=True)
class TrainedRanges:
    """The ranges at the edges of a model that was trained through rounding.

    Attributes:
        inputs: Name of each input to the smallest and largest value that it takes; None where it is not known.
        reach_the_edges: Whether every input and output of floats is rounded, so that the file can take and give
            integers.
    """

    inputs: Mapping[str, tuple[float, float] | None]
    reach_the_edges: bool


def trained_mode(model: Any) -> str | None:
    """Returns the mode of the file that a model was trained for, or None where it was trained for none."""
    bits = {layer.bits for layer in every_layer(model) if isinstance(layer, FakeQuant)}
    if not bits or graph_of(model) is None:
        return None
    return "int16x8" if max(bits) == 16 else "int8"


def trained_ranges(model: Any, quantize: str | None, input_type: str | None) -> TrainedRanges | None:
    """Returns the ranges at the model's edges, or None for a model that was not trained through rounding.

    Args:
        model: A built Keras model.
        quantize: The mode asked for.
        input_type: The edges asked for, or None.

    Raises:
        InvalidOption: The mode is not the one that the model was trained for, or the edges have no range.
    """
    mode = trained_mode(model)
    if mode is None:
        return None
    if quantize != mode:
        raise InvalidOption(
            f'The model {model.name!r} was trained for quantize="{mode}"; got quantize={quantize!r}. Its rounding is '
            "part of it. For another file, export the model that it was made from."
        )
    inputs = {tensor.name: _range_of_input(model, tensor) for tensor in model.inputs}
    reads_floats = [tensor.name for tensor in model.inputs if "float" in str(tensor.dtype)]
    ends = all(isinstance(_maker(model, tensor), FakeQuant) for tensor in model.outputs)
    ranges = TrainedRanges(inputs, ends and None not in [inputs[name] for name in reads_floats])
    if input_type not in (None, "float32") and not ranges.reach_the_edges:
        raise InvalidOption(
            f"input_type={input_type!r} needs ranges at the model's inputs and outputs; {model.name!r} begins or "
            'ends in float (tfbig.quantization lists where). Use input_type="float32".'
        )
    return ranges


def _range_of_input(model: Any, tensor: Any) -> tuple[float, float] | None:
    readers = list(_readers(model, tensor))
    if "float" not in str(tensor.dtype):  # indices, which the computation of a mask may read too
        tables = [reader.layer for reader in readers if isinstance(reader, QuantizedLayer)]
        return (0, min(table.input_dim for table in tables)) if tables else None
    if not readers or not all(isinstance(reader, FakeQuant) for reader in readers):
        return None
    lowest, highest = readers[0].limits()
    return float(lowest), float(highest)


def _readers(model: Any, tensor: Any) -> Iterator[Any]:
    """The operations that read a tensor of the model; those inside, where a nested model reads it."""
    for node in nodes(model):
        if any(x is tensor for x in keras.tree.flatten((node.args, node.kwargs))):
            if graph_of(node.operation) is None:
                yield node.operation
                continue
            inside = keras.tree.flatten(structures(node.operation)[0])
            for outer, inner in zip(node.inputs, inside, strict=True):
                if outer is tensor:
                    yield from _readers(node.operation, inner)


def _maker(model: Any, tensor: Any) -> Any:
    """The operation that gives a tensor of the model; one inside, where a nested model gives it."""
    for node in nodes(model):
        for place, made in enumerate(node.outputs):
            if made is tensor and graph_of(node.operation) is None:
                return node.operation
            if made is tensor:
                return _maker(node.operation, keras.tree.flatten(structures(node.operation)[1])[place])
    return None
