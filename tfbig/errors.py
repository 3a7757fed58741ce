"""The error tree. Every message says what was expected, what was got and what to do.

Each error also subclasses the built-in that callers already catch, so `except ValueError` keeps working.
"""

import difflib
from collections.abc import Iterable


class TfbigError(Exception):
    """Root of everything tfbig raises on purpose."""


class InvalidData(TfbigError, ValueError):
    """The data cannot be used as it is: shapes, types or values do not fit."""


class InvalidModel(TfbigError, ValueError):
    """The model cannot be used for what was asked, or does not fit the data."""


class InvalidOption(TfbigError, ValueError):
    """An option has a value that makes no sense."""


class UnknownOption(TfbigError, TypeError):
    """An option of that name does not exist."""


class OutputExists(TfbigError, FileExistsError):
    """Something is already at the output path and `overwrite=True` was not given."""


class OutputNotWritable(TfbigError, OSError):
    """The output path cannot be written."""


class UnreadableFile(TfbigError, ValueError):
    """A file is missing, corrupt or of another kind than expected."""


class WrongBackend(TfbigError, ImportError):
    """Keras runs on another backend than TensorFlow."""


class TrainingDiverged(TfbigError, ArithmeticError):
    """The loss became NaN or infinite while a model trained."""


class WorkerLost(TfbigError, ConnectionError):
    """Another process of a training on several machines died or cannot be reached."""


class ExportFailed(TfbigError, RuntimeError):
    """A model could not be turned into a LiteRT file."""


class ConversionCrashed(ExportFailed):
    """The converter's process died. The caller's process is unharmed."""


class ConversionTimedOut(ExportFailed, TimeoutError):
    """The converter ran past its time limit and was stopped."""


class ProofFailed(ExportFailed):
    """The converted file does not give the model's answers, so it was not written."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest of `choices`, or "" when none is near.

    Example:
        >>> did_you_mean("epoch", ["epochs", "batch_size"])
        " Did you mean 'epochs'?"
    """
    near = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown_choice(what: str, name: object, choices: Iterable[object]) -> InvalidOption:
    """Returns the error for a value outside a fixed list: it names the list and the nearest entry.

    Example:
        >>> print(unknown_choice("task", "regresion", ["binary", "regression"]))
        task must be one of 'binary', 'regression'; got 'regresion'. Did you mean 'regression'?
    """
    shown = {str(choice): repr(choice) for choice in choices}
    listed = shown.values()
    near = difflib.get_close_matches(str(name), shown, n=1, cutoff=0.6) or [
        text for text in shown if text.lower() == str(name).lower()
    ]
    hint = f" Did you mean {shown[near[0]]}?" if near else ""
    return InvalidOption(f"{what} must be one of {', '.join(listed)}; got {name!r}.{hint}")
