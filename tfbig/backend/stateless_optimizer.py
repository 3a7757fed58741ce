"""Keras optimizers whose update is a function of tensors, so that it can be mapped over the folds.

On TensorFlow Keras's `stateless_apply` raises, because its `TFOptimizer` reaches for `tf.Variable`s for the sake of
`tf.distribute`. The backend-agnostic base class beneath it can do it.
"""

import functools
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.internals import settings_of


def stateless_optimizer(optimizer: Any) -> Any:
    """Returns an optimizer of the same kind and settings whose `stateless_apply` works; it has no state yet.

    Inside a `keras.StatelessScope` its `apply` writes to the scope. What `TFOptimizer` overrides is that of
    `BaseOptimizer` again; no public class has those methods. What the optimizer's own class overrides stays, and
    finds the base's methods behind `super()`.

    Args:
        optimizer: A Keras optimizer; it is not changed.
    """
    kind = type(optimizer)
    # A sibling of the optimizer's class: Python puts it behind that class and before Keras's common one.
    stateless: Any = type(kind.__name__, (kind, _sibling()), {})
    return stateless.from_config(settings_of(optimizer))


def averages(optimizer: Any, variables: list[Any]) -> list[tuple[Any, Any]]:
    """Returns (weight, its moving average) of an optimizer that averages weights, for each weight that has one.

    Keras's `fit` ends by putting the averages in the weights' place; it does so by assigning to variables, which a
    state made of tensors has none of.
    """
    if not getattr(optimizer, "use_ema", False):
        return []
    pairs = zip(variables, optimizer._model_variables_moving_average, strict=True)
    return [(variable, average) for variable, average in pairs if average is not None]


def unsuitable(optimizer: Any) -> str | None:
    """Returns why an optimizer's stateless update would not be the one that `fit` makes; None if it is."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return "the optimizer scales the loss"
    if type(optimizer).__name__ == "ScheduleFreeAdamW":
        # It keeps `momentum.value` to use after the update: on TensorFlow that is the variable, and by then new.
        return "ScheduleFreeAdamW reads its own state after changing it"
    return None


@functools.cache
def _sibling() -> type:
    methods = {name: vars(_base_class())[name] for name in overridden()}
    methods["_backend_apply_gradients"] = _apply_without_branches
    return type("Stateless", (keras.optimizers.Optimizer,), methods)


def overridden() -> list[str]:
    """Returns the names of the base's methods that `TFOptimizer` replaces for the sake of `tf.Variable`s."""
    from keras.src.backend.tensorflow.optimizer import TFOptimizer

    # Variables are still placed as TensorFlow wants them, and clipping knows sparse gradients.
    kept = {"__init__", "add_variable_from_reference", "_clip_by_norm"}
    return [
        name
        for name, value in vars(TFOptimizer).items()
        if callable(value) and name in vars(_base_class()) and name not in kept
    ]


def _base_class() -> Any:
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    return BaseOptimizer


def _apply_without_branches(self: Any, grads: Any, trainable_variables: Any) -> None:
    """`BaseOptimizer._backend_apply_gradients` with values chosen in place of `cond`.

    What a branch assigns inside a stateless scope would not leave the branch. Keras's JAX optimizer has the same
    need and the same answer.
    """
    if self.gradient_accumulation_steps:
        steps = self.gradient_accumulation_steps
        due = tf.equal((self._iterations.value + 1) % steps, 0)
        sums = [self._accumulated_gradients[self._get_variable_index(v)] for v in trainable_variables]
        added = [gradient + total.value for gradient, total in zip(grads, sums, strict=True)]
        before = [(v, tf.convert_to_tensor(v.value)) for v in [*trainable_variables, *self.variables]]
        _update(self, [total / steps for total in added], trainable_variables)
        for variable, old in before:
            variable.assign(tf.where(due, variable.value, old))
        for variable, total in zip(sums, added, strict=True):
            variable.assign(tf.where(due, tf.zeros_like(total), total))
    else:
        _update(self, grads, trainable_variables)
    if self.use_ema:
        self._update_model_variables_moving_average(self._trainable_variables)
        if self.ema_overwrite_frequency:
            due = tf.equal(
                (keras.ops.convert_to_tensor(self.iterations) + 1) % self.ema_overwrite_frequency, 0
            )
            averages = self._model_variables_moving_average
            for variable, average in zip(self._trainable_variables, averages, strict=True):
                variable.assign(tf.where(due, average.value, variable.value))


def _update(optimizer: Any, grads: Any, trainable_variables: Any) -> None:
    grads = optimizer._clip_gradients(grads)
    optimizer._apply_weight_decay(trainable_variables)
    optimizer._backend_update_step(grads, trainable_variables, optimizer.learning_rate)
