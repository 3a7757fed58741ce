"""Which kernels of a model a technique acts on, which it leaves alone and why."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.internals import every_layer, layers_inside
from tfbig.errors import InvalidModel, InvalidOption, did_you_mean
from tfbig.layers.kernels import QuantizedLayer, kernel_of
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
_DEPTHWISE = "depthwise kernels are few and sensitive; ask for them with layers="
# What is taken only when `layers=` asks for it, and why.
_ON_REQUEST: tuple[tuple[tuple[type, ...], tuple[str, ...], str], ...] = (
    ((_L.DepthwiseConv1D, _L.DepthwiseConv2D), ("kernel",), _DEPTHWISE),
    ((_L.SeparableConv1D, _L.SeparableConv2D), ("depthwise_kernel",), _DEPTHWISE),
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
    _L.Normalization,
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
    _check_built(model)
    places = list(_places(model))
    chosen = _chooser(layers, [place.path for place in places])
    targets: list[Target] = []
    skipped: dict[str, str] = {}
    for place in places:
        if not _own_weights(place.layer):
            continue
        asked = layers is not None and chosen(place)
        if layers is not None and not asked:
            skipped[place.path] = "not among the layers asked for"
            continue
        kernels, left = _kernels(place.layer, asked)
        names = _names(place.path, [*kernels, *left])
        targets += [Target(names[key], place.layer, kernel) for key, kernel in kernels.items()]
        skipped.update({names[key]: reason for key, reason in left.items()})
    if not targets:
        raise InvalidModel(
            f"The model {model.name!r} has no kernel to compress"
            + (f"; skipped: {skipped}." if skipped else ": none of its layers has weights.")
        )
    return targets, skipped


def those_that_train(model: Any, targets: list[Target]) -> tuple[list[Target], dict[str, str]]:
    """Returns the targets that a technique can train, and the reason for each that it cannot.

    Args:
        model: The model that they were found in.
        targets: As `find_targets` gave them.

    Raises:
        InvalidModel: There is none, or weights of the model are not finite.
    """
    check_finite(model)
    trained = {id(v) for v in model.trainable_variables}
    wrappers = [layer for layer in every_layer(model) if isinstance(layer, QuantizedLayer)]
    shared = {id(kernel_of(layer.layer)) for layer in wrappers if layer.clusters is not None}
    skipped = {}
    for target in targets:
        if id(target.kernel) in shared:
            skipped[target.name] = (
                "its weights share values, which rounding holds; prune or cluster before that"
            )
        elif getattr(target.layer, "quantization_mode", None):
            skipped[target.name] = "Keras quantized it (model.quantize), which leaves nothing to train"
        elif id(target.kernel) not in trained:
            skipped[target.name] = "it is frozen (trainable=False), so it cannot be trained to fit"
    if len(skipped) == len(targets):
        raise InvalidModel(f"The model {model.name!r} has no kernel that trains; skipped: {skipped}.")
    return [target for target in targets if target.name not in skipped], skipped


def check_finite(model: Any) -> None:
    """Raises `InvalidModel` if weights that train hold NaN or infinity, which no technique can make sense of."""
    broken = [
        variable.path
        for variable in model.trainable_variables
        if not np.isfinite(keras.ops.convert_to_numpy(variable).astype(np.float32)).all()
    ]
    if broken:
        raise InvalidModel(
            f"The model {model.name!r} holds NaN or infinity in {', '.join(broken)}. Go back to weights from before, "
            "or train again with a lower learning rate; tfbig.callbacks.StopOnNaN ends a training before that."
        )


def layer_paths(model: Any, layers: LayerChoice = None) -> dict[int, str]:
    """Returns the id of each layer chosen, at any depth, to its path such as "encoder/dense_1".

    Args:
        model: A built Keras model.
        layers: None for every layer, or a choice as in `find_targets`.

    Raises:
        InvalidModel: The model is not built.
        InvalidOption: A name or pattern in `layers` matches none.
    """
    _check_built(model)
    places = list(_places(model))
    chosen = _chooser(layers, [place.path for place in places])
    return {id(place.layer): place.path for place in places if chosen(place)}


def _check_built(model: Any) -> None:
    if not isinstance(model, _L.Layer):
        raise InvalidModel(f"Expected a keras.Model; got {type(model).__name__}.")
    if not model.built:
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


def _kernels(layer: Any, asked: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """The layer's kernels by attribute, and the reason for each, or for the layer as a whole, that is left alone."""
    kernels: dict[str, Any] = {}
    left: dict[str, str] = {}
    for kinds, attributes in _KERNELS:
        if isinstance(layer, kinds):
            kernels.update({name: _variable(layer, name) for name in attributes})
    for kinds, attributes, reason in _ON_REQUEST:
        if isinstance(layer, kinds) and asked:
            kernels.update({name: _variable(layer, name) for name in attributes})
        elif isinstance(layer, kinds):
            left.update(dict.fromkeys(attributes, reason))
    if kernels or left:
        return kernels, left
    if isinstance(layer, _NORMALIZATION):
        return {}, {"": "normalization is left alone"}
    if isinstance(layer, QuantizedLayer | FakeQuant):
        return {}, {"": "factors and ranges of rounding are left alone"}
    matrices = {v.name: v for v in _own_weights(layer) if len(v.shape) >= 2}
    reason = f"{type(layer).__name__} is not known; ask for it with layers="
    return (matrices, {}) if asked and matrices else ({}, {"": reason})


def _variable(layer: Any, attribute: str) -> Any:
    # `kernel` may be computed (LoRA); the variable itself is `_kernel` then. Embeddings likewise.
    private = f"_{attribute}"
    return getattr(layer, private if hasattr(layer, private) else attribute)


def _own_weights(layer: Any) -> list[Any]:
    """The weights that no layer inside this one holds; of a layer that is not frozen, those that train."""
    inner = {id(v) for sub in layers_inside(layer) for v in sub.weights}
    own = [v for v in layer.weights if id(v) not in inner]
    return [v for v in own if v.trainable] if layer.trainable else own


def _names(path: str, attributes: list[str]) -> dict[str, str]:
    """What each kernel is called: as the layer, with its own name where the layer has several."""
    several = len(attributes) > 1
    return {name: f"{path}/{name}" if several else path for name in attributes}


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
