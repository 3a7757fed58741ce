import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.recurrent import lowered
from tfbig.errors import InvalidModel

L = keras.layers
STEPS, FEATURES = 10, 6


def build(*layers, masked=False, steps=STEPS):
    x = inputs = keras.Input((steps, FEATURES))
    x = L.Masking()(x) if masked else x
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, L.Dense(3)(x))
    generator = np.random.default_rng(1)
    for weight in model.weights:  # biases of zero would hide where a masked step is not left out
        weight.assign(np.asarray(weight) + 0.2 * generator.normal(size=weight.shape))
    return model


def stacked(kind, **options):
    return [kind(16, return_sequences=True, **options), kind(16, **options)]


def both_ways(kind):
    return [L.Bidirectional(kind(8, return_sequences=True)), L.Bidirectional(kind(8))]


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(64, STEPS, FEATURES)).astype("float32")


@pytest.fixture(scope="module")
def gaps(rows):
    """Masked steps before, between and after the others, and a row with nothing else."""
    x = rows * (np.random.default_rng(2).random((64, STEPS, 1)) > 0.4)
    x[0] = 0
    return x.astype("float32")


def share_of_range(lite, model, x):
    expected = np.asarray(model(x, training=False))
    return np.abs(lite.predict(x) - expected).max() / np.ptp(expected)


def fused_ops(lite):
    return sum(count for name, count in lite.ops.items() if name.startswith("UNIDIRECTIONAL_SEQUENCE_LSTM"))


# Largest error as a share of the range: rounding of float32, of 11 bits, and of 8 bits through two recurrent layers.
@pytest.mark.parametrize(("mode", "error"), [(None, 1e-5), ("float16", 5e-3), ("int8", 0.06)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("layers", "count"),
    [
        (lambda: stacked(L.LSTM), 2),
        (lambda: both_ways(L.LSTM), 4),
        (lambda: stacked(L.LSTM, go_backwards=True, use_bias=False), 2),
    ],
    ids=["stacked", "bidirectional", "backwards, no bias"],
)  # fmt: skip
def test_an_lstm_is_one_operator(rows, gaps, tmp_path, layers, count, masked, mode, error):
    model, x = build(*layers(), masked=masked), gaps if masked else rows
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=x)
    assert fused_ops(lite) == count
    assert set(lite.report.recurrent.values()) == {"fused"}
    assert share_of_range(lite, model, x) <= error


@pytest.mark.parametrize("kind", [L.GRU, L.SimpleRNN])
@pytest.mark.parametrize(
    ("mode", "form", "error"),
    [(None, "loop", 1e-5), ("dynamic", "loop", 0.05), ("int8", "unrolled", 0.1)],
)
def test_other_recurrent_layers_run_on_builtins(rows, tmp_path, kind, mode, form, error):
    model = build(*stacked(kind))
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=rows)
    assert set(lite.report.recurrent.values()) == {form}
    assert share_of_range(lite, model, rows) <= error
    assert not any("Flex" in name for name in lite.ops)


# Through two layers, over steps that do not count: the backward way must leave out the same ones.
@pytest.mark.parametrize(
    ("kind", "mode", "error"),
    [
        (L.LSTM, "int16x8", 0.01),
        (L.GRU, "int16x8", 0.01),
        (L.SimpleRNN, "int16x8", 0.01),
        (L.GRU, "int8", 0.1),
        (L.SimpleRNN, "int8", 0.1),
    ],
)
def test_masked_steps_written_out_both_ways(gaps, tmp_path, kind, mode, error):
    model = build(*both_ways(kind), masked=True)
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=gaps)
    assert set(lite.report.recurrent.values()) == {"unrolled"}
    assert share_of_range(lite, model, gaps) <= error


def test_sixteen_bit_activations_write_an_lstms_steps_out(rows, tmp_path):
    model = build(L.LSTM(8))
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize="int16x8", calibration=rows)
    assert list(lite.report.recurrent.values()) == ["unrolled"]
    assert share_of_range(lite, model, rows) <= 0.05


