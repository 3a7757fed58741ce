import numpy as np
import pandas as pd
import pytest

from tfbig.data.cleaning import CleaningReport, clean
from tfbig.errors import InvalidData, InvalidOption

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


def test_rows_with_a_missing_value_are_no_duplicates():
    rows = [[1, NAN], [1, NAN], [2, 3], [2, 3]]
    for missing in ("keep", "fill"):
        assert clean(rows, [0, 0, 1, 1], missing=missing).report.rows_out == 3
    steps = clean(rows, [0, 0, 1, 1], missing="fill").report.steps
    assert clean(rows, [0, 0, 1, 1], missing="fill", steps=steps).report.rows_out == 3


@pytest.mark.parametrize("x", [[[1.0], [1.0]], np.ones((2, 3, 3))], ids=["table", "images"])
def test_duplicates_are_kept_when_asked(x):
    assert clean(x, [0, 0], duplicates="keep").report.rows_out == 2


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
        (
            [["red", 1], ["blue", "2"]],
            [0, 1],
            r"Column '1' of x mixes category \('2'\) and number \(1\).*categories=",
        ),
        (
            [["1"], ["2"]],
            [0, 1],
            "x must hold numbers .*'0' holds numbers written as text, such as '1'.*to_numeric",
        ),
        ([[{}], [1]], [0, 1], "Column '0' of x must hold numbers, text or dates; got dict"),
        (np.array([[["red"]], [["blue"]]]), [0, 1], "x must hold numbers; got <U4 values"),
        ([1, 2], [0, 1], r"x must have rows and columns; got shape \(2,\)\. For one column: x\[:, None\]"),
        ([[1, 2], [3]], [0, 1], "x must be"),
        ([[1], [2]], [0, 1, 1], "one row per example each; got 2 rows of x and 3 of y"),
        ([[1], [2]], None, "y is missing"),
        (
            [[1, NAN], [2, INF]],
            [0, 1],
            "No row is left of 2: 1 had missing values or no target, 1 had infinite values. Column '1' misses most",
        ),
        ([[1], [2]], [None, None], r"No row is left of 2: 2 had missing values or no target\.$"),
        (np.full((2, 2, 2), NAN), [0, 1], "No row is left of 2: 2 had missing values or no target"),
        (np.zeros((0, 3)), [], "No row is left of 0"),
        (np.zeros((3, 0)), [0, 1, 0], "x must have at least one column"),
        ([[1], [2]], np.array(["a", 1], object), "y mixes text and numbers.*Give every label one type"),
        ([[1], [2]], ["a", 1], "y mixes text and numbers.*Give every label one type"),
        ([[1], [2]], [["a", "b"], ["b", "a"]], r"Text labels must have shape \(rows,\); got shape \(2, 2\)"),
    ],
    ids=[
        "mixed column",
        "digits as text",
        "no value",
        "text of three axes",
        "one axis",
        "ragged",
        "lengths",
        "no targets",
        "nothing left",
        "no targets left",
        "no images left",
        "nothing given",
        "no columns",
        "mixed objects",
        "mixed list",
        "text in two columns",
    ],
)
def test_what_cannot_be_cleaned_is_refused_with_the_way_out(x, y, message):
    with pytest.raises(InvalidData, match=message):
        clean(x, y)


TABLE = pd.DataFrame(
    {
        "color": ["red", "blue", None, "red", "blue"],
        "size": [1.0, NAN, 3.0, INF, 5.0],
        "day": pd.to_datetime(["2024-01-31", "1970-01-01", "2024-02-29", None, "2000-12-31"]),
        "same": [7, 7, 7, 7, 7],
    }
)
Y = ["no", "yes", "no", "yes", "no"]


def test_a_table_becomes_codes_numbers_and_parts_of_dates():
    x, y, report = clean(TABLE, Y)
    assert report.features == ("color", "size", "day.days", "day.month", "day.weekday", "same")
    # 31 January 2024 was a Wednesday, 31 December 2000 a Sunday.
    assert x.tolist() == [[1, 1, 19753, 1, 2, 7], [0, 5, 11322, 12, 6, 7]]
    assert (y.tolist(), report.missing_rows, report.steps.categories) == ([0, 0], 3, {0: 2})


