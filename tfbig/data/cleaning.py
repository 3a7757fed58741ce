"""`clean`: tables and arrays become numbers that can be learned from, with a report and the steps for new rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfbig.data.cleaning_report import CleaningReport
from tfbig.data.cleaning_steps import (
    CleaningSteps,
    fit_steps,
    infinite_values,
    is_constant,
    missing_values,
)
from tfbig.data.kept_rows import KeptRows
from tfbig.data.labels import encode_labels, read_targets, rows_where
from tfbig.data.outliers import RULES, find_fences, outliers_of
from tfbig.data.tables import Column, is_table, read_table
from tfbig.errors import InvalidData, InvalidOption, unknown_choice
from tfbig.options import checked


class Cleaned(NamedTuple):
    """What `clean` returns; unpacks as `x, y, report`."""

    x: np.ndarray
    y: np.ndarray
    report: CleaningReport


@checked()
def clean(
    x: Any,
    y: Any,
    *,
    missing: str = "drop",
    duplicates: str = "drop",
    constant: str = "keep",
    outliers: str | None = None,
    outlier_rule: str = "iqr",
    categories: Sequence[int | str] = (),
    dates: Sequence[int | str] = (),
    steps: CleaningSteps | None = None,
) -> Cleaned:
    """Drops rows that cannot be learned from, and turns a table and its labels into numbers.

    Columns of text become codes 0 … n - 1 of their categories in sorted order, and dates become days since 1970,
    month, weekday and, where they have a time, hour (all in UTC). As called with an array of numbers alone, each
    decision looks at one row, or at an equal earlier one. All else is learned from the rows given: so clean the
    training rows, and then do the same to others by `report.steps`, which never learns again.

    - Held-out rows with targets: `clean(x_test, y_test, steps=report.steps)`.
    - Rows to predict: `report.steps.transform(x_new)`, which drops none.

    A LiteRT file takes numbers, never text: the steps turn text into codes before the model; from there on,
    `tfbig.encoder` does the rest inside it.

    Args:
        x: Numbers of shape (rows, ...); or a table, as a pandas frame, array or lists, whose columns hold numbers, text
            or dates each. May hold NaN, None and infinities.
        y: Targets of shape (rows,) or (rows, outputs). Text labels, and whole-number labels that do not run
            from 0, become 0 … classes - 1 in sorted order; `report.classes` maps them back.
        missing: "drop" drops rows with a missing or infinite value; "keep" leaves NaN, for a model that begins with
            `tfbig.encoder`; "fill" puts the column's median in its place, or the most frequent category. A row
            without target is always dropped.
        duplicates: "drop" drops rows that are equal to an earlier one, with an equal target and nothing missing; "keep"
            suits tables of few categories, where equal rows tell how frequent they are.
        constant: "keep" or "drop" columns that hold one value only.
        outliers: None; "drop" drops rows with a number outside of its column's fences; "clip" moves such numbers onto
            the fence, in new rows too.
        outlier_rule: Where the fences are: "iqr", 1.5 interquartile ranges beyond the quartiles (Tukey, Exploratory
            Data Analysis, 1977); "zscore", 3 standard deviations from the mean.
        categories: Columns, by name or place, whose numbers are names of categories.
        dates: Columns whose text is a date, such as "2024-05-31".
        steps: Of an earlier report: they are done, nothing is learned, and no outlier is dropped.

    Returns:
        `Cleaned(x, y, report)`: float32 x, y, and a `CleaningReport`.

    Raises:
        InvalidData: A column mixes text and numbers, lengths differ, a label is not among those of the steps, or no
            row is left.
        InvalidOption: An option has no such value, x no such column, or options are at odds.

    Example:
        >>> rows = [["red", 2.0], ["red", 2.0], ["blue", 5.0], ["red", float("nan")]]
        >>> x, y, report = clean(rows, ["cat", "cat", "dog", "dog"])
        >>> print(report)
        2 of 4 rows kept (dropped: 1 missing, 1 duplicate)
        >>> x.tolist(), y.tolist()
        ([[1.0, 2.0], [0.0, 5.0]], [0, 1])
        >>> print(clean([["green", 3.0]], ["dog"], steps=report.steps).report)
        1 of 1 rows kept; 1 values of unseen categories in 0
    """
    _check_options(missing, duplicates, constant, outliers, outlier_rule)
    targets = read_targets(y)
    learning = {
        "constant": constant != "keep",
        "outliers": outliers is not None,
        "outlier_rule": outlier_rule != "iqr",
        "categories": len(categories) > 0,
        "dates": len(dates) > 0,
    }
    asked = [name for name, given in learning.items() if given]
    if not is_table(x):
        _no_options_for_arrays(asked, missing, steps)
        return _clean_array(_numbers(x), targets, duplicates)
    if steps is not None and asked:
        raise InvalidOption(
            f"steps do what they have learned, so only missing= and duplicates= go with them; got {asked[0]}."
        )
    columns = read_table(x, categories, dates) if steps is None else steps.read(x)
    rows = KeptRows(len(columns[0].values), targets)
    _drop_unusable(rows, columns, missing)
    if duplicates == "drop":
        codes = steps or fit_steps(rows.of(columns), fill=False, drop_constant=False, fences={}, classes=None)
        rows.drop_repeated(codes.without_filling().transform_columns(rows.of(columns)))
    if steps is None:
        fences = find_fences(rows.of(columns), outlier_rule) if outliers is not None else {}
        if outliers == "drop":
            rows.drop_outliers(np.any([outliers_of(c, fences) for c in rows.of(columns)], axis=0))
            rows.check_left()
        y, classes = encode_labels(targets[rows.kept])
        steps = fit_steps(
            rows.of(columns),
            fill=missing == "fill",
            drop_constant=constant == "drop",
            fences=fences if outliers == "clip" else {},
            classes=classes,
        )
    else:
        y, _ = encode_labels(targets[rows.kept], steps.classes or ())
    if not steps.features:
        raise InvalidData(f'No column is left of {len(columns)}: all are constant. Pass constant="keep".')
    kept = rows.of(columns)
    return Cleaned(steps.transform_columns(kept), y, _report(rows, kept, steps))


def _drop_unusable(rows: KeptRows, columns: Sequence[Column], missing: str) -> None:
    """Drops rows that miss what they need."""
    without, infinite = (
        np.array([test(column) for column in columns]) for test in (missing_values, infinite_values)
    )
    if missing != "drop":
        without, infinite = without[:0], infinite[:0]
    rows.drop_unusable(np.any(without, axis=0), np.any(infinite, axis=0))
    emptiest = columns[int(without.sum(axis=1).argmax())].name if without.any() else None
    rows.check_left(
        f' Column {emptiest!r} misses most values: leave it out, or pass missing="fill" or "keep".'
        if emptiest is not None
        else ""
    )


def _report(rows: KeptRows, kept: Sequence[Column], steps: CleaningSteps) -> CleaningReport:
    fences = {s.name: (s.low, s.high) for s in steps.columns if s.low is not None and s.high is not None}
    missing, clipped, unseen = (
        {step.name: int(count) for step, count in zip(steps.columns, counts, strict=True) if count}
        for counts in (
            [(missing_values(column) | infinite_values(column)).sum() for column in kept],
            [outliers_of(column, fences).sum() for column in kept],
            [step.unseen(column) for step, column in zip(steps.columns, kept, strict=True)],
        )
    )
    return CleaningReport(
        rows_in=rows.given,
        rows_out=len(rows.kept),
        missing_rows=rows.dropped["missing"],
        infinite_rows=rows.dropped["infinite"],
        duplicate_rows=rows.dropped["duplicate"],
        constant_columns=tuple(place for place, column in enumerate(kept) if is_constant(column)),
        classes=steps.classes,
        outlier_rows=rows.dropped["outliers"],
        missing_values=missing,
        clipped_values=clipped,
        unseen_values=unseen,
        dropped_columns=tuple(step.name for step in steps.columns if not step.features),
        features=steps.features,
        steps=steps,
    )


def _clean_array(x: np.ndarray, targets: np.ndarray, duplicates: str) -> Cleaned:
    """Rids an array of more than two axes of rows that cannot be learned from."""
    rows = KeptRows(len(x), targets)
    rows.drop_unusable(rows_where(np.isnan, x), rows_where(np.isinf, x))
    rows.check_left()
    if duplicates == "drop":
        rows.drop_repeated(x[rows.kept])
    y, classes = encode_labels(targets[rows.kept])
    report = CleaningReport(
        rows_in=rows.given,
        rows_out=len(rows.kept),
        missing_rows=rows.dropped["missing"],
        infinite_rows=rows.dropped["infinite"],
        duplicate_rows=rows.dropped["duplicate"],
        constant_columns=(),
        classes=classes,
    )
    return Cleaned(x[rows.kept], y, report)


def _numbers(x: Any) -> np.ndarray:
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InvalidData(f"x must be a rectangular array; its rows differ in shape ({error}).") from error
    try:
        if array.dtype.kind in "US":
            raise ValueError("text")
        array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidData(f"x must hold numbers; got {array.dtype} values ({error}).") from error
    if array.ndim < 2:
        raise InvalidData(
            f"x must have rows and columns; got shape {array.shape}. For one column: x[:, None]."
        )
    return array


def _check_options(missing: str, duplicates: str, constant: str, outliers: str | None, rule: str) -> None:
    for name, value, choices in (
        ("missing", missing, ("drop", "keep", "fill")),
        ("duplicates", duplicates, ("drop", "keep")),
        ("constant", constant, ("keep", "drop")),
        ("outliers", outliers, (None, "drop", "clip")),
        ("outlier_rule", rule, RULES),
    ):
        if value not in choices:
            raise unknown_choice(name, value, choices)


def _no_options_for_arrays(asked: Sequence[str], missing: str, steps: CleaningSteps | None) -> None:
    given = [*asked, *(["missing"] if missing != "drop" else []), *(["steps"] if steps is not None else [])]
    if given:
        raise InvalidOption(
            f"{given[0]} is for tables of rows and columns; of other arrays, such as images, rows with missing or "
            "infinite values and repeated rows are dropped, no more."
        )
