"""The stages of convolutional networks, in one and two dimensions."""

from collections.abc import Sequence
from typing import Any

from tfbig.backend import keras
from tfbig.models.style import Style

_L = keras.layers
# By the number of axes besides batch and channels.
_CONVOLUTION = {1: _L.Conv1D, 2: _L.Conv2D}
_DEPTHWISE = {1: _L.DepthwiseConv1D, 2: _L.DepthwiseConv2D}
_MAX_POOLING = {1: _L.MaxPooling1D, 2: _L.MaxPooling2D}
_AVERAGE = {1: _L.GlobalAveragePooling1D, 2: _L.GlobalAveragePooling2D}


class Convolutions:
    """Makes the stages of one network: sequences of layers, or a graph where paths meet."""

    def __init__(self, axes: int, kernel_size: int, shrinking: int, style: Style) -> None:
        """Makes the maker.

        Args:
            axes: 1 for sequences, 2 for images.
            kernel_size: Side of every window.
            shrinking: How many times smaller a stage makes the sides.
            style: Of all layers.
        """
        self.axes, self.kernel_size, self.shrinking, self.style = axes, kernel_size, shrinking, style

    def plain(self, filters: Sequence[int], blocks: int) -> list[Any]:
        """Returns stages of convolutions and a max pooling, and a flattening."""
        layers = []
        for count in filters:
            for _ in range(blocks):
                layers += self._activated(self._convolution(count), count)
            if self.shrinking > 1:
                layers.append(_MAX_POOLING[self.axes](self.shrinking))
        return [*layers, _L.Flatten()]

    def separable(self, filters: Sequence[int], blocks: int) -> list[Any]:
        """Returns a convolution, stages of depthwise and 1×1 convolutions, and an average over all places."""
        layers, channels = self._activated(self._convolution(filters[0]), filters[0]), filters[0]
        for stage, count in enumerate(filters):
            for block in range(blocks):
                strides = self.shrinking if stage and not block else 1
                layers += self._activated(self._depthwise(strides), channels)
                layers += self._activated(self._convolution(count, kernel_size=1), count)
                channels = count
        return [*layers, _AVERAGE[self.axes]()]

    def residual(self, values: Any, filters: Sequence[int], blocks: int) -> Any:
        """Returns what becomes of `values` in a convolution, stages of residual blocks, and an average."""
        values = _through(self._activated(self._convolution(filters[0]), filters[0]), values)
        for stage, count in enumerate(filters):
            for block in range(blocks):
                values = self._residual_block(values, count, self.shrinking if stage and not block else 1)
        return _AVERAGE[self.axes]()(values)

    def _residual_block(self, values: Any, filters: int, strides: int) -> Any:
        body = self._activated(self._convolution(filters, strides), filters)
        body += [self._convolution(filters), *self.style.normalization(filters)]
        shortcut = []
        if strides > 1 or values.shape[-1] != filters:
            # "Option B" of the paper: a 1×1 convolution where the shapes differ.
            shortcut = [self._convolution(filters, strides, kernel_size=1)]
            shortcut += self.style.normalization(filters)
        added = _L.Add()([_through(body, values), _through(shortcut, values)])
        return _L.Activation(self.style.activation)(added)

    def _activated(self, layer: Any, channels: int) -> list[Any]:
        return [layer, *self.style.normalization(channels), _L.Activation(self.style.activation)]

    def _convolution(self, filters: int, strides: int = 1, kernel_size: int | None = None) -> Any:
        return _CONVOLUTION[self.axes](
            filters,
            kernel_size or self.kernel_size,
            strides=strides,
            padding="same",
            use_bias=self.style.use_bias,
            **self.style.kernel(),
        )

    def _depthwise(self, strides: int) -> Any:
        # Without a penalty: "very little or no weight decay on the depthwise filters" (Howard et al., section 4).
        return _DEPTHWISE[self.axes](
            self.kernel_size,
            strides=strides,
            padding="same",
            use_bias=self.style.use_bias,
            depthwise_initializer=self.style.first_weights(),
        )


def _through(layers: Sequence[Any], values: Any) -> Any:
    for layer in layers:
        values = layer(values)
    return values