def test_states_that_are_given_or_asked_for_take_the_loop(rows, tmp_path):
    x = keras.Input((STEPS, FEATURES))
    _, h, c = L.LSTM(8, return_state=True)(x)
    model = keras.Model(x, L.LSTM(8)(x, initial_state=[h, c]))
    lite = tfbig.export(model, tmp_path / "m.tflite", calibration=rows)
    assert set(lite.report.recurrent.values()) == {"loop"}
    assert share_of_range(lite, model, rows) <= 1e-5


def test_no_state_is_left_from_one_prediction_to_the_next(rows, tmp_path):
    lite = tfbig.export(build(*stacked(L.LSTM)), tmp_path / "m.tflite", calibration=rows)
    alone = lite.predict(rows[:1])
    lite.predict(rows)
    assert np.array_equal(lite.predict(rows[:1]), alone)


def test_an_open_number_of_steps(rows, tmp_path):
    model = build(L.LSTM(8), steps=None)
    lite = tfbig.export(model, tmp_path / "m.tflite", calibration=rows)
    for steps in (STEPS, 4):
        assert share_of_range(lite, model, rows[:, :steps]) <= 1e-5
    with pytest.raises(InvalidModel, match="its number of steps is open"):
        tfbig.export(build(L.GRU(8), steps=None), tmp_path / "g.tflite", quantize="int8", calibration=rows)


def test_an_lstm_inside_another_model(rows, tmp_path):
    inner = build(L.LSTM(8))
    x = keras.Input((STEPS, FEATURES))
    model = keras.Model(x, L.Dense(2)(inner(x)))
    lite = tfbig.export(model, tmp_path / "m.tflite", calibration=rows)
    assert fused_ops(lite) == 1
    assert share_of_range(lite, model, rows) <= 1e-5


def test_a_stateful_layer_is_refused(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(1, STEPS, FEATURES)), L.LSTM(4, stateful=True)])
    with pytest.raises(InvalidModel, match="is stateful.*stateful=False"):
        tfbig.export(model, tmp_path / "m.tflite")


def test_the_model_is_left_as_found(rows):
    model = build(*stacked(L.LSTM), L.RepeatVector(3), L.Masking(), L.GRU(4, go_backwards=True))
    before = model(rows).numpy()
    layers = [layer for layer in model.layers if isinstance(layer, L.RNN)]
    settings = [(layer.use_cudnn, layer.unroll, layer.go_backwards) for layer in layers]
    with lowered(model, "int8") as forms:
        assert np.allclose(model(rows), before, atol=1e-6)
    assert sorted(forms.values()) == ["fused", "fused", "unrolled"]
    assert [(layer.use_cudnn, layer.unroll, layer.go_backwards) for layer in layers] == settings
    assert not any("call" in vars(layer) for layer in layers)
    assert np.array_equal(model(rows), before)


@pytest.mark.parametrize("sequences", [False, True])
def test_small_values_behind_an_untrained_embedding_keep_their_levels_in_int8(tmp_path, sequences):
    x = keras.Input((STEPS,), dtype="int32")
    steps = L.Embedding(12, 8)(x)  # drawn from [-0.05, 0.05]
    model = keras.Model(x, L.Dense(3)(L.LSTM(8, return_sequences=sequences)(steps)))
    tokens = np.random.default_rng(0).integers(0, 12, size=(64, STEPS)).astype("int32")
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize="int8", calibration=tokens)
    assert lite.report.proof.mean_error <= 0.01  # the bare converter's gives 0.5: one value throughout


def test_masked_steps_of_a_bidirectional_are_zeros_in_the_sequence(gaps, tmp_path):
    model = build(L.Bidirectional(L.LSTM(8, return_sequences=True)), masked=True)
    lite = tfbig.export(model, tmp_path / "m.tflite", calibration=gaps)
    assert share_of_range(lite, model, gaps) <= 1e-5
