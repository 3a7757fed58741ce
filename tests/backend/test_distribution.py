"""Fails loudly when Keras moves a private name that tfbig.backend.distribution relies on."""

import numpy as np
import pytest

from tfbig.backend import keras, tf
from tfbig.backend.distribution import (
    as_loss,
    build_for,
    compile_arguments,
    compiled_loss,
    compiled_metrics,
    gradients_reduced_already,
    home_of,
    loss_tracker,
    mask_of,
    mirrored_strategy,
    name_in_logs,
    note_compiled_with,
    pipeline_stages,
    profiles_batches,
    record_losses_as_they_are,
    shuffles_of,
    undistributed,
)

X, Y = np.ones((6, 4), np.float32), np.arange(6, dtype=np.float32)[:, None]


def model(**options):
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_regularizer="l2")])
    made.compile(**{"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **options})
    return made


def specs():
    return tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (X, Y))


def test_build_for_makes_every_variable_that_training_needs():
    fresh, trained = model(), model()
    before = [w.copy() for w in fresh.get_weights()]
    build_for(fresh, specs())
    trained.fit(X, Y, verbose=0)
    assert len(fresh.optimizer.variables) == 6  # two moments each of kernel and bias, the step and the rate
    for name in ("optimizer", "metrics"):
        made, needed = (
            m.optimizer.variables if name == "optimizer" else m.metrics_variables for m in (fresh, trained)
        )
        assert [v.shape for v in made] == [v.shape for v in needed]
    # and computes nothing
    assert all(np.array_equal(a, b) for a, b in zip(before, fresh.get_weights(), strict=True))
    assert int(fresh.optimizer.iterations) == 0


def test_the_compiled_loss_is_that_of_the_data_alone():
    made = model(loss_weights=[3.0])
    build_for(made, specs())
    outputs = made(X)
    weight = np.arange(6, dtype=np.float32)
    expected = 3 * keras.losses.MeanSquaredError()(Y, outputs, weight)
    # float32; the product is taken before or after the mean.
    assert float(compiled_loss(made)(Y, outputs, weight)) == pytest.approx(float(expected), rel=1e-6)
    assert len(made.losses) == 1  # of the weights, which is not in it
    assert float(made.losses[0]) > 0


def test_the_compiled_metrics_are_those_in_the_logs():
    made = model(weighted_metrics=["mse"])
    build_for(made, specs())
    weight = np.array([1, 0, 0, 0, 0, 0], np.float32)
    compiled_metrics(made).update_state(Y, Y + np.array([[2.0], [4], [4], [4], [4], [4]]), weight)
    logs = made.get_metrics_result()
    assert float(logs["mae"]) == pytest.approx(22 / 6)
    assert float(logs["mse"]) == pytest.approx(4)
    assert compiled_metrics(model(metrics=None)) is None


def test_the_loss_tracker_is_the_loss_in_the_logs():
    made = model()
    build_for(made, specs())
    made.reset_metrics()
    loss_tracker(made).update_state(3.0, sample_weight=1)
    loss_tracker(made).update_state(5.0, sample_weight=3)
    assert float(made.get_metrics_result()["loss"]) == pytest.approx(4.5)


def test_losses_of_several_outputs_are_divided_by_what_keras_multiplies_them_with_over_replicas():
    inputs = keras.Input((4,))
    made = keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")})
    made.compile("sgd", {"a": "mse", "b": "mae"})
    y = {"a": Y, "b": Y}
    build_for(made, (X, y))
    expected = made.evaluate(X, y, batch_size=6, verbose=0, return_dict=True)
    record_losses_as_they_are(made, 3)
    made.reset_metrics()
    compiled_loss(made)(y, made(X))
    logs = made.get_metrics_result()
    for name in ("a_loss", "b_loss"):
        # Here it multiplies by 1; over replicas tests/training/test_replicas.py compares the logs.
        assert float(logs[name]) == pytest.approx(expected[name] / 3, rel=1e-6)


def test_compile_arguments_are_the_objects_themselves():
    def loss(y, p):
        return tf.abs(y - p)

    optimizer, metric = keras.optimizers.SGD(), keras.metrics.MeanSquaredError()
    made = model(
        optimizer=optimizer, loss=loss, metrics=[metric], loss_weights=[2.0], weighted_metrics=["mae"]
    )
    arguments = compile_arguments(made)
    assert arguments["optimizer"] is optimizer
    assert arguments["loss"] is loss
    assert arguments["metrics"][0] is metric
    assert (arguments["loss_weights"], arguments["weighted_metrics"]) == ([2.0], ["mae"])
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).compile(
        **arguments
    )  # takes each by its name
    arguments["loss"] = None
    assert compile_arguments(made)["loss"] is loss


@pytest.mark.parametrize("identifier", ["mse", keras.losses.mean_absolute_error, keras.losses.Huber(0.5)])
def test_a_loss_is_what_compile_makes_of_it(identifier):
    loss, made = as_loss(identifier), model(loss=identifier)
    build_for(made, specs())
    assert isinstance(loss, keras.losses.Loss)
    assert loss.reduction == "sum_over_batch_size"
    outputs = made(X)
    assert float(loss(Y, outputs)) == pytest.approx(float(compiled_loss(made)(Y, outputs)), rel=1e-6)


def test_a_loss_of_ones_own_keeps_its_name():
    def mine(y, p):
        return tf.reduce_mean(tf.abs(y - p), axis=-1)

    assert as_loss(mine).name == "mine"


