import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.data.normalization import normalizer
from tfbig.errors import InvalidOption, UnknownOption
from tfbig.models import transformer

SMALL = {"depth": 1, "width": 8, "heads": 2}


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def rows(*shape):
    return np.random.default_rng(0).normal(5, 3, shape).astype(np.float32)


def block(width, feedforward):
    """Queries, keys, values and output; two dense layers; two normalizations."""
    dense = (width + 1) * feedforward + (feedforward + 1) * width
    return 4 * (width + 1) * width + dense + 2 * 2 * width


@pytest.mark.parametrize(
    ("arguments", "options", "around"),
    [
        (((7,), 5), {"vocabulary": 30}, 30 * 8 + 7 * 8),
        (((7, 3), 5), {}, (3 + 1) * 8 + 7 * 8),
        (((7, 3), 5), {"positions": "sinusoidal"}, (3 + 1) * 8),
        (((6, 4, 3), 5), {"patch_size": 2}, (2 * 2 * 3 + 1) * 8 + 3 * 2 * 8),
        (((7,), 30), {"vocabulary": 30, "task": "sequence", "causal": True}, 30 * 8 + 7 * 8),
    ],
    ids=["tokens", "features", "sinusoidal", "patches", "causal"],
)
def test_it_has_as_many_parameters_as_its_docstring_says(arguments, options, around):
    model = transformer(*arguments, **{**SMALL, "depth": 3, "feedforward": 12, **options})
    assert model.count_params() == around + 3 * block(8, 12) + 2 * 8 + (8 + 1) * arguments[1]


@pytest.mark.parametrize(
    ("preset", "depth", "width"),
    [("tiny", 2, 128), ("mini", 4, 256), ("small", 4, 512), ("medium", 8, 512), ("base", 12, 768)],
)
def test_a_preset_has_as_many_parameters_as_its_docstring_says(preset, depth, width):
    parameters = depth * block(width, 4 * width)
    assert f'| "{preset}"' in transformer.__doc__
    assert f"{parameters:,}" in transformer.__doc__
    if parameters < 5e6:  # the others take seconds to make
        model = transformer((4, 3), 2, preset=preset)
        assert model.count_params() == parameters + 4 * width + 4 * width + 2 * width + (width + 1) * 2


def test_layers_stand_in_order_with_every_option():
    model = transformer((7, 3), 2, dropout=0.25, padding=0.0, normalizer=normalizer(rows(9, 7, 3)), **SMALL)
    attention = ["LayerNormalization", "MultiHeadAttention", "Dropout", "Add"]
    dense = ["LayerNormalization", "Dense", "Dense", "Dropout", "Add"]
    first = ["InputLayer", "Masking", "Normalization", "Dense", "Positions", "Dropout"]
    assert kinds(model) == [*first, *attention, *dense, "LayerNormalization", "AverageOfSteps", "Dense"]
    assert model.get_layer("block_1_attention").dropout == 0.25


def test_a_causal_model_sees_no_later_steps():
    model = transformer((7,), 9, vocabulary=9, task="sequence", causal=True, **{**SMALL, "depth": 2})
    x = np.random.default_rng(0).integers(0, 9, (4, 7))
    later = x.copy()
    later[:, 4:] = (x[:, 4:] + 1) % 9
    before, after = np.asarray(model(x)), np.asarray(model(later))
    np.testing.assert_allclose(after[:, :4], before[:, :4], atol=1e-6)  # the same sums; float32
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-3


def test_an_encoder_sees_all_steps():
    model = transformer((7,), 9, vocabulary=9, task="sequence", **SMALL)
    x = np.random.default_rng(0).integers(0, 9, (4, 7))
    later = x.copy()
    later[:, 4:] = (x[:, 4:] + 1) % 9
    assert np.abs(np.asarray(model(x)) - np.asarray(model(later)))[:, :4].max() > 1e-4


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_it_knows_the_order_of_its_steps(positions):
    model = transformer((7, 3), 2, positions=positions, **SMALL)
    x = rows(4, 7, 3)
    assert np.abs(np.asarray(model(x)) - np.asarray(model(x[:, ::-1]))).max() > 1e-4


