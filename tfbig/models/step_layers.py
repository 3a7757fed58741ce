"""Layers for the steps of a sequence that Keras does not have: where they stand, and their average."""

from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.errors import InvalidModel, InvalidOption, unknown_choice

KINDS = ("learned", "sinusoidal")


@keras.saving.register_keras_serializable(package="tfbig")
class Positions(keras.layers.Layer):
    """Adds to each step of a sequence a vector that stands for its position.

    "learned" has such a vector per step as weights (Gehring et al., 2017, https://arxiv.org/abs/1705.03122);
    "sinusoidal" takes sines and cosines of the position at wavelengths from 2π to 20,000π and has no weights
    (Vaswani et al., 2017, section 3.5, https://arxiv.org/abs/1706.03762).
    """

    def __init__(self, kind: str = "learned", *, steps: int | None = None, **options: Any):
        """Makes the layer.

        Args:
            kind: "learned" or "sinusoidal".
            steps: Of the longest sequence; None for those of the input.
            **options: As every Keras layer has.
        """
        super().__init__(**options)
        if kind not in KINDS:
            raise unknown_choice("kind", kind, KINDS)
        self.kind = kind
        self.steps: Any = steps
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Makes the table, for inputs of shape (batch, steps, features)."""
        _, steps, features = input_shape
        self.steps = steps if self.steps is None else self.steps
        if self.steps is None:
            raise InvalidModel("Positions needs to know how many steps there are at most; pass steps=.")
        self._check_length(steps)
        if self.kind == "learned":
            # As small as BERT's and GPT-2's: the tokens speak louder than where they stand.
            small = keras.initializers.RandomNormal(stddev=0.02)
            self.table = self.add_weight(name="table", shape=(self.steps, features), initializer=small)
        else:
            self.table = sinusoids(self.steps, features)

    def call(self, inputs: Any) -> Any:
        """Adds the positions' vectors to `inputs` of shape (batch, steps, features)."""
        self._check_length(inputs.shape[1])
        table = keras.ops.cast(self.table, inputs.dtype)
        return inputs + table[: keras.ops.shape(inputs)[1]]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer is made again from."""
        return {**super().get_config(), "kind": self.kind, "steps": self.steps}

    def _check_length(self, steps: int | None) -> None:
        if steps is not None and steps > self.steps:
            raise InvalidModel(
                f"The layer {self.name!r} knows {self.steps} positions; got a sequence of {steps} steps. Build the "
                "model for longer sequences, or cut them."
            )


@keras.saving.register_keras_serializable(package="tfbig")
class AverageOfSteps(keras.layers.Layer):
    """Averages the steps that are not padding; a sequence of padding alone gives zeros.

    Keras's `GlobalAveragePooling1D` divides by their number, also where that is 0: one such row makes a loss NaN, and
    an 8-bit file of it does not run.
    """

    def __init__(self, **options: Any):
        """Makes the layer; it takes what every Keras layer does."""
        super().__init__(**options)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Averages `inputs` of shape (batch, steps, features) over the steps where `mask` (batch, steps) is True."""
        if mask is None:
            return keras.ops.mean(inputs, axis=1)
        kept = keras.ops.cast(mask, inputs.dtype)[..., None]
        return keras.ops.sum(inputs * kept, axis=1) / keras.ops.maximum(keras.ops.sum(kept, axis=1), 1)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Nothing is padding any more."""
        return

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Without the steps."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """What the layer is made again from; Keras's own guess would lose the name."""
        return {**super().get_config()}


def sinusoids(steps: int, features: int) -> np.ndarray:
    """Returns the sines, then the cosines, of each position; shape (steps, features), float32.

    Example:
        >>> sinusoids(2, 4).round(2).tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.8399999737739563, 0.009999999776482582, 0.5400000214576721, 1.0]]
    """
    if features % 2:
        raise InvalidOption(f"Sinusoidal positions need an even number of features; got {features}.")
    wavelengths = 10_000.0 ** (np.arange(0, features, 2) / features)
    angles = np.arange(steps)[:, None] / wavelengths
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