def test_missing_values_are_kept_as_nan_and_infinite_ones_with_them():
    x, _, report = clean(TABLE, Y, missing="keep")
    assert np.isnan(x[:, :3]).tolist() == [
        [False, False, False],
        [False, True, False],
        [True, False, False],
        [False, True, True],
        [False, False, False],
    ]
    assert report.missing_values == {"color": 1, "size": 2, "day": 1}
    assert str(report) == "5 of 5 rows kept; 4 missing values kept in color, size, day"


def test_missing_values_are_filled_by_the_median_and_the_most_frequent_category():
    rows = pd.DataFrame({"color": ["b", "a", "b", None], "size": [1.0, NAN, 3.0, 8.0]})
    x, _, report = clean(rows, [0, 1, 0, 1], missing="fill")
    assert x.tolist() == [[1, 1], [0, 3], [1, 3], [1, 8]]
    assert "2 missing values filled in color, size" in str(report)


def test_new_rows_are_filled_by_what_the_training_rows_taught():
    steps = clean([[1.0, 1], [3.0, 2], [8.0, 3]], [0, 1, 0], missing="fill").report.steps
    assert steps.transform([[NAN, INF], [100.0, 5]]).tolist() == [[3, 2], [100, 5]]


def test_a_column_without_a_value_cannot_be_filled():
    with pytest.raises(InvalidData, match="Column '1' of x holds no value to fill"):
        clean([[1, NAN], [2, NAN]], [0, 1], missing="fill")
    assert clean([[1, NAN], [2, NAN]], [0, 1], missing="fill", constant="drop").x.tolist() == [[1], [2]]


def test_constant_columns_are_left_out_when_asked_and_named():
    x, _, report = clean(TABLE, Y, missing="keep", constant="drop")
    assert (x.shape, report.dropped_columns, report.constant_columns) == ((5, 5), ("same",), (3,))
    assert report.steps.transform(TABLE).shape == (5, 5)


def test_columns_that_are_all_constant_cannot_all_be_dropped():
    with pytest.raises(InvalidData, match="No column is left of 2: all are constant"):
        clean(np.ones((3, 2)), [0, 1, 2], constant="drop")


@pytest.mark.parametrize("rule", ["iqr", "zscore"])
def test_rows_with_outliers_are_dropped_by_either_rule(rule):
    x = np.array([*np.linspace(0, 1, 40), 50.0])[:, None]
    cleaned = clean(x, np.arange(41.0), outliers="drop", outlier_rule=rule)
    assert (cleaned.x.max(), cleaned.report.outlier_rows, len(cleaned.y)) == (1, 1, 40)
    assert cleaned.report.steps.transform([[50.0]]).tolist() == [[50]]


def test_the_fences_are_tukeys():
    x = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 100])[:, None]
    cleaned = clean(x, np.arange(9.0), outliers="clip")
    # Quartiles 2 and 6: 1.5 ranges beyond are -4 and 12.
    assert cleaned.x[-1].tolist() == [12]
    assert cleaned.report.clipped_values == {"0": 1}
    assert cleaned.report.steps.transform([[-70.0], [13.0]]).tolist() == [[-4], [12]]


def test_a_column_that_hardly_varies_has_no_outliers():
    x = np.array([0.0] * 30 + [1.0])[:, None]
    assert clean(x, np.arange(31.0), outliers="drop").report.outlier_rows == 0


def test_all_rows_that_are_outliers_cannot_be_dropped():
    x = np.eye(40) * 100 + np.random.default_rng(0).normal(size=(40, 40))
    with pytest.raises(InvalidData, match="No row is left of 40: .*40 had outliers"):
        clean(x, np.arange(40.0), outliers="drop")


def test_numbers_that_name_categories_become_codes_when_asked():
    x, _, report = clean([[90210, 1.0], [10001, 2.0], [90210, 3.0]], [0, 1, 0], categories=[0])
    assert (x[:, 0].tolist(), report.steps.columns[0].categories) == ([1, 0, 1], (10001, 90210))


def test_mixed_values_become_names_of_categories_when_asked():
    report = clean([["a"], [5], ["5"]], [0, 1, 0], categories=["0"]).report
    assert report.steps.columns[0].categories == ("5", "a")
    assert report.steps.transform([[5], ["a"]]).tolist() == [[0], [1]]


