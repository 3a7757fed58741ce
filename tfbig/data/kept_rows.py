"""Which rows cleaning keeps, and how many it dropped for which reason."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbig.data.labels import infinite_targets, missing_targets, rows_where
from tfbig.data.tables import Column
from tfbig.errors import InvalidData


class KeptRows:
    """The rows that are still kept, as places among those given.

    Attributes:
        given: How many rows there were.
        kept: Places of the rows kept, in order.
        dropped: Reason to how many rows were dropped for it; a row counts once, under the first.
    """

    def __init__(self, rows: int, targets: np.ndarray):
        """Keeps all rows.

        Raises:
            InvalidData: There are more or fewer targets than rows.
        """
        if rows != len(targets):
            raise InvalidData(
                f"x and y must have one row per example each; got {rows} rows of x and {len(targets)} of y."
            )
        self._targets = targets
        self.given = rows
        self.kept = np.arange(rows)
        self.dropped: Counter[str] = Counter()

    def drop_unusable(self, missing: np.ndarray, infinite: np.ndarray) -> None:
        """Drops rows by what is missing or infinite in x, and in their targets.

        Args:
            missing: For each row given, whether x misses a value.
            infinite: For each row given, whether x has an infinite one.
        """
        missing = missing | missing_targets(self._targets)
        infinite = infinite | infinite_targets(self._targets)
        self._drop("missing", missing[self.kept])
        self._drop("infinite", infinite[self.kept])

    def drop_repeated(self, x: np.ndarray) -> None:
        """Drops rows that are equal to an earlier one, with an equal target.

        Args:
            x: Of the rows kept. Rows with a missing value equal no other: what is missing may differ.
        """
        complete = ~rows_where(np.isnan, x)
        repeated = np.zeros(len(x), bool)
        repeated[complete] = _repeated(x[complete], self._targets[self.kept][complete])
        self._drop("duplicate", repeated)

    def drop_outliers(self, outlying: np.ndarray) -> None:
        """Drops rows by bools for each row kept."""
        self._drop("outliers", outlying)

    def of(self, columns: Sequence[Column]) -> list[Column]:
        """Returns the rows kept of columns."""
        return [column._replace(values=column.values[self.kept]) for column in columns]

    def check_left(self, hint: str = "") -> None:
        """Raises `InvalidData` when no row is left, with the reasons."""
        if len(self.kept):
            return
        reasons = [f"{count} {_BECAUSE[reason]}" for reason, count in self.dropped.items() if count]
        because = ": " + ", ".join(reasons) if reasons else ""
        raise InvalidData(f"No row is left of {self.given}{because}.{hint}")

    def _drop(self, reason: str, unwanted: np.ndarray) -> None:
        self.dropped[reason] += int(unwanted.sum())
        self.kept = self.kept[~unwanted]


_BECAUSE = {
    "missing": "had missing values or no target",
    "infinite": "had infinite values",
    "duplicate": "were duplicates",
    "outliers": "had outliers",
}


def _repeated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    seen: set[tuple[bytes, Any]] = set()
    repeated = np.zeros(len(x), bool)
    for i, (features, target) in enumerate(zip(x, y, strict=True)):
        key = (features.tobytes(), target.tobytes() if isinstance(target, np.ndarray) else repr(target))
        repeated[i] = key in seen
        seen.add(key)
    return repeated
