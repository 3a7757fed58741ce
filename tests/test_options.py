import inspect

import numpy as np
import pytest

from tfbig.errors import InvalidOption, UnknownOption
from tfbig.options import checked, fraction, names, positive_int


@checked()
def train(x, *, epochs=1, batch_size=32):
    """Trains."""
    return x, epochs, batch_size


@checked(passes_on_to=train)
def repeat(x, *, times=2, **train_options):
    return times, train(x, **train_options)


@checked(passes_on_to=repeat)
def search(data, *, budget=1, **repeat_options):
    return budget, repeat(data, **repeat_options)


def test_names_lists_keyword_only_options_in_order():
    assert names(lambda a, b=1, *rest, epochs=1, batch_size=32, **options: None) == ["epochs", "batch_size"]


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(
        UnknownOption,
        match=r"train\(\) has no option 'epoch'\. Did you mean 'epochs'\? Its options: epochs, batch",
    ):
        train(0, epoch=3)


def test_an_option_unlike_any_other_gets_the_list_and_no_hint():
    with pytest.raises(
        UnknownOption, match=r"no option 'colour'\. Its options: times, epochs, batch_size\.$"
    ):
        repeat(0, colour="red")


def test_an_unknown_option_is_a_type_error_as_in_python():
    with pytest.raises(TypeError, match="no option"):
        train(0, epoch=3)


def test_options_pass_through_every_function_between_to_the_last():
    assert search(0, budget=9, times=3, epochs=5, batch_size=8) == (9, (3, (0, 5, 8)))


def test_an_option_is_checked_at_the_outermost_call():
    ran = []

    @checked(passes_on_to=train)
    def slow(x, **train_options):
        ran.append(x)

    with pytest.raises(UnknownOption, match="slow"):
        slow(0, epoch=3)
    assert not ran


def test_arguments_may_still_be_named():
    assert train(x=4, epochs=2) == (4, 2, 32)


def test_a_missing_argument_is_pythons_own_error():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        train(epochs=2)


def test_the_signature_shows_the_options_that_are_passed_on():
    assert str(inspect.signature(search)) == "(data, *, budget=1, times=2, epochs=1, batch_size=32)"


def test_a_decorated_function_keeps_its_name_and_docstring():
    assert (train.__name__, train.__doc__) == ("train", "Trains.")


@pytest.mark.parametrize("value", [1, np.int32(1), np.uint8(1)])
def test_a_whole_number_of_any_kind_becomes_an_int(value):
    assert type(positive_int("epochs", value)) is int


def test_the_minimum_itself_is_allowed():
    assert positive_int("cv", 2, minimum=2) == 2


@pytest.mark.parametrize(
    "value",
    [0, -1, 2.0, "3", True, np.True_, None, float("nan"), [1], np.array([1, 2]), np.array(2.7)],
    ids=repr,
)
def test_what_is_not_a_positive_whole_number_is_refused(value):
    with pytest.raises(InvalidOption, match=r"epochs must be a whole number of at least 1; got "):
        positive_int("epochs", value)


def test_a_number_below_the_minimum_is_named_with_it():
    with pytest.raises(InvalidOption, match=r"cv must be a whole number of at least 2; got 1\."):
        positive_int("cv", 1, minimum=2)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5)])
def test_a_fraction_becomes_a_float(value):
    number = fraction("dropout", value)
    assert type(number) is float
    assert number == value


def test_one_is_a_fraction_only_where_the_interval_is_closed():
    assert fraction("agreement", 1, closed_above=True) == 1.0
    with pytest.raises(InvalidOption, match=r"dropout must be a number in \[0, 1\); got 1\."):
        fraction("dropout", 1)


@pytest.mark.parametrize(
    "value", [-0.1, 1.1, float("nan"), float("inf"), None, "half", [0.5], np.array([0.1, 0.2])]
)
def test_what_is_not_in_the_unit_interval_is_refused(value):
    with pytest.raises(InvalidOption, match=r"share must be a number in \[0, 1\]; got "):
        fraction("share", value, closed_above=True)
