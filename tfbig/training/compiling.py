"""Compiling a model where it is asked for or needed, with what its task calls for."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfbig.backend import tf
from tfbig.backend.distribution import compile_arguments
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.options import positive_int
from tfbig.training.checks import metric_names
from tfbig.training.losses import check_outputs, get_loss, takes_distribution
from tfbig.training.metrics import get_metrics
from tfbig.training.objectives import check_loss, infer_task, loss_and_metrics, task_of_loss
from tfbig.training.optimizers import get_optimizer
from tfbig.training.schedules import resolve_learning_rate


def compile_for_arrays(model: Any, y: np.ndarray, optimizer: Any, loss: Any, metrics: Any) -> str | None:
    """Compiles the model unless it is compiled and nothing else is asked for.

    Args:
        model: A built Keras model.
        y: The targets, which decide the loss together with the model's head.
        optimizer: A name or optimizer; None keeps the model's own, or takes Adam.
        loss: A Keras loss; one by name is told whether the model gives logits. None keeps the model's own, or takes
            the task's.
        metrics: Keras metrics; None takes the task's.

    Returns:
        The task whose loss the model has, in which form `fit_targets` puts y; None when the user's own loss takes y
        as it is.
    """
    task = None if loss is not None else _task(model, y)
    if task is not None:
        if not model.compiled or optimizer is not None or metrics is not None:
            loss, chosen = loss_and_metrics(task, model)
            _compile(
                model, optimizer, loss, chosen if metrics is None else get_metrics(_listed(metrics), loss)
            )
        return task
    used = model.loss if loss is None else get_loss(loss, model)
    check_loss(model, y, used)
    task = task_of_loss(used, model, y)
    if loss is not None or optimizer is not None or metrics is not None:
        one_hot = task is not None and takes_distribution(used)
        _compile(model, optimizer, used, get_metrics(_listed(metrics), used, one_hot=one_hot))
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
        used = model.loss if loss is None else get_loss(loss, model)
        if isinstance(getattr(model, "output_shape", None), tuple):
            check_outputs(model, used, lambda: "Or pass the loss by name, which is made to fit.")
        _compile(model, optimizer, used, get_metrics(_listed(metrics), used))


def set_learning_rate(
    model: Any, learning_rate: Any, steps: int | None, epochs: int, validated: bool
) -> list[Any]:
    """Gives the model's optimizer another learning rate; returns the callbacks that belong to it.

    A number is set in the optimizer as it is; a schedule needs one that begins at step 0, so its state is new.

    Args:
        model: A compiled model.
        learning_rate: As in `resolve_learning_rate`.
        steps: Gradient steps of an epoch; None when a stream does not say.
        epochs: Epochs of the training.
        validated: Whether there is validation data.
    """
    rate, callbacks = resolve_learning_rate(
        learning_rate, model.optimizer, steps_per_epoch=steps, epochs=epochs, validated=validated
    )
    if rate is None:
        return callbacks
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if isinstance(rate, float) and isinstance(optimizer.get_config().get("learning_rate"), float):
        optimizer.learning_rate = rate
    else:
        arguments = compile_arguments(model)
        model.compile(**{**arguments, "optimizer": get_optimizer(model.optimizer, rate)})
    return callbacks


def accumulate(model: Any, batches: int) -> None:
    """Has the model's optimizer average the gradients of so many batches for each of its steps.

    Raises:
        InvalidOption: The optimizer has its variables already, and accumulates another number of batches.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if positive_int("gradient_accumulation", batches) == (optimizer.gradient_accumulation_steps or 1):
        return
    if optimizer.built and batches > 1:
        raise InvalidOption(
            f"gradient_accumulation={batches}: the model's optimizer was built to accumulate "
            f"{optimizer.gradient_accumulation_steps or 1}. Pass optimizer= to begin with a new one."
        )
    if batches > 1:
        optimizer.gradient_accumulation_steps = batches


def _task(model: Any, y: np.ndarray) -> str | None:
    if not model.compiled:
        return infer_task(model, y)
    try:
        task = infer_task(model, y)
    except InvalidModel:
        # Of a subclassed model nothing shows; its user has chosen the loss.
        if type(model.loss).__name__ in _LOSSES and getattr(model, "output_shape", None) is not None:
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
    metric_names(metrics)
    model.compile(
        optimizer=model.optimizer if keeps_its_own else get_optimizer(optimizer or "adam"),
        loss=loss,
        metrics=metrics,
        # On a CPU, XLA takes longer to compile than a small model takes to train.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
        **kept,
    )


def _listed(metrics: Any) -> Any:
    """One metric as a list of it; what names the outputs stays."""
    if metrics is None or isinstance(metrics, Mapping):
        return metrics
    return [metrics] if isinstance(metrics, str) or not isinstance(metrics, Iterable) else list(metrics)
