import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment import refine as refining
from tfbig.deployment.contents import read_contents
from tfbig.deployment.integer_graph import IntegerGraph, layers_of
from tfbig.deployment.refine import NotRefined, refine
from tfbig.errors import InvalidOption


def residual():
    """Channels of unequal loudness and an average that keeps its scale: hard on 8 bits, as ResNet8 is."""
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.Add()([x, keras.layers.BatchNormalization()(y)]))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.AveragePooling2D(6)(x)
    x = keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(x))
    return uneven(keras.Model(inputs, x))


def uneven(model):
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *rest = layer.get_weights()
            layer.set_weights([kernel * generator.uniform(0.1, 2.0, kernel.shape[-1]), *rest])
    model.layers[-1].set_weights([4 * weight for weight in model.layers[-1].get_weights()])
    return with_biases(model)


def with_biases(model):
    """Biases of zeros, as before training, are left out of a file."""
    generator = np.random.default_rng(2)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(weight + generator.uniform(0, 0.1, weight.shape))
    return model


def separable():
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.SeparableConv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.SeparableConv2D(8, 3, activation="relu6", strides=2)(x)
    x = keras.layers.MaxPooling2D(2)(x)
    return with_biases(keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x))))


def dense():
    return with_biases(tfbig.models.mlp((20,), 3, hidden=(32, 32)))


def lstm():
    inputs = keras.Input((6, 4))
    return with_biases(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(8)(inputs))))


def files(model, folder, rows, mode="int8", **options):
    exported = tfbig.export(model, folder / "m.tflite", quantize=[None, mode], calibration=rows, **options)
    return exported[mode].path.read_bytes(), exported[None].path.read_bytes()


def draw(model, count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *model.input_shape[1:])).astype("float32")


def name_of(content):
    return next(iter(read_contents(content).inputs))


def error(model, content, folder, rows):
    path = folder / "judged.tflite"
    path.write_bytes(content)
    expected = model.predict(rows, verbose=0)
    got = tfbig.LiteModel(path).predict(rows)
    return np.abs(expected - got).mean() / np.ptp(expected), (expected.argmax(1) == got.argmax(1)).mean()


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    keras.utils.set_random_seed(3)
    model = residual()
    rows = draw(model, 160)
    content, floats = files(model, tmp_path_factory.mktemp("refine"), rows)
    refined, gain = refine(content, floats, {name_of(content): rows}, 1)
    return model, rows, content, floats, refined, gain


def test_answers_to_new_rows_are_closer(convolutional, tmp_path):
    model, _, content, _, refined, gain = convolutional
    new = draw(model, 300, seed=7)
    before, agreed_before = error(model, content, tmp_path, new)
    after, agreed_after = error(model, refined, tmp_path, new)
    assert after < 0.8 * before
    assert agreed_after >= agreed_before
    assert gain["after"] < gain["before"]


def test_operators_and_size_stay(convolutional):
    _, _, content, _, refined, _ = convolutional
    assert len(refined) == len(content)
    assert read_contents(refined).count_ops() == read_contents(content).count_ops()
    assert [t.dtype for t in read_contents(refined).tensors] == [
        t.dtype for t in read_contents(content).tensors
    ]


def test_the_edges_keep_their_scales(convolutional):
    _, _, content, _, refined, _ = convolutional
    old, new = read_contents(content), read_contents(refined)
    for index in (*old.inputs.values(), *old.outputs.values()):
        assert new.tensors[index].scale == old.tensors[index].scale
        assert new.tensors[index].zero_point == old.tensors[index].zero_point


def test_the_same_rows_give_the_same_file(convolutional):
    _, rows, content, floats, refined, gain = convolutional
    assert refine(content, floats, {name_of(content): rows}, 1) == (refined, gain)


@pytest.mark.parametrize("build", [separable, dense])
@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_no_model_gets_worse(build, mode, tmp_path):
    model = build()
    rows = draw(model, 120)
    content, floats = files(model, tmp_path, rows, mode)
    refined, gain = refine(content, floats, {name_of(content): rows}, 1)
    assert len(refined) == len(content)
    assert read_contents(refined).count_ops() == read_contents(content).count_ops()
    assert (refined == content) == (gain["after"] == gain["before"])
    assert gain["after"] <= gain["before"]
    held = rows[3::4]
    assert error(model, refined, tmp_path, held)[0] <= error(model, content, tmp_path, held)[0]


