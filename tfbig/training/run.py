"""What a fit returns: Keras's History, with facts about the run."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import UnreadableFile
from tfbig.files import written_whole
from tfbig.records import read_object

_FIELDS = ("epoch", "history", "seconds", "epoch_seconds", "examples", "strategy")


class Run(keras.callbacks.History):
    """A `keras.callbacks.History` of one training run.

    Attributes:
        history: Metric name to its value after each epoch, as in Keras.
        epoch: The epochs that ran, from 0.
        model: The trained model; None for a run that was read from JSON.
        seconds: Wall time of the whole run.
        epoch_seconds: Wall time of each epoch.
        strategy: On what it ran: "1 device", "MirroredStrategy, 2 replicas".
        examples: Rows trained on in one epoch; None when the data is a stream of unknown length.
    """

    def __init__(self, examples: int | None = None, strategy: str = "1 device"):
        super().__init__()
        self.examples = examples
        self.strategy = strategy
        self.seconds = 0.0
        self.epoch_seconds: list[float] = []

    @property
    def examples_per_second(self) -> float | None:
        """Training throughput, without the first epoch (it holds the tracing) when there are others."""
        if not self.examples or not self.epoch_seconds:
            return None
        timed = self.epoch_seconds[1:] or self.epoch_seconds
        return self.examples * len(timed) / sum(timed)

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts the clock."""
        super().on_train_begin(logs)
        self.epoch_seconds = []
        self._began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the epoch's clock."""
        self._epoch_began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch's time and metrics."""
        super().on_epoch_end(epoch, logs)
        self.epoch_seconds.append(time.perf_counter() - self._epoch_began)

    def on_train_end(self, logs: Any = None) -> None:
        """Stops the clock."""
        self.seconds = time.perf_counter() - self._began

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws loss and metrics by epoch; returns the matplotlib figure and, with `path`, saves it."""
        from tfbig.plots import learning_curves, saved

        return saved(learning_curves(self.history), path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Returns the run, without the model, as JSON text; with `path`, writes it there as well."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        values["history"] = {
            key: [np.asarray(v, np.float64).tolist() for v in series] for key, series in self.history.items()
        }
        text = json.dumps(values, indent=2)
        if path is not None:
            with written_whole(Path(path)) as staged:
                staged.write_text(text + "\n")
        return text

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> "Run":
        """Reads a run from JSON text, or from the file at a `pathlib.Path`; its `model` is None."""
        values = read_object(source, cls.__name__)
        try:
            run = cls(values["examples"])
            for name in _FIELDS:
                setattr(run, name, values[name])
        except KeyError as error:
            raise UnreadableFile(f"This is not a Run that to_json wrote: {error} is missing.") from error
        return run
