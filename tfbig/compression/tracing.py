"""Following the channels through a model's graph, call by call."""

import inspect
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of, operation_name, run_graph
from tfbig.compression.channels import Call, Ids, NotFollowed, Setting, Slice, Trace, Wire
from tfbig.compression.function_rules import OPERATIONS
from tfbig.compression.merging_rules import RULES as MERGING
from tfbig.compression.passing_rules import RULES as PASSING
from tfbig.compression.weight_rules import RULES as WEIGHTS
from tfbig.compression.wrapper_rules import RULES as WRAPPERS
from tfbig.errors import InvalidModel

_RULES = {**PASSING, **MERGING, **WEIGHTS, **WRAPPERS}


class Site:
    """One layer at one of its calls, as the rule of its type sees it.

    A rule returns the channels of the layer's output, or a list of them for several outputs.

    Attributes:
        layer: The layer, or the operation.
        path: Its path, which messages and makers are named by.
        inputs: The tensors among its arguments, in order.
        outputs: The shapes of its outputs.
    """

    def __init__(
        self,
        trace: Trace,
        paths: dict[int, str],
        layer: Any,
        arguments: tuple[tuple, dict],
        outputs: list[tuple],
        within: tuple[Any, tuple[str, ...]] | None = None,
    ):
        """Describes a call; `within` is the wrapper that holds the layer, and its place in that configuration."""
        self.layer, self.outputs = layer, outputs
        self.path = paths.get(id(layer), layer.name)
        self.inputs = [value for value in keras.tree.flatten(arguments) if isinstance(value, Wire)]
        self.reads: list[Ids] = []
        self._trace, self._paths, self._arguments = trace, paths, arguments
        self._owner, self._prefix = within or (layer, ())

    @property
    def input(self) -> Wire:
        """The first input."""
        return self.inputs[0]

    @property
    def args(self) -> tuple:
        """The positional arguments of the call."""
        return self._arguments[0]

    @property
    def is_given_arrays(self) -> bool:
        """Whether arrays of fixed values stand among the arguments; masks, which have no channels, do not count."""
        args, kwargs = self._arguments
        values = keras.tree.flatten([args, {k: v for k, v in kwargs.items() if not k.endswith("mask")}])
        return any(not isinstance(value, Wire) and np.ndim(value) for value in values)

    @property
    def named(self) -> dict[str, Any]:
        """The arguments of the call by name."""
        args, kwargs = self._arguments
        return inspect.signature(self.layer.call).bind(*args, **kwargs).arguments

    def makes(self, count: int, part: str = "") -> Ids:
        """Returns the channels that the layer makes: new at its first call, the same at every other."""
        name = self.path + part
        if name not in self._trace.makers:
            self._trace.makers[name] = self._trace.sets.new(count)
            self._trace.layers[name] = self.layer
        return self._trace.makers[name]

    def weight(self, variable: Any, *axes: Ids | None, part: str = "", **roles: Any) -> None:
        """Says how the axes of a weight stand to channels; None for a weight that the layer does not have."""
        if variable is None:
            return
        found = Slice(self.path + part, variable, axes, **roles)
        if found.reads is not None:
            self.reads.append(axes[found.reads])  # type: ignore[arg-type]
        first = self._trace.slices.setdefault(id(variable), found)
        # A second call of the layer: both inputs are cut alike, or not at all.
        for mine, others in zip(axes, first.axes, strict=True):
            if mine is not None:
                self.tie(mine, others)  # type: ignore[arg-type]

    def setting(self, path: str | tuple[str, ...], ids: Ids, form: Any = int) -> None:
        """Says which value of the layer's configuration counts these channels."""
        where = self._prefix + ((path,) if isinstance(path, str) else path)
        self._trace.settings.setdefault(id(self._owner), {})[where] = Setting(ids, form)

    def tie(self, first: Ids, second: Ids) -> None:
        """Makes one channel of each pair."""
        if len(first) != len(second):
            raise NotFollowed(f"joins {len(first)} channels to {len(second)}")
        self._trace.sets.tie(first, second)

    def lock(self, ids: Ids, why: str) -> Ids:
        """Returns channels that must stay from here on; `why` comes after "which"."""
        self._trace.sets.lock(ids, f"goes into {self.described}, which {why}")
        return ids

    def fixed(self, shape: tuple) -> Ids:
        """Returns what stands along the last axis of an output, where it is not channels that could go."""
        return _locked(self._trace, shape, f"goes together with what {self.described} gives").ids

    @property
    def described(self) -> str:
        """The layer for messages: 'conv2d' (Conv2D)."""
        return f"{self.path!r} ({type(self.layer).__name__})"

    def inside(self, layer: Any, inputs: list[Wire], output: tuple, place: tuple[str, ...]) -> Any:
        """Follows a layer that this one holds, at `place` in its configuration; returns its outputs' channels."""
        site = Site(
            self._trace,
            self._paths,
            layer,
            (tuple(inputs), {}),
            [output],
            (self._owner, self._prefix + place),
        )
        outputs = followed(site)
        self.reads += site.reads
        return outputs


