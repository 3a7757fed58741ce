"""Learning-rate schedules by name, fitted to the length of the training."""

import math
import numbers
from collections.abc import Callable
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.options import positive_int

_schedules = keras.optimizers.schedules


def _cosine(peak: float, steps: int) -> Any:
    """Warm-up over 5% of the steps (Goyal et al. 2017), then half a cosine to 0 (Loshchilov and Hutter 2016)."""
    warmup = round(0.05 * steps)
    if warmup == 0:
        return _schedules.CosineDecay(peak, steps)
    # From a share of the peak, not from 0: a step at rate 0 would be lost.
    return _schedules.CosineDecay(peak / warmup, steps - warmup, warmup_target=peak, warmup_steps=warmup)


def _one_cycle(peak: float, steps: int) -> Any:
    """Up from 1/25 in 30% of the steps, down to 4e-6 of the peak in the rest (Smith and Topin 2018).

    The paper's cycle in the form of fast.ai and PyTorch, which stock Keras can express, so that a saved model
    loads without tfbig. The paper also lowers the momentum while the rate is high; a schedule rules the rate alone.
    """
    warmup = max(1, round(0.3 * steps))
    rest = max(1, steps - warmup)
    return _schedules.CosineDecay(peak / 25, rest, alpha=4e-6, warmup_target=peak, warmup_steps=warmup)


def _step(peak: float, steps: int) -> Any:
    """A tenth from half of the training on, a hundredth from three quarters on (He et al. 2016)."""
    # Keras keeps a value up to and including its boundary.
    boundaries = [math.ceil(steps / 2) - 1, math.ceil(steps * 3 / 4) - 1]
    return _schedules.PiecewiseConstantDecay(boundaries, [peak, peak / 10, peak / 100])


_OVER_THE_TRAINING: dict[str, Callable[[float, int], Any]] = {
    "cosine": _cosine,
    "exponential": lambda peak, steps: _schedules.ExponentialDecay(peak, steps, decay_rate=0.01),
    "linear": lambda peak, steps: _schedules.PolynomialDecay(peak, steps, end_learning_rate=0.0),
    "one_cycle": _one_cycle,
    "step": _step,
}
SCHEDULE_NAMES = ("constant", *_OVER_THE_TRAINING, "plateau")


def resolve_learning_rate(
    learning_rate: Any,
    optimizer: Any,
    *,
    steps_per_epoch: int | None,
    epochs: int,
    validated: bool = False,
) -> tuple[Any, list[Any]]:
    """Returns what to hand to the optimizer as its learning rate, and the callbacks that belong to it.

    A name stands for a schedule that spans this training and whose highest rate is the optimizer's own:

    - "constant": the optimizer's rate throughout.
    - "cosine": linear warm-up over the first 5% of the steps, then half a cosine down to 0.
    - "exponential": down to a hundredth, by the same factor in every step.
    - "linear": down to 0, by the same amount in every step.
    - "one_cycle": up from 1/25 in a straight line for 30% of the steps, then half a cosine down to almost 0
      (Smith and Topin 2018, https://arxiv.org/abs/1708.07120).
    - "step": a tenth from half of the steps on, a hundredth from three quarters on.
    - "plateau": halved when the loss (the validation loss, when there is one) has not improved for a tenth of
      the epochs, 2 at least; Keras's `ReduceLROnPlateau`.

    Args:
        learning_rate: None, a positive number, a Keras `LearningRateSchedule`, or one of the names.
        optimizer: The optimizer that will take it; its own rate is the peak.
        steps_per_epoch: Gradient steps of an epoch; None when a stream does not say.
        epochs: Epochs of the training.
        validated: Whether there is validation data.

    Returns:
        `(rate, callbacks)`; the rate is None where the optimizer keeps its own.

    Raises:
        InvalidOption: There is no such name; the length of the training is not known; the optimizer's own rate is
            a schedule already, so that it has no peak; the number is not positive.

    Example:
        >>> rate, _ = resolve_learning_rate(
        ...     "cosine", keras.optimizers.SGD(0.1), steps_per_epoch=50, epochs=2
        ... )
        >>> [round(float(rate(step)), 3) for step in (0, 5, 52, 99)]
        [0.02, 0.1, 0.051, 0.0]
    """
    if learning_rate is None or isinstance(learning_rate, _schedules.LearningRateSchedule):
        return learning_rate, []
    if not isinstance(learning_rate, str):
        return _positive(learning_rate), []
    name = learning_rate.lower()
    if name not in SCHEDULE_NAMES:
        raise unknown_choice("learning_rate", learning_rate, SCHEDULE_NAMES)
    peak = _peak(name, optimizer)
    if name == "constant":
        return None, []
    if name == "plateau":
        return None, [_plateau(positive_int("epochs", epochs), validated)]
    if steps_per_epoch is None:
        raise InvalidOption(
            f'learning_rate="{name}" spans the whole training, and this stream does not say how long an epoch is: '
            "give it a length with "
            "stream.apply(tf.data.experimental.assert_cardinality(batches)), or pass a Keras schedule."
        )
    return _OVER_THE_TRAINING[name](peak, steps_per_epoch * positive_int("epochs", epochs)), []


def _positive(learning_rate: Any) -> float:
    is_number = isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool)
    if not is_number or not 0 < learning_rate < math.inf:
        raise InvalidOption(
            "learning_rate must be a positive number, a keras.optimizers.schedules.LearningRateSchedule or one of "
            f"{', '.join(map(repr, SCHEDULE_NAMES))}; got {learning_rate!r}."
        )
    return float(learning_rate)


def _peak(name: str, optimizer: Any) -> float:
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # a LossScaleOptimizer's rate is its inner one's
    if isinstance(inner.get_config().get("learning_rate"), float):
        return float(keras.ops.convert_to_numpy(inner.learning_rate))
    raise InvalidOption(
        f'learning_rate="{name}" starts from the optimizer\'s own rate, a number; this {type(inner).__name__} '
        "follows a schedule already (or has several rates). Pass an optimizer with a number, or that schedule alone."
    )


def _plateau(epochs: int, validated: bool) -> Any:
    return keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss" if validated else "loss", factor=0.5, patience=max(2, epochs // 10), min_delta=0.0
    )
