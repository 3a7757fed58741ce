"""Recurrent layers in the forms that the converter takes and LiteRT runs."""

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.internals import every_layer
from tfbig.deployment.integer_forms import calls
from tfbig.deployment.integer_functions import with_own_scale
from tfbig.deployment.modes import is_integer
from tfbig.errors import InvalidModel

# What becomes of a layer: one operator for all steps; a WHILE with the step in a graph of its own; or its steps
# written out one after another.
FUSED, LOOP, UNROLLED = "fused", "loop", "unrolled"


@contextlib.contextmanager
def lowered(model: Any, quantize: str | None, *, fuse: bool = True) -> Iterator[dict[str, str]]:
    """Lets the model's recurrent layers be traced, in the block, in a form that suits the mode.

    An LSTM becomes one UNIDIRECTIONAL_SEQUENCE_LSTM, which the converter puts in the place of a function that says
    it is one (`tf.function(experimental_attributes={"api_implements": "lstm_…"})`, the mark that Keras 2 left).
    A mask does not hinder it: see `_masked`. In 16-bit activations LiteRT's operator does not load, so there the
    steps are written out, as those of other recurrent layers are in every integer mode: the converter finds no
    ranges inside a WHILE and crashes.

    Args:
        model: A built Keras model. It is left as found.
        quantize: The mode.
        fuse: Whether an LSTM may become one operator; in between trained ranges the converter refuses it.

    Yields:
        Name of each recurrent layer to the form it took, filled in while the model is traced.

    Raises:
        InvalidModel: A layer keeps its state from call to call (`stateful=True`), or has an open number of steps
            that would have to be written out.
    """
    forms: dict[str, str] = {}
    layers = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.RNN)]
    for layer in layers:
        if layer.stateful:
            raise InvalidModel(
                f"The layer {layer.name!r} is stateful: its answers depend on earlier calls, and a file's must not. "
                "Build it with stateful=False, or give the states in and out as inputs and outputs of the model."
            )
    apart = quantize == "int8" and _joins(model)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(calls(layer, _call(layer, quantize, fuse, apart, forms)))
        for layer in every_layer(model):
            if isinstance(layer, keras.layers.Bidirectional):
                stack.enter_context(calls(layer, _both_ways(layer)))
        yield forms


def has_own_form(model: Any, quantize: str | None, float_forms: Mapping[str, str]) -> bool:
    """Returns whether a model's recurrent layers take another form in this mode than in float32.

    Args:
        model: A built Keras model.
        quantize: The mode.
        float_forms: What `lowered` gave for float32.
    """
    if quantize == "int8":
        return LOOP in float_forms.values() or (FUSED in float_forms.values() and _joins(model))
    return quantize == "int16x8" and bool(float_forms)


def _joins(model: Any) -> bool:
    """Whether outputs may be reversed or concatenated anywhere in the model."""
    kinds = (keras.layers.Concatenate, keras.layers.Bidirectional)
    return any(isinstance(layer, kinds) for layer in every_layer(model))


def _call(
    layer: Any, quantize: str | None, fuse: bool, apart: bool, forms: dict[str, str]
) -> Callable[..., Any]:
    """What stands in for the layer's own `call` while it is traced."""
    original, path = layer.call, getattr(layer, "path", layer.name)

    @functools.wraps(original)
    def call(sequences: Any, initial_state: Any = None, mask: Any = None, **options: Any) -> Any:
        if fuse and _fusable(layer) and initial_state is None and quantize != "int16x8":
            forms[path] = FUSED
            outputs = _fused(layer, sequences, mask)
            # Concatenating or gathering gives its inputs its own scale. An LSTM's output feeds back into it at the
            # scale of its state: given another, it computes something else. A product takes a scale of its own.
            return with_own_scale(outputs) if apart else outputs
        if layer.unroll or is_integer(quantize):
            if sequences.shape[1] is None:
                raise InvalidModel(
                    f"The layer {layer.name!r} must be written out step by step for quantize={quantize!r}, and its "
                    "number of steps is open. Build the model with a fixed one, such as keras.Input((50, 8))."
                )
            forms[path] = UNROLLED
        else:
            forms[path] = LOOP
        if forms[path] == LOOP:
            return original(sequences, initial_state=initial_state, mask=mask, **options)
        turned = layer.go_backwards and mask is not None and not layer.unroll
        with _unrolled(layer, ahead=turned), _traced_once(layer.cell):
            if turned:
                # Written out, Keras zeroes the outputs of masked steps by the mask as given, not as reversed.
                sequences, mask = _reversed(sequences), _reversed(_one_mask(mask))
            return original(sequences, initial_state=initial_state, mask=mask, **options)

    return call


def _both_ways(layer: Any) -> Callable[..., Any]:
    """What stands in for a Bidirectional's own `call`: the same, with another operator to reverse the steps."""
    original = layer.call
    merge = {
        "concat": lambda a, b: tf.concat([a, b], axis=-1),
        "sum": lambda a, b: a + b,
        "ave": lambda a, b: (a + b) / 2,
        "mul": lambda a, b: a * b,
        None: lambda a, b: (a, b),
    }[layer.merge_mode]

    @functools.wraps(original)
    def call(sequences: Any, initial_state: Any = None, mask: Any = None, **options: Any) -> Any:
        if initial_state is not None or layer.return_state:
            return original(sequences, initial_state=initial_state, mask=mask, **options)
        ahead, back = (way(sequences, mask=mask) for way in (layer.forward_layer, layer.backward_layer))
        return merge(ahead, _reversed(back) if layer.return_sequences else back)

    return call


