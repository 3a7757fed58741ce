import numpy as np
import pandas as pd
import pytest

from tfbig.data.cleaning import CleaningReport, clean
from tfbig.errors import InvalidData

NAN, INF = float("nan"), float("inf")
X = [[1.0, 2.0], [3.0, 5.0], [4.0, 6.0]]


def test_whole_rows_of_x_and_y_are_dropped_and_counted_by_reason():
    x, y, report = clean(
        [[1, 2], [NAN, 2], [INF, 2], [NAN, INF], [1, 2], [1, 2], [3, 4]], [0, 1, 1, 0, 0, 1, 1]
    )
    np.testing.assert_array_equal(x, np.array([[1, 2], [1, 2], [3, 4]], np.float32), strict=True)
    assert y.tolist() == [0, 1, 1]
    assert (report.missing_rows, report.infinite_rows, report.duplicate_rows) == (2, 1, 1)
    assert (report.rows_in, report.rows_out) == (7, 3)


@pytest.mark.parametrize(
    "x",
    [
        [[1, None], [3, 4]],
        np.array([[1, None], [3, 4]], object),
        pd.DataFrame({"a": [1, 3], "b": [NAN, 4]}),
        pd.DataFrame({"a": [1, 3], "b": pd.array([None, 4], dtype="Int64")}),
    ],
    ids=["list", "objects", "frame", "nullable frame"],
)
def test_a_missing_value_of_any_kind_drops_its_row(x):
    cleaned = clean(x, [0, 1])
    assert (cleaned.x.tolist(), cleaned.report.missing_rows) == ([[3, 4]], 1)


@pytest.mark.parametrize("missing", [None, NAN])
@pytest.mark.parametrize(
    "made", [list, lambda y: np.array(y, object), pd.Series], ids=["list", "objects", "series"]
)
def test_a_missing_text_label_drops_its_row(made, missing):
    _, y, report = clean(X, made(["b", missing, "a"]))
    assert (y.tolist(), report.classes, report.missing_rows) == ([1, 0], ("a", "b"), 1)


def test_a_missing_label_of_a_nullable_series_drops_its_row():
    _, y, report = clean(X, pd.Series(["b", None, "a"], dtype="string"))
    assert (y.tolist(), report.classes) == ([1, 0], ("a", "b"))


@pytest.mark.parametrize(
    ("targets", "kept", "classes"),
    [
        ([1.5, None, 0.5], np.array([1.5, 0.5], np.float32), None),
        ([1, None, 0], np.array([1, 0]), None),
        ([7, None, 3], np.array([1, 0]), (3, 7)),
        ([[1, 0], [None, 1], [1, 1]], np.array([[1, 0], [1, 1]]), None),
    ],
    ids=["values", "labels from 0", "other labels", "several labels"],
)
def test_numbers_beside_a_missing_one_are_taken_as_if_it_had_not_been_there(targets, kept, classes):
    _, y, report = clean(X, targets)
    np.testing.assert_array_equal(y, kept, strict=True)
    assert (report.classes, report.missing_rows) == (classes, 1)


def test_an_infinite_target_beside_a_missing_one_is_dropped_too():
    report = clean(X, [1.0, None, INF]).report
    assert (report.missing_rows, report.infinite_rows) == (1, 1)


@pytest.mark.parametrize(
    ("y", "codes", "classes"),
    [
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        ([7, 3, 7], [1, 0, 1], (3, 7)),
        ([[7], [3], [7]], [1, 0, 1], (3, 7)),
        ([-1, 1, 1], [0, 1, 1], (-1, 1)),
        ([2, 0, 1], [2, 0, 1], None),
        ([True, False, True], [1, 0, 1], None),
    ],
    ids=["text", "whole numbers", "one column", "negative", "from 0", "bool"],
)
def test_labels_become_whole_numbers_from_0_in_sorted_order(y, codes, classes):
    cleaned = clean(X, y)
    np.testing.assert_array_equal(cleaned.y, np.array(codes, np.int64), strict=True)
    assert cleaned.report.classes == classes


def test_regression_targets_stay_what_they_are_in_float32():
    _, y, report = clean(X, [1.0, 2.0, 5.0])
    np.testing.assert_array_equal(y, np.array([1, 2, 5], np.float32), strict=True)
    assert report.classes is None


def test_several_labels_a_row_stay_as_they_are():
    assert clean(X, [[0, 2], [2, 2], [0, 0]]).y.tolist() == [[0, 2], [2, 2], [0, 0]]


@pytest.mark.parametrize(
    "targets",
    [
        np.eye(3, 2000, 1000),
        np.array([[0.001234561, 1], [0.001234563, 1], [0.001234565, 1]], np.float32),
    ],
    ids=["long rows", "near values"],
)
def test_rows_with_different_targets_are_no_duplicates(targets):
    assert clean(np.ones((3, 2)), targets).report.duplicate_rows == 0


def test_a_column_with_one_value_is_named_and_kept():
    x, _, report = clean([[1, 5, 2], [1, 6, 2], [1, 7, 2]], [0, 1, 1])
    assert (report.constant_columns, x.shape) == ((0, 2), (3, 3))


def test_images_keep_their_shape():
    images = np.arange(24.0).reshape(2, 3, 4, 1)
    images[0, 1, 2, 0] = NAN
    assert clean(images, [0, 1]).x.shape == (1, 3, 4, 1)


def test_the_report_says_in_a_line_what_was_dropped():
    report = clean([[1, 2], [1, 2], [NAN, 0], [INF, 0]], [0, 0, 1, 1]).report
    assert str(report) == "1 of 4 rows kept (dropped: 1 missing, 1 infinite, 1 duplicate)"


def test_the_report_of_clean_data_names_nothing_dropped():
    assert str(clean(X, [0, 1, 1]).report) == "3 of 3 rows kept"


def test_the_report_comes_back_equal_from_json():
    report = clean([[1, 2], [1, 3]], ["cat", "dog"]).report
    assert CleaningReport.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([["red", 1], ["blue", 2]], [0, 1], r"x must hold numbers; got .*OrdinalEncoder"),
        ([["1"], ["2"]], [0, 1], r"x must hold numbers; got .*OrdinalEncoder"),
        ([1, 2], [0, 1], r"x must have rows and columns; got shape \(2,\)\. For one column: x\[:, None\]"),
        ([[1, 2], [3]], [0, 1], "x must be"),
        ([[1], [2]], [0, 1, 1], "one row per example each; got 2 rows of x and 3 of y"),
        ([[1], [2]], None, "y is missing"),
        ([[NAN], [INF]], [0, 1], "No row is left of 2: 1 had missing and 1 infinite values.*SimpleImputer"),
        (np.zeros((0, 3)), [], "No row is left of 0"),
        ([[1], [2]], np.array(["a", 1], object), "y mixes text and numbers.*Give every label one type"),
        ([[1], [2]], ["a", 1], "y mixes text and numbers.*Give every label one type"),
        ([[1], [2]], [["a", "b"], ["b", "a"]], r"Text labels must have shape \(rows,\); got shape \(2, 2\)"),
    ],
    ids=[
        "text",
        "digits as text",
        "one axis",
        "ragged",
        "lengths",
        "no targets",
        "nothing left",
        "nothing given",
        "mixed objects",
        "mixed list",
        "text in two columns",
    ],
)
def test_what_cannot_be_cleaned_is_refused_with_the_way_out(x, y, message):
    with pytest.raises(InvalidData, match=message):
        clean(x, y)
