"""Callbacks that act on one fold of several that train together."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbig.backend import keras, tf

# Keras's callbacks that read logs, stop, restore weights or set the learning rate, and nothing else. A subclass, and
# any other callback, may reach into the model that it is given.
KNOWN = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.TerminateOnNaN,
)


def unknown_callback(callbacks: Sequence[Any]) -> str | None:
    """Returns the name of the first callback that folds cannot share a step with, or None."""
    return next((type(callback).__name__ for callback in callbacks if type(callback) not in KNOWN), None)


class FoldView:
    """What a callback sees as its model: one fold's learning rate, weights and wish to stop.

    Attributes:
        stop_training: Set by a callback; the fold then changes no more.
    """

    def __init__(self, engine: Any, state: Any, fold: int | None):
        self._engine, self._fold = engine, fold
        self.state = state
        self.stop_training = False
        self.metrics = engine.model.metrics
        self.optimizer = _FoldOptimizer(self)

    def get_weights(self) -> list[Any]:
        """Returns the fold's weights."""
        return [self.value(i) for i in self._engine.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets the fold's weights, and no other fold's."""
        for i, value in zip(self._engine.weights, weights, strict=True):
            self.set_value(i, value)

    def value(self, i: int) -> Any:
        """Returns the fold's value at a place of the state."""
        return self.state[i] if self._fold is None else self.state[i][self._fold]

    def set_value(self, i: int, value: Any) -> None:
        """Changes the fold's value at a place of the state, which all folds' views share."""
        value = tf.cast(value, self.state[i].dtype)
        if self._fold is not None:
            value = tf.tensor_scatter_nd_update(self.state[i], [[self._fold]], value[None])
        self.state[i] = value


class _FoldOptimizer:
    def __init__(self, view: FoldView):
        self._view = view

    @property
    def learning_rate(self) -> Any:
        rate = self._view._engine.rate
        if rate is None:  # a schedule: what it says at the fold's own step
            optimizer = self._view._engine.optimizer
            steps = self._view.value(self._view._engine.iterations)
            return np.asarray(optimizer._learning_rate(steps))
        return np.asarray(self._view.value(rate))

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        if self._view._engine.rate is None:
            raise TypeError("The optimizer's learning rate is a schedule, so a callback cannot set it.")
        self._view.set_value(self._view._engine.rate, rate)


class FoldCallbacks:
    """One fold's own copies of the callbacks, and its history.

    Args:
        callbacks: The user's callbacks, left as they are.
        view: The fold.
        epochs: Epochs asked for.
    """

    def __init__(self, callbacks: Sequence[Any], view: FoldView, epochs: int):
        self.view, self.history = view, dict[str, list[Any]]()
        self._callbacks = [copy.copy(callback) for callback in callbacks]
        for callback in self._callbacks:
            callback.set_params({"epochs": epochs, "steps": None, "verbose": 0})
            callback.set_model(view)
            callback.on_train_begin({})

    @property
    def stopped(self) -> bool:
        """Whether the fold trains no further."""
        return self.view.stop_training

    def begin(self, epoch: int) -> None:
        """Tells the callbacks that an epoch begins."""
        for callback in self._callbacks:
            callback.on_epoch_begin(epoch, {})

    def end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Tells the callbacks what the epoch gave, and notes it."""
        for callback in self._callbacks:
            # For TerminateOnNaN. The epoch's loss is the mean over its batches: NaN or infinite if one was.
            callback.on_batch_end(0, logs)
        for callback in self._callbacks:
            callback.on_epoch_end(epoch, logs)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def finish(self) -> None:
        """Tells the callbacks that training is over; best weights are restored here."""
        for callback in self._callbacks:
            callback.on_train_end({})
