"""Keras's layers, activations and functions in files of 8 and 16 bits, beside the bare converter's files.

    python benchmarks/integer_layers.py [--only NAME ...]

Each stands between two dense or convolutional layers of random weights. Errors are means over random rows that
calibration did not see, as shares of the range of the Keras model's outputs. Exits with 1 when one of tfbig's is above
1% in 8 bits or 0.5% in 16, or a file is missing that is not among the known gaps, or when a known gap has closed.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import tfbig
from tfbig.backend import keras, tf

RESULTS = Path(__file__).parent / "results"
MODES = {"int8": 0.01, "int16x8": 0.005}
# (name, mode) to why there is no file, or none within the limit.
GAPS = {
    ("pad with 2", "int16x8"): "LiteRT's PADV2 takes no 16-bit constant",
    ("floor", "int8"): "a value near a whole number rounds to either side",
}
L, ops = keras.layers, keras.ops
ACTIVATIONS = [
    "relu",
    "relu6",
    "leaky_relu",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "hard_tanh",
    "tanh_shrink",
    "softsign",
    "softmax",
    "log_softmax",
    "elu",
    "selu",
    "celu",
    "softplus",
    "squareplus",
    "log_sigmoid",
    "mish",
    "silu",
    "hard_swish",
    "gelu",
    "exponential",
    "soft_shrink",
    "sparse_plus",
]
IMAGES: dict[str, Callable] = {
    **{name: L.Activation(name) for name in ACTIVATIONS},
    "PReLU": L.PReLU(),
    "ELU of 0.5": L.ELU(0.5),
    "depthwise": L.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": L.SeparableConv2D(6, 3),
    "dilated": L.Conv2D(4, 3, dilation_rate=2),
    "in groups": L.Conv2D(8, 3, groups=2),
    "transposed": L.Conv2DTranspose(4, 3, strides=2, padding="same"),
    "average pool": L.AveragePooling2D(3, padding="same", strides=2),
    "max pool": L.MaxPooling2D(2),
    "global average": L.GlobalAveragePooling2D(),
    "global max": L.GlobalMaxPooling2D(),
    "upsampling": L.UpSampling2D(2),
    "upsampling, bilinear": L.UpSampling2D(2, interpolation="bilinear"),
    "resizing": L.Resizing(5, 7),
    "rescaling": L.Rescaling(1 / 7, 0.3),
    "batch norm": L.BatchNormalization(),
    "layer norm": L.LayerNormalization(),
    "group norm": L.GroupNormalization(2),
    "instance norm": L.GroupNormalization(-1),
    "unit norm": L.UnitNormalization(),
    "RMS norm": L.RMSNormalization(),
    "squeeze and excitation": lambda x: x * gates(ops.mean(x, (1, 2), keepdims=True)),
    "add": lambda x: L.Add()([x, L.Conv2D(4, 3, padding="same")(x)]),
    "subtract": lambda x: L.Subtract()([x, L.Conv2D(4, 3, padding="same")(x)]),
    "multiply": lambda x: L.Multiply()([x, L.Conv2D(4, 3, padding="same")(x)]),
    "maximum": lambda x: L.Maximum()([x, L.Conv2D(4, 3, padding="same")(x)]),
    "average": lambda x: L.Average()([x, L.Conv2D(4, 3, padding="same")(x)]),
    "concatenate": lambda x: L.Concatenate()([x, 5 * L.Conv2D(4, 3, padding="same")(x)]),
    "one layer on two inputs": lambda x: twice(L.Conv2D(4, 3, bias_initializer="ones"), x),
}  # fmt: skip
SEQUENCES: dict[str, Callable] = {
    "convolution, causal": L.Conv1D(6, 3, padding="causal"),
    "LSTM": L.LSTM(6, return_sequences=True),
    "LSTM, both ways": L.Bidirectional(L.LSTM(6, return_sequences=True)),
    "GRU": L.GRU(6, return_sequences=True),
    "GRU, reset before": L.GRU(6, reset_after=False),
    "simple RNN": L.SimpleRNN(6, return_sequences=True),
    "each step": L.TimeDistributed(L.Dense(5, "relu")),
    "attention": lambda x: L.Attention()([x, x]),
    "additive attention": lambda x: L.AdditiveAttention()([x, x]),
    "multi-head attention": lambda x: L.MultiHeadAttention(2, 4)(x, x),
    "multi-head attention, causal": lambda x: L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "grouped-query attention": lambda x: L.GroupQueryAttention(4, 4, 2)(x, x),
    **{name: getattr(ops, name) for name in ("square", "negative", "exp", "floor", "sin")},
    "flip": lambda x: ops.flip(x, 1),
    "sum": lambda x: ops.sum(x, 1),
    "max": lambda x: ops.max(x, 1),
    "variance": lambda x: ops.var(x, -1),
    "square root": lambda x: ops.sqrt(ops.abs(x)),
    "logarithm": lambda x: ops.log(ops.abs(x) + 1),
    "ratio": lambda x: x / (ops.abs(x) + 1),
    "logsumexp": lambda x: ops.logsumexp(x, -1),
    "normalize": lambda x: ops.normalize(x, -1),
    "where": lambda x: ops.where(x > 0, x, 0.1 * x),
    "clip": lambda x: ops.clip(x, -0.5, 0.7),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
    "einsum": lambda x: ops.einsum("bij,bkj->bik", x, x),
    "pad with 2": lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=2.0),
}
NAMES = [*IMAGES, *SEQUENCES]


def gates(averages):
    return L.Dense(4, "hard_sigmoid")(L.Dense(2, "relu")(averages))


def twice(layer, x):
    return L.Concatenate()([layer(x), layer(10 * x)])


def build(name):
    """The model around a part, moved away from its initial values, and the shape of a row."""
    keras.utils.set_random_seed(0)
    shape = (8, 8, 4) if name in IMAGES else (8, 4)
    inputs = keras.Input(shape)
    x = L.Conv2D(4, 3, padding="same")(inputs) if name in IMAGES else L.Dense(4)(inputs)
    part = {**IMAGES, **SEQUENCES}[name]
    x = (part.from_config(part.get_config()) if isinstance(part, L.Layer) else part)(x)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    generator = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(np.asarray(weight) + 0.1 * generator.normal(size=weight.shape))
    return model, shape


def rows_of(shape):
    """Rows for calibration, and others to measure on."""
    return [np.random.default_rng(seed).normal(size=(128, *shape)).astype("float32") for seed in (0, 1)]


def bare(name, mode):
    """The error of the converter's own file, or why there is none. Runs in a process that it may take down."""
    model, shape = build(name)
    calibration, rows = rows_of(shape)
    with tempfile.TemporaryDirectory() as folder:
        one_row = [keras.InputSpec(shape=(1, *shape), dtype="float32")]
        model.export(folder, format="tf_saved_model", verbose=False, input_signature=one_row)
        return measured_bare(model, folder, calibration, rows, mode)


