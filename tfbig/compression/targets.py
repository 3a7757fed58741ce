"""Which kernels of a model a technique acts on, which it leaves alone and why."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tfbig.backend import keras
from tfbig.backend.internals import layers_inside
from tfbig.errors import InvalidModel, InvalidOption, did_you_mean
from tfbig.layers.kernels import QuantizedLayer
from tfbig.layers.ranges import FakeQuant

_L = keras.layers
# Layer types and the attributes that hold what is taken without asking.
_KERNELS: tuple[tuple[tuple[type, ...], tuple[str, ...]], ...] = (
    (
        (
            *(_L.Dense, _L.EinsumDense, _L.Conv1D, _L.Conv2D, _L.Conv3D),
            *(_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose),
        ),
        ("kernel",),
    ),
    ((_L.SeparableConv1D, _L.SeparableConv2D), ("pointwise_kernel",)),
    ((_L.LSTMCell, _L.GRUCell, _L.SimpleRNNCell), ("kernel", "recurrent_kernel")),
)
# What is taken only when `layers=` asks for it, and why.
_ON_REQUEST: tuple[tuple[tuple[type, ...], tuple[str, ...], str], ...] = (
    (
        (_L.DepthwiseConv1D, _L.DepthwiseConv2D),
        ("kernel",),
        "depthwise kernels are few and sensitive; ask for them with layers=",
    ),
    (
        (_L.Embedding,),
        ("embeddings",),
        "rows of an embedding are trained as rarely as their token comes; ask for it with layers=",
    ),
)
_NORMALIZATION = (
    _L.BatchNormalization,
    _L.GroupNormalization,
    _L.LayerNormalization,
    _L.RMSNormalization,
    _L.UnitNormalization,
)

LayerChoice = str | type | Callable[[Any], bool] | Iterable[Any] | None


@dataclass(frozen=True)
class Target:
    """One kernel of one layer.

    Attributes:
        name: The layer's name, after the names of what it is nested in, "encoder/dense_1"; with the kernel's own
            name where the layer has several, "lstm/lstm_cell/recurrent_kernel".
        layer: The Keras layer.
        kernel: Its `keras.Variable`.
    """

    name: str
    layer: Any
    kernel: Any


@dataclass(frozen=True)
class _Place:
    """A layer where it stands: its path, and itself after the layers it is nested in."""

    path: str
    line: tuple[Any, ...]

    @property
    def layer(self) -> Any:
        return self.line[-1]


def find_targets(model: Any, layers: LayerChoice = None) -> tuple[list[Target], dict[str, str]]:
    """Returns the kernels to act on, and the reason for each layer with weights that is skipped.

    Args:
        model: A built Keras model.
        layers: None for every kernel of dense, convolutional, recurrent and attention layers, in nested models and
            wrappers too. Or a name, a pattern such as "conv*", a layer type, a function from layer to bool, or
            several of these; choosing a layer chooses what is inside it. Depthwise and embedding kernels, and the
            weights of custom layers (those with two or more axes), are taken only when chosen so.

    Returns:
        The targets in the model's order, and a dict from layer name to reason.

    Raises:
        InvalidModel: There is nothing to act on, or the model is not built.
        InvalidOption: A name or pattern in `layers` matches none.
    """
    _check_built(model, model.built and model.weights)
    places = list(_places(model))
    chosen = _chooser(layers, [place.path for place in places])
    targets: list[Target] = []
    skipped: dict[str, str] = {}
    for place in places:
        if not _own_weights(place.layer):
            continue
        asked = layers is not None and chosen(place)
        kernels, reason = _kernels(place.layer, asked)
        if layers is not None and not asked:
            skipped[place.path] = "not among the layers asked for"
        elif kernels:
            targets += _named(place, kernels)
        else:
            skipped[place.path] = reason
    if not targets:
        raise InvalidModel(
            f"The model {model.name!r} has no kernel to compress"
            + (f"; skipped: {skipped}." if skipped else ": none of its layers has weights.")
        )
    return targets, skipped


def layer_paths(model: Any, layers: LayerChoice = None) -> dict[int, str]:
    """Returns the id of each layer chosen, at any depth, to its path such as "encoder/dense_1".

    Args:
        model: A built Keras model.
        layers: None for every layer, or a choice as in `find_targets`.

    Raises:
        InvalidModel: The model is not built.
        InvalidOption: A name or pattern in `layers` matches none.
    """
    _check_built(model, model.built)
    places = list(_places(model))
    chosen = _chooser(layers, [place.path for place in places])
    return {id(place.layer): place.path for place in places if chosen(place)}


def _check_built(model: Any, ready: Any) -> None:
    if not ready:
        raise InvalidModel(
            f"The model {model.name!r} has no weights yet: build it, or call it on a batch, first."
        )


def _places(model: Any) -> Iterator[_Place]:
    """Every layer inside the model, at any depth, in order; a shared one comes once."""
    seen: set[int] = set()

    def walk(owner: Any, prefix: str, line: tuple[Any, ...]) -> Iterator[_Place]:
        for layer in layers_inside(owner):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            place = _Place(prefix + layer.name, (*line, layer))
            yield place
            yield from walk(layer, place.path + "/", place.line)

    return walk(model, "", ())


def _kernels(layer: Any, asked: bool) -> tuple[dict[str, Any], str]:
    """The layer's kernels by attribute, or none and the reason."""
    for kinds, attributes in _KERNELS:
        if isinstance(layer, kinds):
            return {name: _variable(layer, name) for name in attributes}, ""
    for kinds, attributes, reason in _ON_REQUEST:
        if isinstance(layer, kinds):
            return ({name: _variable(layer, name) for name in attributes} if asked else {}), reason
    if isinstance(layer, _NORMALIZATION):
        return {}, "normalization is left alone"
    if isinstance(layer, QuantizedLayer | FakeQuant):
        return {}, "factors and ranges of rounding are left alone"
    matrices = {v.name: v for v in _own_weights(layer) if len(v.shape) >= 2}
    return (matrices if asked else {}), f"{type(layer).__name__} is not known; ask for it with layers="


