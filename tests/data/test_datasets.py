import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfbig.data.datasets import load_dataset
from tfbig.errors import InvalidOption

NAMES = ["digits", "iris", "wine", "breast_cancer", "diabetes"]


@pytest.mark.parametrize(
    ("name", "task", "shape", "outputs"),
    [
        ("digits", "multiclass", (1797, 8, 8, 1), 10),
        ("iris", "multiclass", (150, 4), 3),
        ("wine", "multiclass", (178, 13), 3),
        ("breast_cancer", "binary", (569, 30), 1),
        ("diabetes", "regression", (442, 10), 1),
        ("linnerud", "regression", (20, 3), 3),
    ],
)
def test_each_data_set_has_its_task_shape_and_outputs(name, task, shape, outputs):
    data = load_dataset(name)
    assert (data.name, data.task, data.x.shape, data.outputs) == (name, task, shape, outputs)
    assert (data.x.dtype, len(data.y)) == ("float32", shape[0])


@pytest.mark.parametrize("name", NAMES[:-1])
def test_labels_run_from_0_and_each_has_a_name(name):
    data = load_dataset(name)
    assert data.y.dtype == np.int64
    assert np.unique(data.y).tolist() == list(range(len(data.classes)))


def test_classes_stand_in_the_order_of_their_labels():
    assert load_dataset("iris").classes == ("setosa", "versicolor", "virginica")


def test_digits_are_scikit_learns_images():
    np.testing.assert_array_equal(load_dataset("digits").x[..., 0], load_digits().images)


def test_diabetes_is_in_its_own_units():
    data = load_dataset("diabetes")
    ages = data.x[:, 0]
    assert (ages.min(), ages.max(), data.y.dtype, data.classes) == (19, 79, "float32", ())


@pytest.mark.parametrize(
    ("name", "hint"), [("digit", r" Did you mean 'digits'\?"), ("mnist", "$"), (None, "$")]
)
def test_an_unknown_name_gets_the_list_and_the_nearest(name, hint):
    with pytest.raises(
        InvalidOption, match=rf"dataset must be one of 'digits', .*'diabetes'; got {name!r}\.{hint}"
    ):
        load_dataset(name)
