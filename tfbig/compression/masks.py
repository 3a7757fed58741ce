"""What a mask looks like: single weights, blocks or m zeros of n; with a threshold per layer or for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.pruning import m_by_n_mask, magnitude_mask
from tfbig.compression.targets import Target
from tfbig.errors import InvalidModel, InvalidOption, unknown_choice
from tfbig.options import positive_int

# TFMOT's names of the same options, for those who bring their settings along.
TFMOT_NAMES = {
    "pruning_schedule": "schedule",
    "block_pooling_type": "block_pooling",
    "sparsity_m_by_n": "m_by_n",
}
_POOLINGS = ("AVG", "MAX")
_SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Pattern:
    """The form of the zeros. Made by `check_pattern`.

    Attributes:
        block_size: (rows, columns) of the blocks kept or dropped whole; (1, 1) for single weights.
        block_pooling: "AVG" or "MAX" of a block's magnitudes decides about it.
        m_by_n: (m, n) for m zeros in every n consecutive input channels, else None.
        scope: "layer" for a threshold per kernel, "global" for one over all of them.
    """

    block_size: tuple[int, int]
    block_pooling: str
    m_by_n: tuple[int, int] | None
    scope: str

    def fitting(self, targets: list[Target]) -> tuple[list[Target], dict[str, str]]:
        """Returns the targets that can take this form, and the reason for each that cannot.

        Raises:
            InvalidOption: A block does not fit a kernel's axes.
            InvalidModel: No kernel can take m zeros of n.
        """
        if self.block_size != (1, 1):
            wrong = [target.name for target in targets if len(target.kernel.shape) != 2]
            if wrong:
                raise InvalidOption(
                    f"block_size={self.block_size} needs two-dimensional kernels; these are not: "
                    f"{', '.join(wrong)}. Choose the others with layers=."
                )
        if self.m_by_n is None:
            return targets, {}
        reasons = {target.name: self._misfit(target) for target in targets}
        skipped = {name: reason for name, reason in reasons.items() if reason}
        if len(skipped) == len(targets):
            raise InvalidModel(f"No kernel can hold m_by_n={self.m_by_n}; skipped: {skipped}.")
        return [target for target in targets if target.name not in skipped], skipped

    def masks(
        self, kernels: list[Any], sparsity: float, input_axes: Sequence[int] | None = None
    ) -> list[Any]:
        """Returns a mask of 0s and 1s for each kernel.

        Args:
            kernels: Tensors, in the order of the targets.
            sparsity: Share of zeros, in [0, 1); m zeros of n decide it themselves.
            input_axes: For each kernel what `input_axis` gave; by default the last but one.
        """
        if self.m_by_n is not None:
            axes = input_axes or [-2] * len(kernels)
            return [self._m_by_n_mask(kernel, axis) for kernel, axis in zip(kernels, axes, strict=True)]
        if self.scope == "layer":
            blocks = (self.block_size, self.block_pooling)
            return [magnitude_mask(kernel, sparsity, *blocks) for kernel in kernels]
        together = tf.concat([tf.reshape(tf.cast(kernel, tf.float32), [-1]) for kernel in kernels], axis=0)
        parts = tf.split(magnitude_mask(together, sparsity), [int(np.prod(k.shape)) for k in kernels])
        return [tf.cast(tf.reshape(part, k.shape), k.dtype) for part, k in zip(parts, kernels, strict=True)]

    def input_axis(self, target: Target) -> int:
        """Returns which axis of a target's kernel holds the input channels: -2, or -1."""
        return _input_axis(target.layer) or -2

    def _m_by_n_mask(self, kernel: Any, axis: int) -> Any:
        assert self.m_by_n is not None
        if axis == -2:
            return m_by_n_mask(kernel, self.m_by_n)
        turn = [*range(len(kernel.shape) - 2), len(kernel.shape) - 1, len(kernel.shape) - 2]
        return tf.transpose(m_by_n_mask(tf.transpose(kernel, turn), self.m_by_n), turn)

    def _misfit(self, target: Target) -> str:
        assert self.m_by_n is not None
        shape, axis = target.kernel.shape, _input_axis(target.layer)
        if len(shape) not in (2, 4):
            return f"m_by_n is for kernels of dense layers and images; this one has {len(shape)} axes"
        if axis is None:
            return (
                f"m_by_n runs along one axis of input channels; {target.layer.equation!r} has none or several"
            )
        if shape[axis] % self.m_by_n[1]:
            return f"its {shape[axis]} input channels do not divide by {self.m_by_n[1]}"
        return ""


def _input_axis(layer: Any) -> int | None:
    """The axis of the input channels in a kernel of two or four axes, or None if it is neither of the last two."""
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return -1
    if not isinstance(layer, keras.layers.EinsumDense):
        return -2
    inputs, outputs = layer.equation.replace(" ", "").split("->")
    axes = inputs.split(",")[1]
    summed = [i - len(axes) for i, axis in enumerate(axes) if axis not in outputs]
    return summed[0] if summed in ([-2], [-1]) else None


def check_pattern(block_size: Any, block_pooling: str, m_by_n: Any, scope: str) -> Pattern:
    """Returns the pattern of these options.

    Raises:
        InvalidOption: A value makes no sense, or two of them exclude each other.
    """
    blocks = _pair("block_size", block_size, "(rows, columns), such as (1, 4)")
    if block_pooling not in _POOLINGS:
        raise unknown_choice("block_pooling", block_pooling, _POOLINGS)
    if scope not in _SCOPES:
        raise unknown_choice("scope", scope, _SCOPES)
    if m_by_n is not None:
        m_by_n = _pair("m_by_n", m_by_n, "(zeros, of), such as (2, 4)")
        if m_by_n[0] >= m_by_n[1]:
            raise InvalidOption(f"m_by_n must be (m, n) with m below n: m zeros of n weights; got {m_by_n}.")
    if sum((blocks != (1, 1), m_by_n is not None, scope == "global")) > 1:
        raise InvalidOption('Choose one of block_size=, m_by_n= and scope="global": they exclude each other.')
    return Pattern(blocks, block_pooling, m_by_n, scope)


def _pair(name: str, value: Any, example: str) -> tuple[int, int]:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise InvalidOption(f"{name} must be {example}; got {value!r}.") from None
    return positive_int(f"each part of {name}", first), positive_int(f"each part of {name}", second)
