"""One training: data, model, strategy and callbacks brought together around Keras's loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import tf
from tfbig.data.streams import row_errors_named
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.training.agreement import chief_values, smallest
from tfbig.training.batch_order import OrderedBatches
from tfbig.training.checkpoints import Checkpoint, CheckpointFolder, check_same_training
from tfbig.training.described import described, described_callback
from tfbig.training.feeding import Feed
from tfbig.training.identity import check_workers_agree, identity_of
from tfbig.training.loop import Loop, Position
from tfbig.training.precision import trained_in
from tfbig.training.rematerialize import rematerialized
from tfbig.training.replicas import trained_over
from tfbig.training.resuming import Resume, ResumingCallbacks
from tfbig.training.run import Run
from tfbig.training.steps import choose_steps, steps_together
from tfbig.training.strategies import describe, is_chief, is_multi_worker
from tfbig.training.train_step import TrainStep, has_own_rules, step_of


@dataclass
class Session:
    """What a training is made of, checked; `train` does it.

    Attributes:
        x: Inputs as an array or a dict of arrays, or a stream of batches.
        y: Targets; None for a stream.
        batch: The first batch of a stream, or its spec; None for arrays.
        weight: Weight of each row, or None.
        validation: (x, y) or (x, y, weight) of arrays, a stream, or None.
        batch_size: Rows of a gradient step; None for a stream.
        shuffle: Whether rows are shuffled in each epoch.
        seed: Decides the order of rows.
        epochs: Times every row is seen.
        callbacks: The user's callbacks.
        steps_per_execution: A number or "auto".
        jit_compile: Whether XLA compiles the step, or "auto".
        class_weight: Label to weight, for a stream.
        verbose: As in Keras.
        checkpoint_dir: Folder to keep checkpoints in and resume from, or None.
        checkpoint_every: "epoch", a number of steps or a timedelta.
        asked_seed: The seed the user gave, or None.
        precision: A precision's name, or None for the model's own.
        rematerialize: Whether activations are computed again on the way back, or the number of segments.
    """

    x: Any
    y: Any
    batch: Any
    weight: np.ndarray | None
    validation: Any
    batch_size: int | None
    shuffle: bool
    seed: int
    epochs: int
    callbacks: list[Any]
    steps_per_execution: int | str
    jit_compile: bool | str
    class_weight: Mapping[int, float] | None
    verbose: int | str
    checkpoint_dir: Any
    checkpoint_every: Any
    asked_seed: int | None
    precision: str | None
    rematerialize: bool | int

    def train(self, model: Any, strategy: Any, twin: Any) -> Run:
        """Trains the model; `twin` is the same model made in the strategy's scope, or None."""
        run = Run(examples=None if self.y is None else len(self.y), strategy=describe(strategy))
        self._check_compiles(model, strategy)
        if strategy is None and (model.run_eagerly or has_own_rules(model)):
            asked = {name: getattr(self, name) for name in ("checkpoint_dir", "precision", "rematerialize")}
            refused = [name for name, value in asked.items() if value not in (None, False)]
            if refused:
                raise InvalidModel(
                    f"{' and '.join(refused)} need tfbig's own training step; {model.name!r} runs eagerly or brings a "
                    "train_step (or compute_loss, …) of its own."
                )
            self._by_keras(model, run)
            return run
        identity: dict[str, Any] = {}  # it reads the data, so it is worked out where it is needed only
        if is_multi_worker(strategy) or self.checkpoint_dir is not None:
            identity = self._identity(model)
        if is_multi_worker(strategy):
            check_workers_agree(strategy, {**identity, **self._agreed_on()})
            (seed,) = chief_values(strategy, [np.array(self.seed, np.int64)])
            self.seed = int(seed)
        with (
            trained_in(self.precision, model) as precise,
            # What the builder made in the strategy's scope is in another precision than the one asked for.
            trained_over(strategy, precise, twin if precise is model else None) as trained,
            rematerialized(trained, self.rematerialize),
            row_errors_named(),
        ):
            self._by_own_steps(trained, strategy, run, identity)
        run.set_model(model)
        model.history = run
        return run

    def _by_keras(self, model: Any, run: Run) -> None:
        """A model with rules of its own, or one that runs eagerly to be looked at, trains as in Keras."""
        most = 1 if self.y is None else -(-len(self.y) // (self.batch_size or 1))
        with steps_together(model, choose_steps(self.steps_per_execution, most, self.callbacks)):
            model.fit(
                self.x,
                self.y,
                sample_weight=self.weight,
                validation_data=self.validation,
                batch_size=self.batch_size,
                epochs=self.epochs,
                verbose=self.verbose,
                callbacks=[*self.callbacks, run],
                **self._of_streams(self.x),
            )

    def _by_own_steps(self, model: Any, strategy: Any, run: Run, identity: dict[str, Any]) -> None:
        folder, found = self._checkpoints(strategy, identity)
        x, validation = self._feeds()
        batch = x.specs() if isinstance(x, Feed) else self.batch
        feeds = [data for data in (x, validation) if isinstance(data, Feed)]
        step = self._step_for(model, strategy, check=len(feeds) < 1 + (validation is not None))
        # Before the step is traced: variables made in it would be no replica's, and unknown to a checkpoint.
        step.build(batch)
        loop = Loop(model, step, x, validation, self.seed)
        callbacks = [Position(loop), *self.callbacks, run]
        initial_epoch, epochs = 0, self.epochs
        if folder is not None:
            resume = Resume(folder, found, self.checkpoint_every, loop, run, self.callbacks)
            resume.identity = {**identity, "callbacks": self._described_callbacks()}
            resume.order_seed, resume.writes = self.seed, is_chief(strategy)
            resume.check_epochs(epochs)
            if resume.is_over(epochs):
                resume.put_back_the_end(model)
                return
            callbacks.append(resume)
            initial_epoch = resume.initial_epoch
            epochs = initial_epoch if resume.was_stopped else epochs
        together = choose_steps(self.steps_per_execution, loop.most_steps, callbacks[1:])
        together = min([together, *(feed.most_steps for feed in feeds if feed.most_steps)])
        # Each call ends with the metrics of all workers, so all must make as many.
        together = smallest(strategy, together)
        shown = {"epochs": epochs, "verbose": self.verbose}
        told = {"add_progbar": self.verbose != 0, "model": model, "steps": loop.keras_steps, **shown}
        try:
            with steps_together(model, together), loop.installed():
                model.fit(
                    loop.keras_x,
                    validation_data=loop.keras_validation,
                    initial_epoch=initial_epoch,
                    callbacks=ResumingCallbacks(loop, callbacks, **told),
                    **shown,
                    **self._of_streams(loop.keras_x),
                )
        finally:
            for feed in feeds:
                feed.close()

    def _checkpoints(
        self, strategy: Any, identity: dict[str, Any]
    ) -> tuple[CheckpointFolder | None, Checkpoint | None]:
        """The folder, and what is in it of this same training; the order of rows goes on with its seed."""
        if self.checkpoint_dir is None:
            return None, None
        folder = CheckpointFolder(self.checkpoint_dir)
        found = folder.load()
        if found is not None:
            mine, theirs = dict(identity), dict(found.facts["identity"])
            if is_chief(strategy):
                mine["callbacks"] = self._described_callbacks()
            else:  # it was the chief who wrote, which may have callbacks that write files besides
                theirs.pop("callbacks", None)
            check_same_training(mine, theirs, folder.path)
            self.seed = found.facts["order_seed"]
        if is_multi_worker(strategy):
            position = None if found is None else found.facts["position"]
            check_workers_agree(strategy, {"checkpoint": position}, advice=_ONE_FOLDER)
        return folder, found

    def _step_for(self, model: Any, strategy: Any, check: bool) -> TrainStep:
        if strategy is None:
            return step_of(model, jit_compile=self._jit(model), check=check)
        return TrainStep(model, strategy, check=check)

    def _identity(self, model: Any) -> dict[str, Any]:
        arrays = self.x if self.y is None else (self.x, self.y, self.weight)
        return identity_of(
            model,
            arrays,
            self.validation,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=self.asked_seed,
            precision=self.precision,
            class_weight=described(self.class_weight),
        )

    def _described_callbacks(self) -> list[Any]:
        return [described_callback(callback) for callback in self.callbacks]

    def _agreed_on(self) -> dict[str, Any]:
        """What workers must have in common besides: how often they meet. Callbacks are each one's own affair."""
        return {
            "epochs": self.epochs,
            "checkpoint_dir": "none" if self.checkpoint_dir is None else "given",
            "checkpoint_every": str(self.checkpoint_every),
        }

    def _check_compiles(self, model: Any, strategy: Any) -> None:
        if strategy is None:
            return
        if model.run_eagerly:
            raise InvalidModel(
                f"{model.name!r} runs eagerly, which a step over replicas cannot: compile it with run_eagerly=False, "
                "or train it on one device, strategy=None."
            )
        if self.jit_compile is True:
            raise InvalidOption(
                'jit_compile=True: XLA compiles the step of one device only. Leave it at "auto", or pass strategy=None.'
            )

    def _feeds(self) -> tuple[Any, Any]:
        batch_size = self.batch_size or 32
        x, validation = self.x, self.validation
        if self.y is not None:
            x = Feed(x, self.y, self.weight, batch_size=batch_size, seed=self.seed, shuffle=self.shuffle)
        elif self.shuffle and hasattr(x, "num_batches"):
            x = OrderedBatches(x, self.seed)
        if isinstance(validation, tuple):
            validation = Feed(*validation, *(None,) * (3 - len(validation)), batch_size=batch_size)
        return x, validation

    def _of_streams(self, x: Any) -> dict[str, Any]:
        # Keras warns of shuffle=True for what it cannot shuffle, which nobody asked for.
        in_order = hasattr(x, "element_spec") or hasattr(x, "__next__") or isinstance(x, OrderedBatches)
        return {"class_weight": self.class_weight, "shuffle": self.shuffle and not in_order}

    def _jit(self, model: Any) -> bool:
        if self.jit_compile != "auto":
            return bool(self.jit_compile)
        return bool(tf.config.list_physical_devices("GPU")) and bool(model.jit_compile)


_ONE_FOLDER = "checkpoint_dir must be one folder that all workers see, such as one on a network drive."
