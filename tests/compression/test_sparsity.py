import keras
import numpy as np
import pytest

import tfbig
from tfbig.compression.sparsity import LayerSparsity, SparsityReport
from tfbig.errors import InvalidModel


def test_zeros_are_counted_per_layer_and_over_all():
    model = tfbig.models.mlp((4,), 2, hidden=(5,))
    kernel = model.layers[0].kernel.numpy()
    kernel[:3] = 0
    model.layers[0].kernel.assign(kernel)
    report = tfbig.sparsity(model)
    assert [(layer.weights, layer.zeros) for layer in report.layers] == [(4 * 5, 3 * 5), (5 * 2, 0)]
    assert report.overall == 15 / 30


def test_layers_of_nested_models_are_named_by_their_path_and_shared_ones_come_once():
    shared = keras.layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared], name="inner")
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(2, name="head")(shared(inner(x))))
    assert [layer.name for layer in tfbig.sparsity(model).layers] == ["inner/shared", "head"]


def test_the_report_goes_through_json():
    report = tfbig.sparsity(tfbig.models.mlp((4,), 2, batch_norm=True))
    assert SparsityReport.from_json(report.to_json()) == report


def test_a_model_that_is_not_built_is_refused():
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(InvalidModel, match="has no weights yet: build it"):
        tfbig.sparsity(model)
    model(np.zeros((1, 3), "float32"))
    assert tfbig.sparsity(model).overall == 0


def test_frozen_weights_count():
    model = tfbig.models.mlp((4,), 2, hidden=(5,))
    model.trainable = False
    assert [layer.weights for layer in tfbig.sparsity(model).layers] == [20, 10]
    assert [layer.weights for layer in tfbig.clusters(model).layers] == [20, 10]


def test_kernels_that_were_pruned_on_request_are_measured(blobs):
    x = np.abs(blobs[0]).astype(int)
    layers = [
        keras.Input((4,), dtype="int32"),
        keras.layers.Embedding(9, 4, name="table"),
        keras.layers.Flatten(),
    ]
    model = keras.Sequential([*layers, keras.layers.Dense(3, name="head")])
    assert "table" in tfbig.sparsity(model).skipped
    report = tfbig.sparsity(
        tfbig.prune(model, x, blobs[1], sparsity=0.5, layers="table", epochs=2, verbose=0)
    )
    assert [(layer.name, layer.asked, layer.sparsity) for layer in report.layers] == [
        ("table", 0.5, 0.5),
        ("head", None, 0.0),
    ]
    assert report.skipped == {"head": "not among the layers asked for"}


def test_print_shows_what_was_asked_and_reached_and_where_they_differ():
    layers = (
        LayerSparsity("first", 10_000, 8_000, 0.8),
        LayerSparsity("second", 9, 7, 0.8),  # 0.2 of a weight off: as near as nine weights come
        LayerSparsity("third", 100, 50, 0.8),
    )
    assert str(SparsityReport(layers, {"norm": "normalization is left alone"})).splitlines() == [
        "layer   weights  zeros  sparsity   asked",
        "─" * 58,
        "first    10,000  8,000    80.00%  80.00%",
        "second        9      7    77.78%  80.00%",
        "third       100     50    50.00%  80.00%  fewer than asked",
        "norm    skipped: normalization is left alone",
        "─" * 58,
        "all      10,109  8,057    79.70%",
    ]
    alike = SparsityReport((LayerSparsity("only", 100, 60),), asked=0.5)
    assert str(alike).splitlines()[-1].split() == [
        "all",
        "100",
        "60",
        "60.00%",
        "50.00%",
        "more",
        "than",
        "asked",
    ]
