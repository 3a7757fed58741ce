"""Masks that the compiled step sets anew by itself: at the right steps, whatever optimizer and call they are in."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbig
from tfbig.backend.pruning import schedules
from tfbig.errors import InvalidOption
from tfbig.training.steps import choose_steps


def network(optimizer="adam", **compiling):
    keras.utils.set_random_seed(0)
    stack = [keras.Input((4,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(16, "relu")]
    model = keras.Sequential([*stack, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **compiling)
    return model


def kernels(model):
    return [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]


def share_of_zeros(model):
    return np.mean(np.concatenate([kernel.ravel() for kernel in kernels(model)]) == 0)


def by_hand(model, x, y, batch_size, updates, epochs):
    """Pruning as TFMOT describes it, step by step: masks from the weights, then zeros, then a gradient step."""
    from tfbig.backend.pruning import magnitude_mask

    masks, step = [np.ones_like(kernel) for kernel in kernels(model)], 0
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    for _ in range(epochs):
        for start in range(0, len(x), batch_size):
            if step in updates:
                masks = [magnitude_mask(layer.kernel, updates[step]).numpy() for layer in layers]
            for layer, mask in zip(layers, masks, strict=True):
                layer.kernel.assign(layer.kernel * mask)
            model.train_on_batch(x[start : start + batch_size], y[start : start + batch_size])
            step += 1
    for layer, mask in zip(layers, masks, strict=True):
        layer.kernel.assign(layer.kernel * mask)
    return kernels(model)


@pytest.mark.parametrize(("optimizer", "together"), [("sgd", 1), ("sgd", 64), ("adam", 4)])
def test_updates_come_at_their_own_steps_however_many_run_in_one_call(blobs, optimizer, together):
    x, y = blobs
    schedule = schedules().PolynomialDecay(0.1, 0.8, begin_step=3, end_step=24, frequency=7)
    updates = {update.step: update.sparsity for update in tfbig.Prune(schedule=schedule).plan_for(39)}
    assert list(updates) == [3, 10, 17, 24]
    expected = by_hand(network(optimizer), x, y, 16, updates, epochs=3)
    model = network(optimizer, steps_per_execution=together)
    options = {"epochs": 3, "batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[tfbig.Prune(schedule=schedule)], **options)
    for mine, theirs in zip(kernels(model), expected, strict=True):
        np.testing.assert_array_equal(mine == 0, theirs == 0)
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_fit_runs_whole_epochs_in_one_call(blobs):
    assert choose_steps("auto", 40, [tfbig.Prune(0.5)]) == 40
    schedule = schedules().ConstantSparsity(0.5, begin_step=2, end_step=30, frequency=1)
    expected = by_hand(network("sgd"), *blobs, 16, dict.fromkeys(range(2, 31), 0.5), epochs=3)
    model = network("sgd")
    callbacks = [tfbig.Prune(schedule=schedule)]
    tfbig.fit(model, *blobs, epochs=3, batch_size=16, shuffle=False, callbacks=callbacks, verbose=0)
    for mine, theirs in zip(kernels(model), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(use_ema=True, ema_momentum=0.9),
        lambda: keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=3),
        lambda: keras.optimizers.Adam(gradient_accumulation_steps=3),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
        lambda: keras.optimizers.AdamW(weight_decay=0.01, global_clipnorm=1.0),
    ],
    ids=["momentum", "average at the end", "average every 3 steps", "accumulation", "loss scale", "decay"],
)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_zeros_hold_with_every_kind_of_optimizer(blobs, optimizer, scope):
    model = network(optimizer())
    prune = tfbig.Prune(0.75, scope=scope)
    tfbig.fit(model, *blobs, epochs=4, batch_size=16, callbacks=[prune], verbose=0)
    # Rounding in each of three kernels.
    assert share_of_zeros(model) == pytest.approx(0.75, abs=0.5 * 3 / 688)
    assert prune.report.asked == (0.75 if scope == "global" else None)


def test_a_kernel_that_no_gradient_reaches_is_pruned_too(blobs):
    inputs = keras.Input((4,))
    unused = keras.layers.Dense(8, name="unused")(inputs)
    used = keras.layers.Dense(3, name="used")(inputs)
    model = keras.Model(inputs, {"a": unused, "b": used})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", {"a": None, "b": loss})
    prune = tfbig.Prune(0.5)
    model.fit(blobs[0], {"b": blobs[1]}, epochs=3, callbacks=[prune], verbose=0)
    assert {layer.name: layer.sparsity for layer in prune.report.layers} == {"unused": 0.5, "used": 0.5}


def test_a_step_of_the_users_own_that_calls_the_optimizer_twice_counts_batches(blobs):
    class Twice(keras.Model):
        def train_step(self, data):
            x, y = data
            for _ in range(2):
                with tf.GradientTape() as tape:
                    loss = self.compute_loss(x, y, self(x, training=True))
                gradients = tape.gradient(loss, self.trainable_variables)
                self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    class Watch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.zeros = []

        def on_train_batch_end(self, batch, logs=None):
            self.zeros.append(float(np.mean(self.model.layers[-1].kernel.numpy() == 0)))

    inputs = keras.Input((4,))
    model = Twice(inputs, keras.layers.Dense(4)(inputs))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    schedule, watch = schedules().PolynomialDecay(0.0, 0.5, 0, 20, power=1, frequency=10), Watch()
    model.fit(*blobs, epochs=4, callbacks=[tfbig.Prune(schedule=schedule), watch], verbose=0)
    assert len(watch.zeros) == 28
    assert watch.zeros[:8] == [0] * 8  # the second call of a batch may be early by one
    assert watch.zeros[10:18] == [0.25] * 8
    assert watch.zeros[20:] == [0.5] * 8


@pytest.mark.parametrize("traced", ["after", "before", "never"])
def test_a_loop_of_the_users_own_holds_masks_also_in_a_step_that_was_compiled_before(blobs, traced):
    x, y = (values[:96] for values in blobs)
    inputs = keras.Input((4,))
    model = keras.Sequential([inputs, keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    compiled = step if traced == "never" else tf.function(step)
    if traced == "before":
        compiled(x[:32], y[:32])
    schedule = schedules().PolynomialDecay(0.0, 0.5, 0, 8, power=1, frequency=4)
    callbacks = keras.callbacks.CallbackList(
        [tfbig.Prune(schedule=schedule)], model=model, epochs=5, steps=3, verbose=0
    )
    callbacks.on_train_begin()
    zeros = []
    for epoch in range(5):
        callbacks.on_epoch_begin(epoch)
        for batch in range(3):
            callbacks.on_train_batch_begin(batch)
            compiled(x[32 * batch : 32 * batch + 32], y[32 * batch : 32 * batch + 32])
            callbacks.on_train_batch_end(batch)
            zeros.append([float(np.mean(layer.kernel.numpy() == 0)) for layer in model.layers])
        callbacks.on_epoch_end(epoch)
    callbacks.on_train_end()
    assert zeros == [[0, 0]] * 3 + [[0.25, 0.25]] * 4 + [[0.5, 0.5]] * 8


def test_weights_saved_inside_the_training_hold_the_zeros(blobs, tmp_path):
    schedule = schedules().ConstantSparsity(0.5, begin_step=4, end_step=4, frequency=1)
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    model = network(keras.optimizers.Adam(0.01))
    tfbig.fit(model, *blobs, epochs=3, callbacks=[tfbig.Prune(schedule=schedule), save], verbose=0)
    again = network()
    for epoch in (1, 2, 3):
        again.load_weights(tmp_path / f"{epoch}.weights.h5")
        assert share_of_zeros(again) == 0.5


def test_a_constraint_of_the_users_own_acts_before_masks_are_found(blobs):
    keep = keras.constraints.UnitNorm()
    layers = [keras.Input((4,)), keras.layers.Dense(8, kernel_constraint=keep), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.layers[0].kernel.assign(np.random.default_rng(0).normal(size=(4, 8)) * np.arange(1, 9))
    schedule = schedules().ConstantSparsity(0.5, begin_step=1, end_step=1, frequency=1)
    model.fit(*blobs, epochs=1, batch_size=100, callbacks=[tfbig.Prune(schedule=schedule)], verbose=0)
    # Without the norm, large columns would keep all of their weights and small ones none.
    zeros = (model.layers[0].kernel.numpy() == 0).sum(axis=0)
    assert zeros.sum() == 16
    assert zeros.max() < 4


def test_a_schedule_says_when_m_zeros_of_n_are_found(blobs):
    class Watch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.zeros = []

        def on_train_batch_end(self, batch, logs=None):
            self.zeros.append(share_of_zeros(self.model))

    watch = Watch()
    # Its own sparsity is not used, so that it may end anywhere.
    schedule = schedules().PolynomialDecay(0.0, 0.9, begin_step=3, end_step=10, frequency=4)
    prune = tfbig.Prune(m_by_n=(1, 4), schedule=schedule)
    assert [(update.step, update.sparsity) for update in prune.plan_for(14)] == [(3, 0.25), (7, 0.25)]
    network("sgd").fit(*blobs, epochs=2, callbacks=[prune, watch], verbose=0)
    assert watch.zeros == [0] * 2 + [0.25] * 12
    with pytest.raises(InvalidOption, match="ends at step 10, but training has 10 steps"):
        prune.plan_for(10)


def test_one_callback_serves_two_trainings(blobs):
    prune = tfbig.Prune(0.5)
    for _ in range(2):
        model = network()
        tfbig.fit(model, *blobs, epochs=3, callbacks=[prune], verbose=0)
        assert share_of_zeros(model) == pytest.approx(0.5, abs=0.002)


# One step in a call of Keras's own: it cannot do several over replicas, pruned or not.
IN_REPLICAS = """
import json
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, tfbig
x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32"); y = (x[:, 0] > 0).astype(int)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
found, mirrored = {}, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for scope in ("layer", "global"):
    for own in (True, False):
        for name, strategy in (("one", None), ("two", mirrored)):
            with (tf.distribute.get_strategy() if own or not strategy else strategy).scope():
                keras.utils.set_random_seed(0)
                model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
                model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
            prune = tfbig.Prune(0.75, scope=scope)
            options = dict(batch_size=16, epochs=6, shuffle=False, callbacks=[prune], verbose=0)
            if own:
                tfbig.fit(model, x, y, strategy=strategy, **options)
            else:
                model.fit(x, y, **options)
            found[name] = model.get_weights()
        apart = max(float(np.abs(a - b).max()) for a, b in zip(found["one"], found["two"]))
        zeros = [float(np.mean(found[name][0] == 0)) for name in found]
        print(json.dumps([scope, own, apart, zeros]))
"""


def test_replicas_prune_as_one_device_does():
    result = subprocess.run([sys.executable, "-c", IN_REPLICAS], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 4
    for scope, _, apart, zeros in lines:
        assert apart < 1e-5  # the order of sums; a mask that differs would be a whole weight
        assert zeros[0] == zeros[1] > 0.5
        assert scope == "global" or zeros[0] == 0.75
