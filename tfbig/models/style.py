"""What the layers of one model have in common: activation, normalization, penalties, dropout, first weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, did_you_mean, unknown_choice
from tfbig.models.heads import head, regularizer
from tfbig.options import fraction

NORMS = ("batch", "layer", "group")
# Groups of channels that are normalized together, where the channels divide by so many; and how many channels a group
# holds at least: one value alone is always its own mean, and of two only their order would be left.
_GROUPS, _IN_A_GROUP = 8, 4


@dataclass(frozen=True)
class Style:
    """How the layers of one model are made; `make_style` checks it.

    Attributes:
        activation: A name that Keras knows.
        dropout: Share of values dropped while training.
        l1: L1 penalty on kernels.
        l2: L2 penalty on kernels.
        norm: "batch", "layer", "group" or None.
        initializer: Of kernels; a name or an object of Keras's.
    """

    activation: str
    dropout: float
    l1: float
    l2: float
    norm: str | None
    initializer: Any

    @property
    def use_bias(self) -> bool:
        """Whether a layer before a normalization has a bias: the normalization brings an offset."""
        return self.norm is None

    def kernel(self) -> dict[str, Any]:
        """Returns the options of a layer's kernel."""
        return {"kernel_regularizer": self.penalty(), "kernel_initializer": self.first_weights()}

    def penalty(self) -> Any:
        """Returns Keras's regularizer, or None."""
        return regularizer(self.l1, self.l2)

    def first_weights(self) -> Any:
        """Returns an initializer of its own: one object gives every kernel of one shape the same weights."""
        shared = isinstance(self.initializer, keras.initializers.Initializer)
        return self.initializer.clone() if shared else self.initializer

    def normalization(self, channels: int, **options: Any) -> list[Any]:
        """Returns the normalization of so many channels on the last axis, with Keras's options, or nothing."""
        if self.norm is None:
            return []
        if self.norm == "batch":
            return [keras.layers.BatchNormalization(**options)]
        if channels == 1:
            raise InvalidOption(
                f"norm={self.norm!r} takes its statistics over the units of a layer; of a single one it would leave 0 "
                'whatever goes in. Use norm="batch" or more units.'
            )
        if self.norm == "layer":
            return [keras.layers.LayerNormalization(**options)]
        groups = math.gcd(channels, _GROUPS)
        while groups > 1 and channels // groups < _IN_A_GROUP:
            groups //= 2
        return [keras.layers.GroupNormalization(groups, **options)]

    def dropping(self) -> list[Any]:
        """Returns a dropout layer, or nothing."""
        return [keras.layers.Dropout(self.dropout)] if self.dropout else []

    def head(self, task: str, outputs: int, denormalizer: Any) -> list[Any]:
        """Returns the last layers, as `heads.head` makes them."""
        return head(
            task,
            outputs,
            l1=self.l1,
            l2=self.l2,
            denormalizer=denormalizer,
            initializer=self.first_weights(),
        )


def make_style(
    *,
    activation: str,
    dropout: float,
    l1: float,
    l2: float,
    norm: str | None,
    initializer: Any,
    batch_norm: bool = False,
) -> Style:
    """Returns the checked style.

    Raises:
        InvalidOption: A share, penalty or name makes no sense, or `batch_norm` is at odds with `norm`.
    """
    if norm is not None and norm not in NORMS:
        raise unknown_choice("norm", norm, (*NORMS, None))
    if batch_norm and norm not in (None, "batch"):
        raise InvalidOption(f'batch_norm=True is short for norm="batch"; got norm={norm!r} beside it.')
    _known_to_keras("activation", activation, keras.activations)
    _known_to_keras("initializer", initializer, keras.initializers)
    regularizer(l1, l2)
    return Style(
        activation, fraction("dropout", dropout), l1, l2, "batch" if batch_norm else norm, initializer
    )


def with_preset(presets: Mapping[str, Mapping[str, Any]], preset: Any, **given: Any) -> dict[str, Any]:
    """Returns the sizes given, and the preset's for those that are None.

    Raises:
        InvalidOption: There is no such preset.
    """
    if not isinstance(preset, str) or preset not in presets:
        raise unknown_choice("preset", preset, presets)
    return {name: presets[preset][name] if size is None else size for name, size in given.items()}


def _known_to_keras(option: str, value: Any, module: Any) -> None:
    # Not by `get`: making a random initializer takes a seed, which would move the seeds of all layers after it.
    if callable(value) or (isinstance(value, str) and callable(getattr(module, value, None))):
        return
    names = [name for name in dir(module) if not name.startswith("_")]
    raise InvalidOption(
        f"{option} must be a name that Keras knows; got {value!r}.{did_you_mean(str(value), names)}"
    )
