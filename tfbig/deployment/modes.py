"""The modes of `export`: their names, how close a file's answers must be, and what helps where they are not."""

from dataclasses import dataclass

from tfbig.errors import unknown_choice


@dataclass(frozen=True)
class Mode:
    """One way to store and compute a model.

    Attributes:
        tolerance: Mean error allowed, as a share of the range of the model's outputs.
        integer: Whether activations are integers, so that their ranges must be known.
        edges: The dtypes that a file may take and give.
        advice: What to try where the file's answers are not the model's.
    """

    tolerance: float
    integer: bool
    edges: tuple[str, ...]
    advice: str


# float32 differs by the order of sums only; float16 keeps 11 bits of each weight; 8 bits give errors of about 1 step
# in 256 per layer, so 5% is a file that computes something else (a sound int8 model stays well below 2%).
MODES: dict[str | None, Mode] = {
    None: Mode(
        1e-5,
        False,
        ("float32",),
        "The converter computes something else than Keras: please report this model.",
    ),
    "float16": Mode(2e-3, False, ("float32",), "Try quantize=None."),
    "dynamic": Mode(3e-2, False, ("float32",), 'Try quantize="float16".'),
    "int8": Mode(
        5e-2,
        True,
        ("float32", "int8", "uint8"),
        'Calibrate with rows as they look in use, or try quantize="int16x8", "dynamic" or "float16"; inputs of '
        'different units need input_type="float32" and a normalizer.',
    ),
    "int16x8": Mode(3e-2, True, ("float32", "int16"), 'Try quantize="dynamic" or "float16".'),
}


def asked_modes(quantize: object) -> tuple[str | None, ...]:
    """Returns the modes that `quantize` names: one, several, or all of them for "auto".

    Raises:
        InvalidOption: A mode is unknown or named twice.
    """
    if quantize == "auto":
        return tuple(MODES)
    listed = tuple(quantize) if isinstance(quantize, list | tuple) else (quantize,)
    for mode in listed:
        if mode not in MODES:
            raise unknown_choice("quantize", mode, [*MODES, "auto"])
    if not listed or len(set(listed)) < len(listed):
        raise unknown_choice("quantize", quantize, [*MODES, "auto", "a list of different ones"])
    return listed


def is_integer(mode: str | None) -> bool:
    """Returns whether files of the mode compute in integers; not so of a mode that is unknown."""
    return mode in MODES and MODES[mode].integer


def label(mode: str | None) -> str:
    """Returns the mode's name in words and file names; the one of `None` is "float32"."""
    return mode or "float32"
