"""Mixed precision: 16-bit arithmetic around 32-bit weights, for the length of a training."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tfbig.backend import keras
from tfbig.backend.internals import layers_inside
from tfbig.backend.remaking import remade
from tfbig.errors import InvalidModel, unknown_choice
from tfbig.layers.kernels import QuantizedLayer
from tfbig.layers.ranges import FakeQuant
from tfbig.models.heads import LABEL_LOGITS, LOGITS, STEP_LOGITS, VALUES
from tfbig.training.replicas import carry, carry_back, fresh_arguments

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def check_precision(name: Any) -> str:
    """Returns the name of a precision; raises `InvalidOption` with the choices for any other value."""
    if name not in PRECISIONS:
        raise unknown_choice("precision", name, PRECISIONS)
    return str(name)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Makes layers that are created in the block compute in a precision; the global policy is put back after it.

    For models that only their builder can make again, such as subclassed ones. A model that exists keeps the
    policies that its layers were made with: `with_precision` makes it again.

    Args:
        name: "float32", "mixed_bfloat16" or "mixed_float16": the two mixed ones compute in 16 bits and keep
            weights in 32 (Micikevicius et al. 2017, https://arxiv.org/abs/1710.03740).

    Raises:
        InvalidOption: There is no such precision.

    Example:
        >>> with precision("mixed_bfloat16"):
        ...     layer = keras.layers.Dense(2)
        >>> layer.compute_dtype, layer.variable_dtype, keras.config.dtype_policy().name
        ('bfloat16', 'float32', 'float32')
    """
    check_precision(name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def with_precision(model: Any, name: str) -> Any:
    """Returns the model made again in another precision: the same layers, names and float32 weights, not compiled.

    What must not lose digits stays as it is: normalizers, output layers, tfbig's heads, rounding; so do layers of
    another dtype, such as float64. Weights go back with `model.set_weights(twin.get_weights())`: they are float32 in
    both.

    Args:
        model: A built Sequential or functional model. It is not changed.
        name: "float32", "mixed_bfloat16" or "mixed_float16".

    Raises:
        InvalidOption: There is no such precision.
        InvalidModel: The model is subclassed, so Keras cannot make it again; or it is not built.

    Example:
        >>> import tfbig
        >>> twin = with_precision(tfbig.models.mlp((4,), 2, hidden=(8,)), "mixed_bfloat16")
        >>> [layer.compute_dtype for layer in twin.layers]
        ['bfloat16', 'bfloat16', 'float32']
    """
    check_precision(name)
    if not model.built:
        raise InvalidModel(
            f"The model {model.name!r} has no weights yet: build it, or begin it with keras.Input."
        )
    kept = {id(layer) for layer in _output_layers(model)}

    def in_precision(layer: Any) -> Any:
        config = layer.get_config()
        if id(layer) not in kept and not _keeps_digits(layer):
            config = _in_precision(config, name)
        return remade(layer, config)

    try:
        with precision(name):  # the model's own policy, by which Keras's compile scales the loss
            twin = keras.models.clone_model(model, clone_function=in_precision, recursive=True)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise InvalidModel(
            f"The model {model.name!r} cannot be made again in {name}: {error}. Sequential and functional models can; "
            f"a subclassed one says itself what it computes in: make its layers with dtype={name!r}."
        ) from error
    twin.set_weights(model.get_weights())
    for mine, theirs in zip(_everything(twin), _everything(model), strict=True):
        mine.trainable = theirs.trainable
    return twin


@contextlib.contextmanager
def trained_in(name: str | None, model: Any) -> Iterator[Any]:
    """Lends the model to train in a precision; after the block, and after an error in it, `model` has its weights.

    Args:
        name: As in `with_precision`; None trains the model itself.
        model: A compiled model.

    Yields:
        The model to train, compiled as `model` is.
    """
    if name is None:
        yield model
        return
    twin = with_precision(model, name)
    arguments = fresh_arguments(model)
    twin.compile(**{**arguments, "optimizer": scaled(arguments["optimizer"], name)})
    if model.optimizer.built:
        twin.optimizer.build(twin.trainable_variables)
        carry(model.optimizer.variables, _counterpart(twin.optimizer, model.optimizer).variables)
    try:
        yield twin
    finally:
        carry_back(twin, _counterpart(twin.optimizer, model.optimizer), model)


def scaled(optimizer: Any, name: str) -> Any:
    """Returns the optimizer for a precision: for "mixed_float16" one that scales the loss, else itself.

    Gradients below 6e-8 are 0 in float16. `keras.optimizers.LossScaleOptimizer` multiplies the loss, divides the
    gradients and skips a step whose gradients overflow.
    """
    if check_precision(name) != "mixed_float16" or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)


def unscaled(optimizer: Any) -> Any:
    """Returns the optimizer inside one that scales the loss; any other as it is."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _counterpart(optimizer: Any, of: Any) -> Any:
    """The part of an optimizer that has the variables of another one, which may scale the loss itself."""
    return optimizer if isinstance(of, keras.optimizers.LossScaleOptimizer) else unscaled(optimizer)


def _keeps_digits(layer: Any) -> bool:
    rescaling = isinstance(layer, keras.layers.Normalization | keras.layers.Rescaling)
    rounding = isinstance(layer, FakeQuant | QuantizedLayer)  # to levels that 16 bits would round once more
    return rescaling or rounding or layer.name in (LOGITS, LABEL_LOGITS, STEP_LOGITS, VALUES)


def _output_layers(model: Any) -> list[Any]:
    """The layers that outputs come out of; where one is a model, those of that model."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1:]
    else:
        names = getattr(model, "output_names", ())
        last = [layer for layer in model.layers if layer.name in names]
    return [
        inner
        for layer in last
        for inner in (_output_layers(layer) if isinstance(layer, keras.Model) else [layer])
    ]


def _in_precision(config: Any, name: str) -> Any:
    """A layer's config with another policy in place of each of the three, also in layers inside it."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy" and config["config"].get("name") in PRECISIONS:
            return {**config, "config": {"name": name}}
        return {key: _in_precision(value, name) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_precision(value, name) for value in config)
    return config


def _everything(layer: Any) -> Iterator[Any]:
    yield layer
    for inner in layers_inside(layer):
        yield from _everything(inner)
