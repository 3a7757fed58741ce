"""Fails loudly when TensorFlow moves the table of converters that tfbig.backend.vectorizing changes for a while."""

import numpy as np
import pytest
from tensorflow.python.ops.parallel_for import pfor

from tfbig.backend import tf, vectorizing
from tfbig.backend.vectorizing import vectorized_map

GENERATOR = np.random.default_rng(0)


def normal(*shape):
    return tf.constant(GENERATOR.normal(size=shape).astype(np.float32))


def one_by_one(function, stacked):
    count = len(tf.nest.flatten(stacked)[0])
    slices = [tf.nest.map_structure(lambda t, i=i: t[i], stacked) for i in range(count)]
    return [function(part) for part in slices]


def ops_of(function, stacked):
    graph = tf.function(lambda s: vectorized_map(function, s)).get_concrete_function(stacked).graph
    return [op.type for op in graph.get_operations()]


def convolved(size, **options):
    def function(given):
        images, kernel = given
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = tf.nn.conv2d(images, kernel, **{"strides": 1, "padding": "SAME", **options})
            loss = tf.reduce_sum(outputs**2)
        return [outputs, *tape.gradient(loss, [images, kernel])]

    return function, (normal(3, 2, size, size, 2), normal(3, 3, 3, 2, 4))


@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"padding": "VALID"}, {"dilations": 2}], ids=str)
@pytest.mark.parametrize("size", [8, 20], ids=["grouped", "unrolled"])
def test_a_convolution_with_a_kernel_per_slice_is_that_of_each_slice(size, options):
    function, stacked = convolved(size, **options)
    for got, *expected in zip(
        tf.function(lambda s: vectorized_map(function, s))(stacked),
        *one_by_one(function, stacked),
        strict=True,
    ):
        # Sums of up to 400 float32 products in another order.
        np.testing.assert_allclose(got, np.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "times"), [(8, 1), (20, 3)])
@pytest.mark.skipif(not vectorizing._grouped_convolutions_train(), reason="needs oneDNN's kernels on a CPU")
def test_small_images_are_convolved_at_once_and_large_ones_slice_by_slice(size, times):
    function, stacked = convolved(size)
    types = ops_of(function, stacked)
    # Twice: tf.vectorized_map leaves the traced body of one slice in the graph, where it is pruned before it runs.
    assert [types.count(name) for name in vectorizing._GROUPED] == [times + 1] * 3
    assert "While" not in types
    assert "StatelessWhile" not in types


def test_a_convolution_in_float64_is_unrolled():
    function, stacked = convolved(8)
    wide = tf.nest.map_structure(lambda t: tf.cast(t, tf.float64), stacked)
    assert ops_of(function, wide).count("Conv2D") == 4


def test_random_numbers_are_those_that_each_slice_draws_alone():
    def function(seed):
        return tf.nn.experimental.stateless_dropout(tf.ones([4, 5]), rate=0.5, seed=seed)

    seeds = tf.constant([[1, 0], [2, 0], [1, 0]])
    got = vectorized_map(function, seeds)
    np.testing.assert_array_equal(got, np.stack(one_by_one(function, seeds)))
    assert not np.array_equal(got[0], got[1])


def test_an_op_without_a_converter_is_unrolled():
    def function(matrix):
        return tf.raw_ops.Qr(input=matrix)[1]

    assert "Qr" not in pfor._pfor_converter_registry
    stacked = normal(3, 4, 4)
    np.testing.assert_allclose(
        vectorized_map(function, stacked), np.stack(one_by_one(function, stacked)), atol=1e-5
    )
    types = ops_of(function, stacked)
    assert types.count("Qr") == 4
    assert "While" not in types


def test_tensorflows_table_is_as_it_was_also_after_an_error():
    before, fallback = dict(pfor._pfor_converter_registry), pfor._fallback_converter
    vectorized_map(lambda x: x + 1, normal(2, 2))
    with pytest.raises(Exception, match="division"):  # TensorFlow wraps it
        vectorized_map(lambda x: x / (1 // 0), normal(2, 2))
    assert pfor._pfor_converter_registry == before
    assert pfor._fallback_converter is fallback


def test_the_names_that_are_changed_exist():
    assert set(vectorizing._GROUPED) <= set(pfor._pfor_converter_registry)
    assert callable(pfor._create_op)
    assert callable(pfor.wrap)
