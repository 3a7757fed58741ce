"""Images changed at random while a model trains, by Keras's own layers; nothing of it is in what ships."""

from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.options import checked, fraction

_FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")


@checked()
def augmentation(
    *,
    flip: str | None = "horizontal",
    rotation: float = 0.0,
    shift: float = 0.0,
    zoom: float = 0.0,
    contrast: float = 0.0,
    brightness: float = 0.0,
    value_range: tuple[float, float] = (0.0, 255.0),
    fill: str = "nearest",
    seed: int | None = None,
) -> "keras.Sequential":
    """Returns layers that change images at random in training, and leave them as they are otherwise.

    It goes before the normalizer: `keras.Sequential([keras.Input(shape), augmentation(…), *model.layers])`. In
    `predict`, in `evaluate` and in an exported file it is as if it were not there.

    Args:
        flip: "horizontal", "vertical", "horizontal_and_vertical", or None. Not for what has a side, such as digits.
        rotation: Largest turn either way, as a share of a full one, in [0, 1]: 0.1 is 36 degrees.
        shift: Largest move either way, as a share of height and width, in [0, 1].
        zoom: Largest change of size, as a share, in [0, 1).
        contrast: Largest change of contrast, as a share, in [0, 1].
        brightness: Largest change of brightness, as a share of the range, in [0, 1].
        value_range: Smallest and largest value of a pixel.
        fill: What appears at the edges: "nearest", "reflect", "wrap", or "constant" for 0.
        seed: Makes the changes the same in each run; None draws one by Keras's seeds, which `tfbig.fit(seed=…)` sets
            for what a builder makes.

    Returns:
        A `keras.Sequential` of Keras's random layers.

    Raises:
        InvalidOption: A share or name makes no sense, or nothing is asked for.

    Example:
        >>> import numpy as np
        >>> images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype("float32")
        >>> layers = augmentation(rotation=0.1, brightness=0.2)
        >>> [bool(np.all(layers(images, training=training) == images)) for training in (False, True)]
        [True, False]
    """
    if flip is not None and flip not in _FLIPS:
        raise unknown_choice("flip", flip, (*_FLIPS, None))
    if fill not in ("nearest", "reflect", "wrap", "constant"):
        raise unknown_choice("fill", fill, ("nearest", "reflect", "wrap", "constant"))
    low, high = value_range
    if not low < high:
        raise InvalidOption(f"value_range must be the smallest and the largest value; got {value_range!r}.")
    rotation = fraction("rotation", rotation, closed_above=True)
    shift = fraction("shift", shift, closed_above=True)
    zoom = fraction("zoom", zoom)
    contrast = fraction("contrast", contrast, closed_above=True)
    brightness = fraction("brightness", brightness, closed_above=True)
    layers, chance = keras.layers, {"seed": seed}
    chosen: list[Any] = []
    if flip is not None:
        chosen.append(layers.RandomFlip(flip, **chance))
    if rotation:
        chosen.append(layers.RandomRotation(rotation, fill_mode=fill, **chance))
    if shift:
        chosen.append(layers.RandomTranslation(shift, shift, fill_mode=fill, **chance))
    if zoom:
        chosen.append(layers.RandomZoom((-zoom, zoom), fill_mode=fill, **chance))
    if contrast:
        chosen.append(layers.RandomContrast(contrast, value_range=(low, high), **chance))
    if brightness:
        chosen.append(layers.RandomBrightness(brightness, value_range=(low, high), **chance))
    if not chosen:
        raise InvalidOption(
            "Nothing is to be changed: give at least one of flip, rotation, shift, zoom, contrast, "
            "brightness."
        )
    return keras.Sequential(chosen, name="augmentation")
