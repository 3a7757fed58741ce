"""One gradient step, and many in one call: the same numbers on one device and on any number of replicas."""

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.distribution import (
    build_for,
    compiled_loss,
    compiled_metrics,
    gradients_reduced_already,
    loss_tracker,
    record_losses_as_they_are,
)
from tfbig.backend.internals import every_layer
from tfbig.errors import InvalidModel
from tfbig.training.flat_products import flat_products
from tfbig.training.global_loss import rows_in_replicas

# A model that overrides one of these trains by its own rules; tfbig's step would bypass them.
_OWN_RULES = ("train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function")
# Where a model keeps its step between two fits.
_TRACED = "_tfbig_step"


def has_own_rules(model: Any) -> str | None:
    """Returns the name of the first method by which the model replaces Keras's training, or None."""
    bases = (keras.Model, keras.Sequential)
    plain: dict[str, set[Any]] = {name: {getattr(base, name) for base in bases} for name in _OWN_RULES}
    return next((name for name in _OWN_RULES if getattr(type(model), name) not in plain[name]), None)


def step_of(model: Any, *, jit_compile: bool = False, check: bool = False) -> "TrainStep":
    """Returns the step for a model on one device: the one traced before, if all that it was traced with is the same.

    It stays with the model, as the function does that Keras's own `fit` leaves there.
    """
    made_of = [model.optimizer, compiled_loss(model), compiled_metrics(model), loss_tracker(model)]
    made_of += [part for v in model.trainable_variables for part in (v, v.constraint)]
    made_of.append(vars(model).get("call"))  # rematerialize.py puts another one there
    known, step = vars(model).get(_TRACED, ((), None))
    same = len(known) == len(made_of) and all(map(operator.is_, known, made_of))
    if not same or (step._jit_compile, step._check) != (jit_compile, check):
        step = TrainStep(model, jit_compile=jit_compile, check=check)
        vars(model)[_TRACED] = (made_of, step)
    return step


