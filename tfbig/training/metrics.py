"""Metrics by name, made to read the outputs as the loss does."""

import inspect
from collections.abc import Mapping
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.training.losses import classes_of, loss_names, reads_logits, takes_bits, takes_margins

# Names that stand for several metrics; by the loss and the shapes Keras finds which.
_BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")
# They compare outputs with one threshold, by default a half.
_CUTTING = ("Precision", "Recall", "TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives")
# They compare outputs with thresholds above 0 or, F1, with each other.
_OF_PROBABILITIES = (
    "PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity", "BinaryIoU",
    "FBetaScore", "F1Score",
)  # fmt: skip


def get_metrics(metrics: Any, loss: Any, *, one_hot: bool = False) -> Any:
    """Returns the metrics; those by name read the outputs as the loss does, and a misfit is refused.

    Keras's own cut outputs at a half, logits too, and read them as probabilities.

    Args:
        metrics: A list, as `compile` takes. Of other structures, for several outputs, names are checked only.
        loss: The model's loss.
        one_hot: Whether labels are made one-hot for the loss, so that metrics of labels would be wrong.

    Raises:
        InvalidOption: No metric has that name, or it cannot be right with this loss.

    Example:
        >>> loss = keras.losses.BinaryCrossentropy(from_logits=True)
        >>> get_metrics(["accuracy"], loss)[0].threshold
        0.0
    """
    structured = isinstance(metrics, list | tuple | Mapping)
    for name in keras.tree.flatten(metrics) if structured else ():
        if isinstance(name, str):
            _check_name(name)
    return [_fitted(metric, loss, one_hot) for metric in metrics] if isinstance(metrics, list) else metrics


def _fitted(metric: Any, loss: Any, one_hot: bool) -> Any:
    """One metric, as the loss reads the outputs."""
    kind, named = _class(metric), isinstance(metric, str)
    if one_hot and kind is not None and kind.__name__.startswith("Sparse"):
        raise InvalidOption(
            f"The metric {_name(metric)!r} takes labels, which this loss makes one-hot: pass its name without sparse, "
            'or "accuracy".'
        )
    signed = bool(reads_logits(loss) or takes_margins(loss))
    binary = takes_bits(loss) or takes_margins(loss)
    if binary and named and (metric in ("accuracy", "acc") or kind is keras.metrics.BinaryAccuracy):
        # Keras also takes several labels of 0 and 1 for one class of several.
        return keras.metrics.BinaryAccuracy(threshold=0.0 if signed else 0.5, name=metric)
    if kind is None or not signed:
        return metric
    if binary and named and kind.__name__ in _CUTTING:
        return kind(thresholds=0.0, name=metric)
    knows_logits = "from_logits" in inspect.signature(kind).parameters and (binary or kind.__name__ != "AUC")
    if named and knows_logits:
        return kind(from_logits=True, name=metric)
    told = not knows_logits or metric.get_config()["from_logits"]
    if told and not (binary and _cuts_probabilities(kind, metric)):
        return metric
    raise InvalidOption(
        f"The metric {_name(metric)!r} takes probabilities, and the loss says that the model gives logits. Pass "
        '"accuracy", "precision", "recall" or "auc" by name; or set the metric to logits, by threshold=0, '
        "thresholds=0 or from_logits=True; tfbig.evaluate(model, x, y) gives F1 and more of any model."
    )


def _cuts_probabilities(kind: type, metric: Any) -> bool:
    """Whether a metric of outputs that each are a label would be wrong with logits."""
    if kind.__name__ == "BinaryAccuracy":
        return bool(metric.threshold == 0.5)
    if kind.__name__ in _CUTTING:
        return max(metric.thresholds) > 0
    return kind.__name__ in _OF_PROBABILITIES


def _class(metric: Any) -> type | None:
    """The class of a metric of Keras's own, also of one given by name; None of any other."""
    own = classes_of(keras.metrics)
    if isinstance(metric, str):
        if metric in _BY_SHAPE:
            return None
        found = keras.metrics.get(metric)
        plain = type(found).__name__ if isinstance(found, keras.metrics.Metric) else found.__name__
        plain = plain.replace("_", "").lower()
        return next((kind for kind in own if kind.__name__.lower() == plain), None)
    return type(metric) if type(metric) in own else None


def _name(metric: Any) -> str:
    return metric if isinstance(metric, str) else str(metric.name)


def _check_name(name: str) -> None:
    if name in _BY_SHAPE:
        return
    try:
        keras.metrics.get(name)
    except ValueError:
        raise unknown_choice("metrics", name, metric_names()) from None


def metric_names() -> list[str]:
    """Returns Keras's names of metrics, as functions spell them."""
    own = map(_snake, (kind.__name__ for kind in classes_of(keras.metrics)))
    return sorted({*_BY_SHAPE, *filter(_is_known, [*own, *loss_names()])})


def _is_known(name: str) -> bool:
    try:
        return keras.metrics.get(name) is not None
    except (TypeError, ValueError):  # no metric, or one that needs arguments
        return False


def _snake(name: str) -> str:
    """The name of a class as that of a function: BinaryAccuracy is binary_accuracy."""
    return "".join(
        f"_{letter.lower()}" if letter.isupper() and i and not name[i - 1].isupper() else letter.lower()
        for i, letter in enumerate(name)
    )
