"""The one door to Keras, TensorFlow and TFMOT, and the guard of the process's state.

Importing this package loads TensorFlow; `import tfbig` alone does not. Every other module takes `keras` and `tf`
from here, so that the check of the Keras backend happens once, before anything else.
"""

import os
import sys

from tfbig.errors import WrongBackend

_ASKED = os.environ.get("KERAS_BACKEND") or "tensorflow"  # Keras takes an empty one as unset
_FIX = (
    "tfbig needs Keras on the TensorFlow backend; got {got!r}. Set KERAS_BACKEND=tensorflow (or change "
    "~/.keras/keras.json) before Keras is imported."
)

if _ASKED != "tensorflow":
    raise WrongBackend(_FIX.format(got=_ASKED))

try:
    import keras
except ImportError as error:
    # keras.json may name a backend that is not even installed.
    _config = sys.modules.get("keras.src.backend.config")
    _got = _config.backend() if _config is not None else "tensorflow"
    if _got != "tensorflow":
        raise WrongBackend(_FIX.format(got=_got)) from error
    raise
import tensorflow as tf  # noqa: E402

if keras.backend.backend() != "tensorflow":
    raise WrongBackend(_FIX.format(got=keras.backend.backend()))

from tfbig.backend.threads import take_share  # noqa: E402

take_share()

__all__ = ["keras", "tf"]
