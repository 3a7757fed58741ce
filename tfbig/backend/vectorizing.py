"""`tf.vectorized_map` for whole training steps: an op that it cannot stack is unrolled, and that op alone."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tfbig.backend import tf

# Up to so many pixels one grouped convolution is faster than a convolution per slice on a CPU; above, moving the
# slices into the channels costs more than it saves (8 × 8: 0.5 to 0.7 of the time; 28 × 28: 1.05 to 1.4).
GROUPED_PIXELS = 256
_LOCK = threading.RLock()


@tf.autograph.experimental.do_not_convert
def vectorized_map(function: Callable[[Any], Any], stacked: Any) -> Any:
    """Runs `function` on every slice along the first axis of `stacked`, as `tf.vectorized_map` does.

    What TensorFlow cannot vectorize it puts into a loop inside the graph, slice after slice; here such an op is
    unrolled, so that slices run side by side. Convolutions with a kernel per slice, which TensorFlow cannot
    vectorize either, become one grouped convolution where that is faster. Random numbers are those that the
    slice would draw alone. TensorFlow has no public way to say how an op is vectorized: its table of converters is
    changed while the function is traced, and put back.

    Args:
        function: A function of nested tensors, made of TensorFlow ops.
        stacked: Nested tensors whose first axis, of static size, is mapped over.

    Returns:
        What `function` returns, stacked along a first axis.
    """
    with _converters():
        return tf.vectorized_map(function, stacked, warn=False)


@contextlib.contextmanager
def _converters() -> Iterator[None]:
    from tensorflow.python.ops.parallel_for import pfor

    registry = pfor._pfor_converter_registry
    with _LOCK:
        before, fallback = dict(registry), pfor._fallback_converter
        for name, group in _GROUPED.items():
            registry[name] = _convolution(before[name], group)
        registry |= {"Bitcast": _bitcast, "ZerosLike": _zeros_like(before["ZerosLike"])}
        pfor._fallback_converter = _unrolled
        try:
            yield
        finally:
            pfor._fallback_converter = fallback
            registry.clear()
            registry.update(before)


def _unrolled(op: Any, root_cause: str = "", warn: bool = False) -> Any:
    """One op per slice."""
    from tensorflow.python.ops.parallel_for import pfor

    slices = _count(op)
    inputs = [tf.unstack(t, slices) if stacked else [t] * slices for t, stacked, _ in op.inputs]
    outputs = [_create(op, list(one)) for one in zip(*inputs, strict=True)]
    return [pfor.wrap(tf.stack(parts), True) for parts in zip(*outputs, strict=True)]


def _bitcast(op: Any) -> Any:
    from tensorflow.python.ops.parallel_for import pfor

    if op.op.inputs[0].dtype.size != op.outputs[0].dtype.size:
        return _unrolled(op)
    return [pfor.wrap(_create(op, [op.stacked_input(0)])[0], True)]


def _zeros_like(theirs: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Zeros in the form of a list of tensors too, which gradients of masked recurrent layers need."""

    def convert(op: Any) -> Any:
        from tensorflow.python.ops.parallel_for import pfor

        if op.outputs[0].dtype != tf.variant:
            return theirs(op)
        zeros = tf.raw_ops.ZerosLike(x=pfor._untile_variant(op.stacked_input(0)))
        return pfor.wrap(pfor._tile_variant(zeros, op), True)

    return convert


def _convolution(theirs: Callable[[Any], Any], grouped: Callable[[Any, int], Any]) -> Callable[[Any], Any]:
    """A converter of a convolution, or of one of its gradients."""

    def convert(op: Any) -> Any:
        from tensorflow.python.ops.parallel_for import pfor

        stacked = [is_stacked for _, is_stacked, _ in op.inputs]
        if op.op_type != "Conv2DBackpropFilter" and not stacked[1]:
            return theirs(op)  # the same kernel for all: TensorFlow merges slices and batch
        if not _small(op):
            return _unrolled(op)
        op.stack_inputs([i for i, input in enumerate(op.op.inputs) if input.dtype.is_floating])
        return [pfor.wrap(grouped(op, _count(op)), True)]

    return convert


def _small(op: Any) -> bool:
    """Whether the image is small, and the convolution has no groups of its own."""
    image = op.outputs[0] if op.op_type == "Conv2DBackpropInput" else op.op.inputs[0]
    kernel = op.outputs[0] if op.op_type == "Conv2DBackpropFilter" else op.op.inputs[1]
    if op.outputs[0].dtype != tf.float32:
        return False  # oneDNN's kernels know no other type
    if op.get_attr("data_format") != b"NHWC" or image.shape.rank != 4 or not kernel.shape.is_fully_defined():
        return False
    _, height, width, channels = image.shape
    if None in (height, width) or kernel.shape[2] != channels:
        return False
    return height * width <= GROUPED_PIXELS and _grouped_convolutions_train()


@functools.cache
def _grouped_convolutions_train() -> bool:
    """Whether the kernels at hand give gradients of grouped convolutions: on a CPU, only oneDNN's do."""
    with tf.init_scope():
        images, kernel, options = tf.ones([1, 4, 4, 2]), [3, 3, 1, 4], {"strides": [1] * 4, "padding": "SAME"}
        gradients = tf.ones([1, 4, 4, 4])
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=images.shape, filter=tf.ones(kernel), out_backprop=gradients, **options
            )
            tf.raw_ops.Conv2DBackpropFilter(
                input=images, filter_sizes=kernel, out_backprop=gradients, **options
            )
        except tf.errors.OpError:
            return False
    return True


def _forward(op: Any, slices: int) -> Any:
    images, kernels = op.stacked_input(0), op.stacked_input(1)
    return _from_channels(_create(op, [_to_channels(images), _to_channels(kernels)])[0], slices)


def _input_gradient(op: Any, slices: int) -> Any:
    sizes, kernels, gradients = op.unstacked_input(0), op.stacked_input(1), op.stacked_input(2)
    inputs = [sizes * [1, 1, 1, slices], _to_channels(kernels), _to_channels(gradients)]
    return _from_channels(_create(op, inputs)[0], slices)


def _kernel_gradient(op: Any, slices: int) -> Any:
    images, sizes, gradients = op.stacked_input(0), op.unstacked_input(1), op.stacked_input(2)
    inputs = [_to_channels(images), sizes * [1, 1, 1, slices], _to_channels(gradients)]
    return _from_channels(_create(op, inputs)[0], slices)


_GROUPED = {
    "Conv2D": _forward,
    "Conv2DBackpropInput": _input_gradient,
    "Conv2DBackpropFilter": _kernel_gradient,
}


def _to_channels(stacked: Any) -> Any:
    """(slices, a, b, c, channels) to (a, b, c, slices × channels)."""
    moved = tf.transpose(stacked, [1, 2, 3, 0, 4])
    shape = tf.shape(moved)
    return tf.reshape(moved, [shape[0], shape[1], shape[2], moved.shape[3] * moved.shape[4]])


def _from_channels(merged: Any, slices: int) -> Any:
    shape = tf.shape(merged)
    apart = tf.reshape(merged, [shape[0], shape[1], shape[2], slices, -1])
    return tf.transpose(apart, [3, 0, 1, 2, 4])


def _count(op: Any) -> int:
    return int(tf.get_static_value(op.pfor.loop_len_vector)[0])


def _create(op: Any, inputs: list[Any]) -> Any:
    from tensorflow.python.ops.parallel_for import pfor

    dtypes = [output.dtype for output in op.outputs]
    return pfor._create_op(op.op_type, inputs, dtypes, attrs=op.op.node_def.attr).outputs
