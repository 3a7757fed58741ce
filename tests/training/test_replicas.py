"""The same numbers on one device and on 2 and 4 replicas; `on_replicas.py` holds the cases and trains them."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.training.replicas import carry_weights, copied, trained_over

SCRIPT = Path(__file__).with_name("on_replicas.py")


def script():
    spec = importlib.util.spec_from_file_location("on_replicas", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = script()
# How far weights may be apart after 2 epochs: float32 sums in another order, which Adam's division by the root of
# small second moments amplifies, and so does the division by the standard deviation of a batch.
SGD, ADAM, BATCH_NORM = 1e-5, 5e-5, 1e-4
APART = {"weighted": ADAM, "accumulated": ADAM, "scaled": ADAM, "nadam": ADAM, "batch_norm": BATCH_NORM}
PAIRS = [(name, count) for name in CASES.NAMES for count in CASES.counts(name)[1:]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(weights by "case replicas i", histories by "case replicas", facts by name)."""
    folder = tmp_path_factory.mktemp("replicas")
    paths = [str(folder / name) for name in ("weights.npz", "histories.json", "facts.json")]
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *paths],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    with np.load(paths[0]) as stored:
        return dict(stored), *(json.loads(Path(path).read_text()) for path in paths[1:])


@pytest.mark.parametrize(("name", "count"), PAIRS, ids=str)
def test_replicas_train_the_same_weights_as_one_device(trained, name, count):
    weights, histories, _ = trained
    for replicas in (1, count):
        assert isinstance(histories[f"{name} {replicas}"], dict), histories[f"{name} {replicas}"]
    assert histories[f"{name} {count}"]["strategy"] == f"MirroredStrategy, {count} replicas"
    ours = [key for key in weights if key.startswith(f"{name} {count} ")]
    assert ours
    for key in ours:
        one = weights[f"{name} 1 {key.split()[2]}"]
        np.testing.assert_allclose(weights[key], one, rtol=0, atol=APART.get(name, SGD))


@pytest.mark.parametrize(("name", "count"), PAIRS, ids=str)
def test_replicas_measure_the_same_history_as_one_device(trained, name, count):
    one, several = (trained[1][f"{name} {replicas}"] for replicas in (1, count))
    assert set(one) == set(several)
    assert {"loss", "strategy"} < set(one)
    for metric in set(one) - {"strategy"}:
        # As far as weights may be apart, relative to values that sums make large; counts of rows are equal.
        assert several[metric] == pytest.approx(one[metric], rel=APART.get(name, SGD), abs=1e-6), metric


def test_cases_are_what_they_are_for(trained):
    """Or two equal results would show nothing."""
    weights, histories, _ = trained
    assert len(histories["best_weights 1"]["loss"]) < 6
    assert len(set(histories["best_weights 1"]["learning_rate"])) > 1
    kernel = weights["pruned 1 0"]
    assert (kernel == 0).mean() == pytest.approx(0.75, abs=0.01)
    np.testing.assert_array_equal(kernel == 0, weights["pruned 2 0"] == 0)
    for key in ("regularized 1 0", "one_step_at_a_time 1 0"):
        np.testing.assert_allclose(weights[key], weights["regularized 1 0"], atol=SGD)
    assert len(histories["area 1"]["val_auc"]) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "scalar_loss",
            "InvalidModel: The loss 'mean_of_all' gives one number for a whole batch.*one value per row",
        ),
        ("dice_loss", "InvalidModel: The loss 'dice' gives one number for a whole batch.*one value per row"),
        ("added_values", "InvalidModel: A layer of .* adds a loss of several values.*the mean over rows"),
        ("eagerly", "InvalidModel: .* runs eagerly, .* run_eagerly=False"),
        ("jit_compiled", 'InvalidOption: jit_compile=True: XLA compiles the step of one device only.*"auto"'),
    ],
)
def test_what_replicas_cannot_do_exactly_is_refused(trained, name, message):
    assert re.match(message, str(trained[2][name])), trained[2][name]


def test_a_builders_model_trains_in_the_precision_asked_for(trained):
    mixed, own = trained[2]["precision_of_a_builder"]
    assert mixed == ["bfloat16"] * 3 + ["float32"]  # the head keeps its digits
    assert own == ["float32"] * 4


def test_replicas_draw_dropout_masks_of_their_own(trained):
    """On one device the two rows have two masks, and so they must where each is on a replica of its own."""
    found = trained[2]["dropout_masks"]
    assert found["None"][0] != found["None"][1]
    assert found["2"][0] != found["2"][1]
    assert all(20 < sum(mask) < 44 for mask in found["2"])
    # What is kept between steps is one state, as on one device.
    assert found["state 2"] == found["state None"]


def test_a_model_that_a_callback_saves_is_loaded_with_the_users_loss(trained):
    kind, loaded, own = trained[2]["saved_by_a_callback"]
    assert kind == "SparseCategoricalCrossentropy"
    assert loaded == pytest.approx(own, rel=1e-5)  # two sums of float32


