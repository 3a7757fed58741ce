"""Fails loudly when TensorFlow changes what `tfbig.backend.conversion` relies on."""

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tfbig.backend.conversion import _DENSE_PER_TENSOR, calibration_changed_by, one_scale_per_dense_kernel


def test_the_converter_has_the_setting():
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec((1,), tf.float32))]
    )
    assert getattr(converter, _DENSE_PER_TENSOR) is False
    one_scale_per_dense_kernel(converter)
    assert getattr(converter, _DENSE_PER_TENSOR) is True


def test_a_converter_without_it_is_refused():
    with pytest.raises(AttributeError, match="no setting '_experimental_disable_per_channel"):
        one_scale_per_dense_kernel(object())


@pytest.mark.parametrize("wide", [False, True])
def test_the_converter_quantizes_by_the_changed_ranges(wide):
    def widened(content):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        (graph,) = model.subgraphs
        for tensor in graph.tensors:
            if tensor.quantization is not None and tensor.quantization.max is not None:
                tensor.quantization.min = 4 * np.asarray(tensor.quantization.min)
                tensor.quantization.max = 4 * np.asarray(tensor.quantization.max)
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    assert scale(lambda content: content, wide) * 4 == pytest.approx(scale(widened, wide), rel=0.01)


def scale(change, wide):
    """The scale of what a file of 8 or 16 bits takes, with calibration changed."""
    kernel = tf.constant(np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3))
    traced = tf.function(lambda x: tf.nn.relu(x @ kernel)).get_concrete_function(
        tf.TensorSpec((1, 4), tf.float32)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    kinds = tf.lite.OpsSet
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [
        kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        if wide
        else kinds.TFLITE_BUILTINS_INT8
    ]
    rows = np.random.default_rng(0).normal(size=(16, 1, 4)).astype("float32")
    converter.representative_dataset = lambda: ([row] for row in rows)
    with calibration_changed_by(change):
        content = converter.convert()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    dense = next(op for op in graph.operators if len(op.inputs) > 1)
    return float(graph.tensors[dense.inputs[0]].quantization.scale[0])
