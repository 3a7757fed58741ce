import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbig
from tfbig.deployment.contents import read_contents
from tfbig.deployment.sparse_blocks import with_readable_blocks

L = keras.layers


@pytest.fixture(params=[2, 13, 30, 32])
def model(request):
    """Two dense layers whose zeros fill blocks of four inputs, the second of 64."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((request.param,)), L.Dense(64, "relu"), L.Dense(64)])
    generator = np.random.default_rng(0)
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        inputs, units = kernel.shape
        blocks = np.repeat(generator.random((-(-inputs // 4), units)) < 0.3, 4, axis=0)[:inputs]
        layer.set_weights([kernel * blocks, generator.normal(size=bias.shape)])
    return model


def rows_for(model):
    return np.random.default_rng(1).normal(size=(64, model.input_shape[1])).astype("float32")


# 10 bits of mantissa; what LiteRT makes of float16 blocks is NaN, and of inputs that are no multiple of four .05.
@pytest.mark.parametrize(("mode", "tolerance"), [(None, 1e-6), ("float16", 1e-3)])
def test_blocks_without_zeros_give_what_the_model_gives(model, mode, tolerance, tmp_path):
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode)
    rows = rows_for(model)
    expected = np.asarray(model(rows))
    assert np.abs(lite.predict(rows) - expected).max() <= tolerance * np.ptp(expected)
    assert lite.report.sparse == (mode is None)


def test_kernels_that_can_be_read_in_blocks_stay_in_them(model, tmp_path):
    tfbig.export(model, tmp_path / "m.tflite")
    content = read_contents((tmp_path / "m.tflite").read_bytes())
    sparse = {tensor.shape for graph in content.graphs for tensor in graph.tensors if tensor.sparse}
    inputs = model.input_shape[1]
    assert sparse == ({(64, 64), (64, 32)} if inputs == 32 else {(64, 64)})


def test_files_of_different_models_are_not_mixed(tmp_path):
    def converted(units, *optimizations):
        model = keras.Sequential([keras.Input((30,)), L.Dense(units, use_bias=False)])
        model.layers[0].set_weights([np.repeat(np.eye(8, units), 4, axis=0)[:30]])
        model.export(tmp_path / str(units), format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / str(units)))
        converter.optimizations = list(optimizations)
        return converter.convert()

    sparse = converted(40, tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    plain, other = converted(40), converted(41)
    assert with_readable_blocks(sparse, other) == other
    assert not any(tensor.sparse for tensor in read_contents(with_readable_blocks(sparse, plain)).tensors)
    assert any(tensor.sparse for tensor in read_contents(sparse).tensors)
