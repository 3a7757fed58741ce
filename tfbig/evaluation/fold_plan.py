"""Whether folds can share a compiled step, how many fit into memory, and which way is faster."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.graph import bytes_computed
from tfbig.backend.internals import every_layer
from tfbig.backend.stateless_optimizer import unsuitable
from tfbig.data.checking import row_count
from tfbig.evaluation.fold_callbacks import unknown_callback
from tfbig.evaluation.fold_engine import FoldEngine, stacked
from tfbig.evaluation.fold_models import constants_of
from tfbig.evaluation.fold_rounds import plan_rounds
from tfbig.evaluation.fold_training import Fold, Schedule

# The options of `fit` that the folds' step honours. With any other, folds are fitted by `fit` itself.
HONOURED = {
    "epochs", "batch_size", "validation_data", "sample_weight", "class_weight", "shuffle", "optimizer", "learning_rate",
    "gradient_accumulation", "loss", "metrics", "callbacks", "steps_per_execution", "seed", "verbose",
}  # fmt: skip
# More folds in one step make it no faster, and slower to trace.
_WIDEST = 32
# The share of the free memory that folds may take when nobody says how much.
_SHARE = 0.5
# Stacking the step takes a second or four to trace: less work than this is not worth it.
WORTH_TRACING = 4.0
_TIMED_STEPS = 6
_METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function", "fit")


def reason_against(model: Any, fit_options: Mapping[str, Any], callbacks: Sequence[Any]) -> str | None:
    """Returns why this model, fitted so, needs Keras's own `fit`; None if the folds' compiled step will do.

    Args:
        model: A built, compiled model.
        fit_options: The options given for `fit`.
        callbacks: The callbacks among them.
    """
    if not model.built:
        return "the model makes its weights at its first batch"
    own = [name for name in _METHODS if getattr(type(model), name, None) is not getattr(_plain(model), name)]
    if own:
        return f"{type(model).__name__} has a {own[0]} of its own"
    name = unknown_callback(callbacks)
    if name is not None:
        return f"the callback {name} may change the model"
    other = sorted(set(fit_options) - HONOURED)
    if other:
        return f"{other[0]}= is for fit alone"
    if isinstance(fit_options.get("class_weight"), str):
        return "balanced class weights are those of each fold's own rows"
    if fit_options.get("validation_data") is not None and not isinstance(
        fit_options["validation_data"], tuple | list
    ):
        return "validation data is a stream"
    if tf.distribute.has_strategy():
        return "a distribution strategy is in force"
    if model.run_eagerly:
        return "the model runs eagerly"
    if model.optimizer.built and int(model.optimizer.iterations):
        return "the builder's model was trained before, and goes on from its optimizer's state"
    if unsuitable(model.optimizer):
        return unsuitable(model.optimizer)
    kept = next(
        (layer.name for layer in every_layer(model) if getattr(layer, "stateful", False) is True), None
    )
    if kept is not None:
        return f"the layer {kept} keeps its state between batches"
    return None


def bytes_per_fold(model: Any, x: Any, batch_size: int, held_out: int = 0) -> int:
    """Returns an estimate of the memory that one fold's training takes.

    Weights count twelve times: those of the fold's model, and in the step the old and new values of weights and of
    the optimizer's, their gradients, and stacks of them. What the step computes on its way forward counts once: it
    is seen by tracing, and while it is let go on the way back, gradients take its place. For 2 to 8 folds of an MLP,
    a convolutional, a recurrent and an attention model the process grew by 0.5 to 1.0 times as much.

    Args:
        model: A built, compiled model; nothing of it is run.
        x: Inputs, an array or a dict of them, whose rows say how large a batch is.
        batch_size: Rows of a batch.
        held_out: Rows of validation data, which are measured a batch at a time.
    """
    weights = sum(int(np.prod(v.shape)) * 4 for v in model.variables)
    rows = min(batch_size, row_count(x))
    specs = keras.tree.map_structure(lambda a: tf.TensorSpec((rows, *a.shape[1:]), a.dtype), x)

    def forward(batch: Any) -> Any:
        with keras.StatelessScope(collect_losses=True):  # what is traced here writes to no variable
            return model(batch)

    longest = max(max(a.shape[1:], default=1) for a in keras.tree.flatten(x))
    outputs = bytes_computed(forward, specs) + rows * 4 * sum(
        _recurrent_values(layer, longest) for layer in every_layer(model)
    )
    return 12 * weights + outputs + bool(held_out) * outputs // 2


def _recurrent_values(layer: Any, longest: int) -> int:
    """What a recurrent layer keeps of its loop, for each row: eight values for each unit of its state and time step."""
    if not isinstance(layer, keras.layers.RNN):
        return 0
    shape = (layer.get_build_config() or {}).get("input_shape") or (None, None)
    units = sum(int(np.prod(size)) for size in keras.tree.flatten(layer.state_size))
    return 8 * units * (shape[1] or longest)


def folds_side_by_side(folds: int, each: int, max_memory: int | None, share: float = 1.0) -> int:
    """Returns how many folds fit side by side, in groups as even as can be.

    Args:
        folds: All folds.
        each: Bytes that one takes.
        max_memory: Bytes for all that train at once; None for half of what is free.
        share: The part of that which is this process's, where several train folds.

    Example:
        >>> folds_side_by_side(10, each=100, max_memory=450), folds_side_by_side(10, each=100, max_memory=50)
        (4, 1)
    """
    room = share * (free_memory() * _SHARE if max_memory is None else max_memory)
    most = min(folds, _WIDEST, max(1, int(room // each)))
    groups = -(-folds // most)
    return -(-folds // groups)


def free_memory() -> int:
    """Returns the bytes that processes may take without swapping; where the system does not say, 4 GiB."""
    try:
        with open("/proc/meminfo") as lines:
            found = next(line for line in lines if line.startswith("MemAvailable"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration):
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" in names:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        return 4 << 30


def seconds_per_epoch(engine: FoldEngine, folds: Sequence[Fold], schedule: Schedule) -> float:
    """Measures what one epoch of all `folds` costs on an engine; nothing is kept of the steps that are taken.

    Args:
        engine: Prepared. One that trains several folds side by side is given as many as it takes.
        folds: With a model each.
        schedule: Their batches.
    """
    alone = engine.folds is None
    first = folds[0]
    state, constants = engine.initial(first.model), constants_of(first.model)
    width = engine.folds or 1
    if not alone:
        state, constants = stacked([state] * width), stacked([constants] * width)

    def took(steps: int) -> float:
        order = np.resize(first.train, steps * min(schedule.batch_size, len(first.train)))
        rounds = plan_rounds([order] * width, min(schedule.batch_size, len(first.train)))
        began = time.perf_counter()
        engine.train(state, constants, rounds)
        return time.perf_counter() - began

    took(1)  # warms up
    step = max(1e-6, (took(2 * _TIMED_STEPS) - took(_TIMED_STEPS)) / _TIMED_STEPS)
    if alone:
        return step * sum(-(-len(fold.train) // schedule.batch_size) for fold in folds)
    groups = [folds[i : i + width] for i in range(0, len(folds), width)]
    rounds = [plan_rounds([fold.train for fold in group], schedule.batch_size) for group in groups]
    return step * sum(len(one.sizes) for one in rounds)


def _plain(model: Any) -> type:
    """The class of Keras's that a model's methods are compared with."""
    return type(model) if type(model).__module__.startswith("keras.") else keras.Model
