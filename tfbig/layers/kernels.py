"""Rounding of weights: a layer that computes with its kernel as the integer file will hold it."""

from typing import Any

import numpy as np

from tfbig.backend import keras, tf

_L = keras.layers
KERNEL_LAYERS = (
    *(_L.Dense, _L.EinsumDense, _L.Conv1D, _L.Conv2D, _L.DepthwiseConv1D, _L.DepthwiseConv2D),
    *(_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Embedding),
)
_DEPTHWISE = (_L.DepthwiseConv1D, _L.DepthwiseConv2D)
_TRANSPOSED = (_L.Conv1DTranspose, _L.Conv2DTranspose)
# The converter takes a range per channel from the model for these only.
_RANGE_IS_KEPT = (_L.Conv2D, _L.DepthwiseConv2D)
# With the range said, LiteRT stores kernels of 4 bits in 4 bits for these.
_PACKED = (*_RANGE_IS_KEPT, _L.Dense)
# A channel far below the others is given a coarser scale than its own: at its own, a bias that is stored in steps
# of (input scale × kernel scale) would not fit into 32 bits.
_SMALLEST_CHANNEL = 1e-4


def kernel_of(layer: Any) -> Any:
    """Returns the variable with the kernel, or the table of an embedding."""
    name = "embeddings" if isinstance(layer, _L.Embedding) else "kernel"
    # `kernel` may be computed (LoRA); the variable itself is `_kernel` then. Embeddings likewise.
    return getattr(layer, f"_{name}" if hasattr(layer, f"_{name}") else name)


def channel_axes(layer: Any) -> tuple[int, ...]:
    """Returns the axes of the kernel that are output channels: each has a scale of its own."""
    last = len(kernel_of(layer).shape) - 1
    if isinstance(layer, _L.Embedding):
        return ()
    if isinstance(layer, _DEPTHWISE):
        return last - 1, last
    if isinstance(layer, _TRANSPOSED):
        return (last - 1,)
    if isinstance(layer, _L.EinsumDense):
        inputs, outputs = layer.equation.replace(" ", "").split("->")
        return tuple(i for i, axis in enumerate(inputs.split(",")[1]) if axis in outputs)
    return (last,)


def factor_and_offset(norm: Any) -> tuple[Any, Any]:
    """Returns by what a batch normalization multiplies each channel once it is trained, and what it adds then."""
    factor = tf.math.rsqrt(tf.convert_to_tensor(norm.moving_variance) + norm.epsilon)
    factor = factor * tf.convert_to_tensor(norm.gamma) if norm.scale else factor
    offset = -tf.convert_to_tensor(norm.moving_mean) * factor
    return factor, offset + tf.convert_to_tensor(norm.beta) if norm.center else offset


def _to_steps(kernel: Any, step: Any) -> Any:
    """Rounds to multiples of `step`; the gradient passes as if it did not."""
    return kernel + tf.stop_gradient(tf.round(kernel / step) * step - kernel)


