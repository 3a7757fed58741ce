"""Keyword options, checked before any work starts: a misspelt one gets "did you mean"."""

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tfbig.errors import InvalidOption, UnknownOption, did_you_mean

Function = TypeVar("Function", bound=Callable[..., Any])


def names(function: Callable[..., Any]) -> list[str]:
    """Returns the keyword options that `function` names itself, in the order of its signature.

    Example:
        >>> names(lambda x, *, epochs=1, batch_size=32, **rest: None)
        ['epochs', 'batch_size']
    """
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def checked(
    passes_on_to: Callable[..., Any] | None = None, also_known_as: Mapping[str, str] | None = None
) -> Callable[[Function], Function]:
    """Decorates a function so that an option it does not know raises, with the nearest name.

    Args:
        passes_on_to: The function that receives the remaining `**options`; its keyword-only options are
            accepted too. Options are thereby checked at the outermost call, not deep inside a fold.
        also_known_as: Other names of options, as another library calls them, to ours.

    Returns:
        The decorator. Calls of the decorated function raise `UnknownOption` for a misspelt option.
    """

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        known = [p.name for p in parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        listed = names(function) + (names(passes_on_to) if passes_on_to else [])
        known += listed

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            for other, name in (also_known_as or {}).items():
                if other in options:
                    options[name] = options.pop(other)
            for name in options:
                if name not in known:
                    raise UnknownOption(
                        f"{function.__name__}() has no option {name!r}.{did_you_mean(name, known)} "
                        f"Its options: {', '.join(listed)}."
                    )
            return function(*args, **options)

        # Remembered so that a function that passes options on to this one sees all of them.
        call.__signature__ = _merged_signature(function, passes_on_to)  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def _merged_signature(function: Callable[..., Any], other: Callable[..., Any] | None) -> inspect.Signature:
    """The signature a reader should see: `**options` replaced by the options they stand for."""
    own = inspect.signature(function)
    if other is None:
        return own
    kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    passed = [
        p
        for p in inspect.signature(other).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in own.parameters
    ]
    return own.replace(parameters=kept + passed)


def positive_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """Returns `value` as an int of at least `minimum`, else raises `InvalidOption`."""
    try:
        # By name: NumPy's bool counts as an index in some versions, and NumPy is not imported here.
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise InvalidOption(f"{name} must be a whole number of at least {minimum}; got {value!r}.")
    return number


def fraction(name: str, value: Any, *, closed_above: bool = False) -> float:
    """Returns `value` as a float in [0, 1), or in [0, 1] with `closed_above`, else raises `InvalidOption`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    inside = 0 <= number <= 1 if closed_above else 0 <= number < 1
    if not inside:
        interval = "[0, 1]" if closed_above else "[0, 1)"
        raise InvalidOption(f"{name} must be a number in {interval}; got {value!r}.")
    return number
