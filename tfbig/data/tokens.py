"""Text to tokens: a vocabulary fitted on training texts, kept as plain data. Loads no TensorFlow."""

import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfbig.data.labels import is_missing
from tfbig.errors import InvalidData, unknown_choice
from tfbig.options import checked, positive_int
from tfbig.records import Record

# As in keras.layers.TextVectorization: what fills a row, and what a word that is not known becomes.
PADDING, UNKNOWN = 0, 1
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Tokenizer(Record):
    """Turns texts into rows of tokens, as `tokenizer` fitted it.

    It is plain data: `to_json` and `from_json` carry it to where the model is used, and it needs no TensorFlow there. A
    LiteRT file takes tokens, never text.

    Attributes:
        words: The known words (or characters), the most frequent first: their tokens are 2, 3, …; 0 fills a row and 1
            is any other word.
        length: Tokens of a row: longer texts lose their end, shorter ones are filled with 0.
        split: "words" or "characters".
    """

    words: tuple[str, ...]
    length: int
    split: str = "words"

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, as `models.rnn` and `models.transformer` take it."""
        return len(self.words) + 2

    def __call__(self, texts: Any) -> np.ndarray:
        """Returns the tokens of texts.

        Args:
            texts: A list, array or series of text.

        Returns:
            int32 of shape (texts, length).

        Raises:
            InvalidData: What is given is no list of text.
        """
        tokens = {word: token for token, word in enumerate(self.words, start=UNKNOWN + 1)}
        texts = _texts(texts)
        rows = np.full((len(texts), self.length), PADDING, np.int32)
        for row, text in zip(rows, texts, strict=True):
            found = [tokens.get(piece, UNKNOWN) for piece in _pieces(text, self.split)[: self.length]]
            row[: len(found)] = found
        return rows

    def unknown(self, texts: Any) -> float:
        """Returns the share of words, in [0, 1], that the training texts did not have."""
        known = set(self.words)
        pieces = [piece for text in _texts(texts) for piece in _pieces(text, self.split)]
        return sum(piece not in known for piece in pieces) / max(1, len(pieces))


@checked()
def tokenizer(
    texts: Any,
    *,
    vocabulary: int = 10_000,
    length: int | None = None,
    split: str = "words",
    min_count: int = 1,
) -> Tokenizer:
    """Learns the vocabulary of training texts.

    Text is made lower case and loses its punctuation; words end at white space. For ASCII text the tokens are those of
    `keras.layers.TextVectorization` with these words.

    Args:
        texts: The training texts, and only those: a list, array or series.
        vocabulary: Most tokens that there may be, with those for filling and for unknown words.
        length: Tokens of a row; None takes the length that 95% of the texts stay within.
        split: "words" or "characters".
        min_count: Times that a word must occur to be known.

    Returns:
        A `Tokenizer`: `tokens(texts)` gives int32 of shape (texts, length).

    Raises:
        InvalidData: There is no text, or no word in it.
        InvalidOption: An option makes no sense.

    Example:
        >>> tokens = tokenizer(["The cat sat.", "The dog!"], length=4)
        >>> tokens.words
        ('the', 'cat', 'dog', 'sat')
        >>> tokens(["the DOG barked"]).tolist()
        [[2, 4, 1, 0]]
    """
    vocabulary = positive_int("vocabulary", vocabulary, minimum=3)
    min_count = positive_int("min_count", min_count)
    if split not in ("words", "characters"):
        raise unknown_choice("split", split, ("words", "characters"))
    rows = [_pieces(text, split) for text in _texts(texts)]
    counts = Counter(piece for row in rows for piece in row)
    # The order must not follow from the order of texts: ties are in alphabetical order.
    frequent = sorted(
        (piece for piece, count in counts.items() if count >= min_count),
        key=lambda piece: (-counts[piece], piece),
    )
    if not frequent:
        raise InvalidData(
            f"The {len(rows)} texts hold no words that occur {min_count} times or more; nothing can be learned."
        )
    if length is None:
        length = max(1, int(np.ceil(np.quantile([len(row) for row in rows], 0.95))))
    return Tokenizer(tuple(frequent[: vocabulary - 2]), positive_int("length", length), split)


def _pieces(text: str, split: str) -> list[str]:
    plain = text.lower().translate(_NO_PUNCTUATION)
    return plain.split() if split == "words" else list(plain)


def _texts(texts: Any) -> list[str]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InvalidData(f"texts must be a list of text; got {type(texts).__name__}. For one text: [text].")
    listed = list(texts)
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            what = "a missing value" if is_missing(text) else f"{type(text).__name__} ({text!r})"
            raise InvalidData(
                f"texts must be text each; got {what} at place {place}. Drop it, or put '' for it."
            )
    if not listed:
        raise InvalidData("texts must hold at least one text; got none.")
    return listed
