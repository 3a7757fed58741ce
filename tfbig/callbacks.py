"""Keras callbacks that Keras lacks: throughput, cost, learning rate, and an end to training on NaN.

Each is a plain `keras.callbacks.Callback` for `tfbig.fit` or a bare `model.fit`, and writes numbers into the logs, so
that the History, a CSVLogger or a TensorBoard that comes after it in the list has them. TensorBoard itself is
Keras's: `keras.callbacks.TensorBoard`.
"""

import contextlib
import math
import resource
import sys
import time
import warnings
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import InvalidOption, TrainingDiverged
from tfbig.options import checked, positive_int

__all__ = ["LearningRate", "ResourceUse", "StopOnNaN", "Throughput"]

# As many steps as `fit` compiles into one call at most: a callback that asks for no less slows nothing down.
_SELDOM = 64


class _Clock:
    """What a callback measures time by. A checkpoint keeps its plain numbers, and a time of day is none to keep."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def since_last(self) -> float:
        """Returns the seconds since this was asked before, or since the clock was made."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        return passed


class Throughput(keras.callbacks.Callback):
    """Writes `examples_per_second` into the logs of each epoch: training rows over training time.

    The first execution of the first epoch is left out, since it holds the tracing, unless it is the only one;
    validation does not count, nor does the time in which a training that is resumed did not run. With several steps
    per execution the clock stops after each execution.

    Attributes:
        steps_between: Lets `fit` compile many steps into one call.
    """

    steps_between = _SELDOM

    @checked()
    def __init__(self, *, batch_size: int | None = None):
        """Counts rows by Keras's own loss metric, or by a given batch size.

        Args:
            batch_size: Rows of a gradient step; None counts them. Needed for a model with a train step of its own
                that keeps no loss metric; smaller last batches are then counted as whole ones.

        Raises:
            InvalidOption: The batch size is no whole number of at least 1.

        Example:
            >>> import numpy as np, tfbig
            >>> x = np.ones((64, 4)); y = np.arange(64) % 2
            >>> model = tfbig.models.mlp((4,), 2)
            >>> run = tfbig.fit(model, x, y, callbacks=[tfbig.callbacks.Throughput()], epochs=2, verbose=0)
            >>> all(rate > 0 for rate in run.history["examples_per_second"])
            True
        """
        super().__init__()
        self.batch_size = None if batch_size is None else positive_int("batch_size", batch_size)

    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets an earlier training."""
        self._warm = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._clock = _Clock()
        self._rows = self._seconds = 0.0
        self._first = (0.0, 0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Reads clock and count; batches count from 0."""
        first = self._rows == 0
        self._rows = self._rows_until(batch)
        self._seconds += self._clock.since_last()
        if first and not self._warm:
            self._first = (self._rows, self._seconds)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the epoch's throughput."""
        left_out = self._first if not self._warm and self._rows > self._first[0] else (0.0, 0.0)
        self._warm = True
        if logs is not None and self._rows:
            logs["examples_per_second"] = (self._rows - left_out[0]) / (self._seconds - left_out[1])

    def _rows_until(self, batch: int) -> float:
        if self.batch_size is not None:
            return float((batch + 1) * self.batch_size)
        for metric in self.model.metrics:
            if metric.name == "loss" and hasattr(metric, "count"):
                return float(metric.count)  # every batch weighs as many as it has rows
        raise InvalidOption(
            "Throughput finds no loss metric to count rows by in this model's own train step: pass batch_size=."
        )


class ResourceUse(keras.callbacks.Callback):
    """Writes `seconds` and `peak_memory_mb` into the logs of each epoch.

    Seconds are the epoch's wall time, validation included; of an epoch that is resumed inside, those since then.
    Memory is the largest resident set that the process has had since it began, in MiB (2²⁰ bytes): an epoch that adds
    to it needed more than all before. Memory of a GPU is not in it.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.ones((64, 4)); y = np.arange(64) % 2
        >>> model = tfbig.models.mlp((4,), 2)
        >>> run = tfbig.fit(model, x, y, callbacks=[tfbig.callbacks.ResourceUse()], epochs=1, verbose=0)
        >>> sorted(set(run.history) - {"accuracy", "loss"})
        ['peak_memory_mb', 'seconds']
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._clock = _Clock()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the epoch's time and the peak so far."""
        if logs is not None:
            logs["seconds"] = self._clock.since_last()
            logs["peak_memory_mb"] = peak_memory_mb()


