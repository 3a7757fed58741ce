import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.data.tokens import Tokenizer, tokenizer
from tfbig.errors import InvalidData, InvalidOption

TEXTS = ["The cat sat on the mat.", "A dog!  Ran: \t'quickly'...", "the CAT and-the dog", "mat (mat) mat_mat"]


@pytest.mark.parametrize("split", ["words", "characters"])
def test_tokens_are_those_of_keras(split):
    tokens = tokenizer(TEXTS, length=12, split=split)
    layer = keras.layers.TextVectorization(
        output_sequence_length=12,
        split="whitespace" if split == "words" else "character",
        vocabulary=list(tokens.words),
    )
    texts = [*TEXTS, "an unknown word", "", "  "]
    np.testing.assert_array_equal(tokens(texts), layer(texts).numpy())


def test_the_most_frequent_words_are_known_and_ties_do_not_follow_the_order_of_texts():
    words = tokenizer(TEXTS, vocabulary=5).words
    assert words == ("mat", "the", "cat")
    assert tokenizer(TEXTS[::-1]).words == tokenizer(TEXTS).words


def test_words_that_are_too_rare_are_unknown():
    tokens = tokenizer(TEXTS, min_count=2)
    assert set(tokens.words) == {"the", "cat", "mat", "dog"}
    assert tokens(["sat cat"])[0, :2].tolist() == [1, 2 + tokens.words.index("cat")]


def test_long_texts_lose_their_end_and_short_ones_are_filled():
    tokens = tokenizer(["a b c d"], length=3)
    assert tokens(["a b c d", "d"]).tolist() == [[2, 3, 4], [5, 0, 0]]


def test_the_length_is_that_of_nearly_all_texts():
    assert tokenizer(["one two"] * 99 + ["word " * 500]).length == 2


def test_letters_of_other_scripts_are_made_lower_case():
    assert tokenizer(["Straße ÉTÉ été"]).words == ("été", "straße")


def test_the_share_of_unknown_words_is_told():
    assert tokenizer(["a b"]).unknown(["a b c d"]) == 0.5


def test_it_comes_back_equal_from_json(tmp_path):
    tokens = tokenizer(TEXTS)
    tokens.to_json(tmp_path / "tokens.json")
    assert Tokenizer.from_json(tmp_path / "tokens.json") == tokens


def test_it_needs_no_tensorflow():
    code = (
        "import sys, tfbig; tfbig.tokenizer(['a b'])(['b']); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_of_tokens_learns_and_answers_in_lite(tmp_path):
    texts = pd.Series(["good film", "bad film", "very good", "very bad"] * 10)
    y = np.array([1, 0, 1, 0] * 10)
    tokens = tokenizer(texts)
    inputs = keras.Input((tokens.length,), dtype="int32", name="x")
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(tokens.vocabulary, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, name="logits")(pooled))
    tfbig.fit(model, tokens(texts), y, epochs=60, learning_rate=0.05, seed=0, verbose=0)
    lite = tfbig.export(model, tmp_path / "text.tflite", calibration=tokens(texts))
    assert (lite.predict(tokens(["a good film", "bad"]))[:, 0] > 0).tolist() == [True, False]


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ("one text", {}, InvalidData, r"texts must be a list of text; got str. For one text: \[text\]"),
        (["a", None], {}, InvalidData, "got a missing value at place 1"),
        (["a", 5], {}, InvalidData, r"got int \(5\) at place 1"),
        ([], {}, InvalidData, "at least one text; got none"),
        (["!", ""], {}, InvalidData, "The 2 texts hold no words that occur 1 times or more"),
        (["a"], {"split": "word"}, InvalidOption, "split must be one of 'words', 'characters'; .*'words'"),
        (["a"], {"vocabulary": 2}, InvalidOption, "vocabulary must be a whole number of at least 3"),
    ],
)
def test_what_is_no_text_is_refused(texts, options, error, message):
    with pytest.raises(error, match=message):
        tokenizer(texts, **options)