def test_a_model_knows_the_strategy_in_whose_scope_it_was_made():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        assert home_of(keras.Sequential()) is strategy
    assert home_of(keras.Sequential()) is None


def test_undistributed_lets_keras_loop_as_for_one_device_and_binds_the_model_again():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        made = model()
    assert made.distribute_strategy is strategy
    with pytest.raises(RuntimeError, match="from the test"), undistributed(made):
        assert made.distribute_strategy is tf.distribute.get_strategy()
        given = []
        made.make_train_function = lambda: None
        made.train_function = lambda iterator: given.append(next(iterator)) or {"loss": 0.0}
        made.get_metrics_result = dict  # of metrics that no step has built
        made.fit(tf.data.Dataset.range(3), shuffle=False, verbose=0)
        assert [int(batch) for batch in given] == [0, 1, 2]  # plain tensors, not one for each replica
        raise RuntimeError("from the test")
    assert made.distribute_strategy is strategy


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1, 0.9),
    "Adam": lambda: keras.optimizers.Adam(clipnorm=1.0),
    "Nadam": lambda: keras.optimizers.Nadam(),  # updates by rules of its own
    "accumulating": lambda: keras.optimizers.Adam(gradient_accumulation_steps=2),
    "averaging": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=1),
    "scaling": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_keras_sums_gradients_over_replicas_in_one_place_which_is_passed_over(make):
    def stepped(block):
        optimizer, variable = make(), keras.Variable(np.ones(3, np.float32))
        optimizer.build([variable])
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        kind, calls = type(inner), []
        summing = kind._all_reduce_sum_gradients

        def counted(self, pairs):
            calls.append(1)
            return summing(self, pairs)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(kind, "_all_reduce_sum_gradients", counted)
            scale = float(optimizer.scale_loss(1.0))
            for _ in range(2):
                gradient = tf.constant([1.0, 2.0, 3.0]) * scale
                if block:
                    with gradients_reduced_already(optimizer):
                        optimizer.apply([gradient], [variable])
                else:
                    optimizer.apply([gradient], [variable])
        assert inner._all_reduce_sum_gradients.__func__ is summing  # nothing is left behind
        return len(calls), variable.numpy()

    (passed_over, ours), (summed, theirs) = stepped(True), stepped(False)
    assert passed_over == 0
    assert summed > 0
    np.testing.assert_array_equal(ours, theirs)
    assert (ours != 1).all()


def test_a_mirrored_strategy_is_made_once_for_its_devices_and_numbers_its_exchanges_by_itself():
    strategy = mirrored_strategy(("CPU:0",))
    assert strategy is mirrored_strategy(("CPU:0",))
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert type(strategy).__name__ == "MirroredStrategy"

    def first_key(of):
        return of.extended._collective_keys.get_group_key(["a", "b"])

    mirrored_strategy.cache_clear()
    keys = {
        first_key(one)
        for one in (strategy, mirrored_strategy(("CPU:0",)), tf.distribute.MirroredStrategy(["CPU:0"]))
    }
    assert len(keys) == 3


def test_stages_of_a_pipeline_lead_back_to_where_it_began():
    first, second = tf.data.Dataset.range(4), tf.data.Dataset.range(4)
    whole = tf.data.Dataset.zip((first.map(lambda i: i + 1), second)).batch(2).prefetch(1)
    found = [id(stage) for stage in pipeline_stages(whole)]
    assert {id(first), id(second), id(whole)} <= set(found)
    assert list(pipeline_stages(iter([1]))) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (False, True)),
        ({"seed": 1}, (True, True)),
        ({"reshuffle_each_iteration": False}, (False, False)),
        ({"seed": 1, "reshuffle_each_iteration": False}, (True, False)),
    ],
    ids=str,
)
def test_a_shuffle_tells_whether_it_has_a_seed_and_is_drawn_anew(options, expected):
    tf.random.set_seed(None)  # set, it would be every shuffle's
    stream = tf.data.Dataset.range(4).shuffle(4, **options).batch(2)
    assert shuffles_of(stream) == [expected]
    assert shuffles_of(tf.data.Dataset.range(4)) == []


def test_a_seed_for_all_is_a_shuffles_seed_too():
    tf.random.set_seed(3)
    assert shuffles_of(tf.data.Dataset.range(4).shuffle(4)) == [(True, True)]


def test_what_a_model_says_it_was_compiled_with_is_what_it_saves(tmp_path):
    made = model(loss="mse")
    note_compiled_with(made, loss="mae")
    made.save(tmp_path / "m.keras")
    assert keras.models.load_model(tmp_path / "m.keras").loss == "mae"
    assert made.loss == "mse"


def test_a_function_is_called_in_the_logs_what_keras_calls_it():
    def meanError(y, p):
        return keras.ops.abs(y - p)

    logs = model(metrics=[meanError]).evaluate(X, Y, verbose=0, return_dict=True)
    assert name_in_logs(meanError) in logs
    assert name_in_logs(meanError) == "mean_error"


def test_the_mask_of_outputs_is_the_one_that_metrics_weigh_by():
    steps = keras.layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 2, 0]]))
    np.testing.assert_array_equal(mask_of(steps), [[True, True, False]])
    assert mask_of(tf.zeros(2)) is None


def test_a_tensorboard_says_whether_it_profiles(tmp_path):
    assert not profiles_batches(keras.callbacks.TensorBoard(tmp_path))
    assert profiles_batches(keras.callbacks.TensorBoard(tmp_path, profile_batch=(2, 3)))
