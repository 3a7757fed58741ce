"""How each mode converts a model, decided and checked before work starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.deployment.modes import MODES, is_integer, label
from tfbig.deployment.trained_ranges import TrainedRanges, trained_mode, trained_ranges
from tfbig.errors import InvalidData, InvalidOption, unknown_choice

# Features that one 8-bit scale may have to share; images have up to 4 channels.
_MOST_CHANNELS = 4
# Below this share of zeros the places of the rest take more room than the zeros do.
_SPARSE = 0.5


@dataclass(frozen=True)
class Plan:
    """One conversion.

    Attributes:
        mode: Of `MODES`.
        edge: The dtype that the file takes and gives.
        float_front: Whether arithmetic before the first layer stays in float.
        calibrated: Whether rows of calibration give the ranges of activations.
        compact: Whether to try one scale for each dense kernel.
        sparse: Whether to try kernels without their zeros.
        refine: Whether to look for numbers that answer more like the model.
    """

    mode: str | None
    edge: str
    float_front: bool
    calibrated: bool
    compact: bool
    sparse: bool
    refine: bool = False

    @property
    def trained(self) -> bool:
        """Whether the model holds the ranges of its activations, from `quantize_aware`."""
        return is_integer(self.mode) and not self.calibrated


def make_plans(
    model: Any,
    modes: Sequence[str | None],
    auto: bool,
    calibration: Any,
    input_type: str | None,
    compact: bool,
    refine: bool = False,
) -> tuple[list[Plan], TrainedRanges | None]:
    """Returns a plan for each mode that can be tried, and the ranges that the model was trained with, if it was.

    Args:
        model: A built Keras model.
        modes: The modes asked for.
        auto: Whether modes that cannot be had are left out rather than refused.
        calibration: What the caller gave, or None.
        input_type: The edges asked for, or None.
        compact: Whether dense kernels with one scale are asked for.
        refine: Whether closer numbers are asked for.

    Raises:
        InvalidOption: A mode or edge that this model cannot have, or an option that no mode asked for takes.
        InvalidData: Ranges are needed and there is no calibration.
    """
    own = trained_mode(model)
    if auto and own is not None:
        modes = [own]
    elif auto and calibration is None:
        modes = [mode for mode in modes if not MODES[mode].integer]
    _check_edge(modes, input_type)
    if compact and not any(MODES[mode].integer for mode in modes):
        raise InvalidOption(
            'compact=True is for "int8" and "int16x8": other modes have no scale per output channel.'
        )
    if refine and not any(MODES[mode].integer for mode in modes):
        raise InvalidOption('refine=True is for "int8" and "int16x8": it works on rounding and ranges.')
    plans, trained = [], None
    for mode in modes:
        trained = trained_ranges(model, mode, input_type if input_type in MODES[mode].edges else None)
        if MODES[mode].integer and calibration is None and trained is None:
            raise InvalidData(
                f'quantize="{mode}" needs calibration= rows, as they look in use, to find the range of each '
                "activation. A hundred training rows will do. A model from tfbig.quantize_aware needs none."
            )
        if refine and trained is not None:
            raise InvalidOption(
                f"refine=True looks for ranges by calibration; the model {model.name!r} was trained with its own."
            )
        edge, float_front = _edges(model, mode, input_type, trained)
        plans.append(
            Plan(
                mode,
                edge,
                float_front,
                calibrated=MODES[mode].integer and trained is None,
                compact=compact and MODES[mode].integer,
                sparse=mode in (None, "float16") and _has_zeros(model),
                refine=refine and MODES[mode].integer,
            )
        )
    return plans, trained


def _check_edge(modes: Sequence[str | None], input_type: str | None) -> None:
    every = sorted({edge for mode in MODES.values() for edge in mode.edges})
    if input_type is not None and input_type not in every:
        raise unknown_choice("input_type", input_type, every)
    if input_type is not None and not any(input_type in MODES[mode].edges for mode in modes):
        able = " or ".join(
            f'quantize="{label(name)}"' for name, mode in MODES.items() if input_type in mode.edges
        )
        raise InvalidOption(f"input_type={input_type!r} is for {able}; other modes take float32.")


def _edges(
    model: Any, mode: str | None, input_type: str | None, trained: TrainedRanges | None
) -> tuple[str, bool]:
    """The dtype at the file's edges, and whether arithmetic before the first layer stays in float."""
    asked = input_type if input_type in MODES[mode].edges else None
    if mode != "int8":
        return asked or "float32", False
    if trained is not None:
        return asked or ("int8" if trained.reach_the_edges else "float32"), False
    per_feature = _begins_with_per_feature_normalization(model)
    edge = asked or ("float32" if per_feature else "int8")
    return edge, per_feature and edge == "float32"


def _begins_with_per_feature_normalization(model: Any) -> bool:
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if getattr(layer, "takes_missing", False):
            return True  # tfbig.encoder: columns of different units, and NaN
        return isinstance(layer, keras.layers.Normalization) and np.size(layer.variance) > _MOST_CHANNELS
    return False


def _has_zeros(model: Any) -> bool:
    kernels = [np.asarray(weight) for weight in model.trainable_weights if len(weight.shape) > 1]
    return any(kernel.size and np.mean(kernel == 0) >= _SPARSE for kernel in kernels)
