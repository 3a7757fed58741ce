"""Magnitude pruning of Keras 3 models, by TFMOT's masks and schedules."""

import warnings
from typing import Any

from tfbig.backend import keras, tf
from tfbig.compression.copies import copy_model
from tfbig.compression.holding import Masked, check_free, masked, take_off_leftovers
from tfbig.compression.masks import TFMOT_NAMES, check_pattern
from tfbig.compression.schedules import Update, check_aim, default_schedule, frequency_of, plan
from tfbig.compression.sparsity import SparsityReport, measured, remember
from tfbig.compression.targets import LayerChoice, Target, find_targets, those_that_train
from tfbig.data.checking import is_stream, row_count
from tfbig.errors import InvalidData
from tfbig.options import checked, positive_int
from tfbig.training import checks
from tfbig.training.fit import fit


class Prune(keras.callbacks.Callback):
    """Prunes the smallest weights while a model trains, in tfbig's `fit` or a bare `model.fit`.

    The model needs no wrapper and no new compile. Each kernel is held to its mask inside the compiled step; the
    masks are set anew as the schedule says. When training ends the model is a plain Keras model again, with
    zeros where the masks are. Among callbacks that put weights back (EarlyStopping with
    `restore_best_weights`), this one comes last. A layer that is frozen is skipped, as nothing could heal it.

    Attributes:
        report: After training, a `SparsityReport`: what was asked and reached per layer, what was skipped.
            `tfbig.sparsity(model)` says so too, for as long as the model lives.
    """

    @checked(also_known_as=TFMOT_NAMES)
    def __init__(
        self,
        sparsity: float | None = None,
        *,
        schedule: Any = None,
        layers: LayerChoice = None,
        block_size: tuple[int, int] = (1, 1),
        block_pooling: str = "AVG",
        m_by_n: tuple[int, int] | None = None,
        scope: str = "layer",
    ):
        """Checks the options; nothing happens to a model yet. TFMOT's parameter names are taken too.

        Args:
            sparsity: Share of zeros to end with, in [0, 1). The way there is cubic, over the first 60% of the
                training (Zhu and Gupta, 2017, https://arxiv.org/abs/1710.01878).
            schedule: Instead, a TFMOT `PruningSchedule`, taken as it is. It counts the steps of this training, which
                begins at `initial_epoch`.
            layers: Which kernels: names, patterns, layer types or a function. By default those of dense,
                convolutional, recurrent and attention layers; depthwise and embedding kernels, and the weights
                of custom layers, when asked for here.
            block_size: (rows, columns) of the blocks that are kept or dropped whole, for two-dimensional kernels.
            block_pooling: "AVG" or "MAX" of a block's magnitudes decides about it.
            m_by_n: (m, n) puts m zeros in every n consecutive input channels, from the first step on: 2:4 is what
                sparse hardware speeds up. Needs no sparsity.
            scope: "layer" gives every kernel the same sparsity; "global" sets one threshold for all kernels, so
                that layers with small weights give more.

        Raises:
            InvalidOption: Not exactly one of `sparsity`, `schedule` and `m_by_n`, or a value that makes no sense.

        Example:
            >>> import numpy as np, tfbig
            >>> model = tfbig.models.mlp((16,), 4)
            >>> model.compile("adam", "sparse_categorical_crossentropy")
            >>> prune = tfbig.Prune(0.75)
            >>> x, y = np.ones((64, 16)), np.zeros(64)
            >>> history = model.fit(x, y, epochs=5, callbacks=[prune], verbose=0)
            >>> round(prune.report.overall, 2)
            0.75
        """
        super().__init__()
        self.pattern = check_pattern(block_size, block_pooling, m_by_n, scope)
        self.asked = check_aim(schedule, sparsity, self.pattern.m_by_n)
        self.schedule = schedule
        self.layers = layers
        self.report: SparsityReport | None = None
        self._installed: list[tuple[Target, Masked]] = []
        self._planned_frequency = 1
        self._step, self._last_batch = 0, -1
        # Steps that the plan is for, and the plan. A checkpoint brings the position back, and the steps; not the plan.
        self._plan: tuple[int, list[Update]] = (0, [])

    @property
    def steps_between(self) -> int:
        """Gradient steps that may pass unseen between two updates (`fit` compiles as many into one call)."""
        if self.schedule is not None:
            return frequency_of(self.schedule)
        return self._planned_frequency

    def plan_for(self, total_steps: int) -> list[Update]:
        """Returns the updates that a training of so many gradient steps would see; trains nothing."""
        if self.pattern.m_by_n is not None:
            self._planned_frequency = total_steps
            return [Update(0, self.asked or 0.0)]
        schedule = self.schedule or default_schedule(self.asked or 0.0, total_steps)
        self._planned_frequency = frequency_of(schedule)
        return plan(schedule, total_steps)

    def set_model(self, model: Any) -> None:
        """Takes the model, and the masks off it that a training which was interrupted has left."""
        super().set_model(model)
        take_off_leftovers(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds the kernels and puts on masks that let everything through."""
        targets, self._skipped = self._find(self.model)
        if not self.params.get("steps"):
            raise InvalidData(
                "Pruning needs to know how long an epoch is: pass steps_per_epoch for this stream."
            )
        self._first_epoch: int | None = None
        self._step = self._planned = self._total_steps = 0
        self._install(targets)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches count from 0 again. The first epoch tells how many there are: Keras says it nowhere else."""
        self._last_batch = -1
        if self._first_epoch is None:
            self._first_epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Lays out the plan before the first step, once a resumed training knows where it began."""
        if not self._total_steps:
            self._total_steps = self.params["steps"] * (self.params["epochs"] - (self._first_epoch or 0))
        self._update_masks()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Sets the masks anew when an update has fallen due."""
        self._step += batch - self._last_batch
        self._last_batch = batch
        self._update_masks()

    def on_train_end(self, logs: Any = None) -> None:
        """Makes the zeros final, measures them, and leaves a plain model."""
        for target, constraint in self._installed:
            # Weight averaging and restored best weights may have written over the zeros.
            target.kernel.assign(masked(target.kernel, constraint.mask))
        asked = self.asked if self.pattern.scope == "layer" else None
        targets = [target for target, _ in self._installed]
        self.report = measured(targets, self._skipped, {target.name: asked for target in targets})
        remember(self.model, self.report)
        updates = self._updates() if self._total_steps else []
        if self._planned < len(updates):
            warnings.warn(
                f"Training stopped after {self._step} of {self._total_steps} steps, before the pruning schedule "
                f"ended: kernels are at {self.report.overall:.1%} instead of {updates[-1].sparsity:.0%}.",
                stacklevel=2,
            )
        self.release()

    def release(self) -> None:
        """Takes the masks off the model; weights that are zero stay zero until they are trained again."""
        for target, constraint in self._installed:
            target.kernel.constraint = constraint.inner
        self._installed = []
        # The compiled step holds the masks too.
        self.model.train_function = None

    def _find(self, model: Any) -> tuple[list[Target], dict[str, str]]:
        targets, skipped = find_targets(model, self.layers)
        targets, still = those_that_train(model, targets)
        targets, misfits = self.pattern.fitting(targets)
        return targets, {**skipped, **still, **misfits}

    def _install(self, targets: list[Target]) -> None:
        check_free([(target.name, target.kernel) for target in targets], "Prune")
        self._input_axes = [self.pattern.input_axis(target) for target in targets]
        self._last_batch = -1
        with self.model.distribute_strategy.scope():
            for target in targets:
                mask = keras.Variable(tf.ones(target.kernel.shape, target.kernel.dtype), trainable=False)
                target.kernel.constraint = Masked(mask, target.kernel.constraint, "Prune")
                self._installed.append((target, target.kernel.constraint))
        # Compiled: run op by op, an update of a small model would cost as much as several training steps.
        self._set_masks = tf.function(self._set_masks_now).get_concrete_function(
            tf.TensorSpec((), tf.float32)
        )
        # fit made its step function before this hook; made again, it traces with the masks.
        self.model.make_train_function(force=True)

    def _set_masks_now(self, sparsity: Any) -> None:
        kernels = [tf.convert_to_tensor(target.kernel.value) for target, _ in self._installed]
        masks = self.pattern.masks(kernels, sparsity, self._input_axes)
        for (target, constraint), mask in zip(self._installed, masks, strict=True):
            constraint.mask.assign(mask)
            target.kernel.assign(masked(target.kernel, constraint.mask))

    def _updates(self) -> list[Update]:
        if self._plan[0] != self._total_steps:
            self._plan = self._total_steps, self.plan_for(self._total_steps)
        return self._plan[1]

    def _update_masks(self) -> None:
        due, updates = None, self._updates()
        while self._planned < len(updates) and updates[self._planned].step <= self._step:
            due = updates[self._planned]
            self._planned += 1
        if due is None:
            return
        self._set_masks(tf.constant(due.sparsity, tf.float32))


@checked(passes_on_to=fit, also_known_as=TFMOT_NAMES)
def prune(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    sparsity: float | None = None,
    schedule: Any = None,
    layers: LayerChoice = None,
    block_size: tuple[int, int] = (1, 1),
    block_pooling: str = "AVG",
    m_by_n: tuple[int, int] | None = None,
    scope: str = "layer",
    **fit_options: Any,
) -> Any:
    """Returns a copy of the model, trained further while its smallest weights are set to zero for good.

    Args:
        model: A trained Keras model, Sequential or functional. It is not changed.
        x: As in `fit`.
        y: As in `fit`.
        sparsity: Share of zeros in every kernel at the end, in [0, 1).
        schedule: Instead, a TFMOT `PruningSchedule`.
        layers: Which kernels, as in `Prune`.
        block_size: (rows, columns) of the blocks that are kept or dropped whole.
        block_pooling: "AVG" or "MAX" of a block's magnitudes decides about it.
        m_by_n: (m, n) for m zeros in every n consecutive input channels; instead of a sparsity.
        scope: "layer" or "global": a threshold per kernel, or one for all.
        **fit_options: As in `fit`.

    Returns:
        A plain Keras model whose kernels hold exact zeros. `tfbig.sparsity` says per layer what was asked and reached,
        and what was skipped and why.

    Raises:
        InvalidOption: Not exactly one of `sparsity`, `schedule` and `m_by_n`; a schedule that outlasts the training, or
            whose last update in it falls short of its final sparsity.
        InvalidModel: The model has nothing to prune, or cannot be copied.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.random.default_rng(0).normal(size=(64, 16)); y = (x[:, 0] > 0).astype(int)
        >>> thin = tfbig.prune(tfbig.models.mlp((16,), 2), x, y, sparsity=0.5, epochs=4, verbose=0)
        >>> round(tfbig.sparsity(thin).overall, 2)
        0.5
    """
    callback = Prune(
        sparsity,
        schedule=schedule,
        layers=layers,
        block_size=block_size,
        block_pooling=block_pooling,
        m_by_n=m_by_n,
        scope=scope,
    )
    callback._find(model)  # what cannot be pruned is said before the model is copied
    thin = copy_model(model, "Prune")
    others = checks.callbacks(fit_options.pop("callbacks", ()))
    if not is_stream(x) and schedule is None:
        # Known here already, so that fit can choose how many steps run between two updates.
        rows, batch = row_count(x), positive_int("batch_size", fit_options.get("batch_size", 32))
        callback.plan_for(max(2, -(-rows // batch) * positive_int("epochs", fit_options.get("epochs", 10))))
    try:
        fit(thin, x, y, callbacks=[*others, callback], **fit_options)
    finally:
        if callback._installed:
            callback.release()
    # Over replicas it was a twin that trained, and a training that a checkpoint ends has no report of its own.
    remember(thin, callback.report or measured(*callback._find(thin)))
    return thin