def test_one_scale_for_a_dense_kernel_stays_one(tmp_path):
    model = dense()
    rows = draw(model, 120)
    content, floats = files(model, tmp_path, rows, compact=True)
    refined, gain = refine(content, floats, {name_of(content): rows}, 1)
    assert [t.scales for t in read_contents(refined).tensors] == [
        t.scales for t in read_contents(content).tensors
    ]
    assert gain["after"] <= gain["before"]


def test_an_lstm_keeps_its_numbers(tmp_path):
    model = lstm()
    rows = draw(model, 100)
    content, floats = files(model, tmp_path, rows)
    refined, _ = refine(content, floats, {name_of(content): rows}, 1)
    old, new = IntegerGraph(content), IntegerGraph(refined)
    (op,) = [op for op in old.operations if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM"]
    for index in (i for i in op.inputs if i >= 0 and old.contents.tensors[i].constant):
        assert np.array_equal(old.constant(index), new.constant(index))
        assert np.array_equal(old.scales(index), new.scales(index))


def test_zeros_stay_zeros_and_shared_values_stay_shared(tmp_path):
    model = dense()
    first, second, *_ = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    kernel, bias = first.get_weights()
    first.set_weights([kernel * (np.abs(kernel) > np.quantile(np.abs(kernel), 0.4)), bias])
    kernel, bias = second.get_weights()
    second.set_weights([np.round(kernel * 8) / 8, bias])
    rows = draw(model, 120)
    content, floats = files(model, tmp_path, rows)
    refined, _ = refine(content, floats, {name_of(content): rows}, 1)
    graph = IntegerGraph(refined)
    pruned, shared, *_ = layers_of(IntegerGraph(content), IntegerGraph(floats))
    assert (pruned.weights == 0).mean() > 0.3
    assert (graph.constant(pruned.kernel)[pruned.weights == 0] == 0).all()
    assert len(np.unique(graph.constant(shared.kernel)[0])) <= len(np.unique(shared.weights[0]))


def test_too_few_rows_change_nothing(convolutional):
    _, rows, content, floats, *_ = convolutional
    with pytest.raises(NotRefined, match="it takes 32 rows of calibration; got 20"):
        refine(content, floats, {name_of(content): rows[:20]}, 1)


def test_too_large_a_model_is_left_alone(convolutional, monkeypatch):
    _, rows, content, floats, *_ = convolutional
    monkeypatch.setattr(refining, "_MOST_WORK", 10.0)
    with pytest.raises(
        NotRefined, match=r"multiplications × layers are more than 1\.6e\+02: it would take minutes"
    ):
        refine(content, floats, {name_of(content): rows}, 1)


def test_export_says_why_it_did_not_refine(tmp_path):
    model = dense()
    with pytest.warns(
        UserWarning, match="left the int8 file as the converter made it: it takes 32 rows .* got 20"
    ):
        lite = tfbig.export(
            model, tmp_path / "m.tflite", quantize="int8", calibration=draw(model, 20), refine=True
        )
    assert lite.report.refined is None


def test_several_rows_at_once(tmp_path):
    model = residual()
    rows = draw(model, 162)
    content, floats = files(model, tmp_path, rows, batch_size=4)
    refined, gain = refine(content, floats, {name_of(content): rows}, 4)
    assert gain["after"] < gain["before"]
    new = draw(model, 100, seed=5)
    assert error(model, refined, tmp_path, new)[0] < error(model, content, tmp_path, new)[0]


def test_export_refines_and_says_so(tmp_path):
    model = residual()
    rows = draw(model, 160)
    options = {"quantize": "int8", "calibration": rows}
    plain = tfbig.export(model, tmp_path / "plain.tflite", **options)
    refined = tfbig.export(model, tmp_path / "refined.tflite", refine=True, labels=list("abcde"), **options)
    assert plain.report.refined is None
    assert refined.report.refined["after"] < refined.report.refined["before"]
    assert refined.report.proof.mean_error < plain.report.proof.mean_error
    assert refined.report.ops == plain.report.ops
    assert refined.labels == tuple("abcde")
    assert "refined" in str(refined.report)


def test_refining_is_refused_where_there_is_nothing_to_refine(tmp_path):
    with pytest.raises(InvalidOption, match=r"refine=True is for \"int8\""):
        tfbig.export(dense(), tmp_path / "m.tflite", quantize="dynamic", refine=True)
