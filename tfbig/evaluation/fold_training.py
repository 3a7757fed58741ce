"""Training folds to their end: epochs, callbacks and histories, for one fold or many side by side."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.evaluation.fold_callbacks import FoldCallbacks, FoldView
from tfbig.evaluation.fold_engine import FoldEngine, stacked, unstacked
from tfbig.evaluation.fold_models import constants_of
from tfbig.evaluation.fold_rounds import plan_rounds
from tfbig.training.order import epoch_order


@dataclass(frozen=True)
class Schedule:
    """How every fold trains."""

    epochs: int
    batch_size: int
    shuffle: bool = True
    callbacks: Sequence[Any] = ()
    verbose: Any = 0


@dataclass
class Fold:
    """A fold, before and after its training.

    Attributes:
        number: From 0.
        train: Row numbers of the training rows.
        test: Row numbers of those held out.
        seed: Of the fold's weights, dropout and batches.
        model: Its own model.
        history: Metric name to its value after each epoch.
        seconds: Wall time.
        outputs: From row numbers to the trained model's outputs.
    """

    number: int
    train: np.ndarray
    test: np.ndarray
    seed: int
    model: Any = None
    history: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    outputs: Callable[[np.ndarray], np.ndarray] | None = None


def train_folds(engine: FoldEngine, folds: Sequence[Fold], schedule: Schedule, optimizer_too: bool) -> None:
    """Trains the folds' models, side by side as many as the engine takes, and gives each its weights.

    Args:
        engine: Made for this architecture and these data.
        folds: At most as many as the engine trains side by side, with fresh models. They get model, history,
            outputs and seconds.
        schedule: Epochs, batches and callbacks.
        optimizer_too: Whether the models' optimizers get their state, for those who train on.
    """
    began = time.perf_counter()
    width = engine.folds or 1
    # A last group that is too small is filled up with resting folds, so that nothing is traced again.
    seats = [*folds, *[folds[0]] * (width - len(folds))]
    states = [engine.initial(fold.model) for fold in seats]
    constants = [constants_of(fold.model) for fold in seats]
    alone = engine.folds is None
    state = states[0] if alone else stacked(states)
    shared = constants[0] if alone else stacked(constants)
    views = [FoldView(engine, state, None if alone else k) for k in range(len(folds))]
    told = [FoldCallbacks(schedule.callbacks, view, schedule.epochs) for view in views]
    for epoch in range(schedule.epochs):
        running = [k for k, callbacks in enumerate(told) if not callbacks.stopped]
        if not running:
            break
        for k in running:
            told[k].begin(epoch)
        orders: list[np.ndarray | None] = [None] * width
        for k in running:
            fold = folds[k]
            orders[k] = fold.train[epoch_order(len(fold.train), epoch, fold.seed, schedule.shuffle)]
        state[:], logs = engine.train(state, shared, plan_rounds(orders, schedule.batch_size))
        if engine.validates:
            for k, measured in enumerate(engine.measure(state, shared, schedule.batch_size)):
                logs[k] |= {f"val_{name}": value for name, value in measured.items()}
        for k in running:
            told[k].end(epoch, logs[k])
        if schedule.verbose not in (0, "auto"):
            _tell(epoch, schedule.epochs, [folds[k].number for k in running], [logs[k] for k in running])
    engine.conclude(state)
    for callbacks in told:
        callbacks.finish()
    finals = [state] if alone else list(unstacked(state, width))
    seconds = (time.perf_counter() - began) / len(folds)
    for k, fold in enumerate(folds):
        final, own = finals[k], constants[k]
        engine.assign(final, fold.model, optimizer_too)
        fold.history, fold.seconds = told[k].history, fold.seconds + seconds
        fold.outputs = lambda rows, final=final, own=own: engine.predict(final, own, rows)


def _tell(epoch: int, epochs: int, numbers: Sequence[int], logs: Sequence[dict[str, Any]]) -> None:
    names = [name for name in logs[0] if all(np.ndim(log[name]) == 0 for log in logs)]
    means = "  ".join(f"{name} {np.mean([log[name] for log in logs]):.4f}" for name in names)
    which = f"fold {numbers[0]}" if len(numbers) == 1 else f"mean of {len(numbers)} folds"
    print(f"epoch {epoch + 1}/{epochs}  {which}:  {means}", flush=True)
