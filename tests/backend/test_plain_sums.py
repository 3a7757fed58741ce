import keras
import numpy as np
import pytest

from tfbig.backend.plain_sums import plain_sums

ops = keras.ops
SHAPES = [
    ((1, 5, 5), (1, 5, 1)),
    ((1, 5, 6), (1, 5, 1)),
    ((1, 5, 6), (1, 1, 6)),
    ((1, 5, 6), (6,)),
    ((1, 1, 6), (1, 5, 6)),
    ((1, 4, 5, 5), (1, 1, 5, 1)),
    ((2, 5), ()),
]


@pytest.mark.parametrize("shapes", SHAPES)
def test_terms_are_added_as_arrays_are(shapes):
    x1, x2 = (np.random.default_rng(0).normal(size=shape).astype("float32") for shape in shapes)
    with plain_sums():
        assert np.array_equal(ops.add(x1, x2), x1 + x2)


def test_types_are_those_of_keras():
    whole, half = np.ones((1, 5, 1), "int32"), np.ones((1, 5, 6), "float16")
    for pair in ((half, whole), (whole, half), (half, 1.5), (whole, 2), (3, half)):
        want = ops.add(*pair)
        with plain_sums():
            got = ops.add(*pair)
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)


def test_keras_still_takes_such_a_term_for_a_bias():
    # When this fails, Keras has mended it, and plain_sums can go.
    row, steps = np.zeros((1, 5, 5), "float32"), np.arange(5, dtype="float32").reshape(1, 5, 1)
    assert not np.array_equal(ops.add(row, steps), row + steps)
