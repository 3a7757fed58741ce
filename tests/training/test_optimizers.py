import numpy as np
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


@pytest.mark.parametrize("name", sorted(optimizer_names()))
def test_every_name_takes_a_step_downhill(name):
    variable = keras.Variable(np.ones((2, 2), np.float32))
    get_optimizer(name, 0.1).apply([keras.ops.ones((2, 2))], [variable])
    assert (variable.numpy() < 1).all()


def test_wrappers_and_the_base_class_are_no_names():
    assert not {"optimizer", "lossscaleoptimizer"} & set(optimizer_names())


@pytest.mark.parametrize("name", ["adam", "sgd", "lion", "momentum", "muon"])
def test_a_named_optimizer_takes_the_learning_rate(name):
    assert float(get_optimizer(name, 0.125).learning_rate) == 0.125


def test_momentum_is_sgd_that_keeps_nine_tenths_of_its_speed():
    plain, heavy = get_optimizer("sgd", 0.5), get_optimizer("Momentum", 0.5)
    moved = {}
    for optimizer in (plain, heavy):
        variable = keras.Variable([0.0])
        for _ in range(2):
            optimizer.apply([keras.ops.ones(1)], [variable])
        moved[optimizer] = float(variable[0])
    # Speeds 0.5 and 0.5; then 0.5 and 0.9 * 0.5 + 0.5.
    assert moved[plain] == pytest.approx(-1.0)
    assert moved[heavy] == pytest.approx(-(0.5 + 0.95))


def test_nesterov_looks_ahead():
    variable = keras.Variable([0.0])
    get_optimizer("nesterov", 0.5).apply([keras.ops.ones(1)], [variable])
    # The speed is 0.5; the step is 0.9 times it and the gradient's 0.5 again.
    assert float(variable[0]) == pytest.approx(-(0.9 * 0.5 + 0.5))


def test_an_optimizer_at_another_rate_is_a_copy_with_the_other_settings():
    optimizer = used(keras.optimizers.Adam(0.1, beta_1=0.8))
    other = get_optimizer(optimizer, 0.25)
    assert float(other.learning_rate) == 0.25
    assert {**other.get_config(), "learning_rate": 0} == {**optimizer.get_config(), "learning_rate": 0}
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_a_number_takes_the_place_of_a_schedule_and_a_schedule_that_of_a_number():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    assert float(get_optimizer(keras.optimizers.SGD(schedule), 0.25).learning_rate) == 0.25
    assert float(get_optimizer(keras.optimizers.SGD(0.25), schedule).learning_rate) == 0.5


def test_a_loss_scale_optimizer_gets_the_rate_inside():
    wrapped = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), initial_scale=8.0)
    other = get_optimizer(wrapped, 0.25)
    assert isinstance(other, keras.optimizers.LossScaleOptimizer)
    assert (float(other.inner_optimizer.learning_rate), other.initial_scale) == (0.25, 8.0)


def test_keras_still_takes_no_name_inside_a_loss_scale_optimizer():
    """It is made before tfbig sees it; when this fails, the advice for the name "lossscaleoptimizer" can be shorter."""
    with pytest.raises(AttributeError, match="'str' object has no attribute 'loss_scale_factor'"):
        keras.optimizers.LossScaleOptimizer("adam")


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras before 3.15 has none")
def test_several_rates_cannot_become_one():
    several = keras.optimizers.OptimizerMap(keras.optimizers.SGD(), {"head": keras.optimizers.Adam()})
    with pytest.raises(InvalidOption, match="several learning rates"):
        get_optimizer(keras.optimizers.MultiOptimizer(several), 0.1)


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
        ("momentun", r"got 'momentun'\. Did you mean 'momentum'\?"),
        (
            "LossScaleOptimizer",
            r"wraps other.*: pass keras\.optimizers\.LossScaleOptimizer\(keras.*mixed_float16",
        ),
        ("multioptimizer", r"wraps other .*: pass a keras\.optimizers\.MultiOptimizer made with them\."),
        ("newton", "optimizer must be one of .*; got 'newton'"),
        (keras.optimizers.Adam, "must be a name or a keras.optimizers.Optimizer; got <class"),
        (0.01, "must be a name or a keras.optimizers.Optimizer; got 0.01"),
    ],
    ids=["misspelt", "misspelt variant", "wrapper", "several", "unknown", "class", "number"],
)
def test_what_is_no_optimizer_is_refused(wrong, message):
    with pytest.raises(InvalidOption, match=message):
        get_optimizer(wrong)
