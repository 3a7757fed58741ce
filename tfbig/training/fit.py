"""`fit`: Keras's own loop, with the choices made and the nonsense refused before it starts."""

import os
import random
from collections.abc import Iterable, Mapping
from typing import Any

from tfbig.backend import keras
from tfbig.backend.seeds import reseed, seeded
from tfbig.data.checking import check_filled, check_pair, is_stream, row_count, takes_missing
from tfbig.options import checked, positive_int
from tfbig.training import checks
from tfbig.training.building import build_model, is_builder, make_weights
from tfbig.training.compiling import accumulate, compile_for_arrays, compile_for_stream, set_learning_rate
from tfbig.training.feeding import weights_of_rows
from tfbig.training.first_batch import check_order, check_stream, check_targets, first_batch, stream_steps
from tfbig.training.objectives import fit_targets
from tfbig.training.precision import check_precision
from tfbig.training.replicas import copied
from tfbig.training.resuming import Every, check_every
from tfbig.training.run import Run
from tfbig.training.session import Session
from tfbig.training.strategies import is_multi_worker, scope_of, strategy_of, told_of_lost_workers


@checked()
def fit(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    strategy: Any = "auto",
    epochs: int = 10,
    batch_size: int = 32,
    validation_data: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | str | None = None,
    shuffle: bool = True,
    optimizer: Any = None,
    learning_rate: Any = None,
    loss: Any = None,
    metrics: Iterable[Any] | None = None,
    callbacks: Iterable[Any] = (),
    precision: str | None = None,
    gradient_accumulation: int = 1,
    rematerialize: bool | int = False,
    steps_per_execution: int | str = "auto",
    jit_compile: bool | str = "auto",
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: Every = "epoch",
    seed: int | None = None,
    verbose: int | str = "auto",
) -> Run:
    """Trains a model by `keras.Model.fit`, after checking that the data, the model and the options fit together.

    A model that is not compiled gets the optimizer, loss and metrics of its task; one that is compiled keeps
    its own unless others are passed.

    Args:
        model: A `keras.Model`, trained in place, or a builder: a function of nothing, of (x) or of (x, y) that
            returns one.
        x: Inputs of shape (rows, ...): an array, lists, pandas; a dict of these by name for a model of several
            inputs. Or a stream of batches: `tf.data.Dataset`, `keras.utils.PyDataset`, a generator.
        y: Targets: whole-number labels or values of shape (rows,), or (rows, outputs). None for a stream.
        strategy: Devices and machines, as in `tfbig.strategy`: "auto" takes all GPUs, and the workers of TF_CONFIG or
            Slurm; for a model that was made in the scope of a strategy, that one. A model is made again on them and
            gets its weights back; a builder is called in their scope. The result is that of one device, but for
            dropout and noise, which each replica draws for itself; batch normalization is synchronized. A loss must
            then give one value per row, and a layer's `add_loss` a mean over rows, as Keras's activity regularizers
            do; a metric function that gives one number for a batch is exact if it is a mean over rows, else the mean
            of the replicas' own numbers. Callbacks that write may be the chief's alone; those that stop or change the
            training must be the same in all workers.
        epochs: Times every row is seen.
        batch_size: Rows per gradient step, on all replicas together; streams bring their own.
        validation_data: `(x, y)` or `(x, y, sample_weight)` measured after each epoch, or a stream.
        sample_weight: Weight of each row in the loss, shape (rows,).
        class_weight: Label to weight; "balanced" gives each class the same weight in all, as in scikit-learn. A stream
            takes the former only.
        shuffle: Whether rows are shuffled anew in each epoch.
        optimizer: A name ("adam", "sgd", …) or a Keras optimizer; Adam by default.
        learning_rate: A number, a Keras schedule, or the name of one that spans this training and has the
            optimizer's own rate at its height: "cosine" (with warm-up), "one_cycle", "linear", "exponential", "step",
            "plateau", "constant".
        loss: Any Keras loss, by name, function or object; chosen by task by default. One by name, such as
            "binary_focal_crossentropy", is told whether the model gives logits; where one wants one-hot labels, such as
            for label smoothing, whole-number labels will do.
        metrics: Any Keras metrics; by name they read logits as the loss does. Accuracy or mean absolute error by
            default.
        callbacks: Keras callbacks.
        precision: "mixed_bfloat16" or "mixed_float16" computes in 16 bits while weights stay float32, and the model
            is itself again after training; None leaves its precision as it is.
        gradient_accumulation: Batches whose gradients are averaged for one step of the optimizer.
        rematerialize: True, or a number of segments, forgets activations on the way forward and computes them again
            on the way back: a deep model trains in less memory, in about a third more time.
        steps_per_execution: Gradient steps compiled into one call, between which no progress is shown. "auto" takes
            up to 64, of generators 1, when no callback watches single batches (of training or validation), which
            saves more than half of a small model's time; 1 is Keras's own.
        jit_compile: Whether XLA compiles the step of one device. "auto" does on a GPU if the model's `compile` said
            so; on a CPU compiling takes longer than a small model trains.
        checkpoint_dir: A folder for checkpoints. A training that is killed and started again with the same line
            goes on from the last one and ends with the same weights, bit for bit on a CPU. One that has ended is
            not trained again. A stream must give the same batches each time it is iterated: of tf.data without a
            shuffle of its own, that is, but `stream_csv` and `stream_tfrecord` shuffle by epoch and seed.
        checkpoint_every: How often inside an epoch: a number of gradient steps or a `datetime.timedelta`.
            "epoch" writes after each epoch only.
        seed: Seeds shuffling, dropout and, for a builder, the initial weights. Global generators are put back
            as they were.
        verbose: 0 silent, 1 progress bar, 2 a line per epoch, "auto" as Keras decides.

    Returns:
        A `Run`: Keras's History with `.model`, `.seconds` and `.examples_per_second`.

    Raises:
        InvalidData: Lengths differ, values are NaN or infinite or text, labels lie outside the classes; a stream
            is empty, never ends, or is a generator and there are several epochs.
        InvalidModel: The model's outputs do not fit y, or the builder returns no model.
        InvalidOption: An option's value makes no sense.
        UnknownOption: There is no such option.
        WorkerLost: Another process of a training on several machines died, froze or cannot be reached. All that are
            left notice within some 10 seconds; one that answers but is slow is waited for, however long.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> run = tfbig.fit(tfbig.models.mlp((4,), 2), x, (x[:, 0] > 0).astype(int), epochs=2, verbose=0)
        >>> sorted(run.history), len(run.history["loss"])
        (['accuracy', 'loss'], 2)
    """
    epochs, batch_size = positive_int("epochs", epochs), positive_int("batch_size", batch_size)
    callbacks = checks.callbacks(callbacks)
    jit_compile = checks.jit_compile(jit_compile)
    streaming = is_stream(x)
    chosen = strategy_of(model, strategy)
    if streaming:
        checks.nothing_beside_a_stream(y, sample_weight)
        check_stream(x, epochs)
    else:
        x, y = check_pair(x, y, missing=is_builder(model) or takes_missing(model))
        sample_weight = checks.sample_weight(sample_weight, row_count(x))
    with seeded(seed), told_of_lost_workers(chosen):
        twin, batch, inputs = None, None, x
        if streaming:
            batch, x = first_batch(x)
            inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
        if is_builder(model):
            with scope_of(chosen):
                model = twin = build_model(model, x, y)
                make_weights(model, inputs)
            if chosen is not None:
                model = copied(twin) or twin
        checks.is_model(model)
        make_weights(model, inputs)
        if streaming:
            weight, by_class = None, checks.class_weight_of_stream(class_weight)
            compile_for_stream(model, optimizer, loss, metrics)
            check_targets(model, batch)
        else:
            check_filled(model, x)
            checks.fits_input(model, x)
            task = compile_for_arrays(model, y, optimizer, loss, metrics)
            y = y if task is None else fit_targets(task, model, y)
            by_class = checks.class_weight(class_weight, sample_weight, task, y)
            validation_data = checks.validation(validation_data, model, task)
            weight, by_class = weights_of_rows(y, sample_weight, by_class), None
        steps = stream_steps(x) if streaming else -(-row_count(x) // batch_size)
        callbacks += set_learning_rate(model, learning_rate, steps, epochs, validation_data is not None)
        accumulate(model, gradient_accumulation)
        reseed(model, seed)
        if is_stream(validation_data):
            check_stream(validation_data, epochs, "validation_data")
        for stream, name in ((x, "x"), (validation_data, "validation_data")):
            check_order(stream, name, is_multi_worker(chosen), checkpoint_dir is not None and name == "x")
        session = Session(
            x=x,
            y=y,
            batch=batch,
            weight=weight,
            validation=validation_data,
            batch_size=None if streaming else batch_size,
            shuffle=shuffle,
            seed=random.SystemRandom().getrandbits(32) if seed is None else seed,
            epochs=epochs,
            callbacks=callbacks,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            class_weight=by_class,
            verbose=verbose,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=check_every(checkpoint_every, is_multi_worker(chosen)),
            asked_seed=seed,
            precision=None if precision is None else check_precision(precision),
            rematerialize=rematerialize,
        )
        return session.train(model, chosen, twin)
