import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel, InvalidOption
from tfbig.models import generate, mlp, rnn, transformer
from tfbig.models.generating import _drawn

VOCABULARY, WINDOW = 10, 12
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def language_model(**options):
    usual = {"task": "sequence", "causal": True, "depth": 1, "width": 32, "heads": 2}
    return transformer((WINDOW,), VOCABULARY, vocabulary=VOCABULARY, **{**usual, **options})


@pytest.fixture(scope="module")
def untrained():
    return language_model()


@pytest.fixture(scope="module")
def patterns():
    """Three tokens over and over: which comes next is written three steps back."""
    generator = np.random.default_rng(0)
    threes = np.array([generator.permutation(VOCABULARY)[:3] for _ in range(512)])
    return np.tile(threes, (1, 10))


@pytest.mark.parametrize("kind", ["transformer", "rnn"])
def test_a_model_that_learned_to_copy_a_pattern_goes_on_with_it(patterns, kind):
    if kind == "transformer":
        model = language_model()
    else:
        options = {"vocabulary": VOCABULARY, "embedding": 16, "units": (64,), "task": "sequence"}
        model = rnn((WINDOW,), VOCABULARY, **options)
    known, new = patterns[50:], patterns[:50]
    tfbig.fit(
        model,
        known[:, :WINDOW],
        known[:, 1 : WINDOW + 1],
        loss=LOSS,
        optimizer=keras.optimizers.Adam(0.01),
        epochs=60,
        batch_size=128,
        seed=0,
        verbose=0,
    )
    # Longer than the model reads: 6 tokens of the prompt and 24 more.
    texts = generate(model, new[:, :6], steps=24, temperature=0)
    assert texts.shape == (50, 30)
    # Right to the end, all 24; by chance one in 10^24 would be.
    assert (texts == new[:, :30]).all(axis=1).mean() > 0.9


def test_it_gives_the_prompt_and_what_follows(untrained):
    text = generate(untrained, [3, 1, 4], steps=5, seed=0)
    assert text[:3].tolist() == [3, 1, 4]
    assert (text.shape, text.dtype) == ((8,), "int64")
    assert ((text >= 0) & (text < VOCABULARY)).all()


def test_the_seed_decides(untrained):
    one, same, other = (generate(untrained, [[3, 1]], steps=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_at_temperature_0_each_token_is_the_likeliest_after_those_before(untrained):
    text = generate(untrained, [3, 1, 4], steps=WINDOW - 3, temperature=0)
    logits = np.asarray(untrained(text[None, :]))[0]
    np.testing.assert_array_equal(text[3:], logits[2:-1].argmax(axis=-1))


def test_past_its_window_it_reads_the_last_steps(untrained):
    text = generate(untrained, np.arange(WINDOW) % VOCABULARY, steps=4, temperature=0)
    for end in range(WINDOW, WINDOW + 4):
        logits = np.asarray(untrained(text[None, end - WINDOW : end]))[0, -1]
        assert text[end] == logits.argmax()


def test_rows_are_continued_each_by_itself(untrained):
    prompts = np.array([[3, 1, 4], [1, 5, 9]])
    both = generate(untrained, prompts, steps=4, temperature=0)
    alone = [generate(untrained, prompt, steps=4, temperature=0) for prompt in prompts]
    np.testing.assert_array_equal(both, alone)


def test_one_compiled_function_serves_every_prompt():
    model, traces = language_model(), []
    count = keras.layers.Lambda(lambda x: (traces.append(1), x)[1], output_shape=(WINDOW,))
    inputs = keras.Input((WINDOW,), dtype="int32")
    counted = keras.Model(inputs, model(count(inputs)))
    before = len(traces)
    for length, seed in ((1, 0), (5, 1), (9, 2)):
        generate(counted, np.ones(length, int), steps=6, temperature=0.7, top_k=3, seed=seed)
    assert len(traces) == before + 1


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (1.0, 2), (2.0, 3)])
def test_tokens_are_drawn_as_often_as_the_softmax_says(temperature, top_k):
    logits, draws = np.array([0.0, 1.0, 2.0, -1.0]), 20_000
    drawn = _drawn(np.tile(logits, (draws, 1)), temperature, top_k, np.random.default_rng(0))
    weights = np.exp(logits / temperature)
    weights[np.argsort(-logits)[top_k or 4 :]] = 0
    expected = weights / weights.sum()
    # Four standard errors of a share.
    allowed = 4 * np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(np.bincount(drawn, minlength=4) / draws - expected) <= allowed).all()


def test_of_equal_logits_no_more_than_top_k_remain():
    drawn = _drawn(np.zeros((500, 6)), 1.0, 2, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == 2


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "at least one, in the shape"),
        ([[[1]]], r"got shape \(1, 1, 1\)"),
        ([1.0, 2.0], "got shape .* dtype float64"),
        ([1, 10], "knows the tokens 0 to 9; row 0 holds 10"),
        ([-1], "row 0 holds -1"),
        (np.ones(13, int), "reads 12 tokens; the prompt has 13. Pass its last 12"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(untrained, prompt, message):
    with pytest.raises(InvalidData, match=message):
        generate(untrained, prompt, steps=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"temperature": -1}, "temperature must be a number of at least 0; got -1"),
        ({"temperature": float("nan")}, "temperature must be .* got nan"),
        ({"temperature": "hot"}, "temperature must be .* got 'hot'"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1; got 0"),
        ({"top_k": 11}, "top_k must be at most the vocabulary, 10; got 11"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(untrained, options, message):
    with pytest.raises(InvalidOption, match=message):
        generate(untrained, [1], **{"steps": 3, **options})


@pytest.mark.parametrize(
    "build",
    [
        lambda: language_model(causal=False),
        lambda: rnn((6,), 9, vocabulary=9, units=(4,), bidirectional=True, task="sequence"),
    ],
    ids=["encoder", "bidirectional"],
)
def test_a_model_that_sees_later_tokens_is_refused(build):
    with pytest.raises(InvalidModel, match="depends on later tokens.*causal=True"):
        generate(build(), [1], steps=3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mlp((4,), 3), r"needs a model from tokens .* maps \(None, 4\) to \(None, 3\)"),
        (lambda: rnn((6, 2), 9, task="sequence", units=(4,)), "needs a model from tokens"),
        (
            lambda: rnn((6,), 5, vocabulary=9, units=(4,), task="sequence"),
            "reads 9 tokens and predicts 5 classes",
        ),
        (lambda: "model", "Expected a keras.Model; got str"),
    ],
    ids=["once per example", "features", "another vocabulary", "no model"],
)
def test_a_model_of_another_kind_is_refused(build, message):
    with pytest.raises(InvalidModel, match=message):
        generate(build(), [1], steps=3)
