"""What all builders share: the input, the head that suits a task, and the checks of their arguments."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.options import positive_int

TASKS = ("binary", "multiclass", "multilabel", "regression", "sequence")

# The head's name carries the task's kind along, through saving and loading too: classifiers give logits.
LOGITS, LABEL_LOGITS, STEP_LOGITS, VALUES = "logits", "label_logits", "step_logits", "values"
_HEAD_NAMES = {"regression": VALUES, "multilabel": LABEL_LOGITS, "sequence": STEP_LOGITS}
# Layers after which a plain linear output is a logit where the loss is a cross-entropy, and a value elsewhere.
_LINEAR = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D")


def check_task(task: str | None, outputs: int, *, has_steps: bool = False) -> str:
    """Returns the task: the one named, or "multiclass" when there are several outputs and none is named.

    Args:
        task: One of `TASKS`, or None.
        outputs: Of the head.
        has_steps: Whether the model can answer at every step, for "sequence".

    Raises:
        InvalidOption: Unknown, or not decided by, or at odds with, the number of outputs.
    """
    outputs = positive_int("outputs", outputs)
    if task is None:
        if outputs == 1:
            raise InvalidOption(
                'One output may be a class or a number: pass task="binary" or task="regression".'
            )
        return "multiclass"
    if task not in TASKS:
        raise unknown_choice("task", task, TASKS)
    if task == "binary" and outputs != 1:
        raise InvalidOption(f'task="binary" has 1 output, the logit of class 1; got outputs={outputs}.')
    if task in ("multiclass", "sequence") and outputs < 2:
        raise InvalidOption(f'task="{task}" needs an output per class, so at least 2; got 1.')
    if task == "sequence" and not has_steps:
        raise InvalidOption(
            'task="sequence" answers at every step of a sequence; this model answers once per example. Use '
            "tfbig.models.rnn, or tfbig.models.transformer on tokens or steps of features."
        )
    return task


def check_input_shape(input_shape: Any, *, ranks: Sequence[int], example: str) -> tuple[int, ...]:
    """Returns the input shape, without the batch axis, as a tuple of one of the given lengths."""
    try:
        shape = tuple(input_shape) if np.iterable(input_shape) else (operator.index(input_shape),)
    except TypeError:
        raise InvalidOption(
            f"input_shape must be a whole number or several, such as {example}; got {input_shape!r}."
        ) from None
    if len(shape) not in ranks:
        expected = " or ".join(map(str, ranks))
        raise InvalidOption(
            f"input_shape must have {expected} axes besides the batch, such as {example}; got {shape}."
        )
    return tuple(positive_int("each axis of input_shape", size) for size in shape)


def check_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """Returns a list of layer sizes as whole numbers of at least 1."""
    if not np.iterable(sizes) or isinstance(sizes, str):
        raise InvalidOption(f"{name} must be a list of sizes, such as (32,); got {sizes!r}.")
    return tuple(positive_int(f"{name}[{i}]", size) for i, size in enumerate(sizes))


def regularizer(l1: float, l2: float) -> Any:
    """Returns Keras's regularizer for the two penalties, or None when both are 0."""
    if l1 < 0 or l2 < 0:
        raise InvalidOption(f"l1 and l2 are penalties of at least 0; got l1={l1!r}, l2={l2!r}.")
    return keras.regularizers.L1L2(l1=l1, l2=l2) if l1 or l2 else None


def head(
    task: str,
    outputs: int,
    *,
    l1: float,
    l2: float,
    denormalizer: Any = None,
    initializer: Any = "glorot_uniform",
) -> list[Any]:
    """Returns the last layers: a linear `Dense` of logits or values, then the denormalizer if there is one."""
    if denormalizer is not None and task != "regression":
        raise InvalidOption(
            f'A denormalizer turns outputs into values of y, for task="regression"; got {task!r}.'
        )
    name = _HEAD_NAMES.get(task, LOGITS)
    dense = keras.layers.Dense(
        outputs, kernel_initializer=initializer, kernel_regularizer=regularizer(l1, l2), name=name
    )
    return [dense] if denormalizer is None else [dense, denormalizer]


def head_of(model: Any, *, strict: bool = False) -> Any:
    """Returns what decides what the outputs mean: the last layer that is no rescaling, or a softmax after it.

    Args:
        model: A Keras model with layers.
        strict: Whether to return any operation of `keras.ops` that comes last in a functional model; otherwise the
            layer before it, unless it is a softmax or sigmoid.
    """
    rescaling = (keras.layers.Normalization, keras.layers.Rescaling)
    parts = getattr(model, "operations", None) or model.layers
    if not strict:
        parts = [part for part in parts if isinstance(part, keras.layers.Layer) or _is_probability(part)]
    last = next((part for part in reversed(parts) if not isinstance(part, rescaling)), None)
    return head_of(last, strict=strict) if isinstance(last, keras.Model) else last


def kind_of_outputs(layer: Any) -> str | None:
    """Returns what a last layer gives: "probabilities", "logits", "values", "linear", or None where it does not show.

    Example:
        >>> kind_of_outputs(keras.layers.Dense(3, activation="softmax")), kind_of_outputs(keras.layers.Dense(3))
        ('probabilities', 'linear')
    """
    if _is_probability(layer):
        return "probabilities"
    activation = getattr(layer, "activation", None)
    if activation in (keras.activations.softmax, keras.activations.sigmoid):
        return "probabilities"
    if getattr(layer, "name", None) in (LOGITS, LABEL_LOGITS, STEP_LOGITS):
        return "logits"
    if getattr(layer, "name", None) == VALUES:
        return "values"
    plain = type(layer).__name__ in _LINEAR and activation is keras.activations.linear
    return "linear" if plain else None


def _is_probability(part: Any) -> bool:
    """Whether it is Keras's layer or operation of that name; the operations have no public class."""
    return isinstance(part, keras.layers.Softmax) or type(part).__name__ in ("Softmax", "Sigmoid")
