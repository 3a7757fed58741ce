"""Fails loudly when Keras moves what tfbig.backend.stateless_optimizer swaps."""

import numpy as np
import pytest

from tfbig.backend import keras, stateless_optimizer, tf
from tfbig.backend.vectorizing import vectorized_map
from tfbig.training.optimizers import optimizer_names

make, unsuitable = stateless_optimizer.stateless_optimizer, stateless_optimizer.unsuitable
GENERATOR = np.random.default_rng(0)
SHAPES = [(4, 3), (3,), (2, 2, 3)]
STEPS, FOLDS = 4, 2
WEIGHTS = [GENERATOR.normal(size=(FOLDS, *shape)).astype(np.float32) for shape in SHAPES]
GRADIENTS = [
    [GENERATOR.normal(size=(FOLDS, *shape)).astype(np.float32) for shape in SHAPES] for _ in range(STEPS)
]
CASES = {name: (kind, {}) for name, kind in optimizer_names().items() if not unsuitable(kind())}
CASES |= {
    "clipnorm": (keras.optimizers.Adam, {"clipnorm": 0.5}),
    "clipvalue": (keras.optimizers.SGD, {"clipvalue": 0.1, "momentum": 0.9}),
    "global_clipnorm": (keras.optimizers.SGD, {"global_clipnorm": 0.3}),
    "weight decay": (keras.optimizers.Adam, {"weight_decay": 0.1}),
    "accumulation": (keras.optimizers.Adam, {"gradient_accumulation_steps": 2, "clipnorm": 0.5}),
    "average": (keras.optimizers.SGD, {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}),
    "schedule": (
        keras.optimizers.SGD,
        {"learning_rate": keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.01])},
    ),
    "warm-up": (
        keras.optimizers.SGD,
        {"learning_rate": keras.optimizers.schedules.CosineDecay(0.0, 5, warmup_target=0.3, warmup_steps=2)},
    ),
}


def variables(fold):
    made = [keras.Variable(value[fold]) for value in WEIGHTS]
    made[0].constraint = keras.constraints.MaxNorm(1.5)
    return made


def keras_own(kind, options, fold):
    """The weights after Keras's own steps."""
    optimizer, weights = kind(**options), variables(fold)
    optimizer.build(weights)
    for gradients in GRADIENTS:
        optimizer.apply([tf.constant(g[fold]) for g in gradients], weights)
    return [w.numpy() for w in weights]


def initial(kind, options):
    """The optimizer's state at the start, stacked: of some kinds it holds the weights."""
    made = [make(kind(**options)) for _ in range(FOLDS)]
    for fold, optimizer in enumerate(made):
        optimizer.build(variables(fold))
    return [tf.stack([v.value for v in own]) for own in zip(*(o.variables for o in made), strict=True)]


def taken(kind, options):
    """The weights of all folds after the steps, as a function of tensors; and the variables that were lent."""
    weights = variables(0)
    optimizer = make(kind(**options))
    optimizer.build(weights)
    owned = [*weights, *optimizer.variables]

    def step(given):
        state, gradients = given
        with keras.StatelessScope(zip(owned, state, strict=True)) as scope:
            optimizer.apply(gradients)
        return [tf.convert_to_tensor(scope.get_current_value(v)) for v in owned]

    state = [*map(tf.constant, WEIGHTS), *initial(kind, options)]
    run = tf.function(lambda *given: vectorized_map(step, given))
    for gradients in GRADIENTS:
        state = run(state, [tf.constant(g) for g in gradients])
    return state[: len(SHAPES)], weights


@pytest.mark.parametrize("name", CASES)
def test_folds_side_by_side_take_the_steps_that_keras_takes_for_each(name):
    kind, options = CASES[name]
    after, lent = taken(kind, options)
    for fold in range(FOLDS):
        for got, wanted in zip(after, keras_own(kind, options, fold), strict=True):
            np.testing.assert_allclose(got[fold], wanted, rtol=1e-4, atol=1e-5)  # float32, in another order
    for variable, untouched in zip(lent, variables(0), strict=True):
        np.testing.assert_array_equal(variable.numpy(), untouched.numpy())


def test_the_one_optimizer_that_is_refused_still_differs():
    kind = keras.optimizers.ScheduleFreeAdamW
    assert unsuitable(kind()) is not None
    (after, *_), _ = taken(kind, {"learning_rate": 0.1})
    assert np.abs(after[0] - keras_own(kind, {"learning_rate": 0.1}, 0)[0]).max() > 1e-4


def test_an_optimizer_that_scales_the_loss_is_refused():
    assert unsuitable(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())) is not None
    assert unsuitable(keras.optimizers.Adam()) is None


def test_what_is_swapped_is_what_tensorflow_overrides():
    assert set(stateless_optimizer.overridden()) == {
        "_apply_weight_decay", "_backend_increment_gradient_accumulators", "_backend_update_step", "_var_key",
        "_overwrite_model_variables_with_average_value", "assign", "assign_add", "assign_sub", "stateless_apply",
    }  # fmt: skip


def test_an_optimizers_own_method_stays():
    class Signed(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, learning_rate * keras.ops.sign(gradient))

    weights = [keras.Variable([1.0, 2.0])]
    optimizer = make(Signed(0.5))
    optimizer.build(weights)
    after, _ = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], [tf.constant([0.1, -9.0])], [weights[0].value]
    )
    np.testing.assert_allclose(after[0], [0.5, 2.5])
    assert weights[0].numpy().tolist() == [1.0, 2.0]
