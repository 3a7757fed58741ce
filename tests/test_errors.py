import inspect

import pytest

from tfbig import errors
from tfbig.errors import did_you_mean, unknown_choice

TREE = [
    value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_every_error_can_be_caught_as_tfbigs_own(error):
    assert issubclass(error, errors.TfbigError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InvalidData, ValueError),
        (errors.InvalidModel, ValueError),
        (errors.InvalidOption, ValueError),
        (errors.UnknownOption, TypeError),
        (errors.OutputExists, FileExistsError),
        (errors.OutputNotWritable, OSError),
        (errors.UnreadableFile, ValueError),
        (errors.WrongBackend, ImportError),
        (errors.TrainingDiverged, ArithmeticError),
        (errors.ExportFailed, RuntimeError),
        (errors.ConversionTimedOut, TimeoutError),
    ],
)
def test_an_error_is_also_the_builtin_that_callers_catch_already(error, builtin):
    with pytest.raises(builtin, match="what happened"):
        raise error("what happened")


@pytest.mark.parametrize("error", [errors.ConversionCrashed, errors.ConversionTimedOut, errors.ProofFailed])
def test_every_way_an_export_fails_is_an_export_failed(error):
    assert issubclass(error, errors.ExportFailed)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", " Did you mean 'epochs'?"),
        ("batchsize", " Did you mean 'batch_size'?"),
        ("banana", ""),
        (7, ""),
    ],
)
def test_the_nearest_name_is_suggested_and_none_when_nothing_is_near(name, hint):
    assert did_you_mean(name, iter(["epochs", "batch_size"])) == hint


def test_an_unknown_choice_names_all_choices_what_was_got_and_the_nearest():
    message = str(unknown_choice("task", "regresion", ["binary", "regression"]))
    assert message == (
        "task must be one of 'binary', 'regression'; got 'regresion'. Did you mean 'regression'?"
    )


def test_an_unknown_choice_without_a_near_one_gets_no_hint():
    assert str(unknown_choice("bits", 3, [8, 16])) == "bits must be one of 8, 16; got 3."


def test_a_choice_that_is_not_text_is_suggested_as_it_must_be_written():
    assert str(unknown_choice("quantize", "none", [None, "int8"])).endswith("Did you mean None?")