def _reversed(x: Any) -> Any:
    """The steps, axis 1, from the last to the first.

    By GATHER: the converter's integer REVERSE_V2 may take and give different scales, and LiteRT's copies the numbers.
    """
    return tf.gather(x, tf.range(tf.shape(x)[1] - 1, -1, -1), axis=1)


def _fusable(layer: Any) -> bool:
    """Whether LiteRT's operator computes what the layer does; it gives no cell state back."""
    cell = layer.cell
    return (
        type(layer) in (keras.layers.LSTM, keras.layers.RNN)
        and type(cell) is keras.layers.LSTMCell
        and cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and layer.compute_dtype == "float32"
        and not layer.return_state
    )


def _fused(layer: Any, sequences: Any, mask: Any) -> Any:
    sequences = tf.convert_to_tensor(sequences)
    mask = None if mask is None else _one_mask(mask)
    if layer.go_backwards:
        sequences = _reversed(sequences)
        mask = None if mask is None else _reversed(mask)
    if mask is None:
        last, outputs = _lstm(layer.cell, sequences)
        return outputs if layer.return_sequences else last
    return _masked(layer, sequences, mask)


def _one_mask(mask: Any) -> Any:
    return tf.cast(mask[0] if isinstance(mask, list | tuple) else mask, tf.bool)


def _masked(layer: Any, sequences: Any, mask: Any) -> Any:
    """A masked LSTM through the operator, which knows no masks: exact for any mask.

    A masked step leaves state and output as they are. So the steps that count are moved to the front, the operator
    runs over all, and each step takes the output of the last one that counts up to it; zeros before the first, and, as
    Bidirectional has it, at each masked step.
    """
    counted = tf.cumsum(tf.cast(mask, tf.int32), axis=1) - 1  # (rows, steps): which of those that count
    steps = tf.range(tf.shape(mask)[1])
    is_it = tf.logical_and(tf.equal(steps[None, :, None], counted[:, None, :]), mask[:, None, :])
    # Whole-number arithmetic, which stays exact in every mode: where the k-th that counts stands, or 0.
    places = tf.reduce_sum(tf.cast(is_it, tf.int32) * steps[None, None, :], axis=2)
    _, outputs = _lstm(layer.cell, tf.gather(sequences, places, batch_dims=1))
    if not layer.return_sequences:
        counted = counted[:, -1:]
    shown = counted >= 0
    if layer.return_sequences and layer.zero_output_for_mask:
        shown = tf.logical_and(shown, mask)
    taken = (
        tf.gather(outputs, tf.maximum(counted, 0), batch_dims=1) * tf.cast(shown, outputs.dtype)[:, :, None]
    )
    return taken if layer.return_sequences else taken[:, 0]


def _lstm(cell: Any, sequences: Any) -> tuple[Any, Any]:
    """The last output, (rows, units), and all outputs, (rows, steps, units), from a state of zeros."""
    rows = sequences.shape[0] or tf.shape(sequences)[0]
    zeros = tf.zeros((rows, cell.units))
    bias = cell.bias if cell.use_bias else tf.zeros((4 * cell.units,))

    def lstm(x: Any, h: Any, c: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> Any:
        # Stands for what the converter puts here, and is what a SavedModel runs.
        def step(state: Any, now: Any) -> Any:
            h, c = state
            i, f, g, o = tf.split(now @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            return tf.sigmoid(o) * tf.tanh(c), c

        hs, cs = tf.scan(step, tf.transpose(x, (1, 0, 2)), (h, c))
        return hs[-1], tf.transpose(hs, (1, 0, 2)), hs[-1], cs[-1], tf.constant(0.0)

    marked = tf.function(
        lstm,
        autograph=False,
        experimental_attributes={
            # Functions of one name would be taken for the same one.
            "api_implements": f"lstm_{uuid.uuid4()}",
            "api_preferred_device": "CPU",
            "time_major": False,
            "go_backwards": False,
        },
    )
    weights = [tf.convert_to_tensor(w) for w in (cell.kernel, cell.recurrent_kernel, bias)]
    last, outputs, *_ = marked(sequences, zeros, zeros, *weights)
    return last, outputs


@contextlib.contextmanager
def _unrolled(layer: Any, ahead: bool) -> Iterator[None]:
    """Lets the layer's steps be written out in the block; `ahead`, in the order they are given, whatever its own."""
    before = layer.unroll, layer.go_backwards
    layer.unroll, layer.go_backwards = True, layer.go_backwards and not ahead
    try:
        yield
    finally:
        layer.unroll, layer.go_backwards = before


@contextlib.contextmanager
def _traced_once(cell: Any) -> Iterator[None]:
    """Lets all steps call one graph of the cell; the converter puts it in the place of each call.

    Tracing fifty steps operator by operator takes longer than converting them.
    """
    original = cell.call

    @tf.function(autograph=False)
    def step(inputs: Any, states: Any) -> Any:
        return original(inputs, states, training=False)

    def call(inputs: Any, states: Any, **options: Any) -> Any:
        return step(inputs, states)

    with calls(cell, functools.wraps(original)(call)):
        yield
