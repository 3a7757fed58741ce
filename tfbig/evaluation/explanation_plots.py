"""Pictures of explanations, of plain numbers like those in `tfbig.plots`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.plots import BLUE, GREY, new_figure


def bars(values: Mapping[str, float], label: str, spread: Sequence[float] = ()) -> Any:
    """Draws a bar per name, the first at the top.

    Args:
        values: Name to length.
        label: What the lengths are.
        spread: Reach of the line at each bar's end; () for none.
    """
    figure, ax = new_figure(6.4, 1.2 + 0.28 * len(values))
    places = range(len(values))
    ax.barh(places, list(values.values()), xerr=list(spread) or None, color=BLUE, ecolor=GREY)
    ax.set_yticks(places, list(values))
    ax.invert_yaxis()
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set(xlabel=label)
    return figure


def heat_maps(images: np.ndarray, values: np.ndarray, target: np.ndarray | None = None) -> Any:
    """Draws images, and below each what speaks for its target (red) and against it (blue).

    Args:
        images: Shape (rows, height, width, channels).
        values: Shape (rows, height, width), or smaller: places of the image.
        target: The output explained, per row; None for no titles.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 1.7 * len(images), 3.8), layout="constrained")
    axes = figure.subplots(2, len(images), squeeze=False)
    colours = _colours(values)
    for column, (image, value) in enumerate(zip(images, values, strict=True)):
        above, below = axes[:, column]
        above.imshow(_picture(image), cmap="gray")
        drawn = below.imshow(value, **colours)
        if target is not None:
            above.set_title(f"output {int(target[column])}", fontsize=9)
        for ax in (above, below):
            ax.set_xticks([])
            ax.set_yticks([])
    figure.colorbar(drawn, ax=axes[1, :].tolist(), shrink=0.9)
    return figure


def sequence(values: np.ndarray, across: str, down: str, names: Sequence[str] = ()) -> Any:
    """Draws a table of numbers as colours, red above zero and blue below.

    Args:
        values: Shape (down, across).
        across: What stands along the x axis.
        down: What stands along the y axis.
        names: Of the rows of the table; () for numbers.
    """
    height, width = values.shape
    figure, ax = new_figure(min(12, 2.5 + 0.25 * width), min(9, 1.6 + 0.25 * height))
    drawn = ax.imshow(values, aspect="auto", **_colours(values))
    ax.set(xlabel=across, ylabel=down)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)
    if 0 < len(names) <= 30:
        ax.set_yticks(range(len(names)), names)
    figure.colorbar(drawn)
    return figure


def matrices(maps: Mapping[str, np.ndarray]) -> Any:
    """Draws a matrix of attention weights per layer: what each query (row) looks at (column).

    Args:
        maps: Layer name to weights of shape (queries, keys).
    """
    figure, _ = new_figure(3.4 * len(maps), 3.4, columns=len(maps))
    for ax, (name, weights) in zip(list(figure.axes), maps.items(), strict=True):
        drawn = ax.imshow(weights, cmap="Blues", vmin=0)
        ax.set_title(name, fontsize=9)
        ax.set(xlabel="key", ylabel="query")
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True)
        figure.colorbar(drawn, ax=ax, shrink=0.8)
    return figure


def _colours(values: np.ndarray) -> dict[str, Any]:
    """White for zero, red above and blue below; where nothing is below, red only."""
    reach = float(np.abs(values).max()) or 1.0
    signed = bool((values < 0).any())
    return {"cmap": "RdBu_r" if signed else "Reds", "vmin": -reach if signed else 0.0, "vmax": reach}


def _picture(image: np.ndarray) -> np.ndarray:
    """An image with values in [0, 1], as colours for 3 channels and as their mean for others."""
    values = image.astype(np.float64)
    values = (values - values.min()) / (float(np.ptp(values)) or 1.0)
    return values if values.shape[-1] == 3 else values.mean(axis=-1)
