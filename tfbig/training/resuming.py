"""A training that goes on where it was killed, with the numbers it would have had."""

import contextlib
import datetime
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.errors import InvalidOption
from tfbig.training.callback_state import restore, state_of
from tfbig.training.checkpoints import Checkpoint, CheckpointFolder
from tfbig.training.described import same_callbacks
from tfbig.training.loop import Loop
from tfbig.training.run import Run

Every = int | str | datetime.timedelta


def check_every(every: Any, several_workers: bool) -> Every:
    """Returns how often checkpoints are written.

    Raises:
        InvalidOption: It is no number of steps, time or "epoch"; or a time, which workers do not agree on.
    """
    is_steps = isinstance(every, int) and not isinstance(every, bool) and every > 0
    is_time = isinstance(every, datetime.timedelta) and every > datetime.timedelta(0)
    if not (is_steps or is_time or every == "epoch"):
        raise InvalidOption(
            'checkpoint_every must be "epoch", a number of gradient steps or a datetime.timedelta; got '
            f"{every!r}."
        )
    if is_time and several_workers:
        raise InvalidOption(
            'checkpoint_every must be a number of steps or "epoch" where several workers train together: their '
            "clocks differ, and all must stop at the same step."
        )
    return every


class Resume(keras.callbacks.Callback):
    """Writes checkpoints, and puts the state of the last one back. The last of the callbacks.

    State is put back once every callback has begun the training (and, inside an epoch, the epoch): what they set
    up then is what the checkpoint knows better.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        found: Checkpoint | None,
        every: Every,
        loop: Loop,
        run: Run,
        others: list[Any],
    ):
        """Takes the folder, its newest checkpoint, how often to write, and all whose state is kept."""
        super().__init__()
        self.folder, self.found, self.every = folder, found, every
        self.loop, self.run, self.others = loop, run, others
        self.identity: dict[str, Any] = {}
        self.order_seed = 0
        self.writes = True
        position = {} if found is None else found.facts["position"]
        self._epoch, self._step = position.get("epoch", 0), position.get("step", 0)
        self._total = position.get("total", 0)
        self._last_total, self._last_time = self._total, time.monotonic()
        self._pending = found
        self._epochs_done = self._epoch
        loop.resume_at = self._step

    @property
    def steps_between(self) -> int:
        """Gradient steps that may pass in one call."""
        return self.every if isinstance(self.every, int) else 1 << 30

    @property
    def initial_epoch(self) -> int:
        """The epoch to begin with."""
        return self._epoch

    @property
    def was_stopped(self) -> bool:
        """Whether a callback had stopped the training when it was killed: what is left is its end."""
        return self.found is not None and self._step == 0 and self.found.facts["position"]["stopped"]

    def check_epochs(self, epochs: int) -> None:
        """Raises `InvalidOption` where the checkpoint is of more epochs than are asked for: none can be taken back."""
        begun = self._epoch + (self._step > 0)
        if epochs < begun:
            raise InvalidOption(
                f"checkpoint_dir {str(self.folder.path)!r} holds a training that is in its epoch {begun} already; "
                f"epochs={epochs} asks for fewer. Pass epochs={begun} or more, or a folder of its own."
            )

    def is_over(self, epochs: int) -> bool:
        """Whether the checkpoint is the end of a training of so many epochs."""
        position = {} if self.found is None else self.found.facts["position"]
        return position.get("finished", False) and (position["stopped"] or epochs <= position["epoch"])

    def put_back_the_end(self, model: Any) -> None:
        """Gives model, callbacks and run what they were when the training ended."""
        self.set_model(model)
        for callback in self.others:
            callback.set_model(model)
        self._restore()

    def on_train_begin(self, logs: Any = None) -> None:
        """Puts back the state of a checkpoint written between two epochs."""
        if self._pending is not None and self._step == 0:
            self._restore()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Puts back the state of a checkpoint written inside this epoch."""
        if self._pending is not None:
            self._restore()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Writes when it is time."""
        done = self._total_at(self.loop.step)
        if isinstance(self.every, int):
            due = done - self._last_total >= self.every
        else:
            due = isinstance(self.every, datetime.timedelta) and (
                time.monotonic() - self._last_time >= self.every.total_seconds()
            )
        if due:
            self._save(self.loop.epoch, self.loop.step, done)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes after each epoch, however often it does inside of them."""
        self._total = self._total_at(self.loop.step)
        self._step, self._epochs_done = 0, epoch + 1
        self._save(epoch + 1, 0, self._total)

    def on_train_end(self, logs: Any = None) -> None:
        """Writes the end: a training that is started again after it returns it at once."""
        self._save(self._epochs_done, 0, self._total, finished=True)

    def _total_at(self, step: int) -> int:
        return self._total + step - self._step

    def _save(self, epoch: int, step: int, total: int, finished: bool = False) -> None:
        arrays = {name: v.numpy() for name, v in self._variables(with_constraints=not finished)}

        callbacks = []
        for i, callback in enumerate(self.others):
            held: dict[str, np.ndarray] = {}
            callbacks.append(state_of(callback, held.__setitem__))
            arrays.update({f"callback/{i}/{name}": value for name, value in held.items()})
        position = {"epoch": epoch, "step": step, "total": total, "finished": finished}
        position["stopped"] = bool(self.model.stop_training)
        facts = {
            "position": position,
            "identity": self.identity,
            "dtypes": {name: str(value.dtype) for name, value in arrays.items()},
            "callbacks": callbacks,
            "order_seed": self.order_seed,
            "run": {name: getattr(self.run, name) for name in ("epoch", "epoch_seconds")},
            "history": {key: [_plain(v) for v in series] for key, series in self.run.history.items()},
        }
        if self.writes:
            self.folder.save(Checkpoint(facts, arrays), total + finished)
        self._last_total, self._last_time = total, time.monotonic()

    def _restore(self) -> None:
        assert self._pending is not None
        found, self._pending = self._pending, None
        put_back(found, self._variables(with_constraints=not found.facts["position"]["finished"]))
        # All are there in the process that wrote the checkpoint; another worker may have some only.
        places = same_callbacks(self.identity["callbacks"], found.facts["identity"]["callbacks"])
        for callback, place in zip(self.others, places, strict=True):
            if place is None:
                continue
            state, prefix = found.facts["callbacks"][place], f"callback/{place}/"
            held = {
                name.removeprefix(prefix): a for name, a in found.arrays.items() if name.startswith(prefix)
            }
            restore(callback, state, held.__getitem__)
        restore_history(self.run, found)
        self.model.stop_training = found.facts["position"]["stopped"]

    def _variables(self, with_constraints: bool) -> Iterator[tuple[str, Any]]:
        yield from variables_of(self.model, with_constraints)


