import subprocess
import sys

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.models.step_layers import AverageOfSteps, Positions, sinusoids


def test_sinusoids_are_those_of_the_paper():
    features = 6
    table = sinusoids(5, features)
    for position in range(5):
        for pair in range(features // 2):
            angle = position / 10_000 ** (2 * pair / features)
            # float32
            assert table[position, pair] == pytest.approx(np.sin(angle), abs=1e-6)
            assert table[position, features // 2 + pair] == pytest.approx(np.cos(angle), abs=1e-6)


def test_sinusoids_come_in_pairs():
    with pytest.raises(InvalidOption, match="even number of features; got 5"):
        sinusoids(4, 5)


def test_sinusoidal_positions_are_added_and_have_no_weights():
    layer, x = Positions("sinusoidal"), np.ones((2, 5, 6), np.float32)
    np.testing.assert_allclose(layer(x), x + sinusoids(5, 6))
    assert layer.weights == []


def test_learned_positions_are_added_and_train():
    layer, x = Positions(), np.ones((2, 5, 6), np.float32)
    added = np.asarray(layer(x)) - x
    np.testing.assert_allclose(added[0], layer.table.numpy(), atol=1e-6)  # 1 is added and taken away again
    np.testing.assert_array_equal(added[0], added[1])
    assert [w.shape for w in layer.trainable_weights] == [(5, 6)]


def test_a_shorter_sequence_takes_the_first_positions():
    layer, x = Positions("sinusoidal", steps=9), np.zeros((2, 5, 6), np.float32)
    np.testing.assert_array_equal(layer(x)[0], sinusoids(9, 6)[:5])


def test_a_sequence_longer_than_the_table_is_refused():
    layer = Positions(name="positions")
    layer(np.zeros((1, 5, 6)))
    with pytest.raises(InvalidModel, match="'positions' knows 5 positions; got a sequence of 6 steps"):
        layer(np.zeros((1, 6, 6)))
    with pytest.raises(InvalidModel, match="knows 4 positions; got a sequence of 5 steps"):
        Positions(steps=4)(np.zeros((1, 5, 6)))


def test_a_table_of_unknown_length_is_refused():
    with pytest.raises(InvalidModel, match="pass steps="):
        Positions()(keras.Input((None, 6)))


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidOption, match=r"kind must be one of .* Did you mean 'learned'"):
        Positions("learnt")


@pytest.mark.parametrize(
    "layer", [Positions("sinusoidal", steps=7, name="where"), AverageOfSteps(name="mean")]
)
def test_a_layer_is_made_again_from_its_configuration(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.name == layer.name
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(again(x), layer(x))


def test_a_fresh_process_loads_a_model_with_both(tmp_path):
    model = tfbig.models.transformer((5,), 2, vocabulary=9, padding=0, depth=1, width=4, heads=2)
    path = tfbig.save_model(model, tmp_path / "model.keras")
    code = f"import tfbig; print([layer.name for layer in tfbig.load_model({str(path)!r}).layers])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-1000:]
    assert child.stdout.splitlines()[-1] == str([layer.name for layer in model.layers])


def test_the_average_leaves_padding_out():
    x = np.array([[[1.0], [3.0], [100.0]], [[7.0], [100.0], [100.0]]], np.float32)
    mask = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(AverageOfSteps()(x, mask=mask), [[2.0], [7.0]])
    np.testing.assert_allclose(AverageOfSteps()(x[:, :2]), [[2.0], [53.5]])


def test_padding_alone_averages_to_zero():
    x, mask = np.ones((1, 3, 2), np.float32), np.zeros((1, 3), bool)
    np.testing.assert_array_equal(AverageOfSteps()(x, mask=mask), [[0.0, 0.0]])


def test_both_keep_the_precision_they_are_given():
    x = np.ones((2, 5, 6), np.float16)
    for layer in (Positions("sinusoidal", dtype="mixed_float16"), AverageOfSteps(dtype="mixed_float16")):
        assert layer(x).dtype == "float16"
