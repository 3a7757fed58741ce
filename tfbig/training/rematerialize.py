"""Rematerialization: activations are forgotten on the way forward and computed again on the way back."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.autocast import no_autocast
from tfbig.backend.graph import Node, graph_as_found, graph_of, nodes
from tfbig.backend.internals import layers_inside
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.options import positive_int

# More segments than this are not tried: past it the boundaries weigh more than the segments.
_MOST_SEGMENTS = 64


@contextlib.contextmanager
def rematerialized(model: Any, setting: bool | int) -> Iterator[None]:
    """Lets a model train in less memory for the block, at the price of a second forward pass.

    The model is cut into segments. Between forward and backward pass only what crosses a cut is kept; the
    backward pass computes each segment's activations again, from the same inputs, weights and random seeds, so
    dropout draws the same mask and batch statistics are counted once: loss and gradients are those of the plain
    model (Chen et al. 2016, https://arxiv.org/abs/1604.06174, with cuts chosen by activation sizes).

    `keras.RematScope` does not serve: on TensorFlow its "full" mode fails inside `fit` for every layer that takes
    `training`, and what it computes again draws new dropout masks.

    Args:
        model: A built Sequential or functional model. It is put back as it was.
        setting: False does nothing. True chooses the cuts; a number asks for so many segments, at least 2.

    Raises:
        InvalidOption: The setting is neither.
        InvalidModel: The model is subclassed, has no place to cut, or uses masks, activity regularization or, over
            several replicas, synchronized batch normalization.

    Example:
        >>> import tfbig
        >>> model = tfbig.models.mlp((8,), 2, hidden=(8,) * 8)
        >>> with rematerialized(model, 3):
        ...     run = model.compile("sgd", "mse") or model.fit(tf.ones((4, 8)), tf.ones((4, 2)), verbose=0)
    """
    if setting is False or setting is None:
        yield
        return
    with graph_as_found(_graph_of(model)):
        # Made before anything else changes, so that a model that cannot be cut is refused untouched.
        segments = cut(model, None if setting is True else setting)
        _install(model, _call_by_segments(model.call, segments))
        try:
            yield
        finally:
            _install(model, None)


def cut(model: Any, segments: int | None = None) -> list[Any]:
    """Returns functional models, run one after the other, that share the model's layers and do what it does.

    Args:
        model: A built Sequential or functional model.
        segments: How many; None takes the number that keeps least in memory, by the sizes of the activations.

    Raises:
        InvalidOption: The number is below 2 or above what the model allows.
        InvalidModel: The model cannot be cut.
    """
    if segments is not None and (isinstance(segments, str) or positive_int("rematerialize", segments) < 2):
        raise InvalidOption(f"rematerialize must be True, False or 2 segments and more; got {segments!r}.")
    graph = _graph_of(model)
    calls = nodes(graph, inputs_too=True)
    places = _cuttable(calls, graph)
    if not places:
        raise InvalidModel(
            f"The model {model.name!r} cannot be rematerialized: it has no place between two layers where a single "
            "tensor passes. Deep chains, residual networks and transformers have; in others, wrap a block's "
            "function in keras.remat."
        )
    if segments is not None and segments > len(places) + 1:
        raise InvalidOption(
            f"rematerialize={segments}: the model {model.name!r} can be cut into at most {len(places) + 1} segments."
        )
    chosen = _choose(calls, places, segments)
    tensors = [graph.input, *(places[i] for i in chosen), graph.output]
    return [keras.Model(start, end) for start, end in itertools.pairwise(tensors)]


def _graph_of(model: Any) -> Any:
    """The model as a functional one, or the reason why there is none."""
    why = None
    graph = graph_of(model)
    if graph is None or not model.built:
        why = "it is subclassed, or not built yet: its graph is not known. Wrap a block's function in keras.remat"
    elif masking := [layer.name for layer in _all_layers(model) if _makes_masks(layer)]:
        why = f"the masks of {', '.join(masking)} would be lost at a cut"
    elif losing := [
        layer.name for layer in _all_layers(model) if getattr(layer, "activity_regularizer", None)
    ]:
        why = f"the activity regularization of {', '.join(losing)} would be lost"
    elif model.distribute_strategy.num_replicas_in_sync > 1 and (waiting := _synchronized(model)):
        # Computed again, they ask the other replicas again, in an order that is not the same in each.
        why = (
            f"{', '.join(waiting)} synchronize batch statistics between replicas, which cannot be computed again. Use "
            "layer normalization, or one device"
        )
    if why:
        raise InvalidModel(f"The model {model.name!r} cannot be rematerialized: {why}.")
    return graph


def _all_layers(layer: Any) -> Iterator[Any]:
    for inner in layers_inside(layer):
        yield inner
        yield from _all_layers(inner)


def _makes_masks(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Masking) or bool(getattr(layer, "mask_zero", False))


def _synchronized(model: Any) -> list[str]:
    return [layer.name for layer in _all_layers(model) if getattr(layer, "synchronized", False)]


def _cuttable(calls: Sequence[Node], graph: Any) -> dict[int, Any]:
    """Position of a call to the one tensor alive after it, for the calls after which only one is."""
    last_use = {id(tensor): len(calls) for tensor in graph.outputs}
    for i, call in enumerate(calls):
        for tensor in call.inputs:
            last_use[id(tensor)] = max(i, last_use.get(id(tensor), 0))
    maker = {id(tensor): call.operation for call in calls for tensor in call.outputs}
    places: dict[int, Any] = {}
    alive: dict[int, Any] = {}
    for i, call in enumerate(calls):
        alive.update({id(tensor): tensor for tensor in call.outputs})
        alive = {key: tensor for key, tensor in alive.items() if last_use.get(key, 0) > i}
        if len(alive) != 1 or not call.inputs:
            continue
        (only,) = alive.values()
        # Keras cannot begin a model at a tensor whose layer is called again further on.
        called_again = any(later.operation is maker[id(only)] for later in calls[i + 1 :])
        is_output = any(only is output for output in graph.outputs)
        if "float" in str(only.dtype) and not is_output and not called_again:
            places[i] = only
    return places


def _size(tensor: Any) -> int:
    return math.prod(size or 1 for size in tensor.shape[1:])


def _choose(calls: Sequence[Node], places: dict[int, Any], segments: int | None) -> list[int]:
    """The positions to cut at: those that keep least, which is every boundary plus the largest segment."""
    reached, total = [], 0
    for call in calls:
        total += sum(map(_size, call.outputs))
        reached.append(total)

    def cuts(count: int) -> list[int]:
        """The places nearest to an even division; fewer when places coincide."""
        wanted = (total * k / count for k in range(1, count))
        return sorted({min(places, key=lambda i, at=at: abs(reached[i] - at)) for at in wanted})  # type: ignore[misc]

    def kept(chosen: list[int]) -> int:
        ends = [0, *(reached[i] for i in chosen), total]
        return sum(_size(places[i]) for i in chosen) + max(b - a for a, b in itertools.pairwise(ends))

    if segments is not None:
        chosen = cuts(segments)
        spare = (i for i in places if i not in chosen)
        while len(chosen) < segments - 1:
            chosen = sorted([*chosen, next(spare)])
        return chosen
    return min((cuts(n) for n in range(2, min(len(places) + 1, _MOST_SEGMENTS) + 1)), key=kept)


def _call_by_segments(plain: Callable[..., Any], segments: Sequence[Any]) -> Callable[..., Any]:
    def call(inputs: Any, training: Any = None, mask: Any = None, **options: Any) -> Any:
        if not training:
            return plain(inputs, training=training, mask=mask, **options)
        for segment in segments[:-1]:
            inputs = _forgetful(segment, inputs)
        # The backward pass begins with the last segment: what it would forget is needed at once.
        return segments[-1](inputs, training=True)

    return call


def _forgetful(segment: Any, inputs: Any) -> Any:
    """Runs a segment whose activations the tape does not keep."""
    with no_autocast():
        trainable = [tf.convert_to_tensor(v.value) for v in segment.trainable_variables]
        state = [tf.convert_to_tensor(v.value) for v in segment.non_trainable_variables]
    flat = keras.tree.flatten(inputs)
    is_float = [tf.as_dtype(getattr(x, "dtype", "float32")).is_floating for x in flat]
    floats = [x for x, floating in zip(flat, is_float, strict=True) if floating]
    first: list[Any] = []

    def forward(floats: Sequence[Any], trainable: Sequence[Any]) -> Any:
        rest = iter(floats)
        given = [next(rest) if floating else x for x, floating in zip(flat, is_float, strict=True)]
        given = keras.tree.pack_sequence_as(inputs, given)
        with no_autocast():  # as on the way back, which runs outside of any scope
            outputs, after, losses = segment.stateless_call(
                trainable, state, given, training=True, return_losses=True
            )
        first.append((after, losses))
        return outputs

    outputs = tf.recompute_grad(forward)(floats, trainable)
    after, losses = first[0]
    _check_losses(segment, losses)
    # Seeds and batch statistics move once, by the first run; the second one starts from the same state.
    for variable, old, new in zip(segment.non_trainable_variables, state, after, strict=True):
        if new is not old:
            with no_autocast():
                variable.assign(new)
    return outputs


def _check_losses(segment: Any, losses: Sequence[Any]) -> None:
    """Penalties on weights are added by the model itself; those that a layer adds in its call would be lost."""
    penalties = sum(v.regularizer is not None for v in segment.trainable_variables)
    if len(losses) > penalties:
        names = ", ".join(layer.name for layer in segment.layers)
        raise InvalidModel(f"A layer among {names} calls add_loss, so its block cannot be rematerialized.")


def _install(model: Any, call: Callable[..., Any] | None) -> None:
    if call is None:
        del model.call
    else:
        model.call = call
    # Compiled functions hold the other way.
    model.train_function = model.test_function = model.predict_function = None
