"""`fit`: Keras's own loop, with the choices made and the nonsense refused before it starts."""

from collections.abc import Iterable, Mapping
from typing import Any

from tfbig.backend.seeds import reseed, seeded
from tfbig.data.checking import check_pair, is_stream
from tfbig.options import checked, positive_int
from tfbig.training import checks
from tfbig.training.building import build_model, is_builder
from tfbig.training.compiling import compile_for_arrays, compile_for_stream
from tfbig.training.objectives import fit_targets
from tfbig.training.run import Run
from tfbig.training.steps import choose_steps, steps_together


@checked()
def fit(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    validation_data: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    shuffle: bool = True,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Iterable[Any] | None = None,
    callbacks: Iterable[Any] = (),
    steps_per_execution: int | str = "auto",
    seed: int | None = None,
    verbose: int | str = "auto",
) -> Run:
    """Trains a model by `keras.Model.fit`, after checking that the data, the model and the options fit together.

    A model that is not compiled gets the optimizer, loss and metrics of its task; one that is compiled keeps
    its own unless others are passed.

    Args:
        model: A `keras.Model`, trained in place, or a builder: a function of nothing, of (x) or of (x, y) that
            returns one.
        x: Inputs of shape (rows, ...): an array, lists, pandas. Or a stream of batches: `tf.data.Dataset`,
            `keras.utils.PyDataset`, a generator.
        y: Targets: whole-number labels or values of shape (rows,), or (rows, outputs). None for a stream.
        epochs: Times every row is seen.
        batch_size: Rows per gradient step; streams bring their own.
        validation_data: `(x, y)` or `(x, y, sample_weight)` measured after each epoch, or a stream.
        sample_weight: Weight of each row in the loss, shape (rows,).
        class_weight: Label to weight.
        shuffle: Whether rows are shuffled anew in each epoch.
        optimizer: A name ("adam", "sgd", …) or a Keras optimizer; Adam by default.
        loss: Any Keras loss; chosen by task by default.
        metrics: Any Keras metrics; accuracy or mean absolute error by default.
        callbacks: Keras callbacks.
        steps_per_execution: Gradient steps compiled into one call. "auto" takes up to 64 for arrays when no
            callback watches single batches, which saves up to half of a small model's time; 1 is Keras's own.
        seed: Seeds shuffling, dropout and, for a builder, the initial weights. Global generators are put back
            as they were.
        verbose: 0 silent, 1 progress bar, 2 a line per epoch, "auto" as Keras decides.

    Returns:
        A `Run`: Keras's History with `.model`, `.seconds` and `.examples_per_second`.

    Raises:
        InvalidData: Lengths differ, values are NaN or infinite or text, labels lie outside the classes.
        InvalidModel: The model's outputs do not fit y, or the builder returns no model.
        InvalidOption: An option's value makes no sense.
        UnknownOption: There is no such option.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> run = tfbig.fit(tfbig.models.mlp((4,), 2), x, (x[:, 0] > 0).astype(int), epochs=2, verbose=0)
        >>> sorted(run.history), len(run.history["loss"])
        (['accuracy', 'loss'], 2)
    """
    epochs, batch_size = positive_int("epochs", epochs), positive_int("batch_size", batch_size)
    callbacks = checks.callbacks(callbacks)
    streaming = is_stream(x)
    if not streaming:
        x, y = check_pair(x, y)
        sample_weight = checks.sample_weight(sample_weight, len(x))
    with seeded(seed):
        if is_builder(model):
            model = build_model(model, x, y)
        checks.is_model(model)
        if streaming:
            compile_for_stream(model, optimizer, loss, metrics)
        else:
            checks.fits_input(model, x)
            task = compile_for_arrays(model, y, optimizer, loss, metrics)
            y = y if task is None else fit_targets(task, model, y)
            class_weight = checks.class_weight(class_weight, sample_weight, task, y)
            validation_data = checks.validation(validation_data, model, task)
        reseed(model, seed)
        steps = None if streaming else -(-len(x) // batch_size)
        run = Run(examples=None if streaming else len(x))
        with steps_together(model, choose_steps(steps_per_execution, steps, callbacks)):
            model.fit(
                x,
                y,
                epochs=epochs,
                batch_size=None if streaming else batch_size,
                validation_data=validation_data,
                sample_weight=sample_weight,
                class_weight=class_weight,
                # Keras warns of shuffle=True for a stream that cannot be shuffled, which nobody asked for.
                shuffle=shuffle and not hasattr(x, "element_spec") and not hasattr(x, "__next__"),
                # Last, as Keras's own History is: what other callbacks add to the logs is in it.
                callbacks=[*callbacks, run],
                verbose=verbose,
            )
    return run
