import gzip

import keras
import numpy as np
import pytest

import tfbig
from tfbig.compression.summary import ModelSummary
from tfbig.errors import InvalidModel
from tfbig.models.step_layers import Positions

L = keras.layers


def one(layer, shape, dtype="float32"):
    """The summary of a layer that stands alone."""
    return tfbig.summary(keras.Sequential([keras.Input(shape, dtype=dtype), layer])).layers[0]


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (L.Dense(5), (4,), 4 * 5),
        (L.Dense(5), (7, 4), 7 * 4 * 5),
        (L.Conv1D(5, 3), (9, 4), (9 - 2) * 3 * 4 * 5),
        (L.Conv2D(5, 3, strides=2, padding="same"), (8, 6, 4), 4 * 3 * 3 * 3 * 4 * 5),
        (L.Conv2D(6, 3, groups=2), (8, 8, 4), 6 * 6 * 3 * 3 * (4 // 2) * 6),
        (L.Conv3D(5, 2), (4, 4, 4, 3), 3**3 * 2**3 * 3 * 5),
        (L.Conv2DTranspose(5, 3, strides=2), (4, 4, 2), 4 * 4 * 3 * 3 * 2 * 5),
        (L.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4), 6 * 6 * 3 * 3 * 4 * 2),
        (L.SeparableConv2D(5, 3, depth_multiplier=2), (8, 8, 4), 6 * 6 * (3 * 3 * 4 * 2 + 4 * 2 * 5)),
        (L.SeparableConv1D(5, 3), (8, 4), 6 * (3 * 4 + 4 * 5)),
        (L.SimpleRNN(5), (7, 4), 7 * (4 + 5) * 5),
        (L.LSTM(5), (7, 4), 7 * 4 * (4 + 5) * 5),
        (L.GRU(5), (7, 4), 7 * 3 * (4 + 5) * 5),
        (L.Bidirectional(L.LSTM(5)), (7, 4), 2 * 7 * 4 * (4 + 5) * 5),
        (L.TimeDistributed(L.Conv1D(5, 2)), (3, 6, 4), 3 * (6 - 1) * 2 * 4 * 5),
        (L.EinsumDense("abc,cd->abd", output_shape=(7, 5)), (7, 4), 7 * 4 * 5),
        (L.EinsumDense("abc,bcd->ad", output_shape=5), (7, 4), 7 * 4 * 5),
        (L.EinsumDense("...x,xy->...y", output_shape=5), (7, 4), 7 * 4 * 5),
        (L.BatchNormalization(), (4,), 0),
        (L.LayerNormalization(), (4,), 0),
        (L.MaxPooling2D(), (8, 8, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)
def test_multiply_accumulates_are_those_of_the_arithmetic(layer, shape, macs):
    assert one(layer, shape).macs == macs


def test_attention_counts_its_projections_and_the_products_of_positions():
    query, memory = keras.Input((5, 8)), keras.Input((7, 6))
    layer = L.MultiHeadAttention(3, 4, value_dim=2, output_shape=9)
    projections = 5 * 8 * 3 * 4 + 7 * 6 * 3 * 4 + 7 * 6 * 3 * 2 + 5 * 3 * 2 * 9
    scores, sums = 3 * 5 * 7 * 4, 3 * 5 * 7 * 2
    for given in (layer(query, memory), layer(value=memory, query=query)):
        model = keras.Model([query, memory], given)
        assert tfbig.summary(model).macs == projections + scores + sums


def test_an_embedding_looks_up_and_does_not_multiply():
    found = one(L.Embedding(11, 4), (5,), "int32")
    assert (found.macs, found.parameters, found.output_shape) == (0, 44, (None, 5, 4))


def test_a_layer_that_is_called_twice_stands_once_and_works_twice():
    shared = L.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared], name="inner")
    x = keras.Input((4,))
    summary = tfbig.summary(keras.Model(x, L.Dense(2, name="head")(shared(inner(x)))))
    assert [(layer.name, layer.macs) for layer in summary.layers] == [("inner/shared", 2 * 16), ("head", 8)]