def measured_bare(model, folder, calibration, rows, mode):
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in calibration)
    if mode == "int16x8":
        kinds = tf.lite.OpsSet
        wide = kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide, kinds.TFLITE_BUILTINS]
    try:
        interpreter = Interpreter(model_content=converter.convert())
        interpreter.allocate_tensors()
        given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        answers = []
        for row in rows:
            interpreter.set_tensor(given["index"], row[None])
            interpreter.invoke()
            answers.append(interpreter.get_tensor(result["index"])[0])
    except Exception as error:
        return str(error).splitlines()[0][:60]
    return error_of(np.stack(answers), model, rows)


def ours(name, mode, path):
    """The error of tfbig's file, with what is left in float; or why there is none."""
    model, shape = build(name)
    calibration, rows = rows_of(shape)
    try:
        lite = tfbig.export(
            model, path, quantize=mode, calibration=calibration, verify="warn", overwrite=True
        )
    except tfbig.errors.TfbigError as error:
        return str(error).splitlines()[0][:60], ()
    return error_of(lite.predict(rows), model, rows), lite.report.float_ops


def error_of(answers, model, rows):
    expected = np.asarray(model(rows, training=False))
    return float(np.abs(answers - expected).mean() / np.ptp(expected))


class Apart:
    """Calls functions in one process, and in a new one after it went down."""

    def __init__(self):
        self._start()

    def __call__(self, *call):
        try:
            return self.pool.submit(*call).result(timeout=120)
        except concurrent.futures.process.BrokenProcessPool:
            self._start()
            return "the process went down"

    def _start(self):
        self.pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    names, apart, found = parser.parse_args().only, Apart(), []
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            for mode in MODES:
                error, in_float = ours(name, mode, Path(temporary, "m.tflite"))
                found.append({"name": name, "mode": mode, "tfbig": error, "bare": apart(bare, name, mode)})
                found[-1]["in_float"] = list(in_float)
                print(found[-1], flush=True)
    show(found)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "integer_layers.json").write_text(json.dumps(found, indent=2))
    missed = {(row["name"], row["mode"]) for row in found if not within(row)}
    gaps = {place for place in GAPS if place[0] in names}
    for place in sorted(missed ^ gaps):
        print(f"MISSED  {place}" if place in missed else f"MISSED  a known gap has closed: {place}")
    return 0 if missed == gaps else 1


def within(row):
    return not isinstance(row["tfbig"], str) and row["tfbig"] <= MODES[row["mode"]]


def show(found):
    table = Table("between two layers", "mode", "tfbig", "the bare converter", "tfbig leaves in float")
    for row in found:
        texts = [one if isinstance(one, str) else f"{one:.2%}" for one in (row["tfbig"], row["bare"])]
        table.add_row(row["name"], row["mode"], *texts, ", ".join(row["in_float"]))
    Console(width=150).print(table)


if __name__ == "__main__":
    sys.exit(main())
