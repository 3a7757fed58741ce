import numpy as np
import pytest

from tfbig.deployment.edges import to_file, to_float
from tfbig.errors import InvalidData


def detail(dtype, scale=0.0, zero_point=0):
    return {"dtype": np.dtype(dtype).type, "quantization": (scale, zero_point)}


@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -128), ("uint8", 0), ("int16", 0)])
def test_floats_are_rounded_to_the_scale_and_clipped_to_the_dtype(dtype, zero_point):
    taken = to_file([0, 0.26, 1.0, -1e9, 1e9], detail(dtype, 0.5, zero_point), "x")
    limits = np.iinfo(dtype)
    assert taken.dtype == dtype
    assert taken.tolist() == [zero_point, zero_point + 1, zero_point + 2, limits.min, limits.max]


def test_floats_come_back_within_half_a_step():
    edge, x = detail("int8", 1 / 16, -3), np.linspace(-7, 7, 50, dtype="float32")
    back = to_float(to_file(x, edge, "x"), edge)
    assert back.dtype == np.float32
    assert np.abs(back - x).max() <= 1 / 32


def test_whole_numbers_given_to_a_quantized_input_are_numbers_not_steps():
    assert to_file(np.array([4], "int8"), detail("int8", 0.5), "x").tolist() == [8]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
def test_integers_without_a_scale_stay_what_they_are(dtype):
    for given in ([1, 0, 1], [1.0, 0.0, 1.0], np.array([1, 0, 1], "uint16")):
        taken = to_file(given, detail(dtype), "x")
        assert taken.dtype == dtype
        assert taken.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int32", 1.5), ("int32", np.nan), ("int32", 2**40), ("uint8", -1), ("uint8", 256), ("bool", 2)],
)
def test_values_that_casting_would_change_are_refused(dtype, value):
    with pytest.raises(InvalidData, match=f"'ids' takes {dtype} values as they are; got"):
        to_file([1, value], detail(dtype), "ids")


def test_nan_is_refused_where_it_would_become_some_integer():
    with pytest.raises(InvalidData, match="holds NaN"):
        to_file([1.0, np.nan], detail("int8", 0.5), "x")


@pytest.mark.parametrize("values", ["text", [["a"], ["b"]], [[1], [1, 2]], [object()]])
def test_what_are_no_numbers_is_refused(values):
    with pytest.raises(InvalidData, match="'x' takes numbers"):
        to_file(values, detail("float32"), "x")


def test_half_floats_become_floats_and_the_rest_stays():
    assert to_float(np.array([0.5], "float16"), detail("float16")).dtype == np.float32
    assert to_float(np.array([3], "int64"), detail("int64")).dtype == np.int64
    assert to_float(np.array([True]), detail("bool")).dtype == bool
