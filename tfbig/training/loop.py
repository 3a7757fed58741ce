"""tfbig's steps inside Keras's own `fit` loop: its callbacks, progress bar, validation and History stay as they are."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.distribution import undistributed
from tfbig.data.stream_order import orders_in
from tfbig.errors import InvalidData
from tfbig.training.batch_order import OrderedBatches
from tfbig.training.feeding import Feed
from tfbig.training.first_batch import stream_steps
from tfbig.training.steps import MOST_STEPS_TOGETHER
from tfbig.training.train_step import NOT_FINITE, TrainStep


class Loop:
    """Where a training stands, and the functions that Keras's loop calls for a step of training or validation.

    Attributes:
        epoch: The epoch that runs, from 0.
        step: Gradient steps done in it.
        resume_at: Steps of the first epoch that were done before this process began; they are passed over.
    """

    def __init__(self, model: Any, step: TrainStep, x: Any, validation: Any, seed: int = 0):
        """Takes what is trained on and what is validated on: a `Feed` or a stream each; validation may be None.

        The seed orders the rows of streams from files that have none of their own.
        """
        self.model, self._step = model, step
        self._x, self._validation = x, validation
        self._orders, self._seed = orders_in(x, validation), seed
        self.epoch = self.step = self.resume_at = 0
        self._test_at = 0
        self._testing = False
        self._logs: Any = None

    def begin(self, epoch: int) -> None:
        """Starts an epoch: batches count from 0 again, in the order of this epoch."""
        self.epoch, self.step = epoch, 0
        if isinstance(self._x, Feed | OrderedBatches):
            self._x.begin(epoch)
        for order in self._orders:
            order.begin(epoch, self._seed)

    @property
    def keras_x(self) -> Any:
        """What Keras is given as x: a stream as it is; for arrays one placeholder per step, which nobody reads."""
        return _placeholders(self._x)

    @property
    def keras_steps(self) -> int | None:
        """Steps of an epoch, where they are known."""
        if isinstance(self._x, Feed):
            return self._x.steps
        return stream_steps(self._x)

    @property
    def most_steps(self) -> int:
        """Steps that one call may take, if nobody looks at single ones: of a generator, which may wait, only one."""
        if hasattr(self._x, "cardinality") or self.keras_steps is not None:
            return self.keras_steps or MOST_STEPS_TOGETHER
        return 1

    @property
    def keras_validation(self) -> Any:
        """What Keras is given as validation_data."""
        return None if self._validation is None else _placeholders(self._validation)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Puts the steps into the model for the block, and translates what goes wrong in them."""
        with undistributed(self.model), _methods(self.model, self._make_train, self._make_test):
            try:
                yield
            except tf.errors.InvalidArgumentError as error:
                found = re.search(rf"{NOT_FINITE}\W+(\w+)\W+(\d+)", str(error))
                if found is None:
                    raise
                which = "validation " if self._testing else ""
                raise InvalidData(
                    f"{which}{found[1]} holds NaN or infinite values in batch {found[2]} of epoch {self.epoch} (both "
                    "counted from 0). Clean the stream, or drop such rows in it."
                ) from None
            finally:
                for order in self._orders:
                    order.end()

    def _make_train(self, anew: bool) -> Callable[[Any], Any]:
        if anew:  # a callback has changed what the step does: constraints, for example
            self._step = self._step.untraced()
        return self._train_rows if isinstance(self._x, Feed) else self._train_stream

    def _make_test(self) -> Callable[[Any], Any]:
        return self._test_rows if isinstance(self._validation, Feed) else self._test_stream

    def _train_rows(self, _: Any) -> Any:
        count = min(self.model.steps_per_execution, self._x.steps - self.step)
        passed = min(count, max(0, self.resume_at - self.step))
        if passed < count:
            data, order = self._x.take(self.step + passed, count - passed)
            self._logs = self._step.train_rows(data, order, self._x.batch_size)
        self.step += count
        return self._logs or self.model.get_metrics_result()

    def _train_stream(self, iterator: Any) -> Any:
        count = self.model.steps_per_execution
        passed = min(count, max(0, self.resume_at - self.step))
        for _ in range(passed):
            next(iterator)
        if passed < count:
            done, logs = self._step.train_stream(iterator, *_tensors(count - passed, self.step + passed))
            if not int(done) and not passed:
                raise StopIteration
            self._logs, passed = logs, passed + int(done)
        self.step += passed
        return self._logs or self.model.get_metrics_result()

    def _test_rows(self, _: Any) -> Any:
        feed = self._validation
        count = min(self.model.steps_per_execution, feed.steps - self._test_at)
        data, order = feed.take(self._test_at, count)
        self._test_at += count
        return self._step.test_rows(data, order, feed.batch_size)

    def _test_stream(self, iterator: Any) -> Any:
        done, logs = self._step.test_stream(
            iterator, *_tensors(self.model.steps_per_execution, self._test_at)
        )
        if not int(done):
            raise StopIteration
        self._test_at += int(done)
        return logs


class Position(keras.callbacks.Callback):
    """Tells the loop which epoch begins. The first of the callbacks, so that all others see it told."""

    steps_between = 1 << 30  # watches no batches

    def __init__(self, loop: Loop):
        super().__init__()
        self.loop = loop

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells it."""
        self.loop.begin(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Only the first epoch of a resumed training has steps that are done already."""
        if self.loop.step == 0:
            raise InvalidData(
                f"The stream gave no batch in epoch {epoch} (counted from 0). It must give the same number in each."
            )
        self.loop.resume_at = 0

    def on_test_begin(self, logs: Any = None) -> None:
        """Validation starts at its first batch."""
        self.loop._test_at, self.loop._testing = 0, True

    def on_test_end(self, logs: Any = None) -> None:
        """Training goes on."""
        self.loop._testing = False


def _tensors(*numbers: int) -> list[Any]:
    """As tensors, for a Python number would have the step traced again for each value it takes."""
    return [tf.constant(number) for number in numbers]


def _placeholders(data: Any) -> Any:
    return tf.data.Dataset.range(data.steps) if isinstance(data, Feed) else data


@contextlib.contextmanager
def _methods(model: Any, train: Callable[[bool], Any], test: Callable[[], Any]) -> Iterator[None]:
    """Replaces `make_train_function` and `make_test_function`, Keras's documented places for a step of one's own."""

    def make_train_function(force: bool = False) -> Any:
        if force or model.train_function is None:
            model.train_function = train(force)
        return model.train_function

    def make_test_function(force: bool = False) -> Any:
        if force or model.test_function is None:
            model.test_function = test()
        return model.test_function

    model.train_function = model.test_function = None
    model.make_train_function, model.make_test_function = make_train_function, make_test_function
    try:
        yield
    finally:
        del model.make_train_function, model.make_test_function
        model.train_function = model.test_function = None
