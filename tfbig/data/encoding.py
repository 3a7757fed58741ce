"""Rows of raw numbers become what a network can use, inside the model: gaps filled, categories spread out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.data.checking import check_array
from tfbig.errors import InvalidData, InvalidOption
from tfbig.options import checked, positive_int


@keras.saving.register_keras_serializable(package="tfbig")
class Encoder(keras.layers.Layer):
    """Turns rows of raw numbers, with NaN where a value is missing, into features. `encoder` fits one.

    The features are, in this order: the numbers, at mean 0 and variance 1, and 0 where one is missing; for each
    category a 1 where the row is of it, else 0; and a 1 where a value is missing, for the columns in which values
    were missing when it was fitted. A category that is missing or unknown has zeros only, so it adds nothing.

    It has no weights; all it knows is in its config, so that a copy of it is a copy. It computes in float32 whatever
    the model's precision, since raw numbers may not fit into less.

    Attributes:
        takes_missing: That rows may hold NaN.
    """

    takes_missing = True

    def __init__(
        self,
        *,
        numbers: Sequence[int],
        mean: Sequence[float],
        variance: Sequence[float],
        categories: Mapping[Any, int],
        indicators: Sequence[int],
        **options: Any,
    ):
        """Makes the layer from fitted values.

        Args:
            numbers: Columns of numbers.
            mean: Of each of these.
            variance: Of each of these.
            categories: Each column of codes to how many categories there are.
            indicators: Columns of which it is a feature whether their value is missing.
            **options: As every Keras layer has.
        """
        super().__init__(**{**options, "dtype": "float32"})
        self.numbers, self.indicators = list(numbers), list(indicators)
        self.mean, self.variance = list(mean), list(variance)
        self.categories = {int(column): int(count) for column, count in categories.items()}
        self.supports_masking = False

    def call(self, inputs: Any) -> Any:
        """Rows of shape (batch, columns) to features of shape (batch, features)."""
        ops, parts = keras.ops, []
        if self.numbers:
            values = _columns(inputs, self.numbers)
            scaled = (values - np.array(self.mean, np.float32)) / np.sqrt(np.array(self.variance, np.float32))
            # NaN alone differs from itself; LiteRT has no operator for is_nan.
            parts.append(ops.where(ops.not_equal(values, values), np.float32(0), scaled))
        if self.categories:
            repeated = [column for column, count in self.categories.items() for _ in range(count)]
            codes = np.concatenate([np.arange(count, dtype=np.float32) for count in self.categories.values()])
            parts.append(ops.cast(ops.equal(_columns(inputs, repeated), codes), "float32"))
        if self.indicators:
            values = _columns(inputs, self.indicators)
            parts.append(ops.cast(ops.not_equal(values, values), "float32"))
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int]:
        """The batch, and as many features as there are."""
        return input_shape[0], len(self.numbers) + sum(self.categories.values()) + len(self.indicators)

    def get_config(self) -> dict[str, Any]:
        """All that the layer knows, as plain values."""
        config = super().get_config()
        config.pop("dtype", None)
        return {
            **config,
            "numbers": self.numbers,
            "mean": self.mean,
            "variance": self.variance,
            "categories": {str(column): count for column, count in self.categories.items()},
            "indicators": self.indicators,
        }


@checked()
def encoder(x: Any, *, categories: Mapping[int, int] | Sequence[int] = ()) -> Encoder:
    """Returns a layer that takes rows of raw numbers, NaN among them, fitted on training rows.

    As first layer it ships inside the model, into the LiteRT file too (in builtin operators, as float32, float16 or
    dynamic range), so that the file takes rows as they are: unscaled, with gaps, categories as codes. Missing
    numbers get the mean of their column, and a feature that says so. A Dense layer on a category's features is what
    an embedding is. Text becomes codes before the model, by the steps of `tfbig.clean`: a LiteRT file takes none.

    Args:
        x: The training rows, and only those: shape (rows, columns), with NaN where a value is missing.
        categories: Columns that hold codes 0 … n - 1 of categories: by column, how many there are, as
            `report.steps.categories` of `tfbig.clean` tells it; or the columns alone, whose largest code is found in x.
            Other codes are unknown categories.

    Returns:
        An `Encoder`, a Keras layer.

    Raises:
        InvalidData: x is no table of numbers, a column holds no value at all, or a code is no whole number from 0.
        InvalidOption: There is no such column.

    Example:
        >>> nan = float("nan")
        >>> layer = encoder([[1.0, 0], [3.0, 1], [nan, 0]], categories=[1])
        >>> layer(np.array([[3.0, 1], [nan, 7]], "float32")).numpy().tolist()
        [[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    values = check_array(x, missing=True).astype(np.float64)
    if values.ndim != 2:
        raise InvalidData(f"x must be rows of columns; got shape {values.shape}.")
    counts = _counts(values, categories)
    missing = np.isnan(values)
    numbers = [column for column in range(values.shape[1]) if column not in counts]
    empty = [column for column in numbers if missing[:, column].all()]
    if empty:
        raise InvalidData(
            f"Column {empty[0]} of x holds no value at all, so nothing can stand in for a missing one. Leave it out: "
            'tfbig.clean(x, y, missing="keep", constant="drop").'
        )
    mean = np.nanmean(values[:, numbers], axis=0)
    variance = np.nanvar(values[:, numbers], axis=0)
    constant = variance <= np.square(np.finfo(np.float32).eps * mean)
    return Encoder(
        numbers=numbers,
        mean=mean.tolist(),
        variance=np.where(constant, 1.0, variance).tolist(),
        categories=counts,
        indicators=np.flatnonzero(missing.any(axis=0)).tolist(),
        name="encoder",
    )


def _counts(values: np.ndarray, categories: Mapping[int, int] | Sequence[int]) -> dict[int, int]:
    """Each column of codes to how many categories there are."""
    width = values.shape[1]
    for column in categories:
        if not isinstance(column, int | np.integer) or not 0 <= column < width:
            raise InvalidOption(
                f"categories must name columns of x by their place, 0 to {width - 1}; got {column!r}."
            )
        codes = values[:, column][~np.isnan(values[:, column])]
        bad = codes[(codes < 0) | (codes != np.floor(codes))]
        if len(bad) or not len(codes):
            found = bad[0] if len(bad) else "no value at all"
            raise InvalidData(
                f"Column {column} of x must hold the codes of categories, whole numbers from 0; got {found}. "
                "tfbig.clean(x, y, categories=[...]) makes codes."
            )
    if isinstance(categories, Mapping):
        return {
            int(column): positive_int(f"categories[{column}]", count) for column, count in categories.items()
        }
    return {int(column): int(np.nanmax(values[:, column])) + 1 for column in categories}


def _columns(inputs: Any, columns: Sequence[int]) -> Any:
    return keras.ops.take(inputs, np.array(columns, np.int32), axis=1)