class LearningRate(keras.callbacks.Callback):
    """Writes `learning_rate` into the logs of each epoch, as it stands at the epoch's end.

    That is the rate of the step that comes next. Keras's own callbacks write the same under the same name, but only
    those that change the rate.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.ones((64, 4)); y = np.arange(64) % 2
        >>> rate = keras.optimizers.schedules.PolynomialDecay(0.1, decay_steps=4, end_learning_rate=0.0)
        >>> model = tfbig.models.mlp((4,), 2)
        >>> model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
        >>> rates = model.fit(x, y, epochs=2, verbose=0, callbacks=[tfbig.callbacks.LearningRate()]).history
        >>> [round(rate, 3) for rate in rates["learning_rate"]]
        [0.05, 0.0]
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the rate."""
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class StopOnNaN(keras.callbacks.Callback):
    """Ends training as soon as the loss is NaN or infinite, and names the batch that did it.

    Keras shows a callback the loss after each execution. With several steps in one, the culprit is one of these
    batches, and the message gives their range. A ReLU on a CPU can turn NaN into 0, so that NaN in the data spoils
    weights under a loss that looks fine: the weights are looked at too, after each epoch.

    Attributes:
        epoch: The epoch in which it happened, from 0; None while it has not.
        batches: The batches, from 0, of which one did it: a `range`, of one batch where that is known; None where
            only the weights show it.
        steps_between: Lets `fit` compile so many steps into one call.
    """

    @checked()
    def __init__(self, *, every: int = _SELDOM, raises: bool = True):
        """Says how closely to look and how to end.

        Args:
            every: Gradient steps that `tfbig.fit` may run between two looks; 1 names the very batch, at the price of
                one call per step. A bare `model.fit` looks after each of its executions.
            raises: Whether to raise. False stops the training after the execution, with a warning, and `fit` returns.

        Raises:
            InvalidOption: `every` is no whole number of at least 1.

        Example:
            >>> import numpy as np, tfbig
            >>> x = np.ones((64, 4)); y = np.zeros(64)
            >>> def overflow(y, p): return 1e38 * p * 1e38
            >>> tfbig.fit(tfbig.models.mlp((4,), 1, task="regression"), x, y, loss=overflow, verbose=0,
            ...           batch_size=32, callbacks=[tfbig.callbacks.StopOnNaN(every=1)])
            Traceback (most recent call last):
            tfbig.errors.TrainingDiverged: The loss became ... in batch 0 of epoch 0. ...
        """
        super().__init__()
        self.steps_between = positive_int("every", every)
        self.raises = raises
        self.epoch: int | None = None
        self.batches: range | None = None
        self._now, self._first = 0, 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets an earlier training."""
        self.epoch = self.batches = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches count from 0 again."""
        self._now, self._first = epoch, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes where the execution begins."""
        self._first = batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the loss.

        Raises:
            TrainingDiverged: It is NaN or infinite, and `raises` is true.
        """
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        self.batches = range(self._first, batch + 1)
        where, closer = f"batch {batch}", ""
        if len(self.batches) > 1:
            where = f"one of batches {self._first} to {batch}"
            closer = " StopOnNaN(every=1) in tfbig.fit names the batch."
        self._end(f"The loss became {float(loss)} in {where} of epoch {self._now}.{closer}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the weights.

        Raises:
            TrainingDiverged: One is NaN or infinite under a finite loss, and `raises` is true.
        """
        if self.epoch is not None:
            return  # said already
        for variable in self.model.trainable_variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                self._end(f"{variable.path} became NaN or infinite in epoch {epoch}, while the loss did not.")
                return

    def _end(self, what: str) -> None:
        self.epoch = self._now
        message = (
            f"{what} Look for NaN in the data; else lower the learning rate or clip gradients (clipnorm=1.0)."
        )
        if self.raises:
            raise TrainingDiverged(message)
        warnings.warn(message, stacklevel=3)
        self.model.stop_training = True


def peak_memory_mb() -> float:
    """Returns the largest resident set this process has had, in MiB."""
    # Linux's getrusage also counts what the process that started this one held at that moment.
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux KiB
