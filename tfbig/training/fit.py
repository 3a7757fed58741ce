"""`fit`: Keras's own loop, with the choices made and the nonsense refused before it starts."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.seeds import reseed, seeded
from tfbig.data.checking import check_array, check_pair, is_stream
from tfbig.errors import InvalidData, InvalidModel, InvalidOption
from tfbig.options import checked, positive_int
from tfbig.training.building import build_model, is_builder
from tfbig.training.objectives import fit_targets, infer_task, loss_and_metrics
from tfbig.training.optimizers import get_optimizer
from tfbig.training.run import Run

# Steps compiled into one call: past this the gain is gone and the progress bar stands still too long.
_MOST_STEPS_TOGETHER = 64
_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


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
    callbacks = _checked_callbacks(callbacks)
    streaming = is_stream(x)
    if not streaming:
        x, y = check_pair(x, y)
        sample_weight = _checked_weights(sample_weight, len(x))
    with seeded(seed):
        if is_builder(model):
            model = build_model(model, x, y)
        _check_is_model(model)
        if streaming:
            _compile_for_stream(model, optimizer, loss, metrics)
        else:
            _check_input(model, x)
            task = _compile_for_arrays(model, y, optimizer, loss, metrics)
            if task is not None:
                y = fit_targets(task, model, y)
                _check_class_weight(class_weight, task, y)
            validation_data = _checked_validation(validation_data, model, task)
        reseed(model, seed)
        steps = None if streaming else -(-len(x) // batch_size)
        run = Run(examples=None if streaming else len(x))
        with _steps_together(model, _choose_steps(steps_per_execution, steps, callbacks)):
            model.fit(
                x,
                y,
                epochs=epochs,
                batch_size=None if streaming else batch_size,
                validation_data=validation_data,
                sample_weight=sample_weight,
                class_weight=dict(class_weight) if class_weight else None,
                shuffle=shuffle,
                callbacks=[run, *callbacks],
                verbose=verbose,
            )
    return run


def _check_is_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        hint = ""
        if type(model).__module__.startswith("tf_keras"):
            hint = " This is a legacy tf_keras model: rebuild it with Keras 3's layers."
        raise InvalidModel(f"Expected a keras.Model or a builder; got {type(model).__name__}.{hint}")


def _checked_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    listed = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks)
    for callback in listed:
        if not isinstance(callback, keras.callbacks.Callback):
            raise InvalidOption(
                f"callbacks must be keras.callbacks.Callback objects; got {type(callback).__name__}."
            )
    return listed


def _checked_weights(weights: Any, rows: int) -> Any:
    if weights is None:
        return None
    array = check_array(weights, "sample_weight")
    if len(array) != rows:
        raise InvalidData(f"sample_weight must have one weight per row of x, {rows}; got {len(array)}.")
    if (array < 0).any():
        raise InvalidData("sample_weight must not be negative.")
    return array


def _check_class_weight(class_weight: Mapping[int, float] | None, task: str, y: np.ndarray) -> None:
    if not class_weight:
        return
    if task not in ("binary", "multiclass"):
        raise InvalidOption(f"class_weight is for one label per row; this is a {task} task.")
    missing = sorted(set(np.unique(y).astype(int).tolist()) - {int(label) for label in class_weight})
    if missing:
        raise InvalidOption(f"class_weight must name every label in y; missing: {missing}.")


def _check_input(model: Any, x: np.ndarray) -> None:
    shape = getattr(model, "input_shape", None) if model.built else None
    if not isinstance(shape, tuple):
        return  # Built by its first batch, or with several inputs: Keras checks those itself.
    fits = len(shape) == x.ndim and all(
        want is None or want == got for want, got in zip(shape[1:], x.shape[1:], strict=True)
    )
    if not fits:
        raise InvalidModel(
            f"The model {model.name!r} takes rows of shape {shape[1:]}; x has rows of shape {x.shape[1:]}."
        )


def _compile_for_arrays(model: Any, y: np.ndarray, optimizer: Any, loss: Any, metrics: Any) -> str | None:
    """Compiles the model where asked or needed; returns the task that chose the loss, None if the user did."""
    users_own = loss is not None or (model.compiled and not _chosen_by_tfbig(model))
    task = None if users_own else infer_task(model, y)
    if model.compiled and optimizer is None and loss is None and metrics is None:
        return task
    if task is not None:
        loss, chosen = loss_and_metrics(task, model)
        metrics = chosen if metrics is None else metrics
    elif loss is None:
        loss = model.loss
    _compile(model, optimizer, loss, metrics)
    model._tfbig_chose_loss = task is not None
    return task


def _compile_for_stream(model: Any, optimizer: Any, loss: Any, metrics: Any) -> None:
    if loss is None and not model.compiled:
        raise InvalidOption(
            "From a stream of batches the task cannot be seen: pass loss=, or compile the model."
        )
    if optimizer is not None or loss is not None or metrics is not None:
        _compile(model, optimizer, loss if loss is not None else model.loss, metrics)


def _chosen_by_tfbig(model: Any) -> bool:
    return getattr(model, "_tfbig_chose_loss", False)


def _compile(model: Any, optimizer: Any, loss: Any, metrics: Any) -> None:
    if optimizer is None:
        optimizer = model.optimizer if model.compiled else "adam"
    # On a CPU, XLA takes longer to compile than a small model takes to train (FACTS: measured).
    jit = "auto" if tf.config.list_physical_devices("GPU") else False
    listed = None if metrics is None else list(metrics)
    model.compile(optimizer=get_optimizer(optimizer), loss=loss, metrics=listed, jit_compile=jit)


def _checked_validation(validation_data: Any, model: Any, task: str | None) -> Any:
    if validation_data is None or is_stream(validation_data):
        return validation_data
    if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
        raise InvalidData(
            "validation_data must be (x, y), (x, y, sample_weight) or a stream; got "
            f"{type(validation_data).__name__}."
        )
    x, y = check_pair(validation_data[0], validation_data[1], "validation x", "validation y")
    _check_input(model, x)
    if task is not None:
        y = fit_targets(task, model, y)
    return (x, y, *(_checked_weights(weights, len(x)) for weights in validation_data[2:]))


def _choose_steps(asked: int | str, steps: int | None, callbacks: list[Any]) -> int:
    if asked != "auto":
        return positive_int("steps_per_execution", asked)
    if steps is None or any(_watches_batches(callback) for callback in callbacks):
        return 1
    return max(1, min([steps, _MOST_STEPS_TOGETHER, *_limits(callbacks)]))


def _limits(callbacks: list[Any]) -> list[int]:
    """How many steps each callback can let pass before it must act; tfbig's own say so, others have no say."""
    return [callback.steps_between for callback in callbacks if hasattr(callback, "steps_between")]


def _watches_batches(callback: Any) -> bool:
    if hasattr(callback, "steps_between"):
        return False
    base = keras.callbacks.Callback
    return any(
        getattr(type(callback), hook, None) is not getattr(base, hook) or hook in vars(callback)
        for hook in _BATCH_HOOKS
    )


@contextlib.contextmanager
def _steps_together(model: Any, steps: int) -> Iterator[None]:
    """Lets the model run so many steps in one call, for the block."""
    before = model.steps_per_execution
    if steps == before:
        yield
        return
    _set_steps(model, steps)
    try:
        yield
    finally:
        _set_steps(model, before)


def _set_steps(model: Any, steps: int) -> None:
    model.steps_per_execution = steps
    # Compiled functions hold the old number.
    model.train_function = model.test_function = model.predict_function = None
