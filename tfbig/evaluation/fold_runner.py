"""Trains every fold: together where that can be done and pays, else one after another."""

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.internals import settings_of
from tfbig.backend.seeds import reseed, seeded
from tfbig.data.checking import check_filled, take_rows
from tfbig.errors import InvalidModel, TfbigError
from tfbig.evaluation.fold_engine import UNROLL, CannotCompile, FoldEngine
from tfbig.evaluation.fold_models import check_same_architecture, recurrent_layers, settings_difference
from tfbig.evaluation.fold_plan import (
    WORTH_TRACING,
    bytes_per_fold,
    folds_side_by_side,
    reason_against,
    seconds_per_epoch,
)
from tfbig.evaluation.fold_training import Fold, Schedule, train_folds
from tfbig.training import checks
from tfbig.training.building import build_model
from tfbig.training.compiling import accumulate, compile_for_arrays, set_learning_rate
from tfbig.training.feeding import weights_of_rows
from tfbig.training.fit import fit
from tfbig.training.objectives import fit_targets, infer_task
from tfbig.training.optimizers import get_optimizer

_UNROLL_IF_NEEDED = 64


class FoldRunner:
    """Trains folds in turn or side by side, and remembers how.

    Args:
        build: The builder.
        x: Inputs: an array, or arrays by the name of the input.
        y: Targets.
        fit_options: Of `fit`.
        keep_optimizer: Whether models are handed on to someone who may train further.

    Attributes:
        mode: "together" or "sequential", as folds were trained.
        fallback: Why not together, or None.
    """

    def __init__(
        self, build: Any, x: Any, y: np.ndarray, fit_options: Mapping[str, Any], keep_optimizer: bool
    ):
        self.mode = "sequential"
        self.fallback: str | None = None
        self._build, self._x, self._y, self._keep_optimizer = build, x, y, keep_optimizer
        self._options = dict(fit_options)
        self._callbacks = checks.callbacks(self._options.get("callbacks"))
        self._weights = checks.sample_weight(self._options.pop("sample_weight", None), len(y))
        self._optimizer = self._options.pop("optimizer", None)
        self._settings = None
        if isinstance(self._optimizer, keras.optimizers.Optimizer):
            # Now: a schedule or callback may change the learning rate in a fold.
            self._settings = settings_of(self._optimizer)
        self._schedule = Schedule(
            self._options.get("epochs", 10),
            self._options.get("batch_size", 32),
            self._options.get("shuffle", True),
            self._callbacks,
            self._options.get("verbose", 0),
        )
        self._rate = self._options.pop("learning_rate", None)
        self._accumulated = self._options.pop("gradient_accumulation", 1)
        self._first: Any = None
        self._task: str | None = None

    def begin(self, fold: Fold) -> str | None:
        """Builds the first fold's model, which the others are compared with.

        Returns:
            The task that its head and all of y make, or None if they do not say.
        """
        self._make(fold)
        self._first = fold.model
        check_filled(fold.model, self._x)
        try:
            return infer_task(fold.model, self._y)
        except InvalidModel:
            return None

    def run(
        self, folds: Sequence[Fold], how: str, max_memory: int | None, share: float = 1.0
    ) -> Iterator[Fold]:
        """Yields the folds, trained, in their order; a fold that was yielded is held no longer.

        Args:
            folds: Without models, but for the first that `begin` was given.
            how: "auto", "together" or "sequential".
            max_memory: Bytes for all folds that train at once, or None.
            share: The part of the free memory that is this process's.
        """
        reason = reason_against(self._first, self._options, self._callbacks)
        engines: tuple[FoldEngine | None, FoldEngine | None] = (None, None)
        if reason is None:
            try:
                engines = self._engines(folds, how, max_memory, share)
            except CannotCompile as error:
                reason = str(error)
        if reason is not None:
            self.fallback = reason
        alone, together = engines
        if together is not None:
            yield from self._side_by_side(together, folds)
        else:
            for fold in folds:
                self._make(fold)
                if alone is None or self._differs(fold):
                    self._fit(fold)
                else:
                    train_folds(alone, [fold], self._schedule, self._keep_optimizer)
                yield _let_go(fold)

    def _engines(
        self, folds: Sequence[Fold], how: str, max_memory: int | None, share: float
    ) -> tuple[FoldEngine | None, FoldEngine | None]:
        """The engine for one fold or that for several, whichever is to be used."""
        data, validation = map(_tensors, self._training_data())

        def engine(width: int | None, unroll: int = UNROLL) -> FoldEngine:
            try:
                made = FoldEngine(self._first, data, width, validation, unroll)
            except (CannotCompile, TfbigError):
                raise
            except Exception as error:
                # Such as a loss that does not fit the targets: `fit` will say so in its own words.
                raise CannotCompile(f"{type(error).__name__}: {error}") from error
            try:
                made.prepare()
            except CannotCompile:
                # TensorFlow does not vectorize the loop of a masked recurrent layer.
                if width is None or unroll != UNROLL or not recurrent_layers(self._first, _UNROLL_IF_NEEDED):
                    raise
                return engine(width, _UNROLL_IF_NEEDED)
            return made

        if how == "together" and len(folds) == 1:
            self.fallback = "there is one fold"
        if how == "sequential" or len(folds) == 1:
            return engine(None), None
        alone = None
        if how == "auto":
            alone = engine(None)
            in_turn = seconds_per_epoch(alone, folds, self._schedule) * self._schedule.epochs
            if in_turn < WORTH_TRACING:
                self.fallback = f"about {in_turn:.1f} s of training are not worth a larger graph"
                return alone, None
        held_out = 0 if validation is None else len(validation["y"])
        each = bytes_per_fold(self._first, self._x, self._schedule.batch_size, held_out)
        width = folds_side_by_side(len(folds), each, max_memory, share)
        if width == 1:
            self.fallback = f"two folds would need about {2 * each / 2**20:.0f} MiB at once"
            return alone or engine(None), None
        try:
            together = engine(width)
        except CannotCompile as error:
            self.fallback = str(error)
            return alone or engine(None), None
        if alone is not None:
            at_once = seconds_per_epoch(together, folds, self._schedule) * self._schedule.epochs
            if at_once > in_turn:
                self.fallback = f"measured slower: {at_once:.1f} s against {in_turn:.1f} s one after another"
                return alone, None
        return None, together

    def _side_by_side(self, engine: FoldEngine, folds: Sequence[Fold]) -> Iterator[Fold]:
        width = engine.folds or 1
        for start in range(0, len(folds), width):
            group = list(folds[start : start + width])
            for fold in group:
                self._make(fold)
            alike = [fold for fold in group if not self._differs(fold)]
            if len(alike) > 1:
                self.mode = "together"
            if alike:
                train_folds(engine, alike, self._schedule, self._keep_optimizer)
            for fold in group:
                if fold not in alike:
                    self._fit(fold)
                yield _let_go(fold)

    def _make(self, fold: Fold) -> None:
        """Builds and compiles the fold's fresh model, from its seed and its training rows."""
        if fold.model is not None:
            return
        began = time.perf_counter()
        x, y = take_rows(self._x, fold.train), self._y[fold.train]
        with seeded(fold.seed):
            model = build_model(self._build, x, y)
            checks.fits_input(model, self._x)
            if self._first is not None:
                check_same_architecture(self._first, model, fold.number)
            optimizer = self._optimizer
            if self._settings is not None:
                optimizer = type(self._optimizer).from_config(self._settings)
            elif optimizer is not None:
                optimizer = get_optimizer(optimizer)
            asked = [self._options.get(name) for name in ("loss", "metrics")]
            task = compile_for_arrays(model, self._y, optimizer, *asked)
            added = self._set_pace(model, len(fold.train))
            reseed(model, fold.seed)
        if self._first is None:
            self._task = task
            self._callbacks = [*self._callbacks, *added]
            self._schedule = dataclasses.replace(self._schedule, callbacks=self._callbacks)
        fold.model, fold.seconds = model, fold.seconds + time.perf_counter() - began

    def _set_pace(self, model: Any, rows: int) -> list[Any]:
        """Learning rate and accumulation as `fit` sets them; returns the callbacks that belong to the rate."""
        steps = -(-rows // self._schedule.batch_size)
        validated = self._options.get("validation_data") is not None
        added = set_learning_rate(model, self._rate, steps, self._schedule.epochs, validated)
        accumulate(model, self._accumulated)
        return added

    def _training_data(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """What the compiled step needs of the data: targets in the loss's form, one weight per row if any."""
        y = self._y if self._task is None else fit_targets(self._task, self._first, self._y)
        data: dict[str, Any] = {"x": self._x, "y": y}
        by_class = checks.class_weight(self._options.get("class_weight"), self._weights, self._task, y)
        weight = weights_of_rows(y, self._weights, by_class)
        if weight is not None:
            data["weight"] = weight
        given = checks.validation(self._options.get("validation_data"), self._first, self._task)
        if given is None:
            return data, None
        validation = dict(zip(("x", "y", "weight"), given, strict=False))
        return data, {name: value for name, value in validation.items() if value is not None}

    def _differs(self, fold: Fold) -> bool:
        """Whether this fold's model computes otherwise than the first one, so that it must be fitted by itself."""
        if fold.model is self._first:
            return False
        found = settings_difference(self._first, fold.model)
        if found and self.fallback is None:
            self.fallback = f"the builder makes fold {fold.number} differ ({found})"
        return found is not None

    def _fit(self, fold: Fold) -> None:
        """Fits one fold by itself, as `fit` does it."""
        # A callback remembers, such as the best score so far: each fold has its own.
        own = [copy.copy(callback) for callback in self._callbacks]
        options = {"verbose": 0, **self._options, "callbacks": own, "seed": fold.seed}
        if options.get("checkpoint_dir") is not None:
            options["checkpoint_dir"] = Path(options["checkpoint_dir"]) / f"fold-{fold.number}"
        weight = None if self._weights is None else self._weights[fold.train]
        began = time.perf_counter()
        x, y = take_rows(self._x, fold.train), self._y[fold.train]
        run = fit(fold.model, x, y, sample_weight=weight, **options)
        fold.history, fold.seconds = dict(run.history), fold.seconds + time.perf_counter() - began


def _tensors(data: Any) -> Any:
    # Once, for every engine that is made.
    return None if data is None else tf.nest.map_structure(tf.convert_to_tensor, data)


def _let_go(fold: Fold) -> Fold:
    """A copy for the consumer; hundreds of folds must not keep hundreds of models."""
    given = Fold(**vars(fold))
    fold.model = fold.outputs = None
    return given
