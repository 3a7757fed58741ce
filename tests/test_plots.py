import json
import subprocess
import sys

import numpy as np
import pytest

from tfbig import plots

DRAW = """
import json, sys
import numpy as np
from tfbig import plots

calls = {
    "learning_curves": ({"loss": [1.0, 0.5]},),
    "predicted_against_true": (np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]])),
    "folds": ("accuracy", [0.8, 0.9]),
    "size_against_score": ([("int8", 1000, 0.9)], "accuracy"),
    "confusion_matrix": (np.array([0, 1]), np.array([1, 1])),
    "table": (["keep", "accuracy"], [["0.5", "97%"]]),
}
loaded = {}
for name, arguments in calls.items():
    getattr(plots, name)(*arguments)
    loaded[name] = [module for module in ("matplotlib.pyplot", "tensorflow") if module in sys.modules]
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded():
    child = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, check=True)
    return json.loads(child.stdout)


@pytest.mark.parametrize(
    "name",
    ["learning_curves", "predicted_against_true", "folds", "size_against_score", "confusion_matrix", "table"],
)
def test_drawing_loads_neither_pyplot_nor_tensorflow(loaded, name):
    assert loaded[name] == []


def labels(ax):
    return ax.get_xlabel(), ax.get_ylabel()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def cells(figure):
    """The numbers written in a matrix, row by row."""
    written = {text.get_position()[::-1]: int(text.get_text()) for text in figure.axes[0].texts}
    size = round(len(written) ** 0.5)
    return [[written[row, column] for column in range(size)] for row in range(size)]


def test_learning_curves_show_loss_and_the_first_metric_by_epoch():
    history = {"accuracy": [0.5, 0.7], "auc": [0.6, 0.8], "loss": [2.0, 1.0]}
    figure = plots.learning_curves(history)
    assert [labels(ax) for ax in figure.axes] == [("epoch", "loss"), ("epoch", "accuracy")]
    (line,) = figure.axes[1].lines
    assert line.get_xydata().tolist() == [[1, 0.5], [2, 0.7]]


def test_learning_curves_show_validation_beside_training():
    (ax,) = plots.learning_curves({"loss": [2.0, 1.0], "val_loss": [3.0, 2.5]}).axes
    assert legend(ax) == ["training", "validation"]
    assert ax.lines[1].get_ydata().tolist() == [3.0, 2.5]


def test_a_confusion_matrix_counts_true_classes_in_rows_and_predictions_in_columns():
    figure = plots.confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]))
    assert cells(figure) == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert labels(figure.axes[0]) == ("predicted", "true")


def test_a_confusion_matrix_has_a_row_for_a_named_class_that_does_not_occur():
    figure = plots.confusion_matrix(np.array([0, 1]), np.array([0, 1]), classes=("cat", "dog", "eel"))
    assert cells(figure) == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["cat", "dog", "eel"]


@pytest.mark.parametrize("classes", [(), ("red", "round", "ripe")])
@pytest.mark.parametrize(
    ("targets", "predicted", "expected"),
    [
        ([[1, 0, 1], [0, 0, 1]], [[1, 1, 1], [0, 0, 0]], [[2, 1], [1, 2]]),
        ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[6, 0], [0, 0]]),
    ],
)
def test_several_labels_a_row_give_one_two_by_two_over_all_of_them(targets, predicted, expected, classes):
    figure = plots.confusion_matrix(np.array(targets), np.array(predicted), classes=classes)
    assert cells(figure) == expected


def test_predicted_against_true_draws_the_points_and_the_line_where_they_agree():
    left = plots.predicted_against_true(np.array([[1.0], [3.0]]), np.array([[0.0], [4.0]])).axes[0]
    assert left.collections[0].get_offsets().tolist() == [[1, 0], [3, 4]]
    assert left.lines[0].get_xydata().tolist() == [[0, 0], [4, 4]]
    assert labels(left) == ("true", "predicted")


def test_predicted_against_true_counts_every_residual():
    right = plots.predicted_against_true(np.zeros((30, 2)), np.ones((30, 2))).axes[1]
    assert sum(bar.get_height() for bar in right.patches) == 60
    assert labels(right) == ("residual (predicted - true)", "rows")


def test_folds_show_a_point_each_around_mean_and_sample_deviation():
    (ax,) = plots.folds("accuracy", [0.7, 0.8, 0.9]).axes
    assert ax.collections[-1].get_offsets().tolist() == [[1, 0.7], [2, 0.8], [3, 0.9]]
    assert legend(ax) == ["mean 0.8000 ± 0.1000"]
    assert (*labels(ax), ax.get_xticks().tolist()) == ("fold", "accuracy", [1, 2, 3])


def test_a_single_fold_has_no_deviation():
    (ax,) = plots.folds("r2", [0.5]).axes
    assert legend(ax) == ["mean 0.5000 ± 0.0000"]


def test_files_are_named_points_of_kilobytes_against_score():
    (ax,) = plots.size_against_score([("float32", 8000, 0.98), ("int8", 2500, 0.97)], "accuracy").axes
    assert [points.get_offsets().tolist() for points in ax.collections] == [[[8.0, 0.98]], [[2.5, 0.97]]]
    assert [text.get_text() for text in ax.texts] == ["float32", "int8"]
    assert labels(ax) == ("gzipped file size (kB)", "accuracy")


def test_a_figure_is_saved_in_the_format_of_its_ending(tmp_path):
    figure = plots.folds("r2", [0.5, 0.6])
    assert plots.saved(figure, tmp_path / "folds.png") is figure
    assert (tmp_path / "folds.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_holds_its_titles_and_its_cells_the_first_column_to_the_left():
    figure = plots.table(["keep", "accuracy"], [["0.5", "97%"], ["0.25", "95%"]])
    found = figure.axes[0].tables[0].get_celld()
    written = [[found[row, column].get_text().get_text() for column in range(2)] for row in range(3)]
    assert written == [["keep", "accuracy"], ["0.5", "97%"], ["0.25", "95%"]]
    assert [found[1, column].get_text().get_horizontalalignment() for column in range(2)] == ["left", "right"]
