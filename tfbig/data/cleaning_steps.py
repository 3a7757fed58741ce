"""What cleaning learned from the training rows, to be done to new rows: plain data with `transform`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from tfbig.data.tables import CATEGORY, DATE, NUMBER, Column, is_table, read_table
from tfbig.errors import InvalidData, did_you_mean
from tfbig.records import Record

_DAY = 86_400


@dataclass(frozen=True)
class ColumnStep(Record):
    """What is done to one column.

    Attributes:
        name: Of the column; its place, from "0", in an array.
        kind: "number", "category" or "date".
        features: Names of the columns that come of it; none when it is dropped.
        categories: Of a category: what the codes 0 … n - 1 stand for.
        fill: What stands in for a missing value (a number, the code of a category, or seconds since 1970); None leaves
            NaN.
        low: Numbers below become this; None leaves them.
        high: Numbers above become this; None leaves them.
    """

    name: str
    kind: str
    features: tuple[str, ...]
    categories: tuple[Any, ...] | None = None
    fill: float | None = None
    low: float | None = None
    high: float | None = None

    def transform(self, column: Column) -> np.ndarray:
        """Returns the column as numbers of shape (rows, features)."""
        values = self._numbers(column)
        values = np.where(np.isinf(values), np.nan, values)
        if self.fill is not None:
            values = np.where(np.isnan(values), self.fill, values)
        if self.low is not None or self.high is not None:
            values = np.clip(values, self.low, self.high)
        if self.kind != DATE:
            return values[:, None][:, : len(self.features)]
        parts = _date_parts(values)
        wanted = [parts[name.rsplit(".", 1)[1]] for name in self.features]
        return np.stack(wanted, axis=1) if wanted else np.empty((len(values), 0))

    def unseen(self, column: Column) -> int:
        """Returns how many values are of no category that the training rows had."""
        if self.categories is None:
            return 0
        return int((self._numbers(column) == len(self.categories)).sum())

    def _numbers(self, column: Column) -> np.ndarray:
        if self.categories is not None:
            codes = {value: float(code) for code, value in enumerate(self.categories)}
            other = float(len(codes))
            as_text = str if isinstance(next(iter(codes), 0), str) else lambda value: value
            values = column.values.tolist()
            found = [np.nan if value is None else codes.get(as_text(value), other) for value in values]
            return np.array(found, np.float64)
        return _seconds(column.values) if self.kind == DATE else column.values


# Not frozen, as other records are: scikit-learn keeps settings of its own on every estimator.
@dataclass(repr=False)
class CleaningSteps(Record, TransformerMixin, BaseEstimator):
    """The steps that `clean` fitted, for new rows; a scikit-learn transformer that is fitted already.

    It is plain data: `to_json` and `from_json` carry it to where a model is used, without pickle. There it turns rows
    as they arrive, with text and dates, into the numbers that the model, or its LiteRT file, takes.

    Attributes:
        columns: What is done to each column, in order.
        classes: Of labels: what 0 … n - 1 stand for; None where targets stay what they are.

    Example:
        >>> import tfbig
        >>> steps = tfbig.clean([["red", 1.5], ["blue", 2.0]], [0, 1]).report.steps
        >>> steps.transform([["blue", 7.0], ["green", float("nan")]]).tolist()
        [[0.0, 7.0], [2.0, nan]]
        >>> steps.unseen([["blue", 7.0], ["green", 3.0]])
        {'0': 1}
    """

    columns: tuple[ColumnStep, ...]
    classes: tuple[Any, ...] | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns that `transform` gives."""
        return tuple(name for step in self.columns for name in step.features)

    @property
    def categories(self) -> dict[int, int]:
        """Place of each column of codes in what `transform` gives, to how many categories there are."""
        counts = {step.name: len(step.categories) for step in self.columns if step.categories is not None}
        return {place: counts[name] for place, name in enumerate(self.features) if name in counts}

    def without_filling(self) -> "CleaningSteps":
        """Returns the same steps, but missing values stay NaN."""
        columns = tuple(replace(step, fill=None) for step in self.columns)
        return CleaningSteps(columns, self.classes)

    def fit(self, x: Any = None, y: Any = None) -> Self:
        """Returns the steps as they are: `clean` has fitted them."""
        return self

    def transform(self, x: Any) -> np.ndarray:
        """Returns rows as numbers; every row stays.

        Args:
            x: Rows with the columns that were cleaned; of a pandas frame they are taken by name, in any order.

        Returns:
            float32 of shape (rows, features). A category that the training rows did not have has the code n, after
            those of the n known ones. Missing and infinite values are filled if cleaning filled them, else NaN.

        Raises:
            InvalidData: A column is missing or of another kind.
        """
        return self.transform_columns(self.read(x))

    def unseen(self, x: Any) -> dict[str, int]:
        """Returns how many values of each column are of no category that the training rows had; without the zeros."""
        counts = {
            step.name: step.unseen(column) for step, column in zip(self.columns, self.read(x), strict=True)
        }
        return {name: count for name, count in counts.items() if count}

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Returns the names of the columns that `transform` gives, as scikit-learn asks for them."""
        return np.array(self.features, object)

    def read(self, x: Any) -> list[Column]:
        """Returns the columns of a table, checked against the steps."""
        names = [step.name for step in self.columns]
        if hasattr(x, "columns") and hasattr(x, "to_numpy"):
            given = [str(name) for name in x.columns]
            for name in names:
                if name not in given:
                    raise InvalidData(
                        f"x has no column {name!r}.{did_you_mean(name, given)} The cleaned rows had: "
                        f"{', '.join(names)}."
                    )
            x = x.iloc[:, [given.index(name) for name in names]]
        elif not is_table(x) or len(x[0]) != len(names):
            raise InvalidData(
                f"x must be rows of {len(names)} columns, as those that were cleaned; got {_described(x)}."
            )
        categories, dates = (
            [place for place, step in enumerate(self.columns) if step.kind == kind]
            for kind in (CATEGORY, DATE)
        )
        columns = read_table(x, categories, dates)
        for step, column in zip(self.columns, columns, strict=True):
            if step.kind == NUMBER and column.kind != NUMBER:
                raise InvalidData(
                    f"Column {step.name!r} of x held numbers when it was cleaned; now it holds "
                    f"{'dates' if column.kind == DATE else 'text'}."
                )
        return columns

    def transform_columns(self, columns: Sequence[Column]) -> np.ndarray:
        """Returns columns as numbers, as `transform` does."""
        parts = [step.transform(column) for step, column in zip(self.columns, columns, strict=True)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def fit_steps(
    columns: Sequence[Column],
    *,
    fill: bool,
    drop_constant: bool,
    fences: Mapping[str, tuple[float, float]],
    classes: Sequence[Any] | None,
) -> CleaningSteps:
    """Returns the steps for columns such as these.

    Args:
        columns: Of the training rows.
        fill: Whether missing values are filled: numbers and dates by their median, categories by the most frequent.
        drop_constant: Whether columns of one value are left out.
        fences: Columns to the smallest and largest number that they are clipped to.
        classes: What the labels stand for.
    """
    steps = []
    for column in columns:
        dropped = drop_constant and is_constant(column)
        low, high = fences.get(column.name, (None, None))
        categories = _categories(column.values) if column.kind == CATEGORY else None
        step = ColumnStep(
            name=column.name,
            kind=column.kind,
            features=() if dropped else _features(column),
            categories=categories,
            fill=_fill(column, categories) if fill and not dropped else None,
            low=low,
            high=high,
        )
        steps.append(step)
    return CleaningSteps(tuple(steps), None if classes is None else tuple(classes))


def is_constant(column: Column) -> bool:
    """Whether a column holds one value only, missing ones aside."""
    present = _present(column)
    if column.kind == CATEGORY:
        return len(set(present.tolist())) < 2
    return len(present) == 0 or present.min() == present.max()


def missing_values(column: Column) -> np.ndarray:
    """Returns which values of a column are missing."""
    if column.kind == CATEGORY:
        return np.array([value is None for value in column.values.tolist()], bool)
    return np.isnat(column.values) if column.kind == DATE else np.isnan(column.values)


def infinite_values(column: Column) -> np.ndarray:
    """Returns which values of a column are infinite."""
    return np.isinf(column.values) if column.kind == NUMBER else np.zeros(len(column.values), bool)


def _present(column: Column) -> np.ndarray:
    values = column.values[~missing_values(column)]
    return values[np.isfinite(values)] if column.kind == NUMBER else values


def _categories(values: np.ndarray) -> tuple[Any, ...]:
    return tuple(sorted({value for value in values.tolist() if value is not None}))


def _fill(column: Column, categories: tuple[Any, ...] | None) -> float:
    present = _present(column)
    if not len(present):
        raise InvalidData(
            f"Column {column.name!r} of x holds no value to fill the missing ones with. Leave it out, or pass "
            'constant="drop".'
        )
    if categories is not None:
        counts = Counter(present.tolist())
        return float(max(range(len(categories)), key=lambda code: counts[categories[code]]))
    return float(np.median(_seconds(present) if column.kind == DATE else present))


def _features(column: Column) -> tuple[str, ...]:
    if column.kind != DATE:
        return (column.name,)
    seconds = _seconds(_present(column))
    parts = ["days", "month", "weekday", *(["hour"] if (seconds % _DAY).any() else [])]
    return tuple(f"{column.name}.{part}" for part in parts)


def _described(x: Any) -> str:
    if is_table(x):
        return f"{len(x[0])} columns"
    return f"shape {x.shape}" if hasattr(x, "shape") else type(x).__name__


def _seconds(dates: np.ndarray) -> np.ndarray:
    seconds = dates.astype("datetime64[s]").astype(np.int64).astype(np.float64)
    return np.where(np.isnat(dates), np.nan, seconds)


def _date_parts(seconds: np.ndarray) -> dict[str, np.ndarray]:
    """Days since 1970 with their fraction, month from 1, weekday from 0 on Monday, hour with its fraction."""
    missing = np.isnan(seconds)
    whole = np.where(missing, 0, seconds).astype(np.int64)
    months = whole.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    parts = {
        "days": whole / _DAY,
        "month": months,
        "weekday": (whole // _DAY + 3) % 7,  # 1 January 1970 was a Thursday
        "hour": whole % _DAY / 3600,
    }
    return {name: np.where(missing, np.nan, values) for name, values in parts.items()}
