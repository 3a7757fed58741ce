"""The entry: which method is chosen, what it is told, what it returns, what it refuses."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption
from tfbig.evaluation.explain import METHODS
from tfbig.evaluation.explanation import Explanation

GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.normal(size=(30, 4)).astype(np.float32)
LABELS = TABLE[:, :3].argmax(axis=1)
IMAGES = GENERATOR.random((5, 8, 8, 1)).astype(np.float32)
TOKENS = GENERATOR.integers(1, 10, (5, 6))
STEPS = GENERATOR.normal(size=(5, 6, 3)).astype(np.float32)


class Given:
    def __init__(self, function):
        self.predict = function


@pytest.fixture(scope="module")
def mlp():
    return tfbig.models.mlp((4,), 3, hidden=(8,))


@pytest.fixture(scope="module")
def cnn():
    return tfbig.models.cnn((8, 8, 1), 3, filters=(4,))


@pytest.fixture(scope="module")
def language():
    return tfbig.models.transformer((6,), 3, vocabulary=10, padding=0, depth=1, width=8, heads=2)


def test_the_method_fits_the_model_and_the_data(mlp, cnn, language, digits, digits_lite):
    recurrent = tfbig.models.rnn((6, 3), 2)
    linear = LinearRegression().fit(TABLE, LABELS)
    assert tfbig.explain(mlp, TABLE, LABELS).method == "permutation"
    assert tfbig.explain(mlp, TABLE[:3]).method == "integrated_gradients"
    assert tfbig.explain(cnn, IMAGES[:2], [0, 1]).method == "integrated_gradients"
    assert tfbig.explain(language, TOKENS[:2], [0, 1]).method == "integrated_gradients"
    assert tfbig.explain(recurrent, STEPS, [0, 1, 0, 1, 0]).method == "permutation"
    assert tfbig.explain(digits_lite, digits.x_test[:2]).method == "occlusion"
    assert tfbig.explain(linear, TABLE[:3]).method == "occlusion"
    assert tfbig.explain(linear, TABLE, LABELS).method == "permutation"


def test_an_estimator_is_looked_into(blobs):
    classifier = tfbig.KerasClassifier(hidden=(8,), epochs=1).fit(*blobs)
    result = tfbig.explain(classifier, blobs[0][:3], method="integrated_gradients")
    direct = tfbig.explain(classifier.model_, blobs[0][:3])
    np.testing.assert_array_equal(result.values, direct.values)


def test_the_largest_output_is_explained_unless_another_is_named(mlp):
    rows = TABLE[:6]
    largest = np.asarray(mlp(rows)).argmax(axis=1)
    assert tfbig.explain(mlp, rows, method="saliency").target.tolist() == largest.tolist()
    assert tfbig.explain(mlp, rows, method="saliency", target=2).target.tolist() == [2] * 6
    each = tfbig.explain(mlp, rows, method="saliency", target=[0, 1, 2, 0, 1, 2])
    other = tfbig.explain(mlp, rows, method="saliency", target=1)
    np.testing.assert_allclose(each.values[1], other.values[1])
    assert not np.allclose(each.values[0], other.values[0])


def test_features_are_named_by_the_frame_or_as_asked(mlp):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE[:3], columns=list("abcd"))
    assert tfbig.explain(mlp, frame).names == ("a", "b", "c", "d")
    assert tfbig.explain(mlp, TABLE[:3]).names == ("x0", "x1", "x2", "x3")
    assert tfbig.explain(mlp, TABLE[:3], names=["p", "q", "r", "s"]).names == ("p", "q", "r", "s")


def test_images_and_tokens_have_no_names(cnn, language):
    assert tfbig.explain(cnn, IMAGES[:1], method="saliency").names == ()
    assert tfbig.explain(language, TOKENS[:1]).names == ()


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (None, TABLE[:5].mean(axis=0)),
        ("mean", TABLE[:5].mean(axis=0)),
        (0.5, np.full(4, 0.5)),
        ([1, 2, 3, 4], np.arange(1, 5)),
    ],
    ids=["default", "mean", "number", "row"],
)
@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_the_baseline_has_the_shape_of_a_row(mlp, method, baseline, expected):
    result = tfbig.explain(mlp, TABLE[:5], method=method, baseline=baseline)
    np.testing.assert_allclose(result.baseline, expected, rtol=1e-6)


def test_the_baseline_of_images_is_black(cnn):
    assert not tfbig.explain(cnn, IMAGES[:1]).baseline.any()


def test_the_top_features_come_largest_first():
    result = tfbig.explain(Given(lambda x: x @ [1.0, -3.0, 0.0, 2.0]), TABLE, baseline=0)
    assert list(result.top(3)) == ["x1", "x3", "x0"]
    assert result.top(1)["x1"] == pytest.approx(3 * np.abs(TABLE[:, 1]).mean(), rel=1e-5)
    assert str(result).splitlines()[0] == "occlusion of 30 rows: values of shape (30, 4)"
    assert str(result).splitlines()[1].split()[0] == "x1"


def test_importance_of_sequences_is_over_all_steps():
    result = tfbig.explain(tfbig.models.rnn((6, 3), 2), STEPS)
    assert result.importance == pytest.approx(np.abs(result.values).mean(axis=(0, 1)))
    assert set(result.top()) == {"x0", "x1", "x2"}


def explanations():
    mlp, cnn = tfbig.models.mlp((4,), 3, hidden=(4,)), tfbig.models.cnn((8, 8, 1), 3, filters=(4,))
    transformer = tfbig.models.transformer((6,), 3, vocabulary=10, depth=2, width=8, heads=2)
    return {
        "permutation": tfbig.explain(mlp, TABLE, LABELS),
        "bars of gradients": tfbig.explain(mlp, TABLE[:3]),
        "images": tfbig.explain(cnn, IMAGES, target=[0, 1, 2, 2, 1]),
        "saliency of images": tfbig.explain(cnn, IMAGES, method="saliency"),
        "occlusion of images": tfbig.explain(cnn, IMAGES, method="occlusion"),
        "tokens": tfbig.explain(transformer, TOKENS),
        "steps": tfbig.explain(tfbig.models.rnn((6, 3), 2), STEPS),
        "attention": tfbig.explain(transformer, TOKENS, method="attention"),
    }


@pytest.fixture(scope="module")
def made():
    return explanations()


AXES = {
    "permutation": ["loss of accuracy"],
    "bars of gradients": ["mean |integrated gradients|"],
    "images": [""] * 11,
    "saliency of images": [""] * 11,
    "occlusion of images": [""] * 11,
    "tokens": ["step", ""],
    "steps": ["step", ""],
    "attention": ["key", "key", "", ""],
}


@pytest.mark.parametrize("name", AXES)
def test_each_kind_draws_itself(made, name, tmp_path):
    figure = made[name].plot(tmp_path / "picture.png")
    assert [ax.get_xlabel() for ax in figure.axes] == AXES[name]
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", AXES)
def test_each_kind_comes_back_from_json(made, name):
    back = Explanation.from_json(made[name].to_json())
    assert back.to_dict() == made[name].to_dict()
    assert str(back) == str(made[name])
    assert len(back.plot().axes) == len(AXES[name])


def test_a_plot_from_a_later_row_shows_that_rows_target(made):
    titles = [ax.get_title() for ax in made["images"].plot(row=3).axes[:2]]
    assert titles == ["output 2", "output 1"]


def test_numbers_of_rows_are_whole_for_uint8_images(cnn):
    whole = (IMAGES * 255).astype(np.uint8)
    result = tfbig.explain(cnn, whole[:2])
    np.testing.assert_allclose(
        result.values, tfbig.explain(cnn, whole[:2].astype(np.float32)).values, rtol=1e-4
    )


def test_whole_numbers_are_covered_by_their_mean_unrounded():
    x = np.array([[0, 1], [1, 2]])
    result = tfbig.explain(Given(lambda x: x.sum(axis=1)), x)
    np.testing.assert_allclose(result.values, [[-0.5, -0.5], [0.5, 0.5]])


def test_tokens_stay_whole_numbers_when_they_are_covered(language):
    kinds = []
    real = tfbig.explain(language, TOKENS, method="occlusion", target=0)
    file = Given(lambda x: kinds.append(x.dtype.kind) or np.asarray(language(x)))
    assert tfbig.explain(file, TOKENS, baseline=0, target=0).values == pytest.approx(real.values, abs=1e-6)
    assert set(kinds) == {"i"}


BAD_INPUT = {
    "unknown method": (
        {"method": "gradient"},
        InvalidOption,
        "method must be one of 'permutation', 'integrated",
    ),
    "no y": ({"method": "permutation"}, InvalidData, "pass y"),
    "y of other rows": ({"y": [0, 1]}, InvalidData, "30 rows of x and 2 of y"),
    "permutation of images": (
        {"x": IMAGES, "y": [0] * 5, "method": "permutation"},
        InvalidData,
        'takes x of 2 or 3 axes; got shape .5, 8, 8, 1.. Use "occlusion"',
    ),
    "one axis": ({"x": TABLE[:, 0]}, InvalidData, r"\(rows, ...\)"),
    "unknown input": ({"x": {"a": TABLE}}, InvalidModel, r"has the inputs \['x'\]; x holds \['a'\]"),
    "no input": ({"x": {}}, InvalidData, "at least one input; got an empty dict"),
    "other rows": ({"x": TABLE[:, :3]}, InvalidData, r"takes rows of shape \(4,\)"),
    "NaN": ({"x": TABLE * np.nan}, InvalidData, "x must be finite"),
    "target too high": ({"target": 3}, InvalidOption, "outputs 0 to 2; target is 3 to 3"),
    "targets of other rows": ({"target": [0, 1]}, InvalidOption, "or one per row"),
    "half a target": ({"target": 0.5}, InvalidOption, "number of an output"),
    "baseline's shape": ({"baseline": [1, 2]}, InvalidData, r"shape of a row, \(4,\); got \(2,\)"),
    "baseline's name": ({"baseline": "median"}, InvalidOption, "baseline must be one of 'mean'"),
    "no steps": ({"steps": 0}, InvalidOption, "steps must be a whole number of at least 1"),
    "patch": ({"patch": 2}, InvalidOption, 'for method="occlusion"; the method here is'),
    "large patch": ({"patch": 5, "method": "occlusion"}, InvalidOption, "shortest side of a row, 4; got 5"),
    "stride": (
        {"patch": 2, "stride": 3, "method": "occlusion"},
        InvalidOption,
        "stride must be at most the patch",
    ),
    "names": ({"names": ["a"]}, InvalidOption, "one name per feature; got 1"),
    "names alike": ({"names": ["a"] * 4}, InvalidOption, "names must differ"),
    "scoring": ({"y": LABELS, "scoring": "acuracy"}, InvalidOption, "Did you mean 'accuracy'"),
    "two scorings": ({"y": LABELS, "scoring": ["accuracy", "f1_macro"]}, InvalidOption, "one scorer"),
    "attention of an MLP": ({"method": "attention"}, InvalidModel, "has no attention layer"),
    "misspelt": ({"baselines": 0}, UnknownOption, "Did you mean 'baseline'"),
    "no model": ({"model": "mlp"}, InvalidModel, "Expected a model with predict; got str"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused(mlp, changes, error, message):
    with pytest.raises(error, match=message):
        tfbig.explain(**{"model": mlp, "x": TABLE, **changes})


@pytest.mark.parametrize("method", ["integrated_gradients", "saliency", "attention"])
def test_a_file_says_which_methods_work_for_it(digits, digits_lite, method):
    assert method in METHODS
    with pytest.raises(
        InvalidModel, match='a LiteModel gives its outputs only. Use "occlusion", or "permutation"'
    ):
        tfbig.explain(digits_lite, digits.x_test[:1], method=method)


def test_a_token_without_a_vector_is_refused(language):
    with pytest.raises(InvalidData, match="knows the tokens 0 to 9"):
        tfbig.explain(language, TOKENS + 5)
    with pytest.raises(InvalidOption, match="one of them, 0 to 9, or None; got 0.5"):
        tfbig.explain(language, TOKENS, baseline=0.5)


def test_an_answer_per_step_is_refused():
    model = tfbig.models.transformer((6,), 10, vocabulary=10, task="sequence", depth=1, width=8, heads=2)
    with pytest.raises(InvalidModel, match="one row of outputs per row of x"):
        tfbig.explain(model, TOKENS)


def test_attention_of_a_model_without_a_graph_is_refused():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    assert tfbig.explain(model, TABLE[:2]).values.shape == (2, 4)
    with pytest.raises(InvalidModel, match="graph of a Sequential or functional model; .* is a Own"):
        tfbig.explain(model, TABLE[:2], method="attention")