def trace(model: Any, paths: dict[int, str]) -> Trace:
    """Follows the channels of a model from its inputs to its outputs.

    Args:
        model: A built Sequential or functional model.
        paths: id of each layer to its path, as `targets.layer_paths` gives.

    Raises:
        InvalidModel: The model is neither Sequential nor functional.
    """
    graph = graph_of(model)
    if graph is None:
        raise InvalidModel(
            f"The model {model.name!r} is a {type(model).__name__}, whose channels cannot be followed: shrinking "
            "needs a Sequential or functional model. Pruning and clustering work on it, by the Prune and Cluster "
            "callbacks."
        )
    found = Trace()
    inputs = [_locked(found, tensor.shape, "goes together with the model's input") for tensor in graph.inputs]
    outputs = _through(found, paths, graph, inputs)
    for wire in keras.tree.flatten(outputs):
        found.sets.lock(wire.ids, "its channels are the model's output", above_all=True)
    return found


def followed(site: Site) -> list[Ids]:
    """Returns the channels of each output of a call, by the rule of its layer's type.

    Raises:
        NotFollowed: There is no rule, or it does not know this layer's form.
    """
    # By its exact type: what a subclass does in its call is not known.
    rule = _RULES.get(type(site.layer)) or OPERATIONS.get(operation_name(site.layer))
    if rule is None:
        raise NotFollowed("cannot be followed")
    if site.is_given_arrays:
        raise NotFollowed("is given an array")
    if getattr(site.layer, "data_format", None) == "channels_first":
        raise NotFollowed("has its channels first")
    if getattr(site.layer, "quantization_mode", None) or getattr(site.layer, "lora_enabled", False):
        raise NotFollowed("is quantized or adapted by LoRA")
    outputs = rule(site)
    return outputs if isinstance(outputs, list) else [outputs]


def _through(found: Trace, paths: dict[int, str], graph: Any, inputs: list[Wire]) -> Any:
    def visit(layer: Any, args: tuple, kwargs: dict, outputs: list[Any]) -> Any:
        nested = graph_of(layer)
        if nested is not None:
            given = [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, Wire)]
            first = found.inputs.setdefault(id(layer), [wire.ids for wire in given])
            for wire, ids in zip(given, first, strict=True):
                found.sets.tie(wire.ids, ids)
            return _through(found, paths, nested, given)
        site = Site(found, paths, layer, (args, kwargs), [tensor.shape for tensor in outputs])
        try:
            channels = followed(site)
            if [len(ids) for ids in channels] != [_last(shape) for shape in site.outputs]:
                raise NotFollowed("gives other channels than expected")
        except NotFollowed as reason:
            channels = _left_whole(found, site, str(reason))
        flat = keras.tree.flatten((args, kwargs))
        reading = {i: value.ids for i, value in enumerate(flat) if isinstance(value, Wire)}
        found.calls.append(Call(reading if site.reads else {}))
        return [Wire(ids, shape) for ids, shape in zip(channels, site.outputs, strict=True)]

    return run_graph(graph, inputs, visit)


def _left_whole(found: Trace, site: Site, why: str) -> list[Ids]:
    for wire in site.inputs:
        site.lock(wire.ids, why)
    weights = getattr(site.layer, "weights", ())
    # Another call of the layer, or a part of it, may have been followed already.
    for part in (found.slices[id(weight)] for weight in weights if id(weight) in found.slices):
        for ids in part.axes:
            if ids is not None:
                site.lock(ids, why)
    if weights:
        found.opaque[site.path] = f"a {type(site.layer).__name__}, which {why}"
    reason = f"goes together with what {site.described} gives, which {why}"
    return [_locked(found, shape, reason).ids for shape in site.outputs]


def _locked(found: Trace, shape: tuple, reason: str) -> Wire:
    ids = found.sets.new(_last(shape))
    found.sets.lock(ids, reason)
    return Wire(ids, tuple(shape))


def _last(shape: tuple) -> int:
    return (shape[-1] or 0) if len(shape) > 1 else 0