def _variable(layer: Any, attribute: str) -> Any:
    # `kernel` may be computed (LoRA); the variable itself is `_kernel` then. Embeddings likewise.
    private = f"_{attribute}"
    return getattr(layer, private if hasattr(layer, private) else attribute)


def _own_weights(layer: Any) -> list[Any]:
    """The trainable weights that no layer inside this one holds."""
    inner = {id(v) for sub in layers_inside(layer) for v in sub.trainable_weights}
    return [v for v in layer.trainable_weights if id(v) not in inner]


def _named(place: _Place, kernels: dict[str, Any]) -> list[Target]:
    if len(kernels) == 1:
        return [Target(place.path, place.layer, kernel) for kernel in kernels.values()]
    return [Target(f"{place.path}/{name}", place.layer, kernel) for name, kernel in kernels.items()]


def _chooser(layers: LayerChoice, paths: list[str]) -> Callable[[_Place], bool]:
    if layers is None:
        return lambda place: True
    if isinstance(layers, str):
        if not fnmatch.filter(paths, layers):
            raise InvalidOption(
                f"layers={layers!r} matches no layer.{did_you_mean(layers, paths)} Layers: {', '.join(paths)}."
            )
        # fnmatch's * crosses "/"; "lstm" alone means the layer and all inside it.
        return lambda place: (
            fnmatch.fnmatchcase(place.path, layers) or fnmatch.fnmatchcase(place.path, f"{layers}/*")
        )
    if isinstance(layers, type):
        return lambda place: any(isinstance(layer, layers) for layer in place.line)
    if callable(layers):
        # Of what encloses a layer only wrappers are asked about: a predicate on `units` knows no models.
        return lambda place: any(
            bool(layers(layer)) for layer in place.line if not isinstance(layer, keras.Model)
        )
    choosers = [_chooser(choice, paths) for choice in layers]
    return lambda place: any(choose(place) for choose in choosers)
