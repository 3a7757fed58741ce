"""Which kernels of a model a technique acts on, which it leaves alone and why."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidModel, InvalidOption, did_you_mean

_L = keras.layers
WITH_A_KERNEL = (
    _L.Dense,
    _L.EinsumDense,
    _L.Conv1D,
    _L.Conv2D,
    _L.Conv3D,
    _L.Conv1DTranspose,
    _L.Conv2DTranspose,
    _L.Conv3DTranspose,
)
_REASONS = (
    (_L.BatchNormalization, "normalization is left alone"),
    (_L.LayerNormalization, "normalization is left alone"),
    ((_L.DepthwiseConv1D, _L.DepthwiseConv2D), "depthwise kernels are few and sensitive; left alone"),
)

LayerChoice = str | type | Callable[[Any], bool] | Iterable[Any] | None


@dataclass(frozen=True)
class Target:
    """One kernel of one layer.

    Attributes:
        name: The layer's name, after the names of the models it is nested in: "encoder/dense_1".
        layer: The Keras layer.
        kernel: Its `keras.Variable`.
    """

    name: str
    layer: Any
    kernel: Any


def named_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every layer with its name, going into nested models; a shared layer comes once."""
    seen: set[int] = set()

    def walk(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for layer in owner.layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, keras.Model):
                yield from walk(layer, f"{prefix}{layer.name}/")
            else:
                yield f"{prefix}{layer.name}", layer

    return walk(model, prefix)


def find_targets(model: Any, layers: LayerChoice = None) -> tuple[list[Target], dict[str, str]]:
    """Returns the kernels to act on, and the reason for each layer with weights that is skipped.

    Args:
        model: A built Keras model.
        layers: None for every layer with a kernel; or a name, a pattern such as "conv*", a layer type, a
            function from layer to bool, or several of these.

    Returns:
        The targets in the model's order, and a dict from layer name to reason.

    Raises:
        InvalidModel: No layer has a kernel, or the model is not built.
        InvalidOption: A name or pattern in `layers` matches none.
    """
    if not model.built or not model.weights:
        raise InvalidModel(
            f"The model {model.name!r} has no weights yet: build it, or call it on a batch, first."
        )
    chosen = _chooser(layers, [name for name, _ in named_layers(model)])
    targets, skipped = [], {}
    for name, layer in named_layers(model):
        if isinstance(layer, WITH_A_KERNEL):
            if chosen(name, layer):
                # `_kernel` is the variable itself: `kernel` may be computed, as after enable_lora.
                targets.append(
                    Target(name, layer, layer._kernel if hasattr(layer, "_kernel") else layer.kernel)
                )
            else:
                skipped[name] = "not among the layers asked for"
        elif layer.trainable_weights:
            skipped[name] = _reason(layer)
    if not targets:
        raise InvalidModel(
            f"The model {model.name!r} has no kernel to compress"
            + (f"; skipped: {skipped}." if skipped else ": none of its layers has weights.")
        )
    return targets, skipped


def _reason(layer: Any) -> str:
    for kinds, reason in _REASONS:
        if isinstance(layer, kinds):
            return reason
    return f"{type(layer).__name__} is not supported yet"


def _chooser(layers: LayerChoice, names: list[str]) -> Callable[[str, Any], bool]:
    if layers is None:
        return lambda name, layer: True
    if isinstance(layers, str):
        if not fnmatch.filter(names, layers):
            raise InvalidOption(
                f"layers={layers!r} matches no layer.{did_you_mean(layers, names)} Layers: {', '.join(names)}."
            )
        return lambda name, layer: fnmatch.fnmatchcase(name, layers)
    if isinstance(layers, type):
        return lambda name, layer: isinstance(layer, layers)
    if callable(layers):
        return lambda name, layer: bool(layers(layer))
    choosers = [_chooser(choice, names) for choice in layers]
    return lambda name, layer: any(choose(name, layer) for choose in choosers)
