import pytest

from tfbig.backend import keras
from tfbig.errors import InvalidOption
from tfbig.training.optimizers import get_optimizer, optimizer_names


def used(optimizer):
    optimizer.build([keras.Variable([1.0, 2.0])])
    optimizer.iterations.assign(5)
    return optimizer


@pytest.mark.parametrize("name", ["adam", "Adam", "SGD", "rmsprop"])
def test_a_name_in_any_case_gives_the_optimizer(name):
    assert type(get_optimizer(name)).__name__.lower() == name.lower()


def test_every_name_gives_its_optimizer():
    assert {name: type(get_optimizer(name)) for name in optimizer_names()} == optimizer_names()


def test_wrappers_and_the_base_class_are_no_names():
    assert not {"optimizer", "lossscaleoptimizer"} & set(optimizer_names())


def test_each_call_gives_a_new_optimizer():
    assert get_optimizer("adam") is not get_optimizer("adam")


def test_an_unused_optimizer_is_returned_as_it_is():
    optimizer = keras.optimizers.Adam()
    assert get_optimizer(optimizer) is optimizer


def test_a_used_optimizer_is_copied_without_its_state():
    optimizer = used(keras.optimizers.Adam())
    copy = get_optimizer(optimizer)
    assert copy is not optimizer
    assert not copy.built
    assert int(copy.iterations) == 0


def test_a_copy_has_the_same_settings():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.3, 10, 0.5)
    optimizer = used(keras.optimizers.Adam(schedule, beta_1=0.8, clipnorm=2.0))
    assert get_optimizer(optimizer).get_config() == optimizer.get_config()


def test_the_original_keeps_its_state():
    optimizer = used(keras.optimizers.SGD())
    get_optimizer(optimizer)
    assert int(optimizer.iterations) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("addam", r"optimizer must be one of .*'sgd'.*; got 'addam'\. Did you mean 'adam'\?"),
        ("newton", "optimizer must be one of .*; got 'newton'"),
        (keras.optimizers.Adam, "must be a name or a keras.optimizers.Optimizer; got <class"),
        (0.01, "must be a name or a keras.optimizers.Optimizer; got 0.01"),
    ],
    ids=["misspelt", "unknown", "class", "number"],
)
def test_what_is_no_optimizer_is_refused(wrong, message):
    with pytest.raises(InvalidOption, match=message):
        get_optimizer(wrong)
