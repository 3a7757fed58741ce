"""What `fit` refuses before it starts, each with what was expected, what was got and what to do."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.checking import check_array, check_pair, is_stream, row_count, rows_fit, takes_missing
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, unknown_choice
from tfbig.models.sequences import check_tokens
from tfbig.training.objectives import fit_targets, infer_task


def is_model(model: Any) -> None:
    """Raises `InvalidModel` for anything but a Keras 3 model."""
    if isinstance(model, keras.Model):
        return
    hint = ""
    if type(model).__module__.startswith("tf_keras"):
        hint = " This is a legacy tf_keras model: rebuild it with Keras 3's layers."
    raise InvalidModel(f"Expected a keras.Model or a builder; got {type(model).__name__}.{hint}")


def callbacks(given: Any) -> list[Any]:
    """Returns the callbacks as a list; one alone and None are taken too.

    Raises:
        InvalidOption: Something among them is no Keras callback.
    """
    if given is None:
        return []
    listed = list(given) if isinstance(given, Iterable) else [given]
    for callback in listed:
        if not isinstance(callback, keras.callbacks.Callback):
            raise InvalidOption(
                f"callbacks must be keras.callbacks.Callback objects; got {type(callback).__name__}."
            )
    return listed


def jit_compile(given: Any) -> bool | str:
    """Returns whether XLA compiles the step; raises `InvalidOption` for anything but True, False and "auto"."""
    if isinstance(given, bool) or given == "auto":
        return given
    raise InvalidOption(f'jit_compile must be True, False or "auto"; got {given!r}.')


def nothing_beside_a_stream(y: Any, weights: Any) -> None:
    """Raises `InvalidData` for targets or weights given beside a stream, whose batches hold them."""
    given = [name for name, value in (("y", y), ("sample_weight", weights)) if value is not None]
    if given:
        raise InvalidData(
            f"x is a stream, whose batches bring their own targets and weights, and {' and '.join(given)} "
            f"{'is' if len(given) == 1 else 'are'} given beside it. Let the stream give (x, y) or (x, y, "
            "sample_weight), such as by tf.data.Dataset.zip; or pass x as an array."
        )


def class_weight_of_stream(given: Any) -> Any:
    """Returns the weight of each label; raises `InvalidOption` for those that would need all rows of a stream."""
    if isinstance(given, str):
        raise InvalidOption(
            f"class_weight={given!r} needs all rows at once; give each label's weight for a stream."
        )
    return given


def sample_weight(weights: Any, rows: int) -> np.ndarray | None:
    """Returns the weights as an array of shape (rows,), or None.

    Raises:
        InvalidData: There is not one weight per row, or one is negative, NaN or infinite.
    """
    if weights is None:
        return None
    array = check_array(weights, "sample_weight")
    if len(array) != rows:
        raise InvalidData(f"sample_weight must have one weight per row of x, {rows}; got {len(array)}.")
    if array.size != rows:
        raise InvalidData(f"sample_weight must have shape ({rows},); got {array.shape}.")
    if (array < 0).any():
        raise InvalidData("sample_weight must not be negative.")
    return array.reshape(rows)


def class_weight(given: Any, weights: Any, task: str | None, y: np.ndarray) -> dict[int, float] | None:
    """Returns the weight of each label, or None; "balanced" has all classes weigh alike, as in scikit-learn.

    Raises:
        InvalidOption: It is no mapping, misses a label, comes with sample weights, or the task has no labels.
    """
    if given is None or (isinstance(given, Mapping) and not given):
        return None
    if isinstance(given, str) and given != "balanced":
        raise unknown_choice("class_weight", given, ("balanced",))
    if not isinstance(given, Mapping | str):
        raise InvalidOption(
            f'class_weight must map each label to its weight, or be "balanced"; got {given!r}.'
        )
    if weights is not None:
        raise InvalidOption(
            "class_weight and sample_weight cannot both be given: multiply each row's weight by its class's."
        )
    if task is not None and task not in ("binary", "multiclass"):
        raise InvalidOption(f"class_weight is for one label per row; this is a {task} task.")
    if isinstance(given, str):
        return _balanced(_labels(y))
    bad = [label for label, weight in given.items() if not 0 <= weight < math.inf]
    if bad:
        raise InvalidOption(
            f"class_weight must be finite and not negative; got {given[bad[0]]!r} for {bad[0]!r}."
        )
    if task is not None:
        missing = sorted(set(np.unique(_labels(y)).astype(int).tolist()) - {int(label) for label in given})
        if missing:
            raise InvalidOption(f"class_weight must name every label in y; missing: {missing}.")
    return dict(given)


def _labels(y: np.ndarray) -> np.ndarray:
    """The label of each row, also of one-hot rows."""
    return y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y), -1)


def _balanced(labels: np.ndarray) -> dict[int, float]:
    if labels.size != len(labels) or (labels != np.round(labels)).any():
        raise InvalidOption(
            'class_weight="balanced" is for whole-number labels, one per row; y holds other targets.'
        )
    classes, counts = np.unique(labels.astype(np.int64), return_counts=True)
    return dict(zip(classes.tolist(), (len(labels) / (len(classes) * counts)).tolist(), strict=True))


def fits_input(model: Any, x: Any) -> None:
    """Raises `InvalidModel` when a built model takes rows of another shape, or inputs of other names."""
    if isinstance(x, Mapping):
        _fits_inputs(model, x)
        check_tokens(model, x)
        return
    shape = getattr(model, "input_shape", None) if model.built else None
    # Built by its first batch, or with several inputs: Keras checks those itself.
    if isinstance(shape, tuple) and not rows_fit(shape[1:], x):
        raise InvalidModel(
            f"The model {model.name!r} takes rows of shape {shape[1:]}; x has rows of shape {x.shape[1:]}."
        )
    check_tokens(model, x)


def _fits_inputs(model: Any, x: Mapping[str, np.ndarray]) -> None:
    shapes = {tensor.name: tensor.shape[1:] for tensor in getattr(model, "inputs", None) or ()}
    if not shapes:
        return  # a subclassed model, whose `call` knows what it takes
    if isinstance(getattr(model, "input", None), dict):
        shapes = {name: tensor.shape[1:] for name, tensor in model.input.items()}
    if set(shapes) != set(x):
        raise InvalidModel(f"The model {model.name!r} has the inputs {sorted(shapes)}; x names {sorted(x)}.")
    for name, shape in shapes.items():
        if not rows_fit(shape, x[name]):
            raise InvalidModel(
                f"The input {name!r} of {model.name!r} takes rows of shape {tuple(shape)}; x[{name!r}] has rows of "
                f"shape {x[name].shape[1:]}."
            )


def validation(data: Any, model: Any, task: str | None) -> Any:
    """Returns validation data in the form Keras takes, checked as the training data is.

    Raises:
        InvalidData: It is no (x, y), (x, y, sample_weight) or stream; or its values will not do.
        InvalidModel: It does not fit the model.
    """
    if data is None or is_stream(data):
        return data
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise InvalidData(
            f"validation_data must be (x, y), (x, y, sample_weight) or a stream; got {type(data).__name__}."
        )
    names = "validation x", "validation y"
    x, y = check_pair(data[0], data[1], *names, missing=takes_missing(model))
    fits_input(model, x)
    if task is not None:
        infer_task(model, y)  # raises where y is of another shape than the model's outputs
        y = fit_targets(task, model, y)
    return (x, y, *(sample_weight(weights, row_count(x)) for weights in data[2:]))


def metric_names(metrics: Any) -> None:
    """Raises `InvalidOption` where two metrics of one output have one name: the logs would hold one of them only."""
    if isinstance(metrics, Mapping):
        for of_one in metrics.values():
            metric_names(of_one)
        return
    if not isinstance(metrics, list | tuple):
        return
    if any(isinstance(metric, list | tuple | Mapping) for metric in metrics):
        for of_one in metrics:
            metric_names(of_one)
        return
    names = [
        metric if isinstance(metric, str) else getattr(metric, "name", getattr(metric, "__name__", None))
        for metric in metrics
    ]
    twice = next((name for name in names if name is not None and names.count(name) > 1), None)
    if twice is not None:
        raise InvalidOption(
            f"Two metrics are named {twice!r}; the history holds one of a name. Pass name= to one."
        )
    if "loss" in names:
        raise InvalidOption(
            "A metric is named 'loss', as the loss itself is in the history. Pass another name=."
        )
