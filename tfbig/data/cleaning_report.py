"""What cleaning found and did, as a record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfbig.data.cleaning_steps import CleaningSteps
from tfbig.records import Record


@dataclass(frozen=True)
class CleaningReport(Record):
    """What `clean` found and did.

    Attributes:
        rows_in: Rows given.
        rows_out: Rows kept.
        missing_rows: Rows dropped because a value was missing (NaN, NaT or None).
        infinite_rows: Rows dropped because a value was infinite (and none missing).
        duplicate_rows: Rows dropped because an equal row, with an equal target, came before.
        constant_columns: Places of the given columns, of a two-dimensional x, that hold one value only.
        classes: For labels that were text or did not run from 0: the label that each number stands for.
        outlier_rows: Rows dropped because of a number far from the others of its column.
        missing_values: Column to how many values were missing or infinite in the rows that were kept; without zeros.
        clipped_values: Column to how many numbers were brought to the nearest that is no outlier; without zeros.
        unseen_values: Column to how many values are of no category that the steps know; without zeros.
        dropped_columns: Names of the constant columns that were left out.
        features: Names of the columns of x as it was returned; empty for x of more than two dimensions.
        steps: What to do to new rows, `steps.transform(x_new)`; None for x of more than two dimensions.
    """

    rows_in: int
    rows_out: int
    missing_rows: int
    infinite_rows: int
    duplicate_rows: int
    constant_columns: tuple[int, ...]
    classes: tuple[Any, ...] | None
    outlier_rows: int = 0
    missing_values: Mapping[str, int] = field(default_factory=dict)
    clipped_values: Mapping[str, int] = field(default_factory=dict)
    unseen_values: Mapping[str, int] = field(default_factory=dict)
    dropped_columns: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    steps: CleaningSteps | None = None

    def __str__(self) -> str:
        dropped = [
            f"{count} {what}"
            for count, what in (
                (self.missing_rows, "missing"),
                (self.infinite_rows, "infinite"),
                (self.duplicate_rows, "duplicate"),
                (self.outlier_rows, "outliers"),
            )
            if count
        ]
        text = f"{self.rows_out} of {self.rows_in} rows kept"
        text += f" (dropped: {', '.join(dropped)})" if dropped else ""
        filled = self.steps is not None and any(step.fill is not None for step in self.steps.columns)
        for counts, what in (
            (self.missing_values, "missing values " + ("filled" if filled else "kept")),
            (self.clipped_values, "outliers clipped"),
            (self.unseen_values, "values of unseen categories"),
        ):
            text += f"; {sum(counts.values())} {what} in {', '.join(counts)}" if counts else ""
        return text + (
            f"; constant, left out: {', '.join(self.dropped_columns)}" if self.dropped_columns else ""
        )