def test_padded_tokens_change_nothing():
    long, short = (
        transformer((steps,), 2, vocabulary=9, padding=0, positions="sinusoidal", **SMALL) for steps in (7, 5)
    )
    short.set_weights(long.get_weights())
    x = np.random.default_rng(0).integers(1, 9, (6, 5))
    np.testing.assert_allclose(long(np.pad(x, [(0, 0), (0, 2)])), short(x), atol=1e-5)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_padded_steps_change_nothing(norm):
    x = rows(6, 5, 3)
    options = {"positions": "sinusoidal", "norm": norm, **SMALL}
    long = transformer((7, 3), 2, padding=-9.0, normalizer=normalizer(x), **options)
    short = transformer((5, 3), 2, normalizer=normalizer(x), **options)
    short.set_weights(long.get_weights())
    padded = np.pad(x, [(0, 0), (0, 2), (0, 0)], constant_values=-9.0)
    np.testing.assert_allclose(long(padded), short(x), atol=1e-5)


def test_patches_are_read_row_by_row():
    model = transformer((4, 4, 1), 2, patch_size=2, **SMALL)
    cut = keras.Model(model.inputs[0], model.get_layer("patches_in_a_row").output)
    model.get_layer("patches").set_weights([np.full((2, 2, 1, 8), 0.25), np.zeros(8)])
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    means = [(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4, (8 + 9 + 12 + 13) / 4, (10 + 11 + 14 + 15) / 4]
    np.testing.assert_allclose(cut(image)[0, :, 0], means)


def test_penalties_are_on_every_kernel_and_on_no_bias():
    model = transformer((7, 3), 2, l1=0.1, l2=0.01, **SMALL)
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 2.0))
    kernels = 3 * 8 + 4 * 8 * 8 + 8 * 32 + 32 * 8 + 8 * 2
    # Sums of float32.
    assert float(sum(model.losses)) == pytest.approx(kernels * (0.1 * 2 + 0.01 * 2**2), rel=1e-5)


@pytest.mark.parametrize("norm", ["layer", "batch", "group"])
def test_the_norm_is_the_one_asked_for(norm):
    model = transformer((7, 3), 2, norm=norm, **SMALL)
    assert sum(kind.lower() == f"{norm}normalization" for kind in kinds(model)) == 3


def test_a_sequence_task_answers_at_every_step():
    model = transformer((7, 3), 5, task="sequence", **SMALL)
    assert (model.output_shape, model.layers[-1].name) == ((None, 7, 5), "step_logits")


TOKENS = {"input_shape": (7,), "vocabulary": 9}
IMAGE = {"input_shape": (8, 8, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "tinny"}, r"preset must be one of 'tiny', 'mini', .*; got 'tinny'\. Did you mean 'tiny'"),
        ({"task": "sequense"}, r"task must be one of .*'sequence'; got 'sequense'\. Did you mean 'sequence'"),
        ({"width": 10, "heads": 4}, "width must be a multiple of heads, 4; got 10"),
        ({"depth": 0}, "depth must be a whole number of at least 1; got 0"),
        ({"feedforward": 0}, "feedforward must be a whole number of at least 1; got 0"),
        ({"positions": "sine"}, r"positions must be one of 'learned', 'sinusoidal'; got 'sine'"),
        ({"positions": "sinusoidal", "width": 9, "heads": 3}, "needs an even width; got 9"),
        ({"norm": None}, "does not train without a norm"),
        ({"activation": "geluu"}, r"activation must be a name .* got 'geluu'\. Did you mean 'gelu'"),
        ({"patch_size": 2}, r"patch_size is for images .* got \(7, 3\)"),
        ({**IMAGE}, r"is that of an image: pass patch_size="),
        ({**IMAGE, "patch_size": 3}, r"patch_size must divide both sides of the image, \(8, 8\); got 3"),
        ({**IMAGE, "patch_size": 2, "padding": 0}, "are for sequences"),
        ({**IMAGE, "patch_size": 2, "task": "sequence"}, "answers at every step of a sequence"),
        ({**TOKENS, "vocabulary": None}, "is that of tokens: pass vocabulary="),
        ({**TOKENS, "causal": True}, "causal=True is for task=\"sequence\".*got task='multiclass'"),
        (
            {**TOKENS, "causal": True, "task": "sequence", "norm": "batch"},
            "norm='batch' takes its statistics from all steps",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        transformer(**{"input_shape": (7, 3), "outputs": 3, **SMALL, **options})


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(UnknownOption, match=r"has no option 'head'\. Did you mean 'heads'\?"):
        transformer((7, 3), 3, head=2)
