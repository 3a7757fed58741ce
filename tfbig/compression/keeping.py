"""Zeros and shared values of layers that stay in float, kept while the rest of the model trains through rounding."""

from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.internals import every_layer
from tfbig.compression.centroids import SharedWeights, most_distinct
from tfbig.compression.holding import Holding, Masked, masked
from tfbig.compression.kept import kept_of
from tfbig.layers.kernels import QuantizedLayer

_HOLDER = "quantize_aware"


class Keep(keras.callbacks.Callback):
    """Holds what pruning and clustering have given the weights that no rounding holds, while a model trains.

    A callback, since over several replicas it is another model that trains than the one that was given.
    """

    def __init__(self, preserve: str | None):
        """Takes what is to be kept, as `quantize_aware` does."""
        super().__init__()
        self.preserve = preserve
        self._installed: list[tuple[Any, Masked | SharedWeights]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds what there is to keep and puts a constraint on each such kernel."""
        with self.model.distribute_strategy.scope():
            for kernel in _loose_kernels(self.model):
                constraint = self._constraint(kernel)
                # What a callback of the user's holds has a form of its own.
                if constraint is not None and not isinstance(kernel.constraint, Holding):
                    kernel.constraint = constraint
                    self._installed.append((kernel, constraint))
        if self._installed:
            # fit made its step function before this hook; made again, it traces with the constraints.
            self.model.make_train_function(force=True)

    def on_train_end(self, logs: Any = None) -> None:
        """Makes zeros and shared values final, and takes the constraints off."""
        for kernel, constraint in self._installed:
            # Weight averaging and restored best weights may have written over them.
            if isinstance(constraint, Masked):
                kernel.assign(masked(kernel, constraint.mask))
            else:
                constraint.share(kernel)
            kernel.constraint = constraint.inner
        if self._installed:
            self.model.train_function = None
        self._installed = []

    def _constraint(self, kernel: Any) -> Masked | SharedWeights | None:
        values = np.asarray(kernel.numpy())
        kept = kept_of(values, self.preserve)
        if kept.members is not None:
            rows = values.reshape(-1, values.shape[-1]).T
            count = most_distinct(rows.reshape(1, -1) if kept.one_codebook else rows)
            keep_zeros, per_channel = kept.mask is not None, not kept.one_codebook
            return SharedWeights(kernel, count, "linear", keep_zeros, per_channel, holder=_HOLDER)
        if kept.mask is not None:
            mask = keras.Variable(tf.cast(kept.mask, kernel.dtype), trainable=False)
            return Masked(mask, kernel.constraint, _HOLDER)
        return None


def _loose_kernels(model: Any) -> list[Any]:
    """Weights of two or more axes that train and are not inside a layer which keeps their form by itself."""
    rounding = [layer for layer in every_layer(model) if isinstance(layer, QuantizedLayer)]
    inside = {id(variable) for layer in rounding for variable in layer.variables}
    return [v for v in model.trainable_variables if len(v.shape) >= 2 and id(v) not in inside]
