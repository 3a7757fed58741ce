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


@contextlib.contextmanager
def variables_read_as(dtype: str) -> Iterator[None]:
    """Makes variables of floats show a dtype for the block, also in layers called in it whose variables have another.

    A layer casts its variables only where its own dtype policy says that they are of another dtype than it computes in.

    Args:
        dtype: Such as "float32".
    """
    from keras.src.backend.common.variables import AutocastScope

    with AutocastScope(dtype):
        yield
