import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel
from tfbig.evaluation.several_inputs import SideBySide

GENERATOR = np.random.default_rng(0)
ROWS = {
    "wide": GENERATOR.normal(size=(40, 3)).astype(np.float32),
    "age": GENERATOR.normal(size=(40, 1)).astype(np.float32),
}
# The answer depends on wide's second column and on age, and on nothing else.
VALUES = (3 * ROWS["wide"][:, 1:2] - 2 * ROWS["age"]).astype(np.float32)


@pytest.fixture(scope="module")
def linear():
    """Of two inputs; gives VALUES exactly."""
    wide, age = keras.Input((3,), name="wide"), keras.Input((1,), name="age")
    values = keras.layers.Dense(1, use_bias=False, name="values")(keras.layers.Concatenate()([age, wide]))
    model = keras.Model([wide, age], values)
    model.set_weights([np.array([[-2.0], [0.0], [3.0], [0.0]], np.float32)])
    return model


@pytest.mark.parametrize("method", ["permutation", "integrated_gradients", "saliency", "occlusion"])
def test_columns_of_all_inputs_are_explained_together(linear, method):
    y = VALUES if method == "permutation" else None
    found = tfbig.explain(linear, ROWS, y, method=method)
    assert found.names == ("wide.x0", "wide.x1", "wide.x2", "age")
    assert list(found.top(2)) == ["wide.x1", "age"]
    assert found.importance[[0, 2]] == pytest.approx([0, 0], abs=1e-6)


def test_what_inputs_add_is_the_change_of_the_output(linear):
    found = tfbig.explain(linear, ROWS, baseline=0.0)
    np.testing.assert_allclose(found.values.sum(axis=1), VALUES[:, 0], atol=1e-5)
    assert found.gaps.max() < 0.01


def test_a_model_that_only_predicts_gets_its_inputs_back(linear):
    class File:
        def predict(self, x):
            assert {name: part.shape[1:] for name, part in x.items()} == {"wide": (3,), "age": (1,)}
            return np.asarray(linear(x))

    found = tfbig.explain(File(), ROWS, VALUES)
    assert (found.method, list(found.top(2))) == ("permutation", ["wide.x1", "age"])


def test_columns_of_frames_keep_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS["wide"], columns=list("pqr"))
    assert SideBySide({"wide": frame, "age": ROWS["age"]}).names == ("wide.p", "wide.q", "wide.r", "age")


def test_inputs_come_back_as_they_were_given():
    given = {"a": np.arange(4), "b": np.ones((4, 2), np.float32)}
    again = SideBySide(given).split(SideBySide(given).table)
    for name, part in given.items():
        np.testing.assert_array_equal(again[name], part)
        assert again[name].dtype == part.dtype


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ({"wide": ROWS["wide"]}, InvalidModel, r"has the inputs \['age', 'wide'\]; x holds \['wide'\]"),
        ({**ROWS, "wide": ROWS["wide"][:, :2]}, InvalidData, r"shape \(3,\) as 'wide'; x\['wide'\] has 2"),
        ({**ROWS, "age": ROWS["age"][:5]}, InvalidData, "same number of rows"),
        (
            {**ROWS, "age": np.ones((40, 4, 4, 1))},
            InvalidData,
            r"takes rows of features; x\['age'\] has shape",
        ),
        ({**ROWS, "age": np.ones((40, 1), int)}, InvalidData, r"x\['age'\] holds whole numbers.*permutation"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(linear, x, error, message):
    with pytest.raises(error, match=message):
        tfbig.explain(linear, x)
