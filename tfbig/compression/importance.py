"""How much each channel matters: by the weights that make it, by its values on data, or by the loss without it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.graph import graph_of, run_graph
from tfbig.compression.channel_groups import Plan
from tfbig.compression.channels import Slice, Trace
from tfbig.compression.rebuilding import rebuild
from tfbig.data.checking import check_array, is_stream
from tfbig.errors import InvalidData, InvalidOption, unknown_choice
from tfbig.training.compiling import compile_for_arrays, compile_for_stream
from tfbig.training.objectives import fit_targets

# What a mean over rows needs to settle; a full pass would add seconds and change few choices.
_ROWS, _BATCH = 1024, 32
Importance = str | Callable[[str, np.ndarray], Any]
_OF_WEIGHTS: dict[str, Callable[[str, np.ndarray], np.ndarray]] = {
    "l1": lambda name, weights: np.abs(weights).sum(axis=1),
    "l2": lambda name, weights: np.sqrt(np.square(weights).sum(axis=1)),
}
_OF_DATA = ("activation", "taylor")
NAMES = (*_OF_WEIGHTS, *_OF_DATA, "random")


@dataclass(frozen=True)
class Data:
    """What scores may be measured on: the arguments of `shrink` of the same names."""

    x: Any = None
    y: Any = None
    optimizer: Any = None
    loss: Any = None
    seed: int | None = None


def check_importance(importance: Any, x: Any, y: Any) -> None:
    """Raises when there is no such importance, or not the data that it needs.

    Raises:
        InvalidOption: The name is not known.
        InvalidData: The data is missing, or is a generator, whose batches would be lost for training.
    """
    if callable(importance):
        return
    if importance not in NAMES:
        raise unknown_choice("importance", importance, NAMES)
    if importance not in _OF_DATA:
        return
    if x is None:
        raise InvalidData(f"importance={importance!r} is measured on data: pass x, or choose 'l1' or 'l2'.")
    if hasattr(x, "__next__"):
        raise InvalidData(
            f"importance={importance!r} would use up batches of a generator: pass arrays or a tf.data.Dataset."
        )
    if importance == "taylor" and y is None and not is_stream(x):
        raise InvalidData("importance='taylor' is measured on the loss: pass y too.")


def score(model: Any, plan: Plan, importance: Importance, data: Data) -> dict[int, float]:
    """Returns the importance of each channel set that can go.

    The scores that a layer gives to the channels of a group are divided by their mean, so that layers of large
    weights do not outvote others; those of layers whose channels go together are added.

    Args:
        model: The model that was planned for. It is not changed.
        plan: What can go.
        importance: As in `shrink`.
        data: What "activation" and "taylor" are measured on, and the seed of "random".

    Raises:
        InvalidOption: A function gives something else than one finite score per channel.
    """
    if importance == "random":
        generator = np.random.default_rng(data.seed)
        return {int(root): generator.random() for group in plan.groups for root in group.sets}
    if importance == "taylor":
        return _totals(plan, [_by_loss(model, plan.trace, data)])
    # Where data decides, norms stand in for what data does not show.
    rate = _OF_WEIGHTS.get(importance, _OF_WEIGHTS["l2"]) if isinstance(importance, str) else importance
    norms = _by_weights(plan, rate)
    if importance != "activation":
        return _totals(plan, norms)
    measured = _by_activation(model, plan.trace, data)
    # Keras does not show what an attention head gives: those are told apart by their weights.
    seen = {root: value for part in norms for root, value in part.items() if root not in measured}
    return _totals(plan, [{**seen, **measured}])


def _totals(plan: Plan, parts: list[dict[int, float]]) -> dict[int, float]:
    totals: dict[int, float] = {}
    for group in plan.groups:
        totals.update((int(root), 0.0) for root in group.sets)
        for part in parts:
            values = np.array([part.get(int(root), 0.0) for root in group.sets])
            values = values / (values.mean() or 1.0)
            for root, value in zip(group.sets, values, strict=True):
                totals[int(root)] += float(value)
    return totals


def _by_weights(plan: Plan, rate: Any) -> list[dict[int, float]]:
    """For each layer whose channels can go: channel set to the score of its kernels' weights."""
    found = plan.trace
    kernels: dict[str, list[Slice]] = {}
    going = np.concatenate([group.sets for group in plan.groups])
    for part in found.slices.values():
        if part.makes is not None and np.isin(found.sets.roots(_made(part)), going).any():
            kernels.setdefault(part.maker, []).append(part)
    scores = []
    for maker, parts in kernels.items():
        ids, weights = _in_rows(parts)
        values = np.asarray(rate(maker, weights), np.float64)
        if values.shape != ids.shape or not np.isfinite(values).all():
            raise InvalidOption(
                f"importance must give one finite score per channel, shape {ids.shape} for {maker!r}; got "
                f"values of shape {values.shape}."
            )
        scores.append(_by_set(found, ids, values))
    return scores


def _in_rows(parts: list[Slice]) -> tuple[np.ndarray, np.ndarray]:
    """The channels that a layer makes, and its kernels' weights with a row for each of them."""
    rows = []
    for part in parts:
        ids = _made(part)
        values = np.moveaxis(np.asarray(part.variable.numpy(), np.float32), part.makes, 0)  # type: ignore[arg-type]
        values = np.moveaxis(values.reshape(part.copies, len(ids), -1), 0, 1)
        rows.append(values.reshape(len(ids), -1))
    return ids, np.concatenate(rows, axis=1)


