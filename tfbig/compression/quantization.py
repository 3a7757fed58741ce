"""Quantization-aware training of Keras 3 models, which TFMOT does for legacy ones only."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.graph import graph_of
from tfbig.backend.internals import every_layer, layers_inside
from tfbig.compression import integer_rules as rules
from tfbig.compression.delays import check_delay, warn_of_delay
from tfbig.compression.integer_build import Settings, build
from tfbig.compression.integer_plan import Plan, computes_in_float, kind_of_call, make_plan
from tfbig.compression.keeping import Keep
from tfbig.compression.kept import PRESERVE
from tfbig.compression.targets import LayerChoice, check_finite, find_targets
from tfbig.compression.wiring import read_wiring
from tfbig.errors import InvalidModel, unknown_choice
from tfbig.layers.attending import HiddenScores, Remasked
from tfbig.layers.kernels import QuantizedLayer
from tfbig.layers.ranges import RANGES, FakeQuant
from tfbig.layers.rounding import RoundedInside
from tfbig.options import checked, positive_int
from tfbig.records import Record
from tfbig.training import checks
from tfbig.training.fit import fit
from tfbig.training.replicas import carry_compile_settings

_WEIGHT_BITS = (4, 8)
_ACTIVATION_BITS = (8, 16)


@dataclass(frozen=True)
class LayerQuantization(Record):
    """How the kernel of one layer is rounded.

    Attributes:
        name: Of the layer.
        kind: Its type, such as "Conv2D".
        bits: 8, or 4 for at most 15 levels.
        scales: How many the kernel has: one per output channel, or one.
        folded: Whether a batch normalization, or another factor per channel, is part of the kernel.
        zeros: Share of weights held at 0; None where zeros are free.
        clusters: How many values the weights share; None where they are free.
    """

    name: str
    kind: str
    bits: int
    scales: int
    folded: bool
    zeros: float | None
    clusters: int | None


@dataclass(frozen=True)
class QuantizationReport(Record):
    """What of a model is rounded as an integer file rounds it.

    Attributes:
        layers: A `LayerQuantization` per kernel, in the model's order.
        ranges: Name of each layer that rounds activations to the smallest and largest value of its range.
        activation_bits: Of these.
        in_float: Layer name to the reason why it computes in float.
    """

    layers: tuple[LayerQuantization, ...]
    ranges: Mapping[str, tuple[float, ...]]
    activation_bits: int
    in_float: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(
            len(name) for name in [*(layer.name for layer in self.layers), *self.in_float, "activations"]
        )
        lines = []
        for layer in self.layers:
            notes = [f"{layer.bits} bits", f"{layer.scales} scale{'s' * (layer.scales != 1)}"]
            notes += ["normalization folded in"] * layer.folded
            notes += [] if layer.zeros is None else [f"{layer.zeros:.1%} zeros kept"]
            notes += [] if layer.clusters is None else [f"{layer.clusters} values kept"]
            lines.append(f"{layer.name:{width}}  {layer.kind}: {', '.join(notes)}")
        lines.append(f"{'activations':{width}}  {self.activation_bits} bits, {len(self.ranges)} ranges")
        return "\n".join(lines + [f"{name:{width}}  in float: {why}" for name, why in self.in_float.items()])


@checked(passes_on_to=fit)
def quantize_aware(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    layers: LayerChoice = None,
    weight_bits: int | Mapping[str, int] = 8,
    activation_bits: int = 8,
    ranges: str = "moving_average",
    delay: int = 0,
    preserve: str | None = "auto",
    **fit_options: Any,
) -> Any:
    """Returns a copy of the model, trained further through the rounding that an 8-bit file will do.

    `export(…, quantize="int8")` then needs no calibration: the ranges are in the model. Kernels are rounded to
    symmetric levels with a scale per channel, activations to 256 levels over a range that training finds (Jacob et
    al., 2018, https://arxiv.org/abs/1712.05877). A batch normalization after a layer follows the batches while it
    trains, as before, and is folded into the kernel wherever the model predicts, as in the file. Frozen ones
    (`layer.trainable = False`) are folded from the first step on, which suits small batches and Krishnamoorthi's
    advice for the end of a long training (2018, https://arxiv.org/abs/1806.08342).

    Zeros and shared values from `prune` and `cluster` stay, also in the file. Where a batch normalization with
    negative factors is folded in, such a channel holds its shared values mirrored.

    Normalization layers, attention and activations that take several integer operators are rounded at each. Recurrent
    layers, convolutions in three dimensions, functions whose operand may round to 0 (`log`, division) and custom layers
    stay in float, and `tfbig.quantization(model)` lists them. Their zeros and shared values stay through this training,
    those of rounded kernels through any later one too.

    Args:
        model: A trained Keras model, Sequential or functional. It is not changed.
        x: As in `fit`.
        y: As in `fit`.
        layers: Which layers with kernels, as in `Prune`; by default all that LiteRT computes in integers. The
            others stay in float.
        weight_bits: 8; or 4, for 15 levels: the file packs them in 4 bits for 2-D and depthwise convolutions, and
            for dense layers of shared values; others hold them in 8 bits each, which only compress better. Or a
            dict from names or patterns of layers to bits; others have 8.
        activation_bits: 8; or 16, for a file by `export(…, quantize="int16x8")`: closer to the float model, and slower
            where LiteRT has fast kernels for 8 bits only. What the converter takes in 8 bits only (normalization, GELU,
            concatenation, upsampling) computes in float there; the file's report lists it.
        ranges: "moving_average" follows the smallest and largest value of each batch; "learned" trains the
            ranges with the weights (LSQ, https://arxiv.org/abs/1902.08153).
        delay: Gradient steps before activations are rounded; kernels are from the first on.
        preserve: What stays of the kernels as they are: "auto" for zeros (from 5% on) and shared values (up to
            256), "zeros" or "clusters" for one of them, None for neither.
        **fit_options: As in `fit`.

    Returns:
        A Keras model with layers of `tfbig.layers` in it. It trains, saves and loads as any other.

    Raises:
        InvalidOption: A value makes no sense, a name matches no layer, or `delay` outlasts the training.
        InvalidModel: There is nothing to quantize, the model is quantized already, not built, or subclassed.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.random.default_rng(0).normal(size=(64, 16)); y = (x[:, 0] > 0).astype(int)
        >>> rounded = tfbig.quantize_aware(tfbig.models.mlp((16,), 2, hidden=(8,)), x, y, epochs=2, verbose=0)
        >>> [layer.bits for layer in tfbig.quantization(rounded).layers]
        [8, 8]
    """
    _check_model(model)
    if activation_bits not in _ACTIVATION_BITS:
        raise unknown_choice("activation_bits", activation_bits, _ACTIVATION_BITS)
    if ranges not in RANGES:
        raise unknown_choice("ranges", ranges, RANGES)
    if preserve not in PRESERVE:
        raise unknown_choice("preserve", preserve, PRESERVE)
    delay = positive_int("delay", delay, minimum=0)
    check_delay(delay, x, fit_options)
    bits = _bits_of(model, weight_bits)
    with model.distribute_strategy.scope():
        plan = make_plan(read_wiring(model), _chooser(model, layers))
        _check_plan(model, plan)
        _warn_of_lost(plan)
        rounded = build(plan, Settings(bits, activation_bits, ranges, delay, preserve), model.name)
        carry_compile_settings(model, rounded)
    others = checks.callbacks(fit_options.pop("callbacks", ()))
    fit(rounded, x, y, callbacks=[*others, Keep(preserve)], **fit_options)
    warn_of_delay(delay, rounded)
    return rounded


def quantization(model: Any) -> QuantizationReport:
    """Lists what of a model made by `quantize_aware` is rounded, and what stays in float and why.

    Args:
        model: Such a model, fresh or loaded.

    Returns:
        A `QuantizationReport`; `print` shows a line per layer.

    Raises:
        InvalidModel: The model holds no rounding.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.ones((32, 4)); y = np.zeros(32)
        >>> rounded = tfbig.quantize_aware(tfbig.models.mlp((4,), 2, hidden=()), x, y, epochs=1, verbose=0)
        >>> tfbig.quantization(rounded).in_float
        {}
    """
    if not is_quantized(model):
        raise InvalidModel(
            f"{getattr(model, 'name', model)!r} is not quantized. tfbig.quantize_aware makes one."
        )
    if graph_of(model) is None:
        raise InvalidModel(
            f"The model {model.name!r} is subclassed, so its calls cannot be followed. Ask about the quantized model "
            "inside it."
        )
    layers = _by_path(model)
    watchers = {path: layer for path, layer in layers.items() if isinstance(layer, FakeQuant)}
    ranges = {path: _range_of(layer) for path, layer in watchers.items()}
    own = (FakeQuant, QuantizedLayer, RoundedInside, HiddenScores, Remasked)
    calls = [call for call in read_wiring(model).calls if not isinstance(call.op, own)]
    in_float = {}
    for call in calls:
        kind, reason = kind_of_call(call, lambda op: False)
        if computes_in_float(call, kind):
            in_float[call.name] = reason
    kernels = [_described(path, layer) for path, layer in layers.items() if isinstance(layer, QuantizedLayer)]
    bits = max(layer.bits for layer in watchers.values())
    return QuantizationReport(tuple(kernels), ranges, bits, in_float)


def is_quantized(model: Any) -> bool:
    """Whether the model holds layers that `quantize_aware` puts in."""
    return isinstance(model, keras.Model) and any(
        isinstance(layer, FakeQuant | QuantizedLayer) for layer in every_layer(model)
    )


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise InvalidModel(f"Expected a keras.Model; got {type(model).__name__}.")
    if is_quantized(model):
        raise InvalidModel(
            f"The model {model.name!r} is quantized already. To train it further, use tfbig.fit; to change its "
            "bits, quantize the model that it was made from."
        )
    if not model.built:
        raise InvalidModel(
            f"The model {model.name!r} has no weights yet: build it, or call it on a batch, first."
        )
    if not model.weights:
        raise InvalidModel(
            f"The model {model.name!r} has no layer to quantize: none of its layers has weights."
        )
    if graph_of(model) is None:
        raise InvalidModel(
            f"The model {model.name!r} is subclassed: what its layers are called on is hidden in its code, so "
            "rounding cannot be put between them. Sequential and functional models can be trained; for this one, "
            'tfbig.export(model, path, quantize="int8", calibration=x) quantizes after training.'
        )
    _check_own_numbers(model)
    check_finite(model)


def _check_own_numbers(model: Any) -> None:
    """Refuses layers whose kernels Keras keeps in another form than float numbers that all train."""
    layers = every_layer(model)
    integers = [layer.name for layer in layers if getattr(layer, "quantization_mode", None)]
    adapted = [layer.name for layer in layers if getattr(layer, "lora_enabled", False)]
    if integers:
        raise InvalidModel(
            f"Keras quantized {', '.join(integers)} (model.quantize), which leaves nothing to train: quantize the "
            "model that it was made from."
        )
    if adapted:
        raise InvalidModel(
            f"LoRA adapts {', '.join(adapted)}, which a file has no place for. Merge it into the kernels first: "
            "save_weights() does so; load the weights into the same model without enable_lora()."
        )


def _warn_of_lost(plan: Plan) -> None:
    if plan.lost:
        named = "; ".join(f"{layer}: {', '.join(lost)}" for layer, lost in plan.lost.items())
        warnings.warn(
            f"Folding normalizations into kernels ends these penalties and constraints: {named}. Those of the kernels "
            "themselves stay.",
            stacklevel=4,  # past the check of the options
        )


def _check_plan(model: Any, plan: Plan) -> None:
    if rules.KERNEL not in plan.kinds.values():
        raise InvalidModel(
            f"The model {model.name!r} has no layer to quantize; in float: {plan.in_float or 'nothing'}."
        )


def _chooser(model: Any, layers: LayerChoice) -> Callable[[Any], bool]:
    if layers is None:
        return lambda op: True
    targets, _ = find_targets(model, layers)
    chosen = {id(target.layer) for target in targets}
    return lambda op: bool(chosen & _with_inner(op))


def _bits_of(model: Any, weight_bits: Any) -> Callable[[Any], int]:
    """From a layer to the bits of its kernel."""
    if not isinstance(weight_bits, Mapping):
        _check_bits("weight_bits", weight_bits)
        return lambda op: weight_bits
    chosen: list[tuple[Callable[[Any], bool], int]] = []
    for pattern, bits in weight_bits.items():
        _check_bits(f"weight_bits[{pattern!r}]", bits)
        chosen.append((_chooser(model, pattern), bits))
    return lambda op: next((bits for choose, bits in chosen if choose(op)), 8)


def _check_bits(name: str, bits: Any) -> None:
    if isinstance(bits, bool) or bits not in _WEIGHT_BITS:
        raise unknown_choice(name, bits, _WEIGHT_BITS)


def _with_inner(op: Any) -> set[int]:
    inner = layers_inside(op) if isinstance(op, keras.layers.Layer) else []
    return {id(op), *(id(layer) for layer in inner)}


def _range_of(layer: FakeQuant) -> tuple[float, float]:
    lowest, highest = layer.limits() if layer.known_range is None else layer.known_range_as_levels()
    return float(lowest), float(highest)


def _by_path(model: Any, prefix: str = "") -> dict[str, Any]:
    """The layers of a model and of those nested in it, in order, by their paths such as "encoder/dense"."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        nested = graph_of(layer) is not None
        found.update(_by_path(layer, f"{prefix}{layer.name}/") if nested else {prefix + layer.name: layer})
        if isinstance(layer, RoundedInside):
            found.update((f"{prefix}{layer.name}/{part}", inner) for part, inner in layer.inner.items())
    return found


def _described(path: str, layer: QuantizedLayer) -> LayerQuantization:
    return LayerQuantization(
        name=path,
        kind=type(layer.layer).__name__,
        bits=layer.bits,
        scales=layer.scales,
        folded=layer.folded,
        zeros=float(1 - np.asarray(layer.mask).mean()) if layer.zeros else None,
        clusters=layer.clusters,
    )
