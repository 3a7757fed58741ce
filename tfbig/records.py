"""Results are frozen dataclasses that go to JSON and come back equal."""

import dataclasses
import json
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tfbig.errors import UnreadableFile
from tfbig.files import written_whole


class Record:
    """Mixin for a frozen dataclass that is written to JSON and read back.

    Fields hold numbers, strings, None, tuples, mappings and other records. NumPy scalars and arrays are written
    as numbers and nested lists.
    """

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as plain Python values, ready for `json.dumps`."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Returns the record as JSON text; with `path`, writes it there as well, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=2)
        if path is not None:
            with written_whole(Path(path)) as staged:
                staged.write_text(text + "\n")
        return text

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from what `to_dict` gave; fields it does not know are an error."""
        hints = typing.get_type_hints(cls)
        unknown = set(values) - set(hints)
        if unknown:
            raise UnreadableFile(f"A {cls.__name__} has no fields {sorted(unknown)}; it has {sorted(hints)}.")
        try:
            return cls(**{name: _restored(value, hints[name]) for name, value in values.items()})
        except (AttributeError, TypeError) as error:
            raise UnreadableFile(f"This is not a complete {cls.__name__}: {error}.") from error

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> Self:
        """Reads the record from JSON text, or from the file at a `pathlib.Path`.

        Raises:
            UnreadableFile: The text is not JSON, or not such a record.
        """
        return cls.from_dict(read_object(source, cls.__name__))


def read_object(source: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Returns the JSON object that a text, or the file at a `pathlib.Path`, holds.

    Args:
        source: The text or the path.
        what: What messages say was expected.

    Raises:
        UnreadableFile: There is no such file, or it holds no JSON object.
    """
    try:
        text = source if isinstance(source, str) else Path(source).read_text(encoding="utf-8")
        values = json.loads(text)
    except OSError as error:
        raise UnreadableFile(f"{str(source)!r} cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"Expected a {what} as JSON; {str(source)!r} is not text: {error}.") from error
    except json.JSONDecodeError as error:
        raise UnreadableFile(f"Expected a {what} as JSON; got text that is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise UnreadableFile(f"Expected a {what} as a JSON object; got a {type(values).__name__}.")
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy
        return value.tolist()
    return value


def _restored(value: Any, hint: Any) -> Any:
    """Turns a plain JSON value back into what a field of type `hint` holds."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None or hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _restored(value, next(kind for kind in arguments if kind is not type(None)))
    if origin is tuple:
        return tuple(_restored(item, arguments[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _restored(item, arguments[1]) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value)
    if getattr(hint, "__module__", "") == "numpy" and isinstance(value, list):
        import numpy

        return numpy.asarray(value)
    return value
