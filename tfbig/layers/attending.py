"""What attention does with masks, as layers by themselves, so that what they read and give can have ranges."""

import functools
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.hidden_scores import HIDDEN


@keras.saving.register_keras_serializable(package="tfbig")
class HiddenScores(keras.layers.Layer):
    """Gives the steps that attention may not see a score of -20, so that softmax gives them nothing.

    What may be seen is what `keras.layers.MultiHeadAttention` lets be seen: where none of the masks of query, value and
    key, the mask of the pairs and, if `causal`, the order of the steps hides it.
    """

    def __init__(self, causal: bool = False, **options: Any):
        """Makes the layer.

        Args:
            causal: Whether a step sees those up to itself only.
            **options: As every Keras layer has.
        """
        super().__init__(**{"dtype": "float32", **options})
        self.causal = causal

    def call(
        self,
        scores: Any,
        query: Any,
        value: Any,
        key: Any = None,
        attention_mask: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
    ) -> Any:
        """Hides scores.

        Args:
            scores: Of shape (batch, heads, steps of the query, steps of the value).
            query: What attended, for its mask; likewise the next two.
            value: What was attended to.
            key: What it was found by; None if by itself.
            attention_mask: Of shape (batch, steps of the query, steps of the value), or with heads; True where
                attention may see.
            query_mask: Of shape (batch, steps of the query), which Keras passes; likewise the next two.
            value_mask: Of shape (batch, steps of the value).
            key_mask: Of the same.
        """
        seen = [] if attention_mask is None else [attention_mask]
        seen += [] if query_mask is None else [query_mask[:, :, None]]
        seen += [mask[:, None] for mask in (value_mask, key_mask) if mask is not None]
        if self.causal:
            steps, others = (tf.range(size) for size in keras.ops.shape(scores)[2:])
            seen.append((steps[:, None] >= others)[None])
        together = [tf.cast(mask if len(mask.shape) == 4 else mask[:, None], tf.bool) for mask in seen]
        return tf.where(functools.reduce(tf.logical_and, together), scores, HIDDEN) if seen else scores

    def compute_output_shape(self, scores_shape: Any, *shapes: Any, **named: Any) -> Any:
        """The shape of the scores."""
        return scores_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer is made again from."""
        return {**super().get_config(), "causal": self.causal}


@keras.saving.register_keras_serializable(package="tfbig")
class Remasked(keras.layers.Layer):
    """Gives the first of a list of tensors, with the mask of the second; with none where there is no second."""

    def __init__(self, **options: Any):
        """Makes the layer; it takes what every Keras layer does."""
        super().__init__(**{"dtype": "float32", **options})
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Takes a list of one tensor or two, of shape (batch, steps, …) each."""
        return tf.identity(inputs[0])

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """That of the second."""
        return previous_mask[1] if previous_mask is not None and len(inputs) > 1 else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the first."""
        return input_shape[0]
