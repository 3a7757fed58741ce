import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tfbig.data.cleaning import clean
from tfbig.errors import InvalidData

FRAME = pd.DataFrame({"color": ["red", "blue", "red"], "size": [1.0, 2.0, 3.0]})


@pytest.fixture
def steps():
    return clean(FRAME, [0, 1, 1]).report.steps


def test_columns_of_a_frame_are_found_by_name(steps):
    shuffled = FRAME[["size", "color"]].assign(other=0)
    assert steps.transform(shuffled).tolist() == steps.transform(FRAME).tolist()


def test_new_rows_never_change_what_was_learned(steps):
    before = steps.to_json()
    steps.fit(FRAME.iloc[:1]).transform(pd.DataFrame({"color": ["green"], "size": [900.0]}))
    assert steps.to_json() == before


def test_categories_that_are_unseen_have_the_next_code_and_are_counted(steps):
    new = pd.DataFrame({"color": ["green", "pink", None, "blue"], "size": 1.0})
    np.testing.assert_array_equal(steps.transform(new)[:, 0], [2, 2, np.nan, 0])
    assert (steps.unseen(new), steps.unseen(FRAME)) == ({"color": 2}, {})


def test_it_is_a_transformer_in_a_scikit_learn_pipeline(steps):
    pipeline = make_pipeline(clone(steps), LogisticRegression()).fit(FRAME, [0, 1, 1])
    direct = LogisticRegression().fit(steps.transform(FRAME), [0, 1, 1])
    np.testing.assert_array_equal(pipeline.predict_proba(FRAME), direct.predict_proba(steps.transform(FRAME)))


def test_it_names_what_it_gives(steps):
    assert steps.set_output(transform="pandas").transform(FRAME).columns.tolist() == ["color", "size"]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (FRAME.rename(columns={"size": "sizes"}), "x has no column 'size'. Did you mean 'sizes'?"),
        ([["red", 1.0, 2.0]], "x must be rows of 2 columns, as those that were cleaned; got 3 columns"),
        (np.zeros(2), r"got shape \(2,\)"),
        ([["red", "large"]], "Column 'size' of x held numbers when it was cleaned; now it holds text"),
        ([["red", "large"], ["red", 1]], "Column '1' of x mixes"),
    ],
)
def test_rows_of_another_kind_are_refused(steps, x, message):
    with pytest.raises(InvalidData, match=message):
        steps.transform(x)
