"""Compiling a model where it is asked for or needed, with what its task calls for."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfbig.backend import tf
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.training.objectives import infer_task, loss_and_metrics
from tfbig.training.optimizers import get_optimizer


def compile_for_arrays(model: Any, y: np.ndarray, optimizer: Any, loss: Any, metrics: Any) -> str | None:
    """Compiles the model unless it is compiled and nothing else is asked for.

    Args:
        model: A built Keras model.
        y: The targets, which decide the loss together with the model's head.
        optimizer: A name or optimizer; None keeps the model's own, or takes Adam.
        loss: A Keras loss; None keeps the model's own, or takes the task's.
        metrics: Keras metrics; None takes the task's.

    Returns:
        The task whose loss the model has; None when the user's own loss decides how y must look.
    """
    task = None if loss is not None else _task(model, y)
    if model.compiled and optimizer is None and loss is None and metrics is None:
        return task
    if task is not None:
        loss, chosen = loss_and_metrics(task, model)
        metrics = chosen if metrics is None else metrics
    elif loss is None:
        loss = model.loss
    _compile(model, optimizer, loss, metrics)
    return task


def compile_for_stream(model: Any, optimizer: Any, loss: Any, metrics: Any) -> None:
    """Compiles the model where asked; a stream's targets cannot be seen, so the loss must be known.

    Raises:
        InvalidOption: The model is not compiled and no loss is given.
    """
    if loss is None and not model.compiled:
        raise InvalidOption(
            "From a stream of batches the task cannot be seen: pass loss=, or compile the model."
        )
    if optimizer is not None or loss is not None or metrics is not None:
        _compile(model, optimizer, loss if loss is not None else model.loss, metrics)


def _task(model: Any, y: np.ndarray) -> str | None:
    if not model.compiled:
        return infer_task(model, y)
    try:
        task = infer_task(model, y)
    except InvalidModel:
        if type(model.loss).__name__ in _LOSSES:
            raise
        return None
    # By what it is, not by who made it: a model that was saved and loaded has the same loss and no memory.
    chosen, _ = loss_and_metrics(task, model)
    same = type(model.loss) is type(chosen) and model.loss.get_config() == chosen.get_config()
    return task if same else None


# The losses that tfbig chooses: for these it also knows what y must look like.
_LOSSES = ("SparseCategoricalCrossentropy", "BinaryCrossentropy", "MeanSquaredError")


def _compile(model: Any, optimizer: Any, loss: Any, metrics: Any) -> None:
    keeps_its_own = optimizer is None and model.compiled
    kept = {}
    if model.compiled:
        kept = {"steps_per_execution": model.steps_per_execution, "run_eagerly": model.run_eagerly}
    listed = [metrics] if isinstance(metrics, str) or not isinstance(metrics, Iterable | None) else metrics
    model.compile(
        optimizer=model.optimizer if keeps_its_own else get_optimizer(optimizer or "adam"),
        loss=loss,
        metrics=None if listed is None else list(listed),
        # On a CPU, XLA takes longer to compile than a small model takes to train.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
        **kept,
    )