def test_work_that_is_not_known_is_said_and_not_counted():
    class Own(L.Layer):
        def build(self, shape):
            self.form = self.add_weight(shape=(shape[-1], 3))

        def call(self, x):
            return x @ self.form

    summary = tfbig.summary(keras.Sequential([keras.Input((None, 4)), L.Dense(2, name="a"), Own(name="b")]))
    assert summary.uncounted == ("a", "b")
    assert summary.macs == 0
    assert "MACs not known, and not in the sum: a, b" in str(summary)


def test_bytes_are_those_of_the_weights_dense_as_a_bitmap_and_gzipped():
    model = keras.Sequential([keras.Input((5,)), L.Dense(7)])
    kernel = np.zeros((5, 7), "float32")
    kernel[0, :3] = [1, 1, 2]
    bias = np.zeros(7, "float32")
    model.layers[0].set_weights([kernel, bias])
    (layer,) = tfbig.summary(model).layers
    assert layer.float_bytes == 4 * (35 + 7)
    assert layer.sparse_bytes == 5 + 4 * 3 + 4 * 7  # 35 bits in 5 bytes, three values, the bias as it is
    assert layer.gzip_bytes == len(gzip.compress(kernel.tobytes() + bias.tobytes(), 9))
    assert layer.zeros == 32 / 35
    assert layer.distinct == 3


def test_half_precision_takes_half_the_bytes():
    model = keras.Sequential([keras.Input((5,), dtype="float16"), L.Dense(7, dtype="float16")])
    assert tfbig.summary(model).float_bytes == 2 * (35 + 7)


def test_totals_add_up_and_the_record_goes_through_json(digits_model):
    summary = tfbig.summary(digits_model)
    assert summary.parameters == digits_model.count_params()
    assert summary.float_bytes == 4 * sum(int(np.prod(v.shape)) for v in digits_model.weights)
    assert summary.macs == 64 * 9 * 16 + 16 * 9 * 16 * 32 + 2 * 2 * 32 * 64 + 64 * 10
    assert ModelSummary.from_json(summary.to_json()) == summary


def test_it_prints_a_table_whose_columns_line_up():
    stack = [L.Conv2D(4, 3, name="conv"), L.Flatten(name="flat"), L.Dense(2, name="head")]
    text = str(tfbig.summary(keras.Sequential([keras.Input((None, 6, 1)), *stack][:2])))
    assert "? × 4 × 4" in text
    lines = str(tfbig.summary(keras.Sequential([keras.Input((6, 6, 1)), *stack]))).splitlines()
    assert lines[0].split() == [
        "layer",
        "output",
        "parameters",
        "MACs",
        "bytes",
        "sparse",
        "gzipped",
        "zeros",
        "values",
    ]
    assert lines[1] == lines[-2] == "─" * max(map(len, lines))
    ends = [line.index("40") + 2 for line in lines if line.startswith("conv")]
    assert ends == [lines[0].index("parameters") + len("parameters")]


def test_a_subclassed_model_is_measured_without_its_work(blobs):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3, name="dense")

        def call(self, x):
            return self.dense(x)

    net = Net()
    net(blobs[0])
    (layer,) = tfbig.summary(net).layers
    assert (layer.parameters, layer.macs, layer.output_shape) == (15, None, ())


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(InvalidModel, match="has no weights yet"):
        tfbig.summary(keras.Sequential([L.Dense(2)]))


def test_a_quantized_model_does_the_work_of_the_one_it_was_made_from():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, activation="elu")(inputs)
    x = keras.layers.LayerNormalization()(keras.layers.SeparableConv2D(4, 3)(x))
    x = Positions()(keras.layers.Dense(5)(keras.layers.Reshape((16, 4))(x)))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))
    rows = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rounded = tfbig.quantize_aware(model, rows, np.arange(32) % 3, loss=loss, epochs=1, verbose=0)
    found = tfbig.summary(rounded)
    assert found.uncounted == ()
    assert found.macs == tfbig.summary(model).macs > 0
