"""Losses by name, made to fit the model: logits are told from probabilities, and a misfit is refused."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel, unknown_choice
from tfbig.models.heads import head_of, kind_of_outputs

# What Keras's losses take beside the outputs; of others nothing is known, and nothing is said. A distribution is a
# probability for each class, so one-hot labels are one.
_TAKES = {
    "label": ("SparseCategoricalCrossentropy", "CategoricalGeneralizedCrossEntropy"),
    "distribution": (
        "CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalHinge", "KLDivergence",
    ),
    "bits": ("BinaryCrossentropy", "BinaryFocalCrossentropy"),
    "values": (
        "Hinge", "SquaredHinge", "MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError",
        "MeanSquaredLogarithmicError", "Huber", "LogCosh", "CosineSimilarity", "Poisson",
    ),
}  # fmt: skip
# These take no logits, and have no from_logits that could say so.
_OF_PROBABILITIES = ("CategoricalGeneralizedCrossEntropy", "KLDivergence", "Dice", "Tversky")


def get_loss(loss: Any, model: Any) -> Any:
    """Returns the loss; one given by name knows whether the model gives logits.

    Keras's cross-entropies by name take outputs for probabilities, whatever the model gives. Here the head decides.

    Args:
        loss: A name in any of Keras's spellings; a list or dict of such for several outputs; anything else is
            returned as it is.
        model: A Keras model.

    Raises:
        InvalidOption: No loss has that name; the nearest one is named.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> get_loss("binary_focal_crossentropy", model).get_config()["from_logits"]
        True
    """
    if isinstance(loss, Mapping):
        return {name: _of_layer(part, _output_layer(model, name)) for name, part in loss.items()}
    if isinstance(loss, list | tuple):
        names = list(getattr(model, "output_names", ()))
        layers = (
            [_output_layer(model, name) for name in names] if len(names) == len(loss) else [None] * len(loss)
        )
        return [_of_layer(part, layer) for part, layer in zip(loss, layers, strict=True)]
    return _of_layer(loss, _head(model))


def takes_distribution(loss: Any) -> bool:
    """Whether a loss takes a probability for each class, which whole-number labels become by being one-hot."""
    return _class_name(loss) in _TAKES["distribution"]


def takes_bits(loss: Any) -> bool:
    """Whether a loss is a cross-entropy of labels that each are 0 or 1."""
    return _class_name(loss) in _TAKES["bits"]


def takes_margins(loss: Any) -> bool:
    """Whether a loss takes outputs whose sign is the answer."""
    return _class_name(loss) in ("Hinge", "SquaredHinge")


def takes_labels(loss: Any) -> bool:
    """Whether a loss takes whole-number labels, each of a class."""
    return _class_name(loss) in _TAKES["label"] and getattr(loss, "ignore_class", None) is None


def reads_logits(loss: Any) -> bool | None:
    """What a loss says of the outputs; None where it cannot say."""
    kind = _class(loss)
    if kind is None or "from_logits" not in inspect.signature(kind).parameters:
        return None
    return bool(loss.get_config()["from_logits"]) if isinstance(loss, keras.losses.Loss) else False


def fits_loss(model: Any, y: np.ndarray, loss: Any) -> bool:
    """Whether the columns of y are what the loss takes beside the model's outputs; Keras broadcasts what is not.

    Of models with several outputs, outputs of other shapes than (batch, outputs) and unknown losses nothing is said.
    """
    shape, name = getattr(model, "output_shape", None), _class_name(loss)
    if not isinstance(shape, tuple) or len(shape) != 2 or not shape[-1] or y.ndim > 2:
        return True
    outputs, columns = int(shape[-1]), 1 if y.ndim == 1 else y.shape[1]
    if name in _TAKES["label"]:
        return outputs > 1 and columns == 1
    if name in _TAKES["distribution"]:
        return outputs > 1 and (outputs == columns or (columns == 1 and _are_labels(y)))
    return outputs == columns or name not in (*_TAKES["bits"], *_TAKES["values"])


def check_outputs(model: Any, loss: Any, advice: Callable[[], str]) -> None:
    """Raises `InvalidModel` where a loss would take logits for probabilities, or these for logits.

    Args:
        model: A Keras model of one output.
        loss: Any loss; of unknown ones nothing is said.
        advice: Gives the message's end.
    """
    given, name, title = kind_of_outputs(_head(model)), _class_name(loss), loss_title(loss)
    # Overlaps, Dice and Tversky, may be of any values that a plain layer gives.
    wrong = ("logits",) if name in ("Dice", "Tversky") else ("logits", "linear")
    if name in _OF_PROBABILITIES and given in wrong:
        raise InvalidModel(
            f"The loss {title!r} takes probabilities, and the model {model.name!r} gives logits. End it with a "
            f"softmax or sigmoid: keras.Sequential([model, keras.layers.Softmax()]). {advice()}".rstrip()
        )
    from_logits = reads_logits(loss)
    logits = given in ("logits", "linear")
    if (from_logits is True and given == "probabilities") or (from_logits is False and logits):
        raise InvalidModel(
            f"The loss {title!r} has from_logits={from_logits}, and the model {model.name!r} gives "
            f"{'logits' if logits else given}. {advice()}".rstrip()
        )


def check_bits(y: np.ndarray, loss: Any) -> None:
    """Raises `InvalidData` where a binary cross-entropy would be given values beyond 0 and 1."""
    if _class_name(loss) not in _TAKES["bits"] or y.dtype.kind not in "biuf" or y.size == 0:
        return
    if y.min() < 0 or y.max() > 1:
        raise InvalidData(
            f"The loss {loss_title(loss)!r} takes 0, 1 and probabilities between; y goes from {y.min()} to {y.max()}. "
            "tfbig.clean(x, y) renumbers labels."
        )


def loss_names() -> list[str]:
    """Returns Keras's names of losses, as functions spell them, and its short ones."""
    functions = [name for name in dir(keras.losses) if inspect.isfunction(getattr(keras.losses, name))]
    own = [name for name in functions if name not in ("get", "serialize", "deserialize")]
    return sorted([*own, "mse", "mae", "mape", "msle", "bce", "kld"])