def test_a_frames_own_categories_are_categories_even_if_numbers():
    frame = pd.DataFrame({"zip": pd.Categorical([7, 3, 7])})
    assert clean(frame, [0, 1, 1]).x[:, 0].tolist() == [1, 0, 1]


def test_text_is_read_as_dates_when_asked():
    x, _, report = clean([["1970-01-02T06:00"], ["1970-02-01"]], [0, 1], dates=[0])
    assert report.features == ("0.days", "0.month", "0.weekday", "0.hour")
    assert x.tolist() == [[1.25, 1, 4, 6], [31, 2, 6, 0]]


def test_dates_of_a_time_zone_are_taken_in_utc():
    day = pd.to_datetime(["2024-01-01T00:30+02:00", "2024-01-02T00:30+02:00"])
    x = clean(pd.DataFrame({"day": day}), [0, 1], missing="keep").x
    assert x[0].tolist() == [pytest.approx(19722.9375, abs=1e-3), 12, 6, 22.5]


def test_text_that_is_no_date_is_refused():
    with pytest.raises(InvalidData, match="Column '0' of x must hold dates, such as '2024-05-31'"):
        clean([["soon"], ["2024-01-01"]], [0, 1], dates=[0])


def test_held_out_rows_are_cleaned_as_the_training_rows_were():
    report = clean([["red", 1.0], ["blue", 2.0]], ["no", "yes"], missing="keep").report
    x, y, new = clean([["green", NAN], ["blue", 5.0]], ["yes", "yes"], missing="keep", steps=report.steps)
    np.testing.assert_array_equal(x, [[2, NAN], [0, 5]])
    assert (y.tolist(), new.classes, new.unseen_values) == ([1, 1], ("no", "yes"), {"0": 1})


def test_labels_that_were_numbers_stay_the_same_numbers_in_held_out_rows():
    steps = clean(X, [0, 1, 2]).report.steps
    assert clean(X, [2, 2, 0], steps=steps).y.tolist() == [2, 2, 0]


@pytest.mark.parametrize(
    ("train", "new", "message"),
    [
        (["a", "b"], ["a", "c"], "labels that the training rows did not: 'c'"),
        ([0, 1], ["a", "b"], "y holds text"),
    ],
)
def test_labels_that_the_training_rows_did_not_have_are_refused(train, new, message):
    steps = clean([[1], [2]], train).report.steps
    with pytest.raises(InvalidData, match=message):
        clean([[1], [2]], new, steps=steps)


def test_no_category_is_known_that_only_dropped_rows_had():
    report = clean([["red", 1.0], ["green", NAN], ["blue", 2.0]], [0, 1, 1]).report
    assert report.steps.columns[0].categories == ("blue", "red")


def test_a_report_with_steps_comes_back_equal_from_json():
    report = clean(TABLE, Y, missing="fill", outliers="clip").report
    again = CleaningReport.from_json(report.to_json())
    assert again == report
    np.testing.assert_array_equal(again.steps.transform(TABLE), report.steps.transform(TABLE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "fil"}, "missing must be one of 'drop', 'keep', 'fill'; got 'fil'"),
        ({"outliers": "remove"}, "outliers must be one of None, 'drop', 'clip'"),
        ({"outlier_rule": "mad"}, "outlier_rule must be one of 'iqr', 'zscore'"),
        ({"constant": "leave"}, "constant must be one of"),
        ({"categories": ["colour"]}, "categories names column 'colour', which x does not have.*'color'"),
        ({"categories": "color"}, r"categories must be a list of columns, such as \['color'\]"),
        ({"dates": [9]}, "dates names column 9"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(options, message):
    with pytest.raises(InvalidOption, match=message):
        clean(TABLE, Y, **options)


def test_steps_learn_nothing_more():
    steps = clean(X, [0, 1, 1]).report.steps
    with pytest.raises(InvalidOption, match="steps do what they have learned.*; got outliers"):
        clean(X, [0, 1, 1], steps=steps, outliers="drop")


def test_images_have_no_columns_to_choose():
    with pytest.raises(InvalidOption, match="missing is for tables"):
        clean(np.zeros((2, 4, 4, 1)), [0, 1], missing="fill")
