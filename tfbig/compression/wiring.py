"""The calls inside a model as a flat list that can be rewritten: nested models are laid out in place."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tfbig.backend import graph, keras


@dataclass(eq=False)
class Edge:
    """What flows between two calls.

    Attributes:
        shape: With the batch axis.
        dtype: Of the values.
        masked: Whether steps are marked as padding.
        name: Of a model's input; None inside.
    """

    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False
    name: str | None = None


@dataclass(eq=False)
class Call:
    """One call of an operation.

    Attributes:
        op: A layer or another Keras operation.
        name: Of the layer, after the names of the models it is nested in.
        args: Edges, in the structure and among the constants that it is called with.
        kwargs: Likewise.
        outputs: Flat.
        source: The operation of the model that was read, where `op` is another in its place.
    """

    op: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Edge, ...]
    source: Any = None

    @property
    def inputs(self) -> list[Edge]:
        """The edges among its arguments."""
        return [x for x in keras.tree.flatten((self.args, self.kwargs)) if isinstance(x, Edge)]


@dataclass(eq=False)
class Wiring:
    """All calls of a model, in running order.

    Attributes:
        inputs: The model's inputs as it nests them.
        outputs: The model's outputs as it nests them.
        calls: The calls.
    """

    inputs: Any
    outputs: Any
    calls: list[Call] = field(default_factory=list)

    def consumers(self, edge: Edge) -> list[Call]:
        """Returns the calls that read the edge."""
        return [call for call in self.calls if edge in call.inputs]

    def leaves(self, edge: Edge) -> bool:
        """Whether the edge is an output of the model."""
        return edge in keras.tree.flatten(self.outputs)

    def only_consumer(self, edge: Edge) -> Call | None:
        """Returns the call that alone reads the edge, if there is one."""
        consumers = self.consumers(edge)
        return consumers[0] if len(consumers) == 1 and not self.leaves(edge) else None


def read_wiring(model: Any) -> Wiring:
    """Returns the calls of a functional or sequential model, those of nested ones among them.

    Args:
        model: A model that has a graph (`tfbig.backend.graph.graph_of`). It is only read.
    """
    inputs, outputs = graph.structures(model)
    edges = {id(tensor): _edge(tensor, tensor.name) for tensor in keras.tree.flatten(inputs)}
    calls = list(_walk(model, edges, ""))
    return Wiring(_replaced(inputs, edges), _replaced(outputs, edges), calls)


def _walk(model: Any, edges: dict[int, Edge], prefix: str) -> Iterator[Call]:
    for node in graph.nodes(model):
        args, kwargs = _replaced(node.args, edges), _replaced(node.kwargs, edges)
        if graph.graph_of(node.operation) is not None:
            yield from _inside(node, (args, kwargs), edges, prefix)
            continue
        outputs = [_edge(tensor) for tensor in node.outputs]
        edges.update((id(tensor), edge) for tensor, edge in zip(node.outputs, outputs, strict=True))
        yield Call(node.operation, prefix + node.operation.name, args, kwargs, tuple(outputs))


def _inside(node: Any, arguments: Any, edges: dict[int, Edge], prefix: str) -> Iterator[Call]:
    """The calls of a nested model; a model that is called twice is laid out twice."""
    model = node.operation
    inputs, outputs = graph.structures(model)
    given = [edge for edge in keras.tree.flatten(arguments) if isinstance(edge, Edge)]
    inner = {id(tensor): edge for tensor, edge in zip(keras.tree.flatten(inputs), given, strict=True)}
    yield from _walk(model, inner, f"{prefix}{model.name}/")
    for outer, tensor in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
        edges[id(outer)] = inner[id(tensor)]


def _edge(tensor: Any, name: str | None = None) -> Edge:
    return Edge(tuple(tensor.shape), str(tensor.dtype), graph.carries_mask(tensor), name)


def _replaced(structure: Any, edges: dict[int, Edge]) -> Any:
    return keras.tree.map_structure(lambda x: edges[id(x)] if is_symbolic(x) else x, structure)


def is_symbolic(value: Any) -> bool:
    """Whether the value is a tensor without data, of a model being made."""
    return isinstance(value, keras.KerasTensor)


class Names:
    """Gives out names that a model does not have yet."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def free(self, name: str) -> str:
        """Returns the name, with a number where it is taken; a path of nested models becomes one word."""
        name = name.replace("/", "_")
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        found = name if name not in self._taken else next(n for n in numbered if n not in self._taken)
        self._taken.add(found)
        return found