def loss_title(loss: Any) -> str:
    """Returns what messages call a loss."""
    found = _named(loss) if isinstance(loss, str) else loss
    return str(getattr(found, "name", getattr(found, "__name__", loss)))


def classes_of(module: Any) -> list[type]:
    """Returns the classes that a module of Keras has."""
    return [kind for kind in vars(module).values() if inspect.isclass(kind)]


def _of_layer(loss: Any, layer: Any) -> Any:
    """One loss for what one layer gives."""
    if not isinstance(loss, str):
        return loss
    found, given = _named(loss), kind_of_outputs(layer)
    if found is None:
        raise unknown_choice("loss", loss, loss_names())
    kind = _class(found)
    if kind is None or given is None or "from_logits" not in inspect.signature(kind).parameters:
        return found
    return kind(from_logits=given != "probabilities")


def _named(name: str) -> Any:
    """What Keras has by that name. It exports one loss whose names it does not take itself."""
    try:
        return keras.losses.get(name)
    except ValueError:
        exported = _own().get(name.replace("_", "").lower()) if hasattr(keras.losses, name) else None
    return None if exported is None else exported()


def _own() -> dict[str, type]:
    """Keras's classes of losses by name, in small letters."""
    kinds = [kind for kind in classes_of(keras.losses) if kind is not keras.losses.Loss]
    return {kind.__name__.lower(): kind for kind in kinds}


def _class(loss: Any) -> type | None:
    """The class of a loss of Keras's own, also of one given as function or name; None of any other."""
    if isinstance(loss, str):
        loss = _named(loss)
    own = _own()
    if isinstance(loss, keras.losses.Loss):
        return type(loss) if type(loss) in own.values() else None
    name = getattr(loss, "__name__", "")
    is_own = name and getattr(keras.losses, name, None) is loss
    return own.get(name.replace("_", "")) if is_own else None


def _class_name(loss: Any) -> str | None:
    kind = _class(loss)
    return None if kind is None else kind.__name__


def _head(model: Any) -> Any:
    """The layer that one output comes from, where that shows: a subclassed model may do anything after it."""
    plain = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    last = head_of(model, strict=True)
    return last if plain or kind_of_outputs(last) == "probabilities" else None


def _output_layer(model: Any, name: str) -> Any:
    try:
        layer = model.get_layer(name)
    except (AttributeError, ValueError):
        return None
    return _head(layer) if isinstance(layer, keras.Model) else layer


def _are_labels(y: np.ndarray) -> bool:
    return y.dtype.kind in "biu" or (y.dtype.kind == "f" and bool(np.all(y == np.round(y))))
