import math

import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.errors import InvalidOption
from tfbig.training.optimizers import get_optimizer
from tfbig.training.schedules import SCHEDULE_NAMES, resolve_learning_rate

PEAK, STEPS = 0.1, 200  # 20 steps in each of 10 epochs
OVER_THE_TRAINING = [name for name in SCHEDULE_NAMES if name not in ("constant", "plateau")]


def resolve(spec, optimizer=None, **options):
    optimizer = optimizer or keras.optimizers.SGD(PEAK)
    return resolve_learning_rate(spec, optimizer, **{"steps_per_epoch": 20, "epochs": 10, **options})


# Warm-up of 5% is 10 steps, 30% is 60; half a cosine stands at (1 + cos(pi * share)) / 2.
CURVES = {
    "cosine": {
        0: PEAK / 10,  # from peak / warm-up steps ...
        5: PEAK * (0.1 + 0.9 * 5 / 10),  # ... in a straight line
        10: PEAK,
        105: PEAK / 2,
        57: PEAK * (1 + math.cos(math.pi * 47 / 190)) / 2,
        200: 0,
    },
    "exponential": {0: PEAK, 50: PEAK * 0.01**0.25, 100: PEAK / 10, 200: PEAK / 100},
    "linear": {0: PEAK, 20: PEAK * 0.9, 150: PEAK / 4, 200: 0},
    "one_cycle": {
        0: PEAK / 25,
        30: PEAK * (1 / 25 + 1) / 2,
        60: PEAK,
        130: PEAK * ((1 + 0) / 2 * (1 - 4e-6) + 4e-6),
        200: PEAK * 4e-6,
    },
    "step": {0: PEAK, 99: PEAK, 100: PEAK / 10, 149: PEAK / 10, 150: PEAK / 100, 199: PEAK / 100},
}


@pytest.mark.parametrize(
    ("name", "step", "rate"), [(name, step, rate) for name in CURVES for step, rate in CURVES[name].items()]
)
def test_the_rate_of_a_step_is_as_written(name, step, rate):
    schedule, callbacks = resolve(name)
    assert callbacks == []
    # float32; the cosine ends within 1e-8 of 0.
    assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-8)


def test_every_named_curve_is_tested():
    assert set(CURVES) == set(OVER_THE_TRAINING)


@pytest.mark.parametrize("name", OVER_THE_TRAINING)
def test_the_highest_rate_is_the_optimizers_own(name):
    schedule, _ = resolve(name, keras.optimizers.Adam(0.004))
    rates = [float(schedule(step)) for step in range(STEPS)]
    assert max(rates) == pytest.approx(0.004, rel=1e-6)
    assert min(rates) > 0  # no step is lost


@pytest.mark.parametrize("name", OVER_THE_TRAINING)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_training_has_a_positive_rate_in_every_step(name, steps):
    schedule, _ = resolve(name, steps_per_epoch=steps, epochs=1)
    assert all(0 < float(schedule(step)) <= PEAK * 1.0001 for step in range(steps))


@pytest.mark.parametrize("name", OVER_THE_TRAINING)
def test_a_schedule_is_keras_own_and_comes_back_from_its_config(name):
    schedule, _ = resolve(name)
    config = keras.optimizers.schedules.serialize(schedule)
    assert config["module"] == "keras.optimizers.schedules"  # so a saved model loads without tfbig
    again = keras.optimizers.schedules.deserialize(config)
    assert [float(again(s)) for s in (0, 70, 199)] == [float(schedule(s)) for s in (0, 70, 199)]


def trained(optimizer, epochs=10, **options):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **options)
    x = np.ones((20, 1), np.float32)
    return model, model.fit(x, x, batch_size=1, epochs=epochs, verbose=0)


@pytest.mark.parametrize("accumulation", [None, 4])
def test_in_a_fit_the_schedule_ends_with_the_training(accumulation):
    optimizer = keras.optimizers.SGD(PEAK, gradient_accumulation_steps=accumulation)
    schedule, _ = resolve("linear", optimizer, epochs=2)
    model, _ = trained(get_optimizer(optimizer, schedule), epochs=1)
    # Half of the steps are done. Keras's schedules count every batch, also those that only accumulate.
    assert float(model.optimizer.learning_rate) == pytest.approx(PEAK / 2, rel=1e-5)


def test_no_learning_rate_leaves_the_optimizers():
    assert resolve(None) == (None, [])


def test_constant_leaves_the_optimizers():
    assert resolve("constant") == (None, [])


def test_a_number_is_a_number():
    assert resolve(np.float32(0.5)) == (0.5, [])


def test_a_keras_schedule_is_taken_as_it_is():
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 0.5)
    assert resolve(schedule)[0] is schedule


def test_names_are_taken_in_any_case():
    assert float(resolve("Cosine")[0](10)) == pytest.approx(PEAK)


@pytest.mark.parametrize(("validated", "monitor"), [(False, "loss"), (True, "val_loss")])
def test_plateau_watches_the_validation_loss_where_there_is_one(validated, monitor):
    rate, (callback,) = resolve("plateau", validated=validated)
    assert rate is None
    assert isinstance(callback, keras.callbacks.ReduceLROnPlateau)
    assert callback.monitor == monitor


@pytest.mark.parametrize(("epochs", "patience"), [(1, 2), (10, 2), (100, 10)])
def test_plateau_waits_for_a_tenth_of_the_epochs_and_2_at_least(epochs, patience):
    assert resolve("plateau", epochs=epochs)[1][0].patience == patience


def test_plateau_halves_the_rate_of_a_training_that_does_not_improve():
    _, callbacks = resolve("plateau", epochs=10)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(PEAK), lambda y, p: 0.0 * p)
    x = np.ones((4, 1), np.float32)
    run = model.fit(x, x, epochs=6, verbose=0, callbacks=callbacks)
    # Best in epoch 0; halved after the second epoch without improvement, and again after two more.
    halved = [PEAK, PEAK, PEAK, PEAK / 2, PEAK / 2, PEAK / 4]
    np.testing.assert_allclose(run.history["learning_rate"], halved, rtol=1e-6)


def test_the_rate_of_a_wrapped_optimizer_is_the_peak():
    wrapped = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.02))
    assert float(resolve("linear", wrapped)[0](0)) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("cosin", {}, r"learning_rate must be one of .*'one_cycle'.*got 'cosin'\. Did you mean 'cosine'\?"),
        ("warm", {}, "must be one of 'constant', 'cosine', .*; got 'warm'"),
        (0.0, {}, r"must be a positive number, .*or one of 'constant'.*; got 0\.0"),
        (-1, {}, "must be a positive number, .*; got -1"),
        (math.nan, {}, "must be a positive number, .*; got nan"),
        (True, {}, "must be a positive number, .*; got True"),
        ([0.1], {}, r"must be a positive number, .*; got \[0\.1\]"),
        (
            "cosine",
            {"steps_per_epoch": None},
            "how long an epoch is: give it a length with .*assert_cardinality",
        ),
        (
            "step",
            {"optimizer": keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 5))},
            "starts from the optimizer's own rate, a number; this Adam follows a schedule already",
        ),
    ],
    ids=["misspelt", "unknown", "zero", "negative", "nan", "bool", "list", "no length", "two schedules"],
)
def test_what_is_no_learning_rate_is_refused(spec, options, message):
    with pytest.raises(InvalidOption, match=message):
        resolve(spec, **options)


@pytest.mark.parametrize("spec", ["constant", "plateau"])
def test_what_does_not_span_the_training_needs_no_length(spec):
    assert resolve(spec, steps_per_epoch=None)[0] is None
