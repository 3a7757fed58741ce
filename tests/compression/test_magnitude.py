import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfbig
from tfbig.backend.pruning import schedules
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption


def kernels(model):
    return [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]


def share_of_zeros(model):
    values = np.concatenate([kernel.ravel() for kernel in kernels(model)])
    return (values == 0).mean()


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return tfbig.models.mlp((4,), 3, hidden=(32, 16))


def test_pruning_reaches_the_sparsity_in_every_kernel_and_stays_accurate(digits, digits_model):
    thin = tfbig.prune(
        digits_model, digits.x_train, digits.y_train, sparsity=0.8, epochs=10, seed=0, verbose=0
    )
    for layer in tfbig.sparsity(thin).layers:
        # Half a weight of rounding per kernel.
        assert layer.sparsity == pytest.approx(0.8, abs=0.5 / layer.weights + 1e-9)
    dense = tfbig.evaluate(digits_model, digits.x_test, digits.y_test)["accuracy"]
    # 360 held-out rows: 3 points is 11 rows; a broken mask update costs ten times that.
    assert tfbig.evaluate(thin, digits.x_test, digits.y_test)["accuracy"] >= dense - 0.03


def test_the_given_model_is_not_changed(model, blobs):
    before = model.get_weights()
    thin = tfbig.prune(model, *blobs, sparsity=0.5, epochs=3, verbose=0)
    assert thin is not model
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_result_is_a_plain_model_that_saves_loads_and_predicts_the_same(model, blobs, tmp_path):
    thin = tfbig.prune(model, *blobs, sparsity=0.5, epochs=3, verbose=0)
    assert all(layer.kernel.constraint is None for layer in thin.layers if hasattr(layer, "kernel"))
    again = tfbig.load_model(tfbig.save_model(thin, tmp_path / "thin.keras"))
    assert type(again) is keras.Sequential
    assert np.array_equal(again(blobs[0]), thin(blobs[0]))


@pytest.mark.parametrize("steps_per_execution", [1, 5, 64])
def test_zeros_hold_in_a_bare_fit_with_any_steps_per_execution_and_momentum(
    model, blobs, steps_per_execution
):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, loss, steps_per_execution=steps_per_execution)
    prune = tfbig.Prune(0.75)
    model.fit(*blobs, epochs=8, batch_size=16, callbacks=[prune], verbose=0)
    assert share_of_zeros(model) == pytest.approx(0.75, abs=0.01)  # rounding in kernels of 48 weights
    assert prune.report.overall == share_of_zeros(model)


def test_masks_hold_inside_the_step_after_the_last_update(model, blobs):
    class Watch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.zeros = []

        def on_train_batch_end(self, batch, logs=None):
            self.zeros.append(share_of_zeros(self.model))

    watch = Watch()
    schedule = schedules().ConstantSparsity(0.5, begin_step=0, end_step=0, frequency=1)
    compiled(model).fit(*blobs, epochs=2, callbacks=[watch, tfbig.Prune(schedule=schedule)], verbose=0)
    assert len(watch.zeros) == 14
    assert min(watch.zeros) >= 0.5


def test_a_model_that_was_trained_before_is_masked_and_is_free_again_after(model, blobs):
    compiled(model).fit(*blobs, epochs=1, verbose=0)
    model.fit(*blobs, epochs=4, callbacks=[tfbig.Prune(0.5)], verbose=0)
    assert share_of_zeros(model) == pytest.approx(0.5, abs=0.01)
    model.fit(*blobs, epochs=1, verbose=0)
    assert share_of_zeros(model) < 0.25  # not 0: what feeds a dead ReLU has no gradient


def test_a_constraint_of_the_user_is_kept(blobs):
    unit = keras.constraints.UnitNorm()
    layers = [keras.Input((4,)), keras.layers.Dense(8, kernel_constraint=unit), keras.layers.Dense(3)]
    model = compiled(keras.Sequential(layers))
    model.fit(*blobs, epochs=4, callbacks=[tfbig.Prune(0.5)], verbose=0)
    assert model.layers[0].kernel.constraint is unit