class TrainStep:
    """Compiled functions that train and measure a model on batches, the replicas' shares weighted exactly.

    A batch is cut into one slice per replica, as even as its rows allow. With the losses of `GlobalLoss`, summed
    gradients are those of the whole batch on one device; the optimizer then acts once, on all copies of the
    weights. A batch of fewer rows than replicas is given to every replica whole.
    """

    def __init__(self, model: Any, strategy: Any = None, *, jit_compile: bool = False, check: bool = False):
        """Prepares the functions; they are traced at the first call.

        Args:
            model: A compiled model; made in the strategy's scope, with `GlobalLoss`es, if there is one.
            strategy: A `tf.distribute.Strategy`, or None for one device.
            jit_compile: Whether XLA compiles the step of a single device.
            check: Whether every batch is checked for NaN and infinite values.
        """
        self.model = model
        self.strategy = strategy
        self._check, self._jit_compile = check, jit_compile
        self._takes_training = "training" in inspect.signature(model.call).parameters
        train = self._train_on_one if strategy is None else self._train_on_all
        test = self._test_on_one if strategy is None else self._test_on_all
        if jit_compile and strategy is None:
            train, test = tf.function(train, jit_compile=True), tf.function(test, jit_compile=True)
        self.train_rows, self.train_stream = self._compiled(train)
        self.test_rows, self.test_stream = self._compiled(test)

    def untraced(self) -> "TrainStep":
        """Returns the same step, to be traced again: what was traced holds the model's constraints of then."""
        return TrainStep(self.model, self.strategy, jit_compile=self._jit_compile, check=self._check)

    def build(self, batch: Any) -> None:
        """Makes the variables of model, loss, metrics and optimizer for batches like this (x, y, weight)."""
        if self.strategy is None:
            build_for(self.model, batch)
        else:
            with self.strategy.scope():
                build_for(self.model, batch)
            record_losses_as_they_are(self.model, self.strategy.num_replicas_in_sync)

    def _compiled(
        self, on_batch: Callable[[Any, Any], None]
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Two functions that run a number of steps and return the metrics: over rows, and from an iterator."""

        def traced(data: Any, rows: Any) -> None:
            # Here, not around the model's call: replicas are traced in threads, which would undo each other's.
            with flat_products(self.model):
                on_batch(data, rows)

        @tf.function(reduce_retracing=True, autograph=False)
        def over_rows(data: Any, order: Any, batch_size: Any) -> Any:
            rows = tf.shape(order)[0]

            def step(start: Any) -> tuple[Any]:
                stop = tf.minimum(start + batch_size, rows)
                traced(data, order[start:stop])
                return (stop,)

            tf.while_loop(lambda start: start < rows, step, [tf.constant(0)])
            return self.model.get_metrics_result()

        @tf.function(reduce_retracing=True, autograph=False)
        def from_iterator(iterator: Any, steps: Any, first: Any) -> Any:
            def step(done: Any, more: Any) -> tuple[Any, Any]:
                batch = iterator.get_next_as_optional()

                def train() -> Any:
                    traced(self._checked(batch.get_value(), first + done), None)
                    return tf.constant(True)

                more = tf.cond(batch.has_value(), train, lambda: tf.constant(False))
                return done + tf.cast(more, done.dtype), more

            done, _ = tf.while_loop(
                lambda done, more: tf.logical_and(more, done < steps),
                step,
                [tf.constant(0), tf.constant(True)],
            )
            return done, self.model.get_metrics_result()

        return over_rows, from_iterator

    def _checked(self, batch: Any, step: Any) -> Any:
        if not self._check:
            return batch
        for part, value in zip(("x", "y", "sample_weight"), _triple(batch), strict=True):
            for tensor in keras.tree.flatten(value):
                if tensor is not None and tensor.dtype.is_floating:
                    finite = tf.reduce_all(tf.math.is_finite(tensor))
                    tf.debugging.Assert(finite, [NOT_FINITE, part, step])
        return batch

    # One device.

    def _train_on_one(self, data: Any, rows: Any) -> None:
        gradients = self._gradients(_taken(data, rows), share=1.0, counted=None)
        self.model.optimizer.apply(gradients, self.model.trainable_variables)

    def _test_on_one(self, data: Any, rows: Any) -> None:
        self._measure(_taken(data, rows), counted=None)

    # Every replica of a strategy.

    def _train_on_all(self, data: Any, rows: Any) -> None:
        def on_replica(data: Any, rows: Any) -> Any:
            part, share, counted, copies = self._slice(data, rows)
            with rows_in_replicas(copies, share), self._own_chances():
                return self._gradients(part, share, counted)

        variables = self.model.trainable_variables
        gradients = self.strategy.run(on_replica, (data, rows))
        known = [
            (gradient, v.value)
            for gradient, v in zip(gradients, variables, strict=True)
            if gradient is not None
        ]
        summed = iter(self.strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, known))
        gradients = [None if gradient is None else next(summed) for gradient in gradients]
        with gradients_reduced_already(self.model.optimizer):
            self.model.optimizer.apply(gradients, variables)

    def _test_on_all(self, data: Any, rows: Any) -> None:
        def on_replica(data: Any, rows: Any) -> None:
            part, share, counted, copies = self._slice(data, rows)
            with rows_in_replicas(copies, share), self._own_chances():
                self._measure(part, counted)

        self.strategy.run(on_replica, (data, rows))

    def _slice(self, data: Any, rows: Any) -> tuple[Any, Any, Any, Any]:
        """This replica's part of a batch, its share of it, whether it counts in metrics, and how many have it."""
        context = tf.distribute.get_replica_context()
        replicas, replica = context.num_replicas_in_sync, context.replica_id_in_sync_group
        total = _row_count(data) if rows is None else tf.shape(rows)[0]
        enough = total >= replicas
        start = tf.where(enough, total * replica // replicas, 0)
        stop = tf.where(enough, total * (replica + 1) // replicas, total)
        with tf.device("CPU:0"):  # so that a GPU is sent its own rows only
            if rows is None:
                part = keras.tree.map_structure(lambda value: value[start:stop], data)
            else:
                part = _taken(data, rows[start:stop])
        whole = tf.cast(total, tf.float32)
        share = tf.where(enough, tf.cast(stop - start, tf.float32) / whole, 1.0 / replicas)
        counted = tf.logical_or(enough, tf.equal(replica, 0))
        return _triple(part), share, counted, tf.where(enough, 1, replicas)

    @contextlib.contextmanager
    def _own_chances(self) -> Iterator[None]:
        """Lets each replica draw its own dropout masks and noise, where equal seeds would give all the same.

        Seeds are moved apart for the step only: between steps they are equal, as a checkpoint and the user's model
        have them.
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        states = [v for v in self.model.non_trainable_variables if v.path.endswith("seed_generator_state")]
        apart = [tf.cast(replica, v.dtype) * tf.constant([_BETWEEN_SEEDS, 0], v.dtype) for v in states]
        for state, by in zip(states, apart, strict=True):
            state.assign(state.value + by)
        yield
        for state, by in zip(states, apart, strict=True):
            state.assign(state.value - by)

    # What both do.

    def _outputs(self, x: Any, training: bool) -> tuple[Any, Any]:
        """The model's outputs, and the sum of the losses its layers added, which the next call of it forgets."""
        outputs = self.model(x, training=training) if self._takes_training else self.model(x)
        losses = self.model.losses
        if self.strategy is not None:
            self._check_losses(losses)
        return outputs, tf.add_n(
            [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in losses] or [tf.zeros(())]
        )

    def _check_losses(self, losses: list[Any]) -> None:
        """What replicas would add up to something else than one device does."""
        if any(loss.shape.rank for loss in losses):
            raise InvalidModel(
                f"A layer of {self.model.name!r} adds a loss of several values. Over replicas it must be one number, "
                "the mean over rows, as Keras's activity regularizers are: add_loss(tf.reduce_mean(...)). Or train "
                "on one device, strategy=None."
            )
        of_weights = sum(v.regularizer is not None for v in self.model.trainable_variables)
        synchronized = any(getattr(layer, "synchronized", False) for layer in every_layer(self.model))
        if synchronized and len(losses) > of_weights:
            raise InvalidModel(
                f"The model {self.model.name!r} adds losses that depend on the data (activity regularizers, add_loss) "
                "and synchronizes batch normalization: Keras keeps one list of such losses for all replicas, which "
                "waiting for each other mixes up. Use another normalization, or one device."
            )

    def _gradients(self, data: Any, share: Any, counted: Any) -> list[Any]:
        model, (x, y, weight) = self.model, data
        with tf.GradientTape() as tape:
            outputs, extra = self._outputs(x, training=True)
            loss = self._data_loss(y, outputs, weight)
            # Penalties on weights are the same in every replica; shares of one add up to counting them once.
            total = model.optimizer.scale_loss(loss + extra * tf.cast(share, extra.dtype))
        gradients = tape.gradient(total, model.trainable_variables)
        self._record(x, y, weight, outputs, loss + extra, counted)
        return gradients

    def _measure(self, data: Any, counted: Any) -> None:
        x, y, weight = data
        outputs, extra = self._outputs(x, training=False)
        self._record(x, y, weight, outputs, self._data_loss(y, outputs, weight) + extra, counted)

    def _data_loss(self, y: Any, outputs: Any, weight: Any) -> Any:
        function = compiled_loss(self.model)
        loss = None if function is None else function(y, outputs, weight)
        return tf.zeros(()) if loss is None else loss

    def _record(self, x: Any, y: Any, weight: Any, outputs: Any, loss: Any, counted: Any) -> None:
        def record() -> Any:
            loss_tracker(self.model).update_state(loss, sample_weight=_row_count(x))
            metrics = compiled_metrics(self.model)
            if metrics is not None:
                metrics.update_state(y, outputs, weight)
            return tf.constant(0)

        if counted is None:
            record()
        else:
            tf.cond(counted, record, lambda: tf.constant(0))


# Odd, so that no two replicas meet; far more than the seeds of one model are apart.
_BETWEEN_SEEDS = 0x9E3779B1

# How the message of a batch that is not finite begins; `fit` turns it into an error that names the batch.
NOT_FINITE = "tfbig: not finite"


def _triple(batch: Any) -> tuple[Any, Any, Any]:
    return keras.utils.unpack_x_y_sample_weight(batch)


def _taken(data: Any, rows: Any) -> tuple[Any, Any, Any]:
    """The rows of (x, y, weight), gathered; `rows` None takes the batch as it is."""
    if rows is None:
        return _triple(data)
    return _triple(keras.tree.map_structure(lambda value: tf.gather(value, rows), data))


def _row_count(structure: Any) -> Any:
    return tf.shape(keras.tree.flatten(structure)[0])[0]
