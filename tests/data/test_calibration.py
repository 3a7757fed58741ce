import numpy as np
import pytest

from tfbig.data.calibration import check_calibration, check_ranges, stratified_sample
from tfbig.errors import InvalidData

ONE = {"x": ((2,), "float32")}
TWO = {"image": ((2,), "float32"), "kind": ((), "int32")}


def numbered(rows, features=2):
    return np.arange(rows * features, dtype=np.float32).reshape(rows, features)


@pytest.mark.parametrize("rows", [10, 11])
def test_as_many_rows_as_asked_or_fewer_are_all_kept(rows):
    np.testing.assert_array_equal(check_calibration(numbered(10), ONE, rows)["x"], numbered(10), strict=True)


def test_more_rows_are_sampled_without_replacement_in_their_order():
    first = check_calibration(numbered(100), ONE, 90)["x"][:, 0]
    assert len(first) == 90
    assert (np.diff(first) > 0).all()


def test_the_same_seed_draws_the_same_rows_and_another_seed_others():
    one, again, other = (check_calibration(numbered(100), ONE, 10, seed)["x"].tolist() for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_the_same_rows_are_drawn_of_every_input():
    columns = check_calibration({"image": numbered(100), "kind": np.arange(100)}, TWO, 10)
    assert (columns["image"][:, 0] / 2).tolist() == columns["kind"].tolist()


@pytest.mark.parametrize(
    "data",
    [{"kind": [7], "image": [[1.0, 2.0]]}, [[[1.0, 2.0]], [7]], ([[1.0, 2.0]], [7])],
    ids=["dict", "list", "tuple"],
)
def test_several_inputs_come_by_name_or_in_order(data):
    columns = check_calibration(data, TWO, 5)
    assert list(columns) == ["image", "kind"]
    assert (columns["image"].tolist(), columns["kind"].tolist()) == ([[1, 2]], [7])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([[0.5, 1]], "float16"), ([[1, 2]], "int32"), ([[1, 255]], "uint8"), ([[True, False]], "bool")],
)
def test_rows_take_the_models_dtype(values, dtype):
    column = check_calibration(values, {"x": ((2,), dtype)}, 5)["x"]
    np.testing.assert_array_equal(column, np.array(values, dtype), strict=True)


def test_an_axis_that_the_model_leaves_open_takes_any_length():
    assert check_calibration(numbered(3, 7), {"x": ((None,), "float32")}, 5)["x"].shape == (3, 7)


@pytest.mark.parametrize(
    ("data", "inputs", "message"),
    [
        ([[1.0, 2, 3]], ONE, r"input 'x' must have shape \(2,\); got \(3,\) \(an array of shape \(1, 3\)\)"),
        ([1.0, 2.0], ONE, r"input 'x' must have shape \(2,\); got \(\)"),
        ([[1, 2]], ONE, "input 'x' must be float32, as the model takes them; got int64.*same preprocessing"),
        ([[1.0, 2]], {"x": ((2,), "int32")}, "input 'x' must be int32, .*; got float32"),
        ([[300, 1]], {"x": ((2,), "uint8")}, "uint8"),
        ([[1.0, np.nan]], ONE, r"calibration must be finite; got 1 .* index \(0, 1\)"),
        (np.zeros((0, 2)), ONE, "calibration must hold at least one row"),
        ({"y": [[1.0, 2]]}, ONE, r"must name the inputs \['x'\]; got \['y'\]"),
        ({"image": [[1.0, 2]]}, TWO, r"must name the inputs \['image', 'kind'\]; got \['image'\]"),
        ([[[1.0, 2]]], TWO, r"has 2 inputs, \['image', 'kind'\]: calibration must be a dict.*got list"),
        (numbered(2), TWO, "calibration must be a dict by these names or a list in this order; got ndarray"),
        ({"image": [[1.0, 2]], "kind": [1, 2]}, TWO, r"same number of rows; got {'image': 1, 'kind': 2}"),
    ],
    ids=[
        "shape",
        "rank",
        "integers",
        "floats",
        "overflow",
        "missing value",
        "no rows",
        "unknown input",
        "missing input",
        "too few in a list",
        "array for two",
        "lengths",
    ],
)
def test_rows_that_do_not_fit_the_model_are_refused(data, inputs, message):
    with pytest.raises(InvalidData, match=message):
        check_calibration(data, inputs, 5)


STREAM = np.arange(60, dtype="float32").reshape(20, 3)


def as_dataset(batched, with_targets):
    import tensorflow as tf

    rows = tf.data.Dataset.from_tensor_slices((STREAM, np.zeros(20)) if with_targets else STREAM)
    return rows.batch(8) if batched else rows


def as_sequence():
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, place):
            return STREAM[4 * place : 4 * place + 4], np.zeros(4)

    return Batches()


@pytest.mark.parametrize(
    "make",
    [
        lambda: as_dataset(True, True),
        lambda: as_dataset(True, False),
        lambda: as_dataset(False, True),
        as_sequence,
        lambda: (STREAM[start : start + 4] for start in range(0, 20, 4)),
        lambda: ((row, 0) for row in STREAM),
        lambda: ({"x": row[None]} for row in STREAM),
    ],
    ids=["batches of pairs", "batches", "pairs", "PyDataset", "generator", "rows of a generator", "dicts"],
)
@pytest.mark.parametrize("limit", [20, 10])
def test_the_first_rows_of_a_stream_are_taken(make, limit):
    columns = check_calibration(make(), {"x": ((3,), "float32")}, limit)
    assert np.array_equal(columns["x"], STREAM[:limit])


def test_no_more_of_a_stream_is_read_than_needed():
    read = []
    endless = (read.append(1) or STREAM[:4] for _ in iter(int, 1))
    check_calibration(endless, {"x": ((3,), "float32")}, 10)
    assert len(read) == 3


def test_rows_of_a_stream_are_checked_like_others():
    with pytest.raises(InvalidData, match=r"must have shape \(4,\); got \(3,\)"):
        check_calibration(iter([STREAM]), {"x": ((4,), "float32")}, 10)


def test_each_class_has_its_share_of_a_sample():
    classes = np.repeat([0, 1, 2], [80, 16, 4])
    columns = {"x": np.arange(100)[:, None]}
    sample = stratified_sample(columns, 25, classes)["x"].ravel()
    assert np.bincount(classes[sample]).tolist() == [20, 4, 1]
    assert len(set(sample)) == 25
    assert np.array_equal(sample, stratified_sample(columns, 25, classes)["x"].ravel())
    assert not np.array_equal(sample, stratified_sample(columns, 25, classes, seed=1)["x"].ravel())
    assert len(stratified_sample(columns, 25, None)["x"]) == 25


def test_a_constant_input_tells_no_range():
    check_ranges({"x": np.eye(3), "tokens": np.ones((3, 2), int)})
    with pytest.raises(InvalidData, match="All calibration values of input 'x' are .*1.0.*tell no range"):
        check_ranges({"x": np.ones((3, 2))})