def test_weight_averaging_does_not_undo_the_zeros(model, blobs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(use_ema=True), loss)
    model.fit(*blobs, epochs=4, callbacks=[tfbig.Prune(0.5)], verbose=0)
    assert share_of_zeros(model) == pytest.approx(0.5, abs=0.01)


def test_blocks_are_dropped_whole(model, blobs):
    thin = tfbig.prune(model, *blobs, sparsity=0.5, block_size=(1, 4), layers="dense*", epochs=3, verbose=0)
    report = tfbig.sparsity(thin)
    kernel = thin.layers[0].kernel.numpy()
    zeros_per_block = (kernel.reshape(4, 8, 4) == 0).sum(axis=2)
    assert set(np.unique(zeros_per_block)) == {0, 4}
    assert report.layers[-1].zeros == 0


@pytest.mark.parametrize(
    ("layers", "pruned"),
    [
        ("logits", [False, False, True]),
        (["dense_a", "logits"], [True, False, True]),
        ("dense_*", [True, True, False]),
        (keras.layers.Dense, [True, True, True]),
        (lambda layer: layer.units == 8, [False, True, False]),
    ],
)
def test_layers_are_chosen_by_name_pattern_type_or_function(blobs, layers, pruned):
    stack = [
        keras.Input((4,)),
        keras.layers.Dense(16, name="dense_a"),
        keras.layers.Dense(8, name="dense_b"),
        keras.layers.Dense(3, name="logits"),
    ]
    callback = tfbig.Prune(0.5, layers=layers)
    model = compiled(keras.Sequential(stack))
    model.fit(*blobs, epochs=3, callbacks=[callback], verbose=0)
    assert [bool((kernel == 0).any()) for kernel in kernels(model)] == pruned
    assert [name in callback.report.skipped for name in ("dense_a", "dense_b", "logits")] == [
        not p for p in pruned
    ]


def test_the_report_names_what_was_asked_reached_and_skipped(blobs):
    model = compiled(tfbig.models.mlp((4,), 3, hidden=(16,), batch_norm=True))
    callback = tfbig.Prune(0.5)
    model.fit(*blobs, epochs=3, callbacks=[callback], verbose=0)
    assert [layer.asked for layer in callback.report.layers] == [0.5, 0.5]
    assert list(callback.report.skipped.values()) == ["normalization is left alone"]
    assert "skipped: normalization is left alone" in str(callback.report)


def test_a_tfmot_schedule_is_taken_as_it_is(model, blobs):
    schedule = schedules().PolynomialDecay(0.1, 0.6, begin_step=2, end_step=12, frequency=5)
    callback = tfbig.Prune(schedule=schedule)
    assert [update.step for update in callback.plan_for(20)] == [2, 7, 12]
    compiled(model).fit(*blobs, epochs=3, callbacks=[callback], verbose=0)
    assert callback.report.overall == pytest.approx(0.6, abs=0.01)


def test_training_that_stops_before_the_schedule_ends_is_said(model, blobs):
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", True)
    )
    with pytest.warns(UserWarning, match=r"Training stopped after 7 of 70 steps.*at \d+\.\d% instead of 50%"):
        compiled(model).fit(*blobs, epochs=10, callbacks=[tfbig.Prune(0.5), stop], verbose=0)


@pytest.mark.parametrize("first", [0, 5, 9])
def test_epochs_count_from_the_first_one(model, blobs, first):
    prune = tfbig.Prune(0.75)
    compiled(model).fit(*blobs, initial_epoch=first, epochs=10, callbacks=[prune], verbose=0)
    assert share_of_zeros(model) == pytest.approx(0.75, abs=0.01)


def test_no_epoch_prunes_nothing(model, blobs):
    prune = tfbig.Prune(0.75)
    compiled(model).fit(*blobs, initial_epoch=3, epochs=3, callbacks=[prune], verbose=0)
    assert prune.report.overall == 0


def test_a_frozen_layer_is_skipped_with_the_reason(model, blobs):
    model.layers[0].trainable = False
    before = model.layers[0].kernel.numpy()
    report = tfbig.sparsity(tfbig.prune(model, *blobs, sparsity=0.75, epochs=3, verbose=0))
    assert report.layers[0].sparsity == 0
    assert "it is frozen" in report.skipped[model.layers[0].name]
    assert [layer.asked for layer in report.layers] == [None, 0.75, 0.75]
    model.trainable = False
    with pytest.raises(InvalidModel, match="no kernel that trains"):
        tfbig.prune(model, *blobs, sparsity=0.75)
    assert np.array_equal(before, model.layers[0].kernel)