def _made(part: Slice) -> np.ndarray:
    """The channels that a kernel makes, each once."""
    along: Any = part.axes[part.makes]  # type: ignore[index]
    return along.reshape(part.copies, -1)[0]


def _by_set(found: Trace, ids: np.ndarray, values: np.ndarray) -> dict[int, float]:
    totals: dict[int, float] = {}
    for root, value in zip(found.sets.roots(ids), values, strict=True):
        totals[int(root)] = totals.get(int(root), 0.0) + float(value)
    return totals


def _by_activation(model: Any, found: Trace, data: Data) -> dict[int, float]:
    """Channel set to its mean absolute value on data, where kernels read it."""
    sums: dict[int, float] = {}

    def visit(layer: Any, args: tuple, kwargs: dict, outputs: list[Any]) -> Any:
        nested = graph_of(layer)
        if nested is not None:
            given = [value for value in keras.tree.flatten((args, kwargs)) if tf.is_tensor(value)]
            return run_graph(nested, given, visit)
        values = keras.tree.flatten((args, kwargs))
        for position, ids in next(calls).reads.items():
            size = tf.abs(tf.cast(values[position], tf.float32))
            # Means of batches of unlike size would weigh rows unlike; sums of means over the other axes do not.
            others = tf.reduce_mean(size, axis=list(range(1, len(size.shape) - 1)))
            for root, value in _by_set(found, ids, tf.reduce_sum(others, axis=0).numpy()).items():
                sums[root] = sums.get(root, 0.0) + value
        return layer(*args, **kwargs)

    # A copy: a layer that keeps its state between batches would be left in another one.
    graph = graph_of(rebuild(model, found, np.ones(len(found.sets), bool)))
    for x, _ in _batches(data.x, None):
        calls = iter(found.calls)
        given = zip(keras.tree.flatten(x), graph.inputs, strict=True)
        run_graph(graph, [tf.cast(value, tensor.dtype) for value, tensor in given], visit)
    return sums


def _by_loss(model: Any, found: Trace, data: Data) -> dict[int, float]:
    """Channel set to how much the loss would change without it, squared, to first order.

    With a gate z = 1 on what kernels read of a channel, ∂loss/∂z = Σ activation · ∂loss/∂activation, which equals
    Σ weight · ∂loss/∂weight over the weights that read the channel. So the gradients of the kernels are all that is
    needed, whatever the layer. Squared, and averaged over batches (Molchanov et al., 2019, with gates).
    """
    twin, y = _compiled(model, found, data)
    twins = {id(mine): theirs for mine, theirs in zip(model.weights, twin.weights, strict=True)}
    readers = [part for part in found.slices.values() if part.reads is not None]
    kernels = [twins[id(part.variable)].value for part in readers]
    roots = found.sets.roots(np.arange(len(found.sets)))
    totals = np.zeros(len(roots))

    @tf.function(reduce_retracing=True)
    def slopes(x: Any, y: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernels)
            loss = twin.compute_loss(x, y, twin(x, training=False), training=False)
        gradients = tape.gradient(loss, kernels, unconnected_gradients="zero")
        return [kernel * gradient for kernel, gradient in zip(kernels, gradients, strict=True)]

    for batch in _batches(data.x, y):
        gates = np.zeros(len(roots))
        for part, values in zip(readers, slopes(*batch), strict=True):
            rows = np.moveaxis(values.numpy(), part.reads, 0)  # type: ignore[arg-type]
            np.add.at(gates, roots[part.axes[part.reads]], rows.reshape(len(rows), -1).sum(axis=1))  # type: ignore[index]
        totals += np.square(gates)
    return dict(enumerate(totals.tolist()))


def _compiled(model: Any, found: Trace, data: Data) -> tuple[Any, Any]:
    """A copy of the model with the loss that it will be trained on, and y in the form which that takes."""
    twin = rebuild(model, found, np.ones(len(found.sets), bool))
    if is_stream(data.x):
        compile_for_stream(twin, data.optimizer, data.loss, None)
        return twin, None
    y = check_array(data.y, "y")
    task = compile_for_arrays(twin, y, data.optimizer, data.loss, None)
    return twin, y if task is None else fit_targets(task, twin, y)


def _batches(x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    """Up to 1,024 rows: from all over the arrays, or from the start of a stream."""
    if is_stream(x):
        seen = 0
        for batch in x if hasattr(x, "element_spec") else (x[i] for i in range(x.num_batches)):
            inputs, targets, _ = keras.utils.unpack_x_y_sample_weight(batch)
            yield _tensors(inputs), None if targets is None else _tensors(targets)
            seen += len(keras.tree.flatten(inputs)[0])
            if seen >= _ROWS:
                return
        return
    x = check_array(x)
    order = np.random.default_rng(0).permutation(len(x))[:_ROWS]
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        yield _tensors(x[rows]), None if y is None else _tensors(np.asarray(y)[rows])


def _tensors(values: Any) -> Any:
    return keras.tree.map_structure(tf.convert_to_tensor, values)
