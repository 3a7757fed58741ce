"""Several inputs of features side by side as one table, so that `explain` says of all columns what it says of one's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbig.data.checking import check_array
from tfbig.errors import InvalidData, InvalidModel
from tfbig.evaluation.answering import likely_of


class SideBySide:
    """Inputs of features, by name, as the columns of one table.

    Attributes:
        table: Shape (rows, columns of all), float32.
        names: Of the columns: the input's name, and the column's where it has several.
        whole: Name of the inputs that hold whole numbers.
    """

    def __init__(self, x: Mapping[str, Any]):
        """Puts the inputs next to each other.

        Args:
            x: Name to rows of shape (rows,) or (rows, features).

        Raises:
            InvalidData: An input has another shape, or their lengths differ.
        """
        if not x:
            raise InvalidData("x must hold at least one input; got an empty dict.")
        parts = {str(name): check_array(part, f"x[{name!r}]") for name, part in x.items()}
        for name, part in parts.items():
            if part.ndim > 2:
                raise InvalidData(
                    f"Of several inputs explain takes rows of features; x[{name!r}] has shape {part.shape}. Explain a "
                    "model of that input alone, with the others fixed."
                )
        lengths = {name: len(part) for name, part in parts.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidData(f"The inputs must have the same number of rows; got {lengths}.")
        self._flat = {name: part.ndim == 1 for name, part in parts.items()}
        columns = {name: part.reshape(len(part), -1).astype(np.float32) for name, part in parts.items()}
        self.table = np.concatenate(list(columns.values()), axis=1)
        self.names = tuple(
            name for key, part in x.items() for name in _names(str(key), part, columns[str(key)].shape[1])
        )
        self.whole = [name for name, part in parts.items() if part.dtype.kind in "biu"]
        ends = np.cumsum([part.shape[1] for part in columns.values()])
        self._places = {
            name: slice(end - columns[name].shape[1], end) for name, end in zip(columns, ends, strict=True)
        }
        self._dtypes = {name: part.dtype for name, part in parts.items()}

    def model_of(self, model: Any, inside: Any) -> Any:
        """Returns what reads the table as `model` reads its inputs: a Keras model where there is one to look into."""
        return _Reader(self, model) if inside is None else self._keras_model(inside)

    def split(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the inputs again, as they were given."""
        return {
            name: (table[:, place.start] if self._flat[name] else table[:, place]).astype(self._dtypes[name])
            for name, place in self._places.items()
        }

    def _keras_model(self, model: Any) -> Any:
        from tfbig.backend import keras

        wanted = {tensor.name: tensor for tensor in model.inputs or []}
        if set(wanted) != set(self._places):
            raise InvalidModel(
                f"{model.name!r} has the inputs {sorted(wanted)}; x holds {sorted(self._places)}."
            )
        for name, tensor in wanted.items():
            place, shape = self._places[name], tensor.shape[1:]
            if shape not in ((), (place.stop - place.start,)):
                raise InvalidData(
                    f"{model.name!r} takes rows of shape {tuple(shape)} as {name!r}; x[{name!r}] has "
                    f"{place.stop - place.start} features."
                )
        rows = keras.Input((self.table.shape[1],), name="inputs_side_by_side")
        parts = {}
        for name, tensor in wanted.items():
            place = self._places[name]
            part = rows[:, place.start] if tensor.shape[1:] == () else rows[:, place]
            parts[name] = keras.ops.cast(part, tensor.dtype)
        return keras.Model(rows, model(parts), name=model.name)


class _Reader:
    """Gives a model that predicts its inputs, taken from rows of the table."""

    def __init__(self, inputs: SideBySide, model: Any):
        self._inputs, self._model = inputs, model

    def predict(self, table: np.ndarray) -> np.ndarray:
        return likely_of(self._model, self._inputs.split(table))


def _names(key: str, part: Any, count: int) -> list[str]:
    columns = getattr(part, "columns", None)
    if columns is not None:
        return [f"{key}.{column}" for column in columns]
    return [key] if count == 1 else [f"{key}.x{i}" for i in range(count)]