def test_best_weights_of_an_earlier_epoch_come_back_sparse(model, blobs):
    falling = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(score=-epoch))
    early = keras.callbacks.EarlyStopping("score", mode="max", patience=50, restore_best_weights=True)
    thin = tfbig.prune(model, *blobs, sparsity=0.75, epochs=6, callbacks=[falling, early], verbose=0)
    assert early.best_epoch == 0
    assert share_of_zeros(thin) == pytest.approx(0.75, abs=0.01)


def test_a_training_that_fails_leaves_the_model_without_masks(model, blobs):
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("stopped by the test")

    with pytest.raises(RuntimeError, match="stopped by the test"):
        compiled(model).fit(*blobs, epochs=3, callbacks=[tfbig.Prune(0.5), Fail()], verbose=0)
    model.fit(*blobs, epochs=3, callbacks=[tfbig.Prune(0.75)], verbose=0)
    assert share_of_zeros(model) == pytest.approx(0.75, abs=0.01)
    assert all(layer.kernel.constraint is None for layer in model.layers if hasattr(layer, "kernel"))


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, "most", float("nan")])
def test_a_sparsity_outside_the_interval_is_refused(sparsity):
    with pytest.raises(InvalidOption, match=r"sparsity must be a number in \[0, 1\)"):
        tfbig.Prune(sparsity)


def test_none_or_several_aims_are_refused(model, blobs):
    with pytest.raises(InvalidOption, match=r"Give one of sparsity= .* got none"):
        tfbig.prune(model, *blobs)
    with pytest.raises(InvalidOption, match="got sparsity and schedule"):
        tfbig.Prune(0.5, schedule=schedules().ConstantSparsity(0.5, 0))
    with pytest.raises(InvalidOption, match="got sparsity and m_by_n"):
        tfbig.Prune(0.5, m_by_n=(2, 4))


