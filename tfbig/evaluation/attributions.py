"""Integrated gradients and saliency: what the gradient of an output says about the inputs of a Keras model."""

from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.backend.graph import graph_of, nodes, run_graph
from tfbig.errors import InvalidModel

# How far the values' sum may be from the change of the output before more steps are taken, and how often.
_GAP, _REFINEMENTS = 0.01, 3
# Gradients in one part of the line.
_NODES = 8
# Values that go through the model at once.
_VALUES = 1 << 21


def integrated_gradients(
    model: Any, x: np.ndarray, target: np.ndarray, baseline: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the integrated gradients of one output per row, and how complete they are.

    The gradient is integrated along the straight line from the baseline to the row, by quadrature, and multiplied
    by the difference of the two; the values then add up to the change of the output (Sundararajan, Taly and Yan,
    "Axiomatic Attribution for Deep Networks", 2017, https://arxiv.org/abs/1703.01365). Rows whose sum is more than 1%
    off are done again with 4, 16 and 64 times the steps.

    Args:
        model: A Keras model of one input.
        x: Shape (rows, ...); or tokens of shape (rows, steps).
        target: The output of each row, shape (rows,).
        baseline: The shape of a row; of tokens that of a vector of the embedding.
        steps: Points on the line.

    Returns:
        Values of the shape of x, and gaps of shape (rows,): the distance of the sum from the change of the output, as
        a share of that change.
    """
    gradients = Gradients(model, baseline)
    change = gradients.at(x, target, 1.0)[0] - gradients.at(x, target, 0.0)[0]
    values, gaps = np.zeros(x.shape), np.full(len(x), np.inf)
    for refinement in range(_REFINEMENTS + 1):
        rows = np.flatnonzero(gaps > _GAP)
        if not len(rows):
            break
        values[rows] = integrals(gradients, x[rows], target[rows], steps * 4**refinement)
        sums, sizes = (part.reshape(len(x), -1).sum(axis=1) for part in (values, np.abs(values)))
        # Where parts cancel, rounding alone is a large share of the little change that is left.
        scale = np.maximum(np.abs(change), 1e-3 * sizes)
        gaps = np.abs(sums - change) / np.where(scale > 0, scale, 1.0)
    return values, gaps


def saliency(model: Any, x: np.ndarray, target: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Returns the size of an output's gradient at each value of x; of tokens the length of their vector's gradient.

    Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2014 (https://arxiv.org/abs/1312.6034).

    Args:
        model: A Keras model of one input.
        x: As for `integrated_gradients`, as the others.
        target: The output of each row.
        baseline: Its shape tells tokens from values; it is not used.
    """
    _, slopes, _ = Gradients(model, baseline).at(x, target, 1.0)
    return np.linalg.norm(slopes, axis=-1) if slopes.ndim > x.ndim else np.abs(slopes)


def embedding_of(model: Any) -> Any:
    """Returns the embedding that a model's input goes into, if there is one, else None.

    Raises:
        InvalidModel: Its tokens go into several.
    """
    if graph_of(model) is None:
        return None
    inputs = {id(tensor) for tensor in graph_of(model).inputs}
    found = [
        node.operation
        for node in nodes(model)
        if isinstance(node.operation, keras.layers.Embedding) and id(node.inputs[0]) in inputs
    ]
    if len(found) > 1:
        raise InvalidModel(
            f"The tokens of {model.name!r} go into {len(found)} embeddings; explain takes one."
        )
    return found[0] if found else None


class Gradients:
    """An output of a model and its gradient, on the line from a baseline to each row.

    Of tokens, which have no gradient, it is the line between vectors of the embedding.
    """

    def __init__(self, model: Any, baseline: np.ndarray):
        self._model, self._embedding = model, embedding_of(model)
        self._baseline = tf.constant(baseline, tf.float32)
        self._in_place = _InPlace()
        self._function = tf.function(self._trace, autograph=False, reduce_retracing=True)

    def at(self, x: np.ndarray, target: np.ndarray, share: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns outputs, gradients, and rows minus baseline, at a share of the way; a number, or one per row."""
        share = np.broadcast_to(np.asarray(share, np.float32), len(x))
        batch = int(np.clip(_VALUES // max(1, x[0].size), 1, 512))
        parts = []
        for start in range(0, len(x), batch):
            rows = slice(start, start + batch)
            parts.append(self._function(*map(tf.constant, (x[rows], target[rows], share[rows]))))
        return tuple(np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))  # type: ignore[return-value]

    def _trace(self, x: Any, target: Any, share: Any) -> Any:
        rows = tf.cast(x if self._embedding is None else self._embedding(x), tf.float32)
        difference = rows - self._baseline
        points = self._baseline + tf.reshape(share, [-1] + [1] * (len(rows.shape) - 1)) * difference
        with tf.GradientTape() as tape:
            tape.watch(points)
            outputs = tf.cast(self._outputs(x, points), tf.float32)
            outputs = tf.reshape(outputs, [tf.shape(outputs)[0], -1])
            chosen = tf.gather(outputs, target, batch_dims=1)
        gradient = tape.gradient(chosen, points)
        if gradient is None:
            raise InvalidModel(
                f"The outputs of {self._model.name!r} have no gradient with respect to its input; "
                'method="occlusion" needs none.'
            )
        return chosen, tf.convert_to_tensor(gradient), difference

    def _outputs(self, x: Any, points: Any) -> Any:
        if self._embedding is None:
            return self._model(points, training=False)

        def visit(operation: Any, args: tuple, kwargs: dict, outputs: Any) -> Any:
            result = operation(*args, **kwargs)
            return self._in_place(result, points) if operation is self._embedding else result

        return run_graph(graph_of(self._model), [x], visit)


class _InPlace(keras.layers.Layer):
    """Gives other values in place of those it is called on, with the same steps marked as padding."""

    def __init__(self) -> None:
        super().__init__(name="in_place")
        self.supports_masking = True

    def call(self, inputs: Any, values: Any) -> Any:
        return tf.cast(values, inputs.dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return previous_mask[0] if isinstance(previous_mask, list | tuple) else previous_mask


def integrals(gradients: Gradients, x: np.ndarray, target: np.ndarray, steps: int) -> np.ndarray:
    """Returns the integrated gradients of rows at a fixed number of steps; see `integrated_gradients`."""
    places, weights = quadrature(steps)
    total = np.zeros(x.shape)
    for i, row in enumerate(x):  # a row's whole line at once: as many rows at once would save little
        line, targets = np.broadcast_to(row, (len(places), *row.shape)), np.full(len(places), target[i])
        _, slopes, difference = gradients.at(line, targets, places)
        product = np.tensordot(weights, slopes, axes=1) * difference[0]
        total[i] = product.sum(axis=-1) if product.ndim > row.ndim else product
    return total


def quadrature(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns places in (0, 1) and their weights: Gauss-Legendre within equal parts of the line.

    Where a ReLU bends the line, only the part that holds the bend loses accuracy.
    """
    parts = -(-steps // _NODES)
    places, weights = np.polynomial.legendre.leggauss(min(steps, _NODES))
    starts = np.arange(parts)[:, None] / parts
    return (starts + (places + 1) / 2 / parts).ravel(), np.tile(weights / 2 / parts, parts)
