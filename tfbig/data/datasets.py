"""The data sets that ship with scikit-learn, by name."""

from dataclasses import dataclass

import numpy as np

from tfbig.errors import unknown_choice


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        name: Its name.
        task: "multiclass", "binary" or "regression".
        x: Inputs, float32, shape (rows, features) or (rows, height, width, channels).
        y: Targets, shape (rows,): int64 labels from 0, or float32 values; of "linnerud" of shape (rows, 3).
        classes: What the labels stand for; empty for regression.
    """

    name: str
    task: str
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """How many outputs a model for it has: the classes, 1 for a binary task, the values of a regression."""
        if self.task == "multiclass":
            return len(self.classes)
        return self.y.shape[1] if self.y.ndim == 2 else 1


_TASKS = {
    "digits": "multiclass",
    "iris": "multiclass",
    "wine": "multiclass",
    "breast_cancer": "binary",
    "linnerud": "regression",
    "diabetes": "regression",
}


def load_dataset(name: str) -> Dataset:
    """Loads one of scikit-learn's bundled data sets; needs no network.

    Args:
        name: "digits" (8×8 grey images), "iris", "wine", "breast_cancer", "linnerud" (three values a
            row) or "diabetes".

    Returns:
        The `Dataset`.

    Raises:
        InvalidOption: There is none of that name.

    Example:
        >>> load_dataset("digits").x.shape
        (1797, 8, 8, 1)
    """
    if name not in _TASKS:
        raise unknown_choice("dataset", name, _TASKS)
    from sklearn import datasets

    task = _TASKS[name]
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    x = bunch.data.astype(np.float32)
    if name == "digits":
        x = x.reshape(-1, 8, 8, 1)
    if task == "regression":
        return Dataset(name, task, x, bunch.target.astype(np.float32), ())
    return Dataset(name, task, x, bunch.target.astype(np.int64), tuple(map(str, bunch.target_names)))
