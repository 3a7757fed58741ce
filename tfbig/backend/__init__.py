"""The one door to Keras, TensorFlow and TFMOT, and the guard of the process's state.

Importing this package loads TensorFlow; `import tfbig` alone does not. Every other module takes `keras` and `tf`
from here, so that the check of the Keras backend happens once, before anything else.
"""

import os

from tfbig.errors import WrongBackend

_ASKED = os.environ.get("KERAS_BACKEND", "tensorflow")
_FIX = (
    "tfbig needs Keras on the TensorFlow backend; got {got!r}. Set KERAS_BACKEND=tensorflow (or change "
    "~/.keras/keras.json) before Keras is imported."
)

if _ASKED != "tensorflow":
    raise WrongBackend(_FIX.format(got=_ASKED))

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

if keras.backend.backend() != "tensorflow":
    raise WrongBackend(_FIX.format(got=keras.backend.backend()))

__all__ = ["keras", "tf"]