def test_an_optimizer_that_scales_the_loss_comes_back_with_its_state(trained):
    iterations, momentum = trained[2]["scaled_by_the_user"]
    assert iterations == 2 * 3
    assert momentum > 0


def test_a_root_of_a_mean_is_the_mean_of_the_replicas_own_and_kerass_metric_that_of_all(trained):
    """What the documentation says of it: no replica sees the whole batch."""
    root, kept = trained[2]["root_of_a_mean"]
    # Rows 0 and 1, and rows 2 and 3, each predicted as 0.
    assert root == pytest.approx((0.5**0.5 + 6.5**0.5) / 2)
    assert kept == pytest.approx((14 / 4) ** 0.5)


def compiled(model, **options):
    model.compile(**{"optimizer": "sgd", "loss": "mse", **options})
    return model


def small():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])


def test_a_copy_has_the_weights_and_settings_and_an_optimizer_of_its_own():
    model = small()
    model.layers[0].trainable = False
    compiled(
        model, optimizer=keras.optimizers.Adam(0.25), metrics=["mae", keras.metrics.MeanSquaredError("m")]
    )
    copy = copied(model)
    assert copy is not model
    for mine, theirs in zip(copy.variables, model.variables, strict=True):
        assert mine is not theirs
        np.testing.assert_array_equal(mine, theirs)
    assert not copy.layers[0].trainable
    assert copy.optimizer is not model.optimizer
    assert float(copy.optimizer.learning_rate) == 0.25


def test_a_copy_has_a_loss_and_a_metric_of_the_users_own():
    def loss(y, p):
        return tf.reduce_mean(tf.abs(y - p), axis=-1)

    model = compiled(small(), loss=loss, metrics=[loss])
    copy = copied(model)
    assert copy.loss is loss
    assert model.compiled
    assert "loss" in copy.evaluate(np.zeros((2, 4)), np.zeros((2, 2)), verbose=0, return_dict=True)


def test_weights_are_not_carried_between_models_that_differ():
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(InvalidModel, match="other variables; pass fit a function that builds it"):
        carry_weights(small(), other)


class Subclassed(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return {"loss": tf.zeros(())}


def test_what_cannot_be_made_again_or_trains_by_its_own_rules_is_refused_over_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    model = Subclassed(2)
    model(np.zeros((1, 4), np.float32))
    with (
        pytest.raises(InvalidModel, match="outside the strategy's scope.*Pass fit a function that builds it"),
        trained_over(strategy, compiled(model)),
    ):
        pass
    own = compiled(OwnStep([keras.Input((4,)), keras.layers.Dense(2)]))
    message = "train_step of its own, which tfbig cannot spread over replicas"
    with pytest.raises(InvalidModel, match=message), trained_over(strategy, own):
        pass


def test_the_users_model_has_what_was_trained_also_after_an_error():
    model = compiled(small(), optimizer=keras.optimizers.SGD(0.5, 0.9))
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with pytest.raises(KeyboardInterrupt), trained_over(strategy, model) as twin, strategy.scope():
        assert twin is not model
        twin.layers[0].kernel.assign(np.full((4, 2), 7.0))
        twin.optimizer.build(twin.trainable_variables)
        twin.optimizer.iterations.assign(5)
        raise KeyboardInterrupt
    assert (model.layers[0].kernel.numpy() == 7).all()
    assert int(model.optimizer.iterations) == 5


def test_without_a_strategy_the_model_trains_itself():
    model = compiled(small())
    with trained_over(None, model) as trained:
        assert trained is model


def test_a_fit_over_a_strategy_goes_on_with_the_optimizer_of_the_one_before(blobs):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    model = tfbig.models.mlp((4,), 3, hidden=(4,))
    for epochs in (1, 2):
        tfbig.fit(model, *blobs, strategy=strategy, epochs=1, optimizer=None, verbose=0)
        assert int(model.optimizer.iterations) == 7 * epochs


@pytest.mark.parametrize("spec", ["auto", "its own"])
def test_a_model_made_and_compiled_in_a_scope_trains_there_and_keeps_its_optimizers_state(blobs, spec):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = tfbig.models.mlp((4,), 3)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    run = tfbig.fit(model, *blobs, strategy=strategy if spec != "auto" else spec, epochs=1, verbose=0)
    assert run.strategy == "MirroredStrategy, 1 replica"
    assert model.distribute_strategy is strategy
    assert int(model.optimizer.iterations.numpy()) == -(-len(blobs[0]) // 32)
    assert all(np.abs(state.numpy()).max() > 0 for state in model.optimizer.variables[2:])


def test_a_model_of_one_strategy_is_not_trained_with_another(blobs):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = tfbig.models.mlp((4,), 3)
    for other in (None, tf.distribute.MirroredStrategy(["CPU:0"])):
        with pytest.raises(
            InvalidOption, match=r"made in the scope of a MirroredStrategy.*is another\. Leave"
        ):
            tfbig.fit(model, *blobs, strategy=other, verbose=0)