@keras.saving.register_keras_serializable(package="tfbig")
class QuantizedLayer(keras.layers.Layer):
    """A layer that computes with its kernel rounded, and trains the kernel behind it.

    Symmetric levels, one scale per output channel (Krishnamoorthi, 2018, https://arxiv.org/abs/1806.08342); an
    embedding has one scale. The gradient passes rounding as if it were not there. What the kernel has been given
    before stays: `zeros` holds its zeros, `clusters` its shared values, which move by the mean of their members'
    gradients.

    A batch normalization after the layer is part of it. In training it follows the batches, as it did before; else
    it is folded: a factor per channel on the kernel, before rounding, and an offset. As each channel has a scale of its
    own, the factor changes that scale and no level, so both compute with the same levels, and one pass over the
    inputs is enough (section 3.2.2 of the paper needs two).
    """

    def __init__(
        self,
        layer: Any,
        *,
        bits: int = 8,
        scaled: bool = False,
        normalization: Any = None,
        zeros: bool = False,
        clusters: int | None = None,
        one_codebook: bool = True,
        **options: Any,
    ):
        """Makes the layer around another, of a type in `KERNEL_LAYERS`.

        Args:
            layer: A Keras layer without an activation of its own.
            bits: 8, or 4 for 15 levels.
            scaled: Whether there is a constant factor per channel, from a frozen normalization or a rescaling.
            normalization: A `BatchNormalization` of the channels, for a layer without a bias; None for no such.
            zeros: Whether there is a mask of weights that stay 0.
            clusters: How many values the weights share; None when they are free.
            one_codebook: Whether all channels share the same values, and so one scale.
            **options: As every Keras layer has.
        """
        super().__init__(**options)
        self.layer, self.bits, self.scaled, self.normalization = layer, bits, scaled, normalization
        self.zeros, self.clusters, self.one_codebook = zeros, clusters, one_codebook
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Builds the layer inside, and room for what is kept of its kernel."""
        if not self.layer.built:
            self.layer.build(input_shape)
        shape = tuple(kernel_of(self.layer).shape)
        self._axes = channel_axes(self.layer)
        if self.scaled:
            channels = [shape[axis] for axis in self._axes]
            self.scale = self.add_weight(name="scale", shape=channels, initializer="ones", trainable=False)
        if self.normalization is not None and not self.normalization.built:
            self.normalization.build(self.layer.compute_output_shape(input_shape))
        kept = {"shape": shape, "trainable": False, "autocast": False}
        if self.zeros:
            self.mask = self.add_weight(name="mask", initializer="ones", dtype="bool", **kept)
        if self.clusters is not None:
            self.members = self.add_weight(name="members", initializer="zeros", dtype="int32", **kept)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """What the layer inside gives with the rounded kernel, normalized if it is to be."""
        if self.normalization is None:
            return self.computed(inputs, self.rounded_kernel())
        if training and self.normalization.trainable:
            plain = self.computed(inputs, self.rounded_kernel(folded=False))
            return self.normalization(plain, training=True, mask=mask)
        _, offset = factor_and_offset(self.normalization)
        return self.computed(inputs, self.rounded_kernel()) + offset

    def rounded_kernel(self, folded: bool = True) -> Any:
        """Returns the kernel as the file will hold it, in float32; without the normalization if not `folded`."""
        kernel, limits = self._kernel_and_limits(folded)
        bits, step = self.bits, limits / (2 ** (self.bits - 1) - 1)
        if limits.shape.rank == 0:
            if bits == 4 and not isinstance(self.layer, _PACKED):
                # 15 of the 255 levels of 8 bits, where LiteRT knows no kernels of 4.
                kernel, limits, bits = _to_steps(kernel, step), step * 127.0, 8
            return tf.quantization.fake_quant_with_min_max_vars(
                kernel, -limits, limits, num_bits=bits, narrow_range=True
            )
        if isinstance(self.layer, _RANGE_IS_KEPT):
            flat = tf.reshape(kernel, (*kernel.shape[: min(self._axes)], -1))
            limits = tf.reshape(limits, [-1])
            rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                flat, -limits, limits, num_bits=bits, narrow_range=True
            )
            return tf.reshape(rounded, kernel.shape)
        # Of other layers the converter cannot read scales per channel. It finds them again by itself, since the
        # largest weight of each channel lies on the last level.
        return _to_steps(kernel, step)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As of the layer inside."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """As of the layer inside."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """What the layer is made again from."""
        own = {
            "layer": keras.saving.serialize_keras_object(self.layer),
            "bits": self.bits,
            "scaled": self.scaled,
            "normalization": keras.saving.serialize_keras_object(self.normalization),
            "zeros": self.zeros,
            "clusters": self.clusters,
            "one_codebook": self.one_codebook,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "QuantizedLayer":
        """Makes the layer again."""
        inside = ("layer", "normalization")
        made = {name: keras.saving.deserialize_keras_object(config[name]) for name in inside}
        return cls(**{**config, **made})

    @property
    def folded(self) -> bool:
        """Whether a factor per channel is part of the kernel in the file."""
        return self.scaled or self.normalization is not None

    @property
    def scales(self) -> int:
        """How many scales the kernel has in the file."""
        shape = kernel_of(self.layer).shape
        return (
            1 if self._one_range() and not self.folded else int(np.prod([shape[axis] for axis in self._axes]))
        )

    def _one_range(self) -> bool:
        """Whether one range, before any factor, serves all channels, so that shared values stay shared."""
        shared = self.clusters is not None and self.one_codebook
        # A factor per channel asks for scales per channel, which only these let one choose.
        return not self._axes or (shared and (not self.folded or isinstance(self.layer, _RANGE_IS_KEPT)))

    def computed(self, inputs: Any, kernel: Any) -> Any:
        """Returns what the layer inside gives with this kernel in place of its own."""
        own = kernel_of(self.layer)
        values = [(v, kernel if v is own else tf.convert_to_tensor(v)) for v in self.layer.variables]
        open_steps = isinstance(self.layer, _L.Dense) and None in inputs.shape[1:-1]
        with keras.StatelessScope(values):
            if not open_steps:
                return self.layer(inputs)
            # As rows: among open steps LiteRT would add the bias by itself, to sums that have no range.
            rows = self.layer(tf.reshape(inputs, [-1, inputs.shape[-1]]))
            return tf.reshape(rows, [*keras.ops.shape(inputs)[:-1], rows.shape[-1]])

    def _factor(self) -> Any:
        """What each channel of the kernel is multiplied by in the file."""
        return tf.convert_to_tensor(self.scale) if self.scaled else factor_and_offset(self.normalization)[0]

    def _kernel_and_limits(self, folded: bool) -> tuple[Any, Any]:
        """The kernel before rounding, and the largest magnitude of each channel, or of all."""
        kernel = tf.cast(tf.convert_to_tensor(kernel_of(self.layer)), tf.float32)
        if self.clusters is not None:
            members = tf.reshape(tf.convert_to_tensor(self.members), [-1])
            # One value for all members: equal steps keep them equal but for the last bit.
            shared = tf.math.unsorted_segment_mean(tf.reshape(kernel, [-1]), members, self.clusters)
            kernel = tf.reshape(tf.gather(shared, members), kernel.shape)
        if self.zeros:
            kernel = tf.where(tf.convert_to_tensor(self.mask), kernel, 0.0)
        if self._one_range():
            limits = tf.reduce_max(tf.abs(kernel))
        else:
            others = [axis for axis in range(kernel.shape.rank) if axis not in self._axes]
            limits = tf.reduce_max(tf.abs(kernel), axis=others, keepdims=True)
        if self.folded and folded:
            sizes = [kernel.shape[axis] if axis in self._axes else 1 for axis in range(kernel.shape.rank)]
            factor = tf.reshape(self._factor(), sizes)
            kernel, limits = kernel * factor, limits * tf.abs(factor)
        limits = tf.stop_gradient(limits)
        largest = tf.reduce_max(limits)
        largest = tf.where(largest > 0.0, largest, 1.0)
        return kernel, tf.maximum(limits, _SMALLEST_CHANNEL * largest)
