"""The score that attention gives to steps it may not see, made small enough for an 8-bit range.

Keras writes the largest negative float in their place (-2e38). Softmax makes it 0 either way; but a range that reaches
so far has 256 levels 1e36 apart, and all scores that count fall on one. There is no public option.
"""

import contextlib
from typing import Any

from tfbig.backend.keras_functions import keras_functions

# exp(-20) is 2e-9. A lower score would leave the others fewer levels; a higher one would show hidden steps.
HIDDEN = -20.0


def bounded_hidden_scores() -> contextlib.AbstractContextManager[None]:
    """Lets models traced inside give hidden steps a score of -20."""
    names = ("hidden score of attention", "hidden score of softmax")
    return keras_functions(dict.fromkeys(names, _hidden))


def _hidden(dtype: Any) -> float:
    return HIDDEN
