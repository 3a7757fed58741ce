import numpy as np
import pandas as pd
import pytest

from tfbig.backend import keras, tf
from tfbig.data import checking
from tfbig.data.checking import check_array, check_filled, check_pair, is_stream, takes_missing
from tfbig.errors import InvalidData


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.zeros((2, 3)), np.zeros(2)


@pytest.mark.parametrize(
    "x",
    [(row for row in [[1.0]]), tf.data.Dataset.from_tensors([1.0]), Batches()],
    ids=["generator", "tf.data", "PyDataset"],
)
def test_what_yields_batches_itself_is_a_stream(x):
    assert is_stream(x)


@pytest.mark.parametrize(
    "x",
    [np.zeros((2, 3)), [[1.0]], pd.DataFrame({"a": [1.0]}), pd.Series([1.0]), tf.zeros((2, 3))],
    ids=["array", "list", "frame", "series", "tensor"],
)
def test_what_holds_rows_is_no_stream(x):
    assert not is_stream(x)


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2.5], [3, 4]],
        np.array([[1, 2.5], [3, 4]], object),
        pd.DataFrame({"a": [1, 3], "b": [2.5, 4]}),
        tf.constant([[1, 2.5], [3, 4]]),
    ],
    ids=["list", "objects", "frame", "tensor"],
)
def test_rows_of_any_kind_become_a_float32_array(x):
    np.testing.assert_array_equal(check_array(x), np.array([[1, 2.5], [3, 4]], np.float32), strict=True)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "int64", "bool"])
def test_a_dtype_other_than_float64_stays(dtype):
    assert check_array(np.ones((2, 2), dtype)).dtype == dtype


@pytest.mark.parametrize("x", [[], np.zeros((0, 3)), np.zeros((3, 0)), 5.0, None])
def test_data_without_a_row_is_refused(x):
    with pytest.raises(InvalidData, match="images must hold at least one row; got"):
        check_array(x, "images")


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(InvalidData, match="x must be a rectangular array; its rows differ in shape"):
        check_array([[1, 2], [3]])


@pytest.mark.parametrize(
    ("x", "found"),
    [
        ([["red"], ["blue"]], "red"),
        (np.array([[1, "red"]], object), "red"),
        (pd.DataFrame({"size": [1], "colour": ["red"]}), "red"),
        (["1", "2"], "1"),
        (np.array(["1", "2"], object), "1"),
        (np.array([1 + 2j]), r"1\+2j"),
    ],
    ids=["list", "objects", "frame", "digits", "digits as objects", "complex"],
)
def test_what_is_no_number_is_refused_with_an_example_and_the_way_out(x, found):
    with pytest.raises(
        InvalidData, match=rf"x must hold numbers; got .* values such as .*{found}.*tfbig\.clean"
    ):
        check_array(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
def test_a_missing_or_infinite_value_is_refused_with_its_place(value):
    x = [[1.0, 2.0], [3.0, value]]
    with pytest.raises(
        InvalidData,
        match=r"x must be finite; got 1 NaN or infinite value, the first at index \(1, 1\)\. tfbig\.clean",
    ):
        check_array(x)


def test_missing_values_are_counted_over_all_slices(monkeypatch):
    monkeypatch.setattr(checking, "_SLICE_VALUES", 8)
    x = np.zeros((100, 2, 2), np.float32)
    x[41, 1, 0] = x[99] = np.nan
    with pytest.raises(InvalidData, match=r"got 5 NaN or infinite values, the first at index \(41, 1, 0\)"):
        check_array(x)


def test_a_pair_of_equal_length_is_returned_as_arrays():
    x, y = check_pair([[1.0], [2.0]], [0, 1])
    assert (x.dtype, y.dtype, x.shape, y.shape) == ("float32", "int64", (2, 1), (2,))


def test_a_pair_of_different_lengths_is_refused_under_its_own_names():
    with pytest.raises(InvalidData, match=r"one row per example each; got 2 rows of images and 3 of labels"):
        check_pair([[1.0], [2.0]], [0, 1, 1], "images", "labels")


def test_missing_targets_are_refused():
    with pytest.raises(InvalidData, match="y is missing: x is an array, so its targets must be given too"):
        check_pair([[1.0]], None)


class Filling(keras.layers.Layer):
    takes_missing = True


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_takes_missing_values_if_a_layer_in_it_does(nested):
    def model(*layers):
        inner = keras.Sequential([keras.Input((2,)), *layers])
        return keras.Sequential([keras.Input((2,)), inner]) if nested else inner

    assert takes_missing(model(Filling(), keras.layers.Dense(1)))
    assert not takes_missing(model(keras.layers.Dense(1)))


def test_missing_values_pass_when_they_may_be_and_infinite_ones_do_not():
    x = [[np.nan, 1.0], [2.0, 3.0]]
    np.testing.assert_array_equal(check_array(x, missing=True), x)
    np.testing.assert_array_equal(check_pair({"a": x}, [0, 1], missing=True)[0]["a"], x)
    with pytest.raises(
        InvalidData, match=r"x must be finite; got 1 infinite value, the first at index \(1, 0\)"
    ):
        check_array([[np.nan], [np.inf]], missing=True)


def test_targets_may_not_be_missing_even_where_values_may():
    with pytest.raises(InvalidData, match="y must be finite; got 1 NaN"):
        check_pair([[1.0], [2.0]], [np.nan, 1.0], missing=True)


def test_missing_values_that_nothing_in_the_model_fills_are_refused():
    x = {"a": np.array([[1.0, np.nan]], np.float32)}
    check_filled(keras.Sequential([keras.Input((2,)), Filling()]), x)
    with pytest.raises(InvalidData, match=r"x\['a'\] must be finite.*begins with tfbig.encoder takes NaN"):
        check_filled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), x)
