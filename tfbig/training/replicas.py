"""A model's twin on every replica of a strategy, and the way back to the user's own object."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import keras
from tfbig.backend.distribution import compile_arguments, home_of, note_compiled_with
from tfbig.backend.internals import every_layer, settings_of
from tfbig.backend.remaking import remade
from tfbig.errors import InvalidModel
from tfbig.training.agreement import take_from_chief
from tfbig.training.global_loss import GlobalLoss
from tfbig.training.global_metric import GlobalMetric
from tfbig.training.strategies import scope_of
from tfbig.training.train_step import has_own_rules


@contextlib.contextmanager
def trained_over(strategy: Any, model: Any, twin: Any = None, *, synchronized: bool = True) -> Iterator[Any]:
    """Lends the model to train over a strategy; after the block, and after an error in it, `model` has its weights.

    Args:
        strategy: A `tf.distribute.Strategy`; None trains the model itself.
        model: A compiled Keras model.
        twin: The same model as its builder made it in the strategy's scope, which may be `model` itself; None
            makes it there again.
        synchronized: Whether batch normalization takes its statistics from all replicas.

    Yields:
        The model to train.

    Raises:
        InvalidModel: Keras cannot make a second one of it, or it trains by rules of its own.
    """
    if strategy is None:
        yield model
        return
    rule = has_own_rules(model)
    if rule is not None:
        raise InvalidModel(
            f"The model {model.name!r} has a {rule} of its own, which tfbig cannot spread over replicas exactly. "
            "Train it on one device, or by its own loop."
        )
    with strategy.scope():
        twin = copied(model) if twin is None else twin
        if twin is None:
            raise InvalidModel(
                f"The model {model.name!r} was made outside the strategy's scope, and Keras cannot make a second "
                "one of a subclassed model. Pass fit a function that builds it."
            )
        if twin is not model:
            carry_weights(model, twin)
        used = model.optimizer if model.optimizer.built else None
        _compile_for_replicas(twin, fresh_arguments(model), synchronized)
        if used is not None:
            twin.optimizer.build(twin.trainable_variables)
            carry(used.variables, twin.optimizer.variables)
            take_from_chief(strategy, twin.optimizer.variables)
    take_from_chief(strategy, twin.variables)
    try:
        yield twin
    finally:
        if twin is not model:
            carry_back(twin, twin.optimizer, model)


def carry_back(twin: Any, optimizer: Any, model: Any) -> None:
    """Gives the user's model the weights of the twin that was trained for it, and its optimizer's state."""
    carry_weights(twin, model)
    if optimizer.built:
        if not model.optimizer.built:
            with scope_of(home_of(model)):  # where the user made the model
                model.optimizer.build(model.trainable_variables)
        carry(optimizer.variables, model.optimizer.variables)


def copied(model: Any) -> Any:
    """Returns a model of the same layers, made where this is called, with its weights; None for subclassed ones.

    Compiled as the model is, with an optimizer and metrics of its own.
    """
    copy = _cloned(model)
    if copy is None:
        return None
    for mine, theirs in zip(every_layer(copy), every_layer(model), strict=True):
        mine.trainable = theirs.trainable
    carry_weights(model, copy)
    carry_compile_settings(model, copy)
    return copy


def _cloned(model: Any) -> Any:
    """A model of the same layers; None where Keras can make none."""
    # Keras's own way knows subclasses of Functional, ours layers of code.
    for clone_function in (None, remade):
        with contextlib.suppress(ValueError, NotImplementedError, TypeError), _uncompiled(model):
            return keras.models.clone_model(model, clone_function=clone_function)
    return None


def carry_compile_settings(model: Any, copy: Any) -> None:
    """Compiles the copy as the model is, with a fresh optimizer, if the model is compiled.

    The objects themselves are passed on: Keras's way by configuration finds no loss or metric of the user's own.
    """
    if model.compiled:
        copy.compile(**fresh_arguments(model))


def carry_weights(source: Any, target: Any) -> None:
    """Sets every variable of `target`, seed states among them, to its value in `source`."""
    carry(source.variables, target.variables)
    for layer in every_layer(target):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # what an adapted one computes with is made of its variables


def _compile_for_replicas(model: Any, arguments: dict[str, Any], synchronized: bool) -> None:
    loss = arguments["loss"]
    spread = None if loss is None else keras.tree.map_structure(GlobalLoss, loss)
    metrics = {name: arguments[name] for name in _METRICS}
    spread_metrics = {name: _each_metric(given, _spread_metric) for name, given in metrics.items()}
    ours = {"loss": spread, **spread_metrics, "steps_per_execution": 1, "jit_compile": False}
    model.compile(**{**arguments, **ours})
    # A callback that saves the model saves it with the user's own loss and metrics, which others can load.
    note_compiled_with(model, loss=loss, **metrics)
    for layer in every_layer(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized


def fresh_arguments(model: Any) -> dict[str, Any]:
    """What to compile another model with: optimizer and metrics hold variables, so it needs its own."""
    arguments = compile_arguments(model)
    fresh = {name: _each_metric(arguments[name], _fresh_metric) for name in _METRICS}
    # The optimizer that is there: Keras's `compile` may have wrapped the one that it was given.
    optimizer = type(model.optimizer).from_config(settings_of(model.optimizer))
    return {**arguments, **fresh, "optimizer": optimizer}


def carry(sources: list[Any], targets: list[Any]) -> None:
    """Sets each variable to the value of its counterpart; raises `InvalidModel` where they do not correspond."""
    if [v.shape for v in sources] != [v.shape for v in targets]:
        raise InvalidModel("Making the model again gave other variables; pass fit a function that builds it.")
    for source, target in zip(sources, targets, strict=True):
        target.assign(source.numpy())


@contextlib.contextmanager
def _uncompiled(model: Any) -> Iterator[None]:
    """Has `clone_model` leave losses and metrics alone, which it would write down: a user's own cannot be."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


_METRICS = ("metrics", "weighted_metrics")


def _each_metric(metrics: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(metrics, list | tuple):
        return [_each_metric(metric, change) for metric in metrics]
    if isinstance(metrics, dict):
        return {name: _each_metric(metric, change) for name, metric in metrics.items()}
    return change(metrics)


def _fresh_metric(metric: Any) -> Any:
    """A metric of the strategy's own: one with variables made again, a name or function as it is."""
    is_metric = isinstance(metric, keras.metrics.Metric)
    return type(metric).from_config(metric.get_config()) if is_metric else metric


def _spread_metric(metric: Any) -> Any:
    is_function = callable(metric) and not isinstance(metric, keras.metrics.Metric)
    return GlobalMetric(metric) if is_function else metric