def test_a_schedule_that_outlasts_the_training_is_refused_before_it(model, blobs):
    schedule = schedules().PolynomialDecay(0.0, 0.5, begin_step=0, end_step=1000)
    before = model.get_weights()
    with pytest.raises(InvalidOption, match="ends at step 1000, but training has 14 steps"):
        compiled(model).fit(*blobs, epochs=2, callbacks=[tfbig.Prune(schedule=schedule)], verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not any(variable.constraint for variable in model.variables)


def test_something_that_is_no_schedule_is_refused():
    with pytest.raises(InvalidOption, match=r"must be a tfmot.sparsity.keras.PruningSchedule.*got dict"):
        tfbig.Prune(schedule={"final_sparsity": 0.5})


def test_a_block_on_a_kernel_that_is_not_two_dimensional_is_refused():
    model = compiled(tfbig.models.cnn((8, 8, 1), 3, filters=(4,)))
    x, y = np.zeros((32, 8, 8, 1), "float32"), np.zeros(32, int)
    with pytest.raises(InvalidOption, match="needs two-dimensional kernels; these are not: conv2d"):
        model.fit(x, y, epochs=2, callbacks=[tfbig.Prune(0.5, block_size=(1, 4))], verbose=0)


@pytest.mark.parametrize("block_size", [4, (1, 0), (2, 2, 2), "1x4"])
def test_a_block_that_is_no_pair_of_sizes_is_refused(block_size):
    with pytest.raises(InvalidOption, match="block_size"):
        tfbig.Prune(0.5, block_size=block_size)


def test_a_layer_name_that_matches_none_gets_did_you_mean(model, blobs):
    with pytest.raises(InvalidOption, match=r"layers='logit' matches no layer. Did you mean 'logits'"):
        tfbig.prune(model, *blobs, sparsity=0.5, layers="logit")


def test_a_model_without_kernels_is_refused(blobs):
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    with pytest.raises(InvalidModel, match="no kernel to compress; skipped"):
        tfbig.prune(model, *blobs, sparsity=0.5)


def test_a_subclassed_model_is_pointed_to_the_callback(blobs):
    class Net(keras.Model):
        def __init__(self, width):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Net(3)
    model(blobs[0])
    with pytest.raises(InvalidModel, match="subclassed one, train it in place with the Prune callback"):
        tfbig.prune(model, *blobs, sparsity=0.5)
    compiled(model).fit(*blobs, epochs=3, callbacks=[tfbig.Prune(0.5)], verbose=0)
    assert (model.dense.kernel.numpy() == 0).mean() == 0.5


def test_a_misspelt_option_of_fit_gets_did_you_mean(model, blobs):
    with pytest.raises(UnknownOption, match=r"prune\(\) has no option 'epoch'. Did you mean 'epochs'"):
        tfbig.prune(model, *blobs, sparsity=0.5, epoch=3)


def test_a_stream_of_unknown_length_is_refused(model, blobs):
    def stream():
        while True:
            yield blobs

    with pytest.raises(InvalidData, match="how long an epoch is"):
        compiled(model).fit(stream(), steps_per_epoch=None, epochs=1, callbacks=[tfbig.Prune(0.5)], verbose=0)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.LSTM(8)],
        [keras.layers.Bidirectional(keras.layers.GRU(4))],
        [keras.layers.SeparableConv1D(8, 3), keras.layers.Flatten()],
        [keras.Sequential([keras.layers.Conv1D(8, 3)]), keras.layers.Flatten()],
    ],
    ids=["LSTM", "Bidirectional", "SeparableConv1D", "nested"],
)
def test_every_kind_of_layer_ends_at_the_sparsity(layers):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(64, 6, 4)).astype("float32"), generator.integers(0, 3, 64)
    model = keras.Sequential([keras.Input((6, 4)), *layers, keras.layers.Dense(3)])
    thin = tfbig.prune(
        keras.models.clone_model(model), x, y, sparsity=0.5, epochs=5, batch_size=16, verbose=0
    )
    for layer in tfbig.sparsity(thin).layers:
        assert layer.sparsity == pytest.approx(0.5, abs=0.51 / layer.weights)


UNDER_A_STRATEGY = """
import json
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, tfbig
x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32"); y = (x[:, 0] > 0).astype(int)
found = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    prune = tfbig.Prune(0.75)
    model.fit(x, y, batch_size=16, epochs=6, shuffle=False, callbacks=[prune], verbose=0)
    found.append([prune.report.overall, [w.tolist() for w in model.get_weights()]])
apart = max(np.abs(np.subtract(a, b)).max() for a, b in zip(found[0][1], found[1][1]))
print(json.dumps([found[0][0], found[1][0], float(apart)]))
"""


def test_two_replicas_prune_the_same_weights_as_one_device():
    result = subprocess.run(
        [sys.executable, "-c", UNDER_A_STRATEGY], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    one, two, apart = json.loads(result.stdout.splitlines()[-1])
    assert one == two == pytest.approx(0.75, abs=0.01)  # rounding in a kernel of 32
    assert apart < 1e-5  # the order of sums; a mask that differs would be a whole weight


def test_zeros_are_plus_zero_which_compresses_best(model, blobs):
    thin = tfbig.prune(model, *blobs, sparsity=0.75, epochs=3, verbose=0)
    assert not any(np.signbit(kernel[kernel == 0]).any() for kernel in kernels(thin))


def test_a_pruned_copy_keeps_what_an_adapted_normalizer_learned():
    normalizer = keras.layers.Normalization()
    normalizer.adapt(np.array([[0.0, 100.0], [2.0, 300.0]]))
    model = keras.Sequential([keras.Input((2,)), normalizer, keras.layers.Dense(4), keras.layers.Dense(1)])
    x = np.array([[1.0, 150.0], [0.5, 250.0]], np.float32)
    optimizer = keras.optimizers.SGD(1e-12)  # nothing moves, so that only the copy could change the outputs
    thin = tfbig.prune(model, x, x[:, :1], sparsity=0.0, epochs=2, optimizer=optimizer, loss="mse", verbose=0)
    np.testing.assert_allclose(thin.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
