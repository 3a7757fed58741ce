"""Whole numbers for kernels by what they do to the layer's results, not by what is nearest to each weight."""

from typing import Any

import numpy as np

from tfbig.deployment.integer_graph import Layer

_SAME = 0
_MOST_INTEGER = 127
# Of the mean square of an input, added to each: what was not seen in calibration counts a little too.
_DAMPING = 0.01


def patches(layer: Layer, values: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Returns what outputs of a layer are computed from; a sample of them, the same for the same seed.

    Args:
        layer: Whose input it is.
        values: Its input, shape (rows, height, width, channels), or (..., features) for a dense layer.
        most: How many outputs to take at most.
        seed: Of the sample.

    Returns:
        Shape (outputs, weights per unit), in the order of the kernel; (outputs, weights, channels) if depthwise.
    """
    if layer.kind == "FULLY_CONNECTED":
        rows = values.reshape(-1, layer.weights.shape[1])
        return rows[_sample(len(rows), most, seed)]
    height, width = layer.weights.shape[1:3]
    options = layer.options
    apart = options.dilationHFactor, options.dilationWFactor
    strides = options.strideH, options.strideW
    sizes = (height - 1) * apart[0] + 1, (width - 1) * apart[1] + 1
    if options.padding == _SAME:
        places = zip(values.shape[1:3], sizes, strides, strict=True)
        more = [
            max((-(-length // stride) - 1) * stride + size - length, 0) for length, size, stride in places
        ]
        values = np.pad(values, [(0, 0), *((extra // 2, extra - extra // 2) for extra in more), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(values, sizes, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :, :: apart[0], :: apart[1]]
    chosen = np.unravel_index(_sample(int(np.prod(windows.shape[:3])), most, seed), windows.shape[:3])
    taken = windows[chosen].transpose(0, 2, 3, 1)
    if layer.kind == "DEPTHWISE_CONV_2D":
        return taken.reshape(len(taken), -1, taken.shape[3])
    return taken.reshape(len(taken), -1)


def _sample(count: int, most: int, seed: int) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def products(layer: Layer, weights: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Returns a layer's mean result per unit, without its bias, for the mean of its patches."""
    if layer.kind == "DEPTHWISE_CONV_2D":
        spread = np.repeat(means, weights.shape[3] // means.shape[1], axis=1)
        return (weights.reshape(spread.shape) * spread).sum(0)
    return weights.reshape(len(weights), -1) @ means


def nearest(weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns the whole numbers nearest to the weights; `scales` broadcasts against them."""
    return np.clip(np.round(weights / scales), -_MOST_INTEGER, _MOST_INTEGER)


def by_products(weights: np.ndarray, scales: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Returns whole numbers that keep a layer's products close, each making up for the errors of those before it.

    Args:
        weights: Shape (units, weights per unit).
        scales: Shape (units,).
        gram: Mean products of its inputs with each other, shape (weights per unit, weights per unit).

    Returns:
        Of the shape of `weights`, from -127 to 127. Weights that are 0, as pruned ones, stay 0. The nearest, where
        products are not finite.

    The method is that of Frantar et al. 2023, "GPTQ", arXiv:2210.17323, without its blocks.
    """
    if not np.isfinite(gram).all():
        return nearest(weights, scales[:, None])
    order = np.argsort(-np.diag(gram), kind="stable")
    damped = gram[np.ix_(order, order)] + (_DAMPING * np.diag(gram).mean() + 1e-12) * np.eye(len(gram))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, zero = weights[:, order].astype(np.float64), weights[:, order] == 0
    whole = np.empty_like(left)
    for place in range(left.shape[1]):
        whole[:, place] = np.where(zero[:, place], 0, nearest(left[:, place], scales))
        error = (left[:, place] - whole[:, place] * scales) / upper[place, place]
        left[:, place + 1 :] -= np.outer(error, upper[place, place + 1 :])
    result = np.empty_like(whole)
    result[:, order] = whole
    return result


def few_values(weights: Any) -> bool:
    """Whether weights share a few values, as after clustering: rounding them apart would undo that."""
    return weights.size >= 64 and len(np.unique(weights)) <= weights.size // 4
