import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.data.normalization import normalizer
from tfbig.errors import InvalidOption, UnknownOption
from tfbig.models import rnn


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def rows(*shape):
    return np.random.default_rng(0).normal(5, 3, shape).astype(np.float32)


# An LSTM has four gates; a GRU three, with two biases each; a simple cell none.
@pytest.mark.parametrize(
    ("options", "recurrent", "given"),
    [
        ({"cell": "lstm", "units": (6,)}, 4 * (3 + 6 + 1) * 6, 6),
        ({"cell": "gru", "units": (6,)}, 3 * (3 + 6 + 2) * 6, 6),
        ({"cell": "simple", "units": (6,)}, (3 + 6 + 1) * 6, 6),
        ({"cell": "lstm", "units": (6, 5)}, 4 * (3 + 6 + 1) * 6 + 4 * (6 + 5 + 1) * 5, 5),
        (
            {"cell": "gru", "units": (6, 5), "bidirectional": True},
            2 * 3 * (3 + 6 + 2) * 6 + 2 * 3 * (2 * 6 + 5 + 2) * 5,
            2 * 5,
        ),
    ],
    ids=["lstm", "gru", "simple", "stacked", "bidirectional"],
)
def test_it_has_as_many_parameters_as_its_docstring_says(options, recurrent, given):
    assert rnn((7, 3), 10, **options).count_params() == recurrent + (given + 1) * 10


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("tiny", 4 * (16 + 16 + 1) * 16 + (16 + 1) * 10),
        ("small", 4 * (16 + 64 + 1) * 64 + (64 + 1) * 10),
        ("base", 4 * (16 + 128 + 1) * 128 + 4 * (128 + 128 + 1) * 128 + (128 + 1) * 10),
        ("large", 4 * (16 + 512 + 1) * 512 + 4 * (512 + 512 + 1) * 512 + (512 + 1) * 10),
    ],
)
def test_a_preset_has_as_many_parameters_as_its_docstring_says(preset, parameters):
    assert rnn((4, 16), 10, preset=preset).count_params() == parameters
    assert f'"{preset}"' in rnn.__doc__
    assert f"{parameters:,}" in rnn.__doc__


def test_an_embedding_has_a_vector_for_each_token():
    model = rnn((7,), 2, vocabulary=30, embedding=5, units=(4,), cell="simple")
    assert model.count_params() == 30 * 5 + (5 + 4 + 1) * 4 + (4 + 1) * 2
    assert model.inputs[0].dtype == "int32"


def test_layers_stand_in_order_with_every_option():
    x = rows(9, 7, 3)
    options = {"dense": (5,), "dropout": 0.25, "norm": "batch", "padding": 0.0, "normalizer": normalizer(x)}
    block = ["LSTM", "BatchNormalization", "Dropout"]
    dense = ["Dense", "BatchNormalization", "Activation", "Dropout"]
    model = rnn((7, 3), 3, units=(6, 4), **options)
    assert kinds(model) == ["Masking", "Normalization", *block, *block, *dense, "Dense"]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_sequence_task_answers_at_every_step(bidirectional):
    model = rnn((7, 3), 5, task="sequence", units=(4, 4), bidirectional=bidirectional)
    assert model.output_shape == (None, 7, 5)
    assert model.layers[-1].name == "step_logits"


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padded_steps_change_nothing(cell, bidirectional):
    long = rnn((7, 3), 2, cell=cell, units=(4, 4), bidirectional=bidirectional, padding=-9.0)
    short = rnn((5, 3), 2, cell=cell, units=(4, 4), bidirectional=bidirectional)
    short.set_weights(long.get_weights())
    x = rows(6, 5, 3)
    padded = np.pad(x, [(0, 0), (0, 2), (0, 0)], constant_values=-9.0)
    # The same sums; float32.
    np.testing.assert_allclose(long(padded), short(x), atol=1e-6)


def test_padded_tokens_change_nothing():
    long, short = (rnn((steps,), 2, vocabulary=9, units=(4,), padding=0) for steps in (7, 5))
    short.set_weights(long.get_weights())
    x = np.random.default_rng(0).integers(1, 9, (6, 5))
    np.testing.assert_allclose(long(np.pad(x, [(0, 0), (0, 2)])), short(x), atol=1e-6)


def test_penalties_are_on_every_kernel_and_on_no_bias():
    model = rnn((7, 3), 2, units=(4,), dense=(5,), cell="simple", l1=0.1, l2=0.01)
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 2.0))
    kernels = 3 * 4 + 4 * 4 + 4 * 5 + 5 * 2
    # Sums of float32.
    assert float(sum(model.losses)) == pytest.approx(kernels * (0.1 * 2 + 0.01 * 2**2), rel=1e-5)


def test_the_initializer_is_that_of_all_kernels_but_the_recurrent_ones():
    model = rnn((7, 3), 2, units=(4,), dense=(5,), initializer="ones")
    kernels = [w for w in model.trainable_weights if w.name == "kernel"]
    assert len(kernels) == 3
    assert all(np.all(kernel.numpy() == 1) for kernel in kernels)
    recurrent = next(w.numpy() for w in model.trainable_weights if w.name == "recurrent_kernel")
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(4), atol=1e-5)  # orthogonal, in float32


def test_a_denormalizer_turns_the_last_values_into_those_of_y():
    model = rnn(
        (7, 3),
        1,
        task="regression",
        units=(4,),
        denormalizer=normalizer(np.array([[10.0], [30.0]]), invert=True),
    )
    values = keras.Model(model.inputs[0], model.get_layer("values").output)
    x = rows(5, 7, 3)
    np.testing.assert_allclose(model(x), 20 + 10 * np.asarray(values(x)), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "ltsm"}, r"cell must be one of 'lstm', 'gru', 'simple'; got 'ltsm'\. Did you mean 'lstm'"),
        ({"preset": "huge"}, "preset must be one of 'tiny', 'small', 'base', 'large'; got 'huge'"),
        ({"units": ()}, "units must name at least one recurrent layer's units; got none"),
        ({"units": (4, 0)}, r"units\[1\] must be a whole number of at least 1; got 0"),
        (
            {"task": "sequence", "outputs": 1},
            'task="sequence" needs an output per class, so at least 2; got 1',
        ),
        ({"input_shape": (7,)}, r"is that of tokens: pass vocabulary=.*such as \(7, 1\)"),
        ({"vocabulary": 9}, r"inputs are tokens of shape \(steps,\); got input_shape=\(7, 3\)"),
        (
            {"input_shape": (7,), "vocabulary": 1},
            "vocabulary must be a whole number of at least 2; got 1",
        ),
        ({"input_shape": (7,), "vocabulary": 9, "padding": 3}, "0 is the one .* padding; got padding=3"),
        (
            {"input_shape": (7,), "vocabulary": 9, "normalizer": keras.layers.Normalization()},
            "tokens are names",
        ),
        ({"padding": "post"}, "padding must be the number that fills a step, or None; got 'post'"),
        ({"input_shape": (7, 3, 1)}, r"must have 1 or 2 axes .* got \(7, 3, 1\)"),
        ({"norm": "bach"}, r"norm must be one of 'batch', 'layer', 'group', None; got 'bach'\. Did you mean"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        rnn(**{"input_shape": (7, 3), "outputs": 3, **options})


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(UnknownOption, match=r"rnn\(\) has no option 'unit'\. Did you mean 'units'\?"):
        rnn((7, 3), 3, unit=(8,))
