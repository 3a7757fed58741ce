"""One compiled training step for one fold, or for many folds side by side.

A fold is its state: the values of every variable of the model, of the optimizer and of the metrics, in a fixed
order. Training takes a state and returns the next one; the variables themselves are never written. Folds that train
together are the same step mapped over states that are stacked along a first axis.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.graph import stateful_random_ops
from tfbig.backend.stateless_optimizer import averages, stateless_optimizer
from tfbig.backend.vectorizing import vectorized_map
from tfbig.evaluation.fold_models import constants_of, recurrent_layers, swapped_constants, unrolled
from tfbig.evaluation.fold_rounds import Rounds, plan_rounds
from tfbig.training.flat_products import flat_products

UNROLL, _PREDICT_ROWS = 16, 512


class CannotCompile(Exception):
    """The engine cannot train this model; the message says why, as part of a sentence."""


class FoldEngine:
    """Trains folds of one architecture, with the loss, metrics and optimizer that `model` is compiled with.

    Args:
        model: A built, compiled model. It lends its layers and is not changed.
        data: "x", "y" and perhaps "weight" as tensors: all rows that any fold trains on.
        folds: How many folds train side by side; None for one fold, without the stacking.
        validation: "x", "y" and perhaps "weight" that every fold is measured on after an epoch, or None.
        unroll: Recurrent layers of at most so many time steps are traced without a loop, which is faster and,
            for several folds, also faster to trace.

    Attributes:
        traces: How often the step was traced.
    """

    def __init__(
        self,
        model: Any,
        data: Mapping[str, Any],
        folds: int | None = None,
        validation: Mapping[str, Any] | None = None,
        unroll: int = UNROLL,
    ):
        self.model, self.folds, self.traces = model, folds, 0
        self.optimizer = stateless_optimizer(model.optimizer)
        self.optimizer.build(model.trainable_variables)
        self._data, self._validation = data, validation
        self._wants_training = "training" in inspect.signature(model.call).parameters
        self._recurrent = recurrent_layers(model, unroll)
        self._build_metrics()
        self._trained = model.trainable_variables
        owned = [*self._trained, *model.variables, *self.optimizer.variables, *model.metrics_variables]
        self.variables = list({id(v): v for v in owned}.values())
        ids = {id(v): i for i, v in enumerate(self.variables)}
        self._metrics = [ids[id(v)] for v in model.metrics_variables]
        self._own = [ids[id(v)] for v in model.variables]
        self._optimizer_state = [ids[id(v)] for v in self.optimizer.variables]
        self._averages = [(ids[id(v)], ids[id(a)]) for v, a in averages(self.optimizer, self._trained)]
        # Some optimizers start from a copy of the weights; the state of others is the same for every fold.
        self._starts_from_weights = any(np.ptp(v.numpy()) > 0 for v in self.optimizer.variables)
        #: Where the weights stand in a state: what a callback means by a model's weights.
        self.weights = [ids[id(v)] for v in model.weights]
        rate = self.optimizer.learning_rate if _has_rate(self.optimizer) else None
        #: Where the learning rate stands in a state; None where a schedule decides it.
        self.rate = ids.get(id(rate))
        #: Where the optimizer's count of steps stands in a state.
        self.iterations = ids[id(self.optimizer._iterations)]
        self.validates = validation is not None
        self._fresh = [tf.convert_to_tensor(v.value) for v in self.variables]
        self._epoch, self._measure, self._predict = self._compiled()

    def initial(self, model: Any) -> list[Any]:
        """Returns the state of a fold whose fresh model is `model`: its weights, and nothing learned yet."""
        state = list(self._fresh)
        for i, variable in zip(self._own, model.variables, strict=True):
            state[i] = tf.identity(variable.value)
        if self._starts_from_weights:
            optimizer = stateless_optimizer(model.optimizer)
            optimizer.build(model.trainable_variables)
            for i, variable in zip(self._optimizer_state, optimizer.variables, strict=True):
                state[i] = tf.identity(variable.value)
        if self.rate is not None:
            state[self.rate] = tf.identity(model.optimizer.learning_rate.value)
        return state

    def assign(self, state: Sequence[Any], model: Any, optimizer: bool = False) -> None:
        """Gives a fold's model the values of its state, with `optimizer` also those of its optimizer."""
        for i, variable in zip(self._own, model.variables, strict=True):
            variable.assign(state[i])
        if optimizer:
            model.optimizer.build(model.trainable_variables)
            for i, variable in zip(self._optimizer_state, model.optimizer.variables, strict=True):
                variable.assign(state[i])

    def conclude(self, state: list[Any]) -> None:
        """Ends a training as Keras's `fit` does: averages of the weights, if the optimizer keeps any, replace them."""
        for weight, average in self._averages:
            state[weight] = state[average]

    def prepare(self) -> None:
        """Traces the training step, and the measuring one if there is validation data, and tries them once.

        Raises:
            CannotCompile: The step cannot be traced or run, or it holds what is not part of the state.
        """
        try:
            step = self._epoch.get_concrete_function()
            drawn = stateful_random_ops(step.graph)
            if drawn:
                raise CannotCompile(f"the model draws random numbers that are no fold's own ({drawn[0]})")
            state, constants = self._fresh, constants_of(self.model)
            if self.folds is not None:
                state, constants = stacked([state] * self.folds), stacked([constants] * self.folds)
            # What TensorFlow's vectorizer makes of a loop may fail only when it runs.
            self.train(state, constants, plan_rounds([np.zeros(2, np.int64)] * (self.folds or 1), 2))
            if self._measure is not None:
                self.measure(state, constants, 2)
        except CannotCompile:
            raise
        except Exception as error:  # whatever a layer, a loss or TensorFlow's vectorizer raises
            lines = str(error).strip().splitlines() or [""]
            raise CannotCompile(
                f"the step cannot be compiled ({type(error).__name__}: {lines[-1]})"
            ) from error
        known = {id(v.value) for v in self.variables}
        foreign = [v.name for v in step.graph.variables if id(v) not in known]
        if foreign:
            raise CannotCompile(f"the model uses variables that are not its own: {', '.join(foreign)}")

    def train(
        self, state: Sequence[Any], constants: Sequence[Any], rounds: Rounds
    ) -> tuple[list[Any], list[Any]]:
        """Trains one epoch; returns the new state and, per fold, the epoch's loss and metrics."""
        if not len(rounds.sizes):
            return list(state), [{}] * (self.folds or 1)
        rows = rounds.rows if self.folds else rounds.rows[:, 0]
        new, logs = self._epoch(list(state), list(constants), self._data, rows, rounds.sizes, rounds.active)
        return list(new), self._per_fold(logs)

    def measure(self, state: Sequence[Any], constants: Sequence[Any], batch_size: int) -> list[Any]:
        """Returns the loss and metrics of each fold on the validation rows."""
        assert self._measure is not None
        return self._per_fold(self._measure(list(state), list(constants), self._validation, batch_size))

    def predict(self, state: Sequence[Any], constants: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        """Returns one fold's outputs for rows of the data, shape (rows, outputs); `state` is not stacked."""
        parts = [
            self._predict(list(state), list(constants), self._data["x"], part)
            for part in np.split(rows.astype(np.int32), range(_PREDICT_ROWS, len(rows), _PREDICT_ROWS))
        ]
        return np.concatenate([np.asarray(part) for part in parts])

    def _per_fold(self, logs: Mapping[str, Any]) -> list[dict[str, Any]]:
        arrays = {name: np.asarray(logs[name]) for name in sorted(logs)}  # Keras's own order
        if self.folds is None:
            return [{name: value.tolist() for name, value in arrays.items()}]
        return [{name: value[k].tolist() for name, value in arrays.items()} for k in range(self.folds)]

    def _build_metrics(self) -> None:
        """Loss and metrics make their variables at the first batch; here it is one row, without training."""
        model, first = self.model, tf.nest.map_structure(lambda t: t[:1], self._data)
        outputs = self._call(first["x"], training=False)
        if isinstance(outputs, list | tuple | dict):
            raise CannotCompile("the model has several outputs")
        model.compute_loss(
            x=first["x"], y=first["y"], y_pred=outputs, sample_weight=first.get("weight"), training=False
        )
        model.compute_metrics(first["x"], first["y"], outputs, sample_weight=first.get("weight"))
        model.reset_metrics()

    def _call(self, x: Any, training: bool) -> Any:
        return self.model(x, training=training) if self._wants_training else self.model(x)

    def _compiled(self) -> tuple[Any, Any, Any]:
        """The epoch, the measuring of validation rows, and predicting, as functions of tensors."""
        many = [] if self.folds is None else [self.folds]

        def spec(value: Any, leading: Sequence[int | None]) -> Any:
            return tf.TensorSpec([*leading, *value.shape], value.dtype)

        values, constants = self._fresh, constants_of(self.model)
        states, stacked_constants = [spec(v, many) for v in values], [spec(v, many) for v in constants]
        data = tf.nest.map_structure(_any_rows, self._data)
        number = tf.TensorSpec([None], tf.int32)
        rows = tf.TensorSpec([None, *many, None], tf.int32)
        active = tf.TensorSpec([None, self.folds or 1], tf.bool)
        epoch = tf.function(
            self._run_epoch, [states, stacked_constants, data, rows, number, active], autograph=False
        )
        measure = None
        if self._validation is not None:
            held_out = tf.nest.map_structure(_any_rows, self._validation)
            one_number = tf.TensorSpec([], tf.int32)
            measure = tf.function(
                self._run_measure, [states, stacked_constants, held_out, one_number], autograph=False
            )
        single = [[spec(v, []) for v in values], [spec(v, []) for v in constants]]
        predict = tf.function(self._run_predict, [*single, data["x"], number], autograph=False)
        return epoch, measure, predict

    def _over_folds(self, function: Any, stacked: Any) -> Any:
        return function(stacked) if self.folds is None else vectorized_map(function, stacked)

    def _run_epoch(self, state: Any, constants: Any, data: Any, rows: Any, sizes: Any, active: Any) -> Any:
        def one_round(s: Any, *state: Any) -> Any:
            chosen = rows[s][..., : sizes[s]]
            batch = tf.nest.map_structure(lambda t: tf.gather(t, chosen), data)
            new = self._over_folds(self._step, (list(state), constants, batch))
            for value, before in zip(new, state, strict=True):
                value.set_shape(before.shape)
            return s + 1, *(new if self.folds is None else _kept(active[s], new, state))

        state = self._with_fresh_metrics(state)
        count = tf.shape(sizes)[0]
        _, *state = tf.while_loop(lambda s, *_: s < count, one_round, (0, *state), parallel_iterations=1)
        return state, self._over_folds(self._logs, state)

    def _run_measure(self, state: Any, constants: Any, data: Any, batch_size: Any) -> Any:
        state = self._with_fresh_metrics(state)
        total = tf.shape(tf.nest.flatten(data)[0])[0]

        def one_batch(start: Any, *metrics: Any) -> Any:
            batch = tf.nest.map_structure(lambda t: t[start : start + batch_size], data)
            merged = list(state)
            for i, value in zip(self._metrics, metrics, strict=True):
                merged[i] = value
            new = self._over_folds(
                lambda given: self._test_step(given[0], given[1], batch), (merged, constants)
            )
            for value, before in zip(new, metrics, strict=True):
                value.set_shape(before.shape)
            return start + batch_size, *new

        before = [state[i] for i in self._metrics]
        _, *metrics = tf.while_loop(lambda s, *_: s < total, one_batch, (0, *before), parallel_iterations=1)
        for i, value in zip(self._metrics, metrics, strict=True):
            state[i] = value
        return self._over_folds(self._logs, state)

    def _run_predict(self, state: Any, constants: Any, x: Any, rows: Any) -> Any:
        batch = tf.nest.map_structure(lambda t: tf.gather(t, rows), x)
        with self._lent(constants), self._scope(state):
            return self._call(batch, training=False)

    def _step(self, given: Any) -> list[Any]:
        """Keras's own training step on one batch of one fold: from values to values."""
        state, constants, batch = given
        self.traces += 1
        x, y, weight = batch["x"], batch["y"], batch.get("weight")
        model, trained = self.model, state[: len(self._trained)]
        with self._lent(constants), self._scope(state) as scope:
            with tf.GradientTape() as tape:
                tape.watch(trained)
                outputs = self._call(x, training=True)
                loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weight, training=True)
                self._note_loss(loss, y)
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, trained)
            self.optimizer.apply([_dense(g) for g in gradients], self._trained)
            model.compute_metrics(x, y, outputs, sample_weight=weight)
        return self._values(scope)

    def _test_step(self, state: Any, constants: Any, batch: Any) -> list[Any]:
        x, y, weight = batch["x"], batch["y"], batch.get("weight")
        with self._lent(constants), self._scope(state) as scope:
            outputs = self._call(x, training=False)
            loss = self.model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weight, training=False)
            self._note_loss(loss, y)
            self.model.compute_metrics(x, y, outputs, sample_weight=weight)
        values = self._values(scope)
        return [values[i] for i in self._metrics]

    def _note_loss(self, loss: Any, y: Any) -> None:
        tracker = next(metric for metric in self.model.metrics if metric.name == "loss")
        tracker.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(y)[0])[0])

    def _logs(self, state: Any) -> Any:
        with self._scope(state):
            results = self.model.get_metrics_result()
            return {name: tf.convert_to_tensor(value) for name, value in results.items()}

    @contextlib.contextmanager
    def _lent(self, constants: Sequence[Any]) -> Iterator[None]:
        """The model's layers, for the block, with a fold's constants, and as they are fastest."""
        with swapped_constants(self.model, constants), unrolled(self._recurrent), flat_products(self.model):
            yield

    def _scope(self, state: Any) -> Any:
        return keras.StatelessScope(zip(self.variables, state, strict=True), collect_losses=True)

    def _values(self, scope: Any) -> list[Any]:
        known = {id(v) for v in self.variables}
        if set(scope.state_mapping) - known:
            # A value written there would be lost, silently.
            raise CannotCompile("the model changes variables that are not its own")
        return [tf.convert_to_tensor(scope.get_current_value(v)) for v in self.variables]

    def _with_fresh_metrics(self, state: Any) -> list[Any]:
        state = list(state)
        for i in self._metrics:
            fresh = self._fresh[i]
            state[i] = fresh if self.folds is None else tf.broadcast_to(fresh, [self.folds, *fresh.shape])
        return state


def stacked(states: Sequence[Sequence[Any]]) -> list[Any]:
    """Returns the folds' states as one, with the folds along a first axis."""
    return [tf.stack(values) for values in zip(*states, strict=True)]


def unstacked(state: Sequence[Any], folds: int) -> Iterator[list[Any]]:
    """Yields each fold's own state of a stacked one."""
    for k in range(folds):
        yield [value[k] for value in state]


def _kept(active: Any, new: Sequence[Any], old: Sequence[Any]) -> list[Any]:
    """The new values of active folds and the old ones of the others."""

    def chosen() -> list[Any]:
        return [
            tf.where(tf.reshape(active, [-1] + [1] * (value.shape.rank - 1)), value, before)
            for value, before in zip(new, old, strict=True)
        ]

    return tf.cond(tf.reduce_all(active), lambda: list(new), chosen)


def _any_rows(tensor: Any) -> Any:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def _dense(gradient: Any) -> Any:
    # An embedding's gradient names rows, some more than once; optimizers want their sum.
    return gradient if gradient is None else tf.convert_to_tensor(gradient)


def _has_rate(optimizer: Any) -> bool:
    return isinstance(getattr(optimizer, "_learning_rate", None), keras.Variable)
