"""The graph of a Sequential or functional model: which operation is called on what, and how to run it on other values.

Keras publishes a model's layers and runs it on tensors; its calls it keeps under private names. A copy by `clone_model`
with a `call_function` would show them, at the price of a second model, and not those of nested or Sequential ones.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.internals import every_layer


@dataclass(frozen=True)
class Node:
    """One call of an operation.

    Attributes:
        operation: A layer, or an operation of `keras.ops`.
        args: As it was called; `KerasTensor`s stand for the data.
        kwargs: As it was called.
        inputs: The `KerasTensor`s among the arguments, as a flat list.
        outputs: The `KerasTensor`s that came out, as a flat list.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


def graph_of(model: Any) -> Any:
    """Returns the functional model that holds the graph of `model`, or None where there is no graph to follow.

    A class of the user's own may do anything in its `call`, so only Keras's own two kinds of model have one.
    """
    from keras.src.models.functional import Functional  # has no public name

    if type(model) is keras.Sequential:
        return model._functional
    return model if type(model) is Functional else None


def nodes(model: Any, *, inputs_too: bool = False) -> list[Node]:
    """Returns the calls inside the model in the order they run; nested models are one call.

    A layer's own `input` and `output` name its first call only, which may belong to another model.

    Args:
        model: A model that has a graph.
        inputs_too: Whether the calls of `keras.Input` are among them.
    """
    by_depth = graph_of(model)._nodes_by_depth
    ordered = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [
        Node(
            node.operation,
            node.arguments.args,
            node.arguments.kwargs,
            tuple(node.input_tensors),
            tuple(node.outputs),
        )
        for node in ordered
        if inputs_too or not node.is_input
    ]


def nodes_inside(model: Any) -> Iterator[Node]:
    """Yields the calls in the graphs of a model and of all models inside it.

    A Sequential holds its graph, which is a model of its own; it may not be among its layers.
    """
    for layer in every_layer(model):
        if graph_of(layer) is not None:
            yield from nodes(layer)


def structures(model: Any) -> tuple[Any, Any]:
    """Returns the model's inputs and outputs as they are nested, `KerasTensor`s at the leaves."""
    function = graph_of(model)
    return function._inputs_struct, function._outputs_struct


def run_graph(model: Any, inputs: Any, visit: Callable[[Any, tuple, dict, list[Any]], Any]) -> Any:
    """Runs a graph: `visit` is called in place of each layer and operation, and gives its outputs.

    Args:
        model: What `graph_of` returned.
        inputs: A value for each input of the model, in any structure that `keras.tree` flattens.
        visit: Called with (operation, args, kwargs, outputs): what is called, with values in place of tensors, and
            the symbolic output tensors, which tell the shapes.

    Returns:
        The values of the model's outputs, in the structure of its outputs.
    """
    values = {
        id(tensor): value for tensor, value in zip(model.inputs, keras.tree.flatten(inputs), strict=True)
    }
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(values)
            outputs = keras.tree.flatten(visit(node.operation, args, kwargs, node.outputs))
            values.update((id(t), value) for t, value in zip(node.outputs, outputs, strict=True))
    return keras.tree.map_structure(lambda tensor: values[id(tensor)], model._outputs_struct)


def inputs_of(model: Any) -> Any:
    """Returns the symbolic inputs of a graph in the structure in which it takes them, such as a dict."""
    return model._inputs_struct


def input_name(tensor: Any) -> str:
    """Returns the name of the input layer behind a symbolic input; the tensor's own may be another."""
    return tensor._keras_history.operation.name


def operation_name(operation: Any) -> str:
    """Returns the name of a `keras.ops` operation in a graph, such as "Add"; "" for a layer and for others.

    What `x + y` on symbolic tensors leaves in a graph has no public type.
    """
    kind = type(operation)
    return kind.__name__ if kind.__module__.startswith("keras.src.ops.") else ""


def carries_mask(tensor: Any) -> bool:
    """Whether a layer before has marked steps of this tensor as padding."""
    return getattr(tensor, "_keras_mask", None) is not None


@contextlib.contextmanager
def graph_as_found(model: Any) -> Iterator[None]:
    """Makes layers forget, after the block, the calls that were added to them in it.

    A model that begins at another one's tensor makes Keras note each of its calls in the layers they share, for as long
    as those live. Models made in the block are not to be used after it.

    Args:
        model: A functional `keras.Model`.
    """
    operations = {id(node.operation): node.operation for node in nodes(model, inputs_too=True)}.values()
    lengths = [
        (known, len(known))
        for operation in operations
        for known in (operation._inbound_nodes, operation._outbound_nodes)
    ]
    try:
        yield
    finally:
        for known, length in lengths:
            del known[length:]


def bytes_computed(function: Callable[..., Any], *specs: Any) -> int:
    """Returns the bytes of all that a function computes, if nothing were let go before its end; it is traced, not run.

    Views of what is there already do not count, nor do constants and variables; of loops only the outcome.

    Args:
        function: Of tensors.
        *specs: Its arguments as `tf.TensorSpec`s of known shape, nested as it takes them.
    """
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    outputs = [t for op in graph.get_operations() if op.type not in _NOT_COMPUTED for t in op.outputs]
    known = [t for t in outputs if t.shape.is_fully_defined() and t.dtype not in (tf.resource, tf.variant)]
    return sum(t.shape.num_elements() * t.dtype.size for t in known)


_NOT_COMPUTED = {
    "Const",
    "Identity",
    "IdentityN",
    "Placeholder",
    "ReadVariableOp",
    "Reshape",
    "Squeeze",
    "ExpandDims",
}


def stateful_random_ops(graph: Any) -> list[str]:
    """Returns the kinds of random operations in a traced graph that draw from TensorFlow's own hidden state.

    Such numbers depend on all that ran before. Those of `keras.random` come from seeds that are variables.

    Args:
        graph: Of a concrete function; what it calls is looked at too.
    """
    definition = graph.as_graph_def()
    nodes_in = [definition.node, *(function.node_def for function in definition.library.function)]
    kinds = {node.op for group in nodes_in for node in group}
    return sorted(kinds & _STATEFUL_RANDOM)


_STATEFUL_RANDOM = {
    "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal",
    "RandomShuffle", "RandomGamma", "RandomPoisson", "RandomPoissonV2", "Multinomial", "StatefulUniform",
    "StatefulUniformInt", "StatefulUniformFullInt", "StatefulStandardNormalV2", "StatefulTruncatedNormal",
    "StatefulRandomBinomial",
}  # fmt: skip
