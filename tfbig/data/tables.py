"""Tables of mixed columns: numbers, categories and dates, told apart column by column."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfbig.data.labels import is_missing
from tfbig.errors import InvalidData, InvalidOption, did_you_mean

# What a column can be.
NUMBER, CATEGORY, DATE = "number", "category", "date"


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        name: Its name; its place, from "0", in an array.
        kind: `NUMBER`, `CATEGORY` or `DATE`.
        values: Floats with NaN where missing; objects with None where missing; or datetime64[s] with NaT, in UTC.
    """

    name: str
    kind: str
    values: np.ndarray


def is_table(x: Any) -> bool:
    """Whether x has two axes, rows and columns, as a frame, an array or nested lists."""
    return (x.ndim if hasattr(x, "ndim") else _nested_axes(x)) == 2


def read_table(x: Any, categories: Sequence[int | str] = (), dates: Sequence[int | str] = ()) -> list[Column]:
    """Returns the columns of a table, each of one kind.

    Args:
        x: A pandas frame, an array of shape (rows, columns), or nested lists.
        categories: Columns, by name or place, whose numbers are names of categories rather than quantities.
        dates: Columns whose text is a date such as "2024-05-31" or "2024-05-31T12:00".

    Raises:
        InvalidData: Rows differ in length; a column mixes text and numbers, or holds numbers written as text; a text
            is no date.
        InvalidOption: There is no such column.
    """
    columns = _columns(x)
    if not columns:
        raise InvalidData("x must have at least one column; got none.")
    names = [name for name, _, _ in columns]
    asked = {**_asked("categories", categories, names, CATEGORY), **_asked("dates", dates, names, DATE)}
    return [_read(name, values, asked.get(place, kind)) for place, (name, values, kind) in enumerate(columns)]


def _columns(x: Any) -> list[tuple[str, np.ndarray, str | None]]:
    """Name and values of each column, and what the frame says that it is."""
    if hasattr(x, "columns") and hasattr(x, "to_numpy"):
        names = [str(name) for name in x.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidData(f"x must name each column once; got several called {', '.join(twice)}.")
        return [(name, *_series(x.iloc[:, place])) for place, name in enumerate(names)]
    try:
        array = np.asarray(x)
        if array.dtype.kind in "US" and not isinstance(x, np.ndarray):
            array = np.array(x, object)  # NumPy would have turned numbers beside text into text
    except ValueError as error:
        raise InvalidData(f"x must be a rectangular array; its rows differ in shape ({error}).") from error
    return [(str(place), array[:, place], None) for place in range(array.shape[1])]


def _series(series: Any) -> tuple[np.ndarray, str | None]:
    if hasattr(series, "cat"):
        return series.astype(object).to_numpy(), CATEGORY
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    return series.to_numpy(), None


def _asked(option: str, columns: Sequence[int | str], names: list[str], kind: str) -> dict[int, str]:
    if isinstance(columns, str | int):
        raise InvalidOption(f"{option} must be a list of columns, such as [{columns!r}]; got {columns!r}.")
    places = {}
    for column in columns:
        place = names.index(column) if column in names else column
        if isinstance(place, str) or not 0 <= place < len(names):
            raise InvalidOption(
                f"{option} names column {column!r}, which x does not have.{did_you_mean(str(column), names)} Its "
                f"columns: {', '.join(names)}."
            )
        places[place] = kind
    return places


def _read(name: str, values: np.ndarray, asked: str | None) -> Column:
    if asked == CATEGORY:
        return Column(name, CATEGORY, _names(values))
    if values.dtype.kind == "M":
        return Column(name, DATE, values.astype("datetime64[s]"))
    if asked == DATE:
        return Column(name, DATE, _dates(name, values))
    if values.dtype.kind in "biuf":
        return Column(name, NUMBER, values if values.dtype.kind == "f" else values.astype(np.float64))
    present = [value for value in values if not is_missing(value)]
    kinds = {_kind(name, value): value for value in present}
    if len(kinds) > 1:
        shown = " and ".join(f"{kind} ({value!r})" for kind, value in sorted(kinds.items()))
        raise InvalidData(
            f"Column {name!r} of x mixes {shown}. Give all its values one type; or name it in categories=, where each "
            "value is taken as the name of a category."
        )
    kind = next(iter(kinds), NUMBER)
    if kind == DATE:
        return Column(name, DATE, _dates(name, values))
    if kind == CATEGORY:
        if all(_is_number(value) for value in present):
            raise InvalidData(
                f"x must hold numbers or names of categories; column {name!r} holds numbers written as text, such as "
                f"{present[0]!r}. Convert it (pandas.to_numeric), or name it in categories=."
            )
        return Column(name, CATEGORY, _names(values))
    numbers = [np.nan if is_missing(value) else float(value) for value in values]
    return Column(name, NUMBER, np.array(numbers, np.float64))


def _kind(name: str, value: Any) -> str:
    if isinstance(value, str):
        return CATEGORY
    if hasattr(value, "isoformat") or isinstance(value, np.datetime64):
        return DATE
    try:
        float(value)
    except (TypeError, ValueError):
        raise InvalidData(
            f"Column {name!r} of x must hold numbers, text or dates; got {type(value).__name__}: {value!r}."
        ) from None
    return NUMBER


def _names(values: np.ndarray) -> np.ndarray:
    """Names of categories as plain values: text, or numbers where all of them are."""
    plain = [None if is_missing(value) else _plain(value) for value in values.tolist()]
    if any(isinstance(value, str) for value in plain):
        plain = [None if value is None else str(value) for value in plain]
    array = np.empty(len(plain), object)
    array[:] = plain
    return array


def _plain(value: Any) -> Any:
    """Whole numbers as int, so that a column that is float only because a value is missing names the same ones."""
    if isinstance(value, str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return int(number) if number.is_integer() else number


def _dates(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return np.array([_date(value) for value in values.tolist()], "datetime64[s]")
    except (TypeError, ValueError) as error:
        raise InvalidData(
            f"Column {name!r} of x must hold dates, such as '2024-05-31' or '2024-05-31T12:00': {error}. Convert it "
            "with pandas.to_datetime."
        ) from error


def _date(value: Any) -> Any:
    if is_missing(value):
        return np.datetime64("NaT", "s")
    if getattr(value, "tzinfo", None) is not None:
        from datetime import UTC

        value = value.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(value, "s")


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _nested_axes(x: Any) -> int:
    axes = 0
    while isinstance(x, list | tuple):
        axes, x = axes + 1, x[0] if len(x) else None
    return axes + np.ndim(x)
