"""`explain`: which parts of the input a model's answer comes from, by the method that fits model and data."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.data.checking import check_array
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, unknown_choice
from tfbig.evaluation.answering import check_known_tokens, likely_of
from tfbig.evaluation.bootstrap import check_seed
from tfbig.evaluation.explanation import Explanation
from tfbig.evaluation.occlusion import default_patch, occlusion
from tfbig.evaluation.permuting import permutation
from tfbig.evaluation.several_inputs import SideBySide
from tfbig.options import checked, positive_int

METHODS = ("permutation", "integrated_gradients", "saliency", "occlusion", "attention")
_INSIDE = ("integrated_gradients", "saliency", "attention")  # methods that look into a Keras model
_RANKS = {"permutation": (2, 3), "occlusion": (2, 3, 4)}


@checked()
def explain(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    method: str | None = None,
    target: Any = None,
    baseline: Any = None,
    steps: int = 64,
    patch: int | None = None,
    stride: int | None = None,
    task: str | None = None,
    scoring: Any = None,
    repeats: int = 5,
    names: Sequence[str] | None = None,
    seed: int | None = 0,
) -> Explanation:
    """Says how much each part of the input matters to a model.

    | method                 | says                                                       | for                    |
    |------------------------|------------------------------------------------------------|------------------------|
    | "permutation"          | how much the score loses without a feature, over all rows  | anything, with y       |
    | "integrated_gradients" | what each value adds to an output, row by row              | Keras models           |
    | "saliency"             | how steeply an output changes with each value              | Keras models           |
    | "occlusion"            | how far an output falls when a patch is covered            | anything               |
    | "attention"            | what each step looks at                                    | Keras, with attention  |

    Args:
        model: A Keras model, a `LiteModel`, a fitted estimator, or anything with `predict`.
        x: Rows to explain: features (rows, features), sequences (rows, steps, features), images
            (rows, height, width, channels), or tokens (rows, steps). Of a model with several inputs a dict of rows of
            features by the inputs' names, which are then explained together, as the columns of one table.
        y: Their targets, for permutation.
        method: As above; None for permutation where y is given and x has features; else integrated gradients of a
            Keras model, occlusion of anything else.
        target: The output to explain, a number or one per row; None for each row's largest. What is explained are
            the outputs as the model gives them: logits, if its head does.
        baseline: What stands for "nothing there", for integrated gradients and occlusion: a number, "mean" for the
            mean of x, or an array of the shape of a row. For tokens a token, whose vector is taken. None for zero for
            images and for tokens, where it is the vector of zeros, and for the mean otherwise.
        steps: Gradients on the way from the baseline to a row; up to 64 times as many where the values' sum is more
            than 1% off.
        patch: Side of the patch that covers, in pixels or steps; None for a sixth of an image's shorter side, else 1.
        stride: How far it moves; None for half a patch.
        task: As for `evaluate`.
        scoring: Of permutation: one of scikit-learn's scorers by name, or a callable; None for accuracy, macro F1 of
            several labels a row, or R².
        repeats: How often permutation permutes each feature.
        names: Of the features; by default those of a frame's columns, or "x0" and so on; of several inputs
            "input.x0", and "input" where it has one.
        seed: Of the permutations; None for others every time.

    Returns:
        An `Explanation`, which draws itself.

    Raises:
        InvalidData: x does not fit the model or the method, or y is missing.
        InvalidModel: The method needs to look into the model and cannot.
        InvalidOption: An option makes no sense.

    Example:
        >>> from sklearn.linear_model import LinearRegression
        >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
        >>> model = LinearRegression().fit(x, 2 * x[:, 0] + x[:, 2])
        >>> list(explain(model, x, 2 * x[:, 0] + x[:, 2], names=["age", "height", "weight"]).top(2))
        ['age', 'weight']
    """
    if method is not None and method not in METHODS:
        raise unknown_choice("method", method, METHODS)
    columns = getattr(x, "columns", None)
    inside = _keras_model_of(model)
    if isinstance(x, Mapping):
        inputs = SideBySide(x)
        check_known_tokens(inside, x)
        model = inputs.model_of(model, inside)
        inside = _keras_model_of(model)
        x, columns = inputs.table, inputs.names
        method = method or _fitting_method(inside, x, y)
        if inputs.whole and method != "permutation":
            raise InvalidData(
                f"x[{inputs.whole[0]!r}] holds whole numbers, between which there is neither a slope nor a mean. Use "
                'method="permutation" with y; numbers that can be halved are passed as floats.'
            )
    x = check_array(x)
    if x.ndim < 2:
        raise InvalidData(f"Expected x of shape (rows, ...); got an array of shape {x.shape}.")
    method = method or _fitting_method(inside, x, y)
    _check(method, inside, model, x, y, patch, stride)
    names = _names(names, columns, x, inside)
    steps, repeats = positive_int("steps", steps), positive_int("repeats", repeats)
    if method == "permutation":
        values, spread, score = permutation(model, x, y, task, scoring, repeats, check_seed(seed))
        return Explanation(method, values, names, spread=spread, score=score)
    if method == "attention":
        return _attention(inside, x)
    target = _target(target, likely_of(model if method == "occlusion" else inside, x))
    if method == "occlusion":
        empty, x = _covering(baseline, x, inside)
        side = positive_int("patch", default_patch(x.shape[1:]) if patch is None else patch)
        shortest = min(x.shape[1:-1] if x.ndim > 2 else x.shape[1:])
        if side > shortest:
            raise InvalidOption(f"patch must be at most the shortest side of a row, {shortest}; got {side}.")
        move = positive_int("stride", max(1, side // 2) if stride is None else stride)
        if move > side:
            raise InvalidOption(
                f"stride must be at most the patch, {side}, so that no place is left out; got {move}."
            )
        values = occlusion(model, x, target, empty, side, move)
        return Explanation(method, values, names if x.ndim == 2 else (), target, empty, inputs=x)
    return _by_gradients(method, inside, x, target, baseline, steps, names)


def _by_gradients(
    method: str,
    model: Any,
    x: np.ndarray,
    target: np.ndarray,
    baseline: Any,
    steps: int,
    names: tuple[str, ...],
) -> Explanation:
    from tfbig.evaluation.attributions import embedding_of, integrated_gradients, saliency

    embedding = embedding_of(model)
    empty = _baseline(baseline, x) if embedding is None else _token_vector(baseline, embedding)
    if method == "saliency":
        return Explanation(method, saliency(model, x, target, empty), names, target, inputs=x)
    values, gaps = integrated_gradients(model, x, target, empty, steps)
    return Explanation(method, values, names, target, empty, gaps=gaps, inputs=x)


def _attention(model: Any, x: np.ndarray) -> Explanation:
    from tfbig.evaluation.attention_maps import attention_maps

    likely_of(model, x[:1])  # says what is wrong with rows that do not fit
    maps = attention_maps(model, x)
    return Explanation("attention", list(maps.values())[-1].mean(axis=1), inputs=x, maps=maps)


def _keras_model_of(model: Any) -> Any:
    """The Keras model that there is to look into, also that of an estimator; else None."""
    keras = sys.modules.get("keras")  # a process without Keras holds no Keras model
    candidates = [] if keras is None else [model, getattr(model, "model_", None)]
    return next((one for one in candidates if isinstance(one, keras.Model)), None)  # type: ignore[union-attr]


def _fitting_method(inside: Any, x: np.ndarray, y: Any) -> str:
    if y is not None and x.ndim < 4 and not _has_tokens(inside):
        return "permutation"
    return "occlusion" if inside is None else "integrated_gradients"


def _has_tokens(inside: Any) -> bool:
    if inside is None:
        return False
    from tfbig.evaluation.attributions import embedding_of

    return embedding_of(inside) is not None


def _check(method: str, inside: Any, model: Any, x: np.ndarray, y: Any, patch: Any, stride: Any) -> None:
    if method in _INSIDE and inside is None:
        raise InvalidModel(
            f"method={method!r} looks into a Keras model; a {type(model).__name__} gives its outputs only. "
            'Use "occlusion", or "permutation" with y.'
        )
    if method == "permutation" and y is None:
        raise InvalidData('method="permutation" measures a loss of score: pass y, the targets of these rows.')
    if x.ndim not in _RANKS.get(method, (x.ndim,)):
        raise InvalidData(
            f"method={method!r} takes x of {' or '.join(map(str, _RANKS[method]))} axes; got shape {x.shape}."
            + (' Use "occlusion" for images.' if method == "permutation" else "")
        )
    if method != "occlusion" and (patch is not None or stride is not None):
        raise InvalidOption(f'patch and stride are for method="occlusion"; the method here is {method!r}.')
    check_known_tokens(inside, x)


def _names(names: Any, columns: Any, x: np.ndarray, inside: Any) -> tuple[str, ...]:
    if names is not None:
        names = tuple(map(str, names))
        if len(names) != x.shape[-1] or x.ndim > 3:
            raise InvalidOption(
                f"names must hold one name per feature; got {len(names)} for x of shape {x.shape}."
            )
        if len(set(names)) < len(names):
            raise InvalidOption("names must differ from each other, so that each stands for one feature.")
        return names
    if x.ndim == 3 or (x.ndim == 2 and not _has_tokens(inside)):
        return tuple(f"x{i}" for i in range(x.shape[-1])) if columns is None else tuple(map(str, columns))
    return ()


def _target(target: Any, outputs: np.ndarray) -> np.ndarray:
    """The output to explain of each row, shape (rows,)."""
    if outputs.ndim > 2:
        raise InvalidModel(
            f"Expected one row of outputs per row of x; got outputs of shape {outputs.shape}. Of a model that answers "
            'at every step only method="attention" and "permutation" of others make sense.'
        )
    table = outputs.reshape(len(outputs), -1)
    if target is None:
        return table.argmax(axis=1)
    targets = np.asarray(target)
    if targets.dtype.kind not in "iu" or targets.shape not in ((), (len(table),)):
        raise InvalidOption(f"target must be the number of an output, or one per row; got {target!r}.")
    if targets.min() < 0 or targets.max() >= table.shape[1]:
        raise InvalidOption(
            f"The model has the outputs 0 to {table.shape[1] - 1}; target is {targets.min()} to {targets.max()}."
        )
    return np.broadcast_to(targets, len(table)).astype(np.int64)


def _baseline(baseline: Any, x: np.ndarray) -> np.ndarray:
    """What stands for "nothing there", of the shape of a row."""
    if baseline is None:
        baseline = 0.0 if x.ndim == 4 else "mean"
    if isinstance(baseline, str):
        if baseline != "mean":
            raise unknown_choice("baseline", baseline, ["mean"])
        return x.mean(axis=0, dtype=np.float64).astype(np.float32)
    values = check_array(np.atleast_1d(baseline), "baseline")
    if np.ndim(baseline) and values.shape != x.shape[1:]:
        raise InvalidData(f"baseline must have the shape of a row, {x.shape[1:]}; got {values.shape}.")
    return np.broadcast_to(values if np.ndim(baseline) else values[0], x.shape[1:]).astype(np.float32)


def _token_vector(baseline: Any, embedding: Any) -> np.ndarray:
    if baseline is None:
        return np.zeros(embedding.output_dim, np.float32)
    whole = isinstance(baseline, int | np.integer) and not isinstance(baseline, bool)
    if not whole or not 0 <= baseline < embedding.input_dim:
        raise InvalidOption(
            f"For tokens baseline is one of them, 0 to {embedding.input_dim - 1}, or None; got {baseline!r}."
        )
    return np.asarray(embedding(np.array([baseline])))[0].astype(np.float32)


def _covering(baseline: Any, x: np.ndarray, inside: Any) -> tuple[np.ndarray, np.ndarray]:
    """The baseline, and x in a dtype that can take it: whole numbers stay so, tokens above all."""
    empty = _baseline(0 if baseline is None and _has_tokens(inside) else baseline, x)
    if x.dtype.kind != "f" and not np.array_equal(empty, np.round(empty)):
        x = x.astype(np.float32)
    return empty, x
