"""What a model is made of: parameters, work and bytes, layer by layer."""

import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend.graph import graph_of
from tfbig.backend.internals import layers_inside
from tfbig.compression.macs import Work, count_macs
from tfbig.compression.targets import layer_paths
from tfbig.records import Record


@dataclass(frozen=True)
class LayerSummary(Record):
    """What one layer is made of.

    Attributes:
        name: Its path, "encoder/dense_1".
        kind: Its type, "Dense".
        output_shape: Of its first call, with None for axes of any length; empty where it is not known.
        parameters: Values in its weights, trainable or not.
        macs: Multiply-accumulates of one example; None where they cannot be counted.
        float_bytes: Of its weights as they are.
        sparse_bytes: Of its weights when kernels are stored as a bitmap of one bit per weight and the values that are
            not zero.
        gzip_bytes: Of its weights, compressed.
        zeros: Share of zeros in its kernels (weights of two or more axes), in [0, 1]; None without kernels.
        distinct: Distinct values in its kernels; 0 without kernels.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    parameters: int
    macs: int | None
    float_bytes: int
    sparse_bytes: int
    gzip_bytes: int
    zeros: float | None
    distinct: int


@dataclass(frozen=True)
class ModelSummary(Record):
    """What a model is made of. `print` shows a line per layer and the totals.

    Attributes:
        name: Of the model.
        layers: A `LayerSummary` per layer, in the model's order; a shared layer comes once.
    """

    name: str
    layers: tuple[LayerSummary, ...]

    @property
    def parameters(self) -> int:
        """Values in all weights."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one example, over the layers whose work is known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the layers whose work is not known."""
        return tuple(layer.name for layer in self.layers if layer.macs is None)

    @property
    def float_bytes(self) -> int:
        """Bytes of all weights as they are."""
        return sum(layer.float_bytes for layer in self.layers)

    @property
    def sparse_bytes(self) -> int:
        """Bytes of all weights, kernels as bitmaps and values."""
        return sum(layer.sparse_bytes for layer in self.layers)

    @property
    def gzip_bytes(self) -> int:
        """Bytes of all weights, each layer compressed by itself."""
        return sum(layer.gzip_bytes for layer in self.layers)

    def __str__(self) -> str:
        titles = ("layer", "output", "parameters", "MACs", "bytes", "sparse", "gzipped", "zeros", "values")
        rows = [
            (
                f"{layer.name} ({layer.kind})",
                " × ".join("?" if size is None else str(size) for size in layer.output_shape[1:]),
                f"{layer.parameters:,}",
                "?" if layer.macs is None else f"{layer.macs:,}",
                *(f"{size:,}" for size in (layer.float_bytes, layer.sparse_bytes, layer.gzip_bytes)),
                "" if layer.zeros is None else f"{layer.zeros:.1%}",
                f"{layer.distinct:,}" if layer.distinct else "",
            )
            for layer in self.layers
        ]
        sums = (self.parameters, self.macs, self.float_bytes, self.sparse_bytes, self.gzip_bytes)
        table = [titles, *rows, ("all", "", *(f"{value:,}" for value in sums), "", "")]
        widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
        lines = []
        for row in table:
            left = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True)]
            right = [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
            lines.append("  ".join([*left, *right]).rstrip())
        rule = "─" * max(map(len, lines))
        if self.uncounted:
            lines.append(f"MACs not known, and not in the sum: {', '.join(self.uncounted)}")
        return "\n".join([lines[0], rule, *lines[1 : len(rows) + 1], rule, *lines[len(rows) + 1 :]])


def summary(model: Any) -> ModelSummary:
    """Measures what a model is made of, layer by layer.

    Args:
        model: A built Keras model. Of a subclassed one the work and the output shapes are not known.

    Returns:
        A `ModelSummary`; `print` shows a table.

    Raises:
        InvalidModel: The model is not built.

    Example:
        >>> import tfbig
        >>> summary = tfbig.summary(tfbig.models.mlp((4,), 3, hidden=(8,)))
        >>> summary.parameters == (4 + 1) * 8 + (8 + 1) * 3, summary.macs == 4 * 8 + 8 * 3
        (True, True)
    """
    paths, work = layer_paths(model), count_macs(model)
    layers = [
        _measured(layer, paths[id(layer)], work.get(id(layer), Work(None, ()))) for layer in _rows(model)
    ]
    return ModelSummary(model.name, tuple(layers))


def _rows(model: Any) -> list[Any]:
    """The layers that stand for themselves: those of nested models, but not those inside a layer; inputs left out."""
    rows: dict[int, Any] = {}
    for layer in layers_inside(model):
        if type(layer).__name__ == "InputLayer":
            continue
        inner = _rows(layer) if graph_of(layer) is not None else [layer]
        rows.update((id(one), one) for one in inner)
    return list(rows.values())


def _measured(layer: Any, name: str, work: Work) -> LayerSummary:
    weights = [np.asarray(variable.numpy()) for variable in layer.weights]
    kernels = [values for values in weights if values.ndim > 1]
    flat = np.concatenate([values.ravel() for values in kernels]) if kernels else np.zeros(0)
    content = b"".join(values.tobytes() for values in weights)
    return LayerSummary(
        name=name,
        kind=type(layer).__name__,
        output_shape=work.output_shape,
        parameters=sum(values.size for values in weights),
        macs=work.macs,
        float_bytes=len(content),
        sparse_bytes=sum(_sparse_bytes(values) if values.ndim > 1 else values.nbytes for values in weights),
        gzip_bytes=len(gzip.compress(content, 9, mtime=0)) if content else 0,
        zeros=float((flat == 0).mean()) if flat.size else None,
        distinct=len(np.unique(flat)),
    )


def _sparse_bytes(values: np.ndarray) -> int:
    return -(-values.size // 8) + int((values != 0).sum()) * values.itemsize
