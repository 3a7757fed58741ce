"""Reading weights as they are inside a model that computes in mixed precision."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def no_autocast() -> Iterator[None]:
    """Makes variables show their own dtype and digits for the block; layers called in it still cast their own.

    Inside the call of a mixed model Keras rounds every variable that is read to 16 bits, and `stateless_call` rounds
    what it is given likewise. The scope that governs this is nowhere public.
    """
    from keras.src.backend.common.variables import AutocastScope

    with AutocastScope(None):
        yield
