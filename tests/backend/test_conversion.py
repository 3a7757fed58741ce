"""Fails loudly when TensorFlow renames the converter's setting that `tfbig.backend.conversion` relies on."""

import pytest
import tensorflow as tf

from tfbig.backend.conversion import _DENSE_PER_TENSOR, one_scale_per_dense_kernel


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
