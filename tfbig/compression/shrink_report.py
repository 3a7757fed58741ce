"""What a shrinking will do, as plain data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfbig.compression.macs import count_macs
from tfbig.records import Record

_WIDE = 32


@dataclass(frozen=True)
class ModelSize(Record):
    """What a model costs.

    Attributes:
        parameters: Values in all weights.
        macs: Multiply-accumulates of one example, over the layers whose work is known.
        float_bytes: Expected of the weights in a float32 file: four for each. What is folded into the layer
            before, as batch normalization mostly is, makes the file smaller; its graph adds a few kB.
        int8_bytes: Expected of the weights in an int8 file: one for each value of a kernel, four for every other.
    """

    parameters: int
    macs: int
    float_bytes: int
    int8_bytes: int


@dataclass(frozen=True)
class ShrunkChannels(Record):
    """Channels that are chosen among together.

    Attributes:
        makers: The layers that make them; several where their outputs are added or otherwise go together.
        readers: The layers whose kernels read them, which become smaller too.
        channels: How many there are.
        kept: How many stay.
    """

    makers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int
    kept: int


@dataclass(frozen=True)
class ShrinkReport(Record):
    """What `shrink` will do to a model. `print` shows a line per group of channels, and the sizes.

    Attributes:
        groups: A `ShrunkChannels` per group of channels that go together.
        skipped: Name of each layer that is left whole to the reason.
        before: The model's size as it is.
        after: Its size when shrunk.
    """

    groups: tuple[ShrunkChannels, ...]
    before: ModelSize
    after: ModelSize
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        names = [" + ".join(group.makers) for group in self.groups]
        # A long name stands on a line of its own.
        width = max(len(name) for name in [*names, *self.skipped, "bytes in float32"] if len(name) <= _WIDE)
        lines = []
        for name, group in zip(names, self.groups, strict=True):
            lines += [name] * (len(name) > width)
            lines.append(
                f"{name if len(name) <= width else '':{width}}  {group.kept:,} of {group.channels:,} channels, "
                f"read by {', '.join(group.readers)}"
            )
        lines += [f"{name:{width}}  skipped: {reason}" for name, reason in self.skipped.items()]
        sizes = {
            "parameters": "parameters",
            "macs": "MACs",
            "float_bytes": "bytes in float32",
            "int8_bytes": "bytes in int8",
        }
        for attribute, title in sizes.items():
            before, after = getattr(self.before, attribute), getattr(self.after, attribute)
            share = f"  ({after / before:.1%})" if before else ""
            lines.append(f"{title:{width}}  {before:,} → {after:,}{share}")
        return "\n".join(lines)


def size_of(model: Any) -> ModelSize:
    """Measures what a model costs."""
    total = sum(math.prod(variable.shape) for variable in model.weights)
    kernels = sum(math.prod(variable.shape) for variable in model.weights if len(variable.shape) > 1)
    macs = sum(work.macs or 0 for work in count_macs(model).values())
    return ModelSize(total, macs, 4 * total, kernels + 4 * (total - kernels))