def variables_of(model: Any, with_constraints: bool) -> Iterator[tuple[str, Any]]:
    """Every variable that training changes, by name: weights, seeds, optimizer, metrics; masks and shared values."""
    groups = {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }
    for group, variables in groups.items():
        yield from ((f"{group}/{i}", v) for i, v in enumerate(variables))
    if with_constraints:
        for i, weight in enumerate(model.trainable_variables):
            held = {} if weight.constraint is None else vars(weight.constraint)
            for name, value in held.items():
                if isinstance(value, keras.Variable | tf.Variable) and value is not weight:
                    yield f"constraint/{i}/{name}", value


def put_back(found: Checkpoint, variables: Iterator[tuple[str, Any]]) -> None:
    """Sets the variables to their values in the checkpoint."""
    for name, variable in variables:
        value = found.arrays[name]
        if value.dtype.kind == "V":  # bfloat16, which NumPy stores as two bytes
            value = value.view(np.dtype(found.facts["dtypes"][name]))
        variable.assign(value)


def restore_history(run: Run, found: Checkpoint) -> None:
    """Gives the run the epochs before the checkpoint."""
    for name, value in found.facts["run"].items():
        setattr(run, name, list(value))
    run.history = {key: list(series) for key, series in found.facts["history"].items()}


class ResumingCallbacks(keras.callbacks.CallbackList):
    """Keras's list of callbacks, which says nothing of batches that were done before this process began.

    Nor of batches that there are not: of several steps in a call, Keras names the last one that might be.
    """

    def __init__(self, loop: Loop, *args: Any, **options: Any):
        self._loop = loop
        super().__init__(*args, **options)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Is passed on for batches that are trained on."""
        if batch + self._loop.model.steps_per_execution > self._loop.resume_at:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Is passed on for batches that were trained on."""
        if self._loop.step > self._loop.resume_at:
            super().on_train_batch_end(min(batch, self._loop.step - 1), logs)


def _plain(value: Any) -> Any:
    with contextlib.suppress(TypeError, ValueError):
        return np.asarray(value, np.float64).tolist()
    return None
