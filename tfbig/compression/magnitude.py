"""Magnitude pruning of Keras 3 models, by TFMOT's masks and schedules."""

import warnings
from typing import Any

from tfbig.backend import keras
from tfbig.compression.copies import copy_model
from tfbig.compression.holding import check_free, take_off_leftovers
from tfbig.compression.masks import TFMOT_NAMES, check_pattern
from tfbig.compression.planned_masks import PlannedMasks
from tfbig.compression.schedules import Update, check_aim, default_schedule, plan
from tfbig.compression.sparsity import SparsityReport, measured, remember
from tfbig.compression.targets import LayerChoice, Target, find_targets, those_that_train
from tfbig.errors import InvalidData, InvalidOption
from tfbig.options import checked
from tfbig.training import checks
from tfbig.training.fit import fit


class Prune(keras.callbacks.Callback):
    """Prunes the smallest weights while a model trains, in tfbig's `fit` or a bare `model.fit`.

    The model needs no wrapper and no new compile; a loop of your own calls it by a `keras.callbacks.CallbackList`, as
    `examples/compress_in_your_own_loop.py` shows. Each kernel is held to its mask inside the compiled step; the
    masks are set anew as the schedule says. When training ends the model is a plain Keras model again, with
    zeros where the masks are. Among callbacks that put weights back (EarlyStopping with
    `restore_best_weights`), this one comes last. A layer that is frozen is skipped, as nothing could heal it.

    Attributes:
        report: After training, a `SparsityReport`: what was asked and reached per layer, what was skipped.
            `tfbig.sparsity(model)` says so too, for as long as the model lives.
        steps_between: Lets `fit` compile many steps into one call: masks are set anew inside of it.
    """

    steps_between = 1 << 30

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
                sparse hardware speeds up. Needs no sparsity. With a schedule, which weights are zero is decided anew
                whenever it prunes; its sparsity is not used.
            scope: "layer" gives every kernel the same sparsity; "global" sets one threshold for all kernels, so
                that layers with small weights give more.

        Raises:
            InvalidOption: Not exactly one of `sparsity`, `schedule` and `m_by_n` (a schedule and `m_by_n` go together),
                or a value that makes no sense.

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
        self._masks: PlannedMasks | None = None
        self._step, self._last_batch = 0, -1
        # Steps that the plan is for, and the plan. A checkpoint brings the position back, and the steps; not the plan.
        self._plan: tuple[int, list[Update]] = (0, [])

    def plan_for(self, total_steps: int) -> list[Update]:
        """Returns the updates that a training of so many gradient steps would see; trains nothing."""
        if self.pattern.m_by_n is None:
            return plan(self.schedule or default_schedule(self.asked or 0.0, total_steps), total_steps)
        if self.schedule is None:
            return [Update(0, self.asked or 0.0)]
        # The form decides how many zeros there are; the schedule, when the smallest weights are looked for.
        updates = plan(self.schedule, total_steps, sparsity_counts=False)
        return [Update(update.step, self.asked or 0.0) for update in updates]

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
        check_free([(target.name, target.kernel) for target in targets], "Prune")
        self._first_epoch: int | None = None
        self._step = self._planned = self._total_steps = 0
        self._plan = (0, [])
        self._last_batch = -1
        with self.model.distribute_strategy.scope():
            self._masks = PlannedMasks(targets, self.pattern, self.model.trainable_variables)
        # fit made its step function before this hook; made again, it traces with the masks.
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches count from 0 again. The first epoch tells how many there are: Keras says it nowhere else."""
        self._last_batch = -1
        if self._first_epoch is None:
            self._first_epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Lays out the plan before the first step, once a resumed training knows where it began."""
        if not self._total_steps:
            self._total_steps = self.params["steps"] * (self.params["epochs"] - (self._first_epoch or 0))
        assert self._masks is not None
        if self._plan[0] != self._total_steps:
            try:
                self._plan = self._total_steps, self.plan_for(self._total_steps)
            except InvalidOption:
                self.release()
                raise
            self._masks.lay_out(self._plan[1], self._total_steps, self._step)
        due = self._fallen_due()
        if due is not None:  # before the first step
            self._masks.set_now(due.sparsity)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the steps; the masks have followed the plan inside of them."""
        # Keras names the last batch of a full call, also where an epoch ends inside of it.
        batch = min(batch, self.params["steps"] - 1)
        self._step += batch - self._last_batch
        self._last_batch = batch
        assert self._masks is not None
        due = self._fallen_due()
        # The step has not counted itself: masks may not be in it, as in one that was compiled before they were put on.
        if self._masks.catch_up(self._step):
            if due is None:
                self._masks.hold()
            else:
                self._masks.set_now(due.sparsity)

    def on_train_end(self, logs: Any = None) -> None:
        """Makes the zeros final, measures them, and leaves a plain model."""
        assert self._masks is not None
        self._masks.hold()
        of_each, of_all = (self.asked, None) if self.pattern.scope == "layer" else (None, self.asked)
        names = {target.name: of_each for target in self._masks.targets}
        self.report = measured(self._masks.targets, self._skipped, names, of_all)
        remember(self.model, self.report)
        updates = self._plan[1]
        if self._planned < len(updates):
            warnings.warn(
                f"Training stopped after {self._step} of {self._total_steps} steps, before the pruning schedule "
                f"ended: kernels are at {self.report.overall:.1%} instead of {updates[-1].sparsity:.0%}.",
                stacklevel=2,
            )
        self.release()

    def release(self) -> None:
        """Takes the masks off the model; weights that are zero stay zero until they are trained again."""
        if self._masks is None:
            return
        self._masks.take_off()
        self._masks = None
        # The compiled step holds the masks too.
        self.model.train_function = None

    def _find(self, model: Any) -> tuple[list[Target], dict[str, str]]:
        targets, skipped = find_targets(model, self.layers)
        targets, still = those_that_train(model, targets)
        targets, misfits = self.pattern.fitting(targets)
        return targets, {**skipped, **still, **misfits}

    def _fallen_due(self) -> Update | None:
        """The last update that is due by now and was not before."""
        due, updates = None, self._plan[1]
        while self._planned < len(updates) and updates[self._planned].step <= self._step:
            due = updates[self._planned]
            self._planned += 1
        return due


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
        m_by_n: (m, n) for m zeros in every n consecutive input channels; instead of a sparsity. A schedule may come
            along and say when.
        scope: "layer" or "global": a threshold per kernel, or one for all.
        **fit_options: As in `fit`.

    Returns:
        A plain Keras model whose kernels hold exact zeros. `tfbig.sparsity` says per layer what was asked and reached,
        and what was skipped and why.

    Raises:
        InvalidOption: Not exactly one of `sparsity`, `schedule` and `m_by_n` (a schedule and `m_by_n` go together); a
            schedule that outlasts the training, or whose last update in it falls short of its final sparsity.
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
    try:
        fit(thin, x, y, callbacks=[*others, callback], **fit_options)
    finally:
        callback.release()
    # Over replicas it was a twin that trained, and a training that a checkpoint ends has no report of its own.
    remember(thin, callback.report or measured(*callback._find(thin)))
    return thin
