"""Zeros and shared values of what `quantize_aware` leaves in float."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tfbig
from tfbig.compression.holding import Holding

L = keras.layers
OPTIONS = {"epochs": 3, "batch_size": 16, "seed": 0, "verbose": 0}


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 6, 4)).astype("float32")
    return x, (x[:, :, 0].sum(1) > 0).astype(int)


@pytest.fixture(scope="module")
def thin(rows):
    """A recurrent and two dense layers, pruned. Shared by tests: none may change it."""
    keras.utils.set_random_seed(0)
    layers = [L.LSTM(8, name="lstm"), L.Dense(8, activation="relu", name="hidden"), L.Dense(2, name="logits")]
    return tfbig.prune(keras.Sequential([keras.Input((6, 4)), *layers]), *rows, sparsity=0.6, **OPTIONS)


@pytest.fixture(scope="module")
def few(rows, thin):
    """The same with five values a kernel. Shared by tests: none may change it."""
    return tfbig.cluster(thin, *rows, clusters=5, **OPTIONS)


def test_a_recurrent_layer_keeps_its_zeros(rows, thin):
    rounded = tfbig.quantize_aware(thin, *rows, **OPTIONS)
    assert "lstm" in tfbig.quantization(rounded).in_float
    cell, before = rounded.get_layer("lstm").cell, thin.get_layer("lstm").cell
    for name in ("kernel", "recurrent_kernel"):
        mine, theirs = getattr(cell, name).numpy(), getattr(before, name).numpy()
        assert 0.59 < (theirs == 0).mean() < 0.61
        assert np.array_equal(mine == 0, theirs == 0)
        assert not np.signbit(mine[mine == 0]).any()
        assert not np.array_equal(mine, theirs)  # what is not 0 trains
        assert getattr(cell, name).constraint is None


@pytest.mark.parametrize("per_channel", [False, True])
def test_layers_left_out_keep_zeros_and_shared_values(rows, thin, per_channel):
    shared = tfbig.cluster(thin, *rows, clusters=3, per_channel=per_channel, **OPTIONS)
    rounded = tfbig.quantize_aware(shared, *rows, layers="logits", **OPTIONS)
    kernels = {
        "hidden": lambda model: model.get_layer("hidden").kernel,
        "lstm": lambda model: model.get_layer("lstm").cell.recurrent_kernel,
    }
    for kernel_in in kernels.values():
        mine, theirs = kernel_in(rounded).numpy(), kernel_in(shared).numpy()
        assert (mine[theirs == 0] == 0).all()
        assert not np.array_equal(mine, theirs)
        rows_of = mine.T if per_channel else mine.reshape(1, -1)
        assert max(len(np.unique(row)) for row in rows_of) <= 3


def test_shared_values_of_float_layers_train_and_stay_to_the_file_format(rows, few, tmp_path):
    rounded = tfbig.quantize_aware(few, *rows, **OPTIONS)
    kernel = rounded.get_layer("lstm").cell.kernel.numpy()
    assert len(np.unique(kernel)) <= 5
    again = tfbig.load_model(tfbig.save_model(rounded, tmp_path / "model.keras"))
    assert np.array_equal(again.get_layer("lstm").cell.kernel, kernel)


@pytest.mark.parametrize(
    ("preserve", "zeros", "distinct"),
    [("zeros", True, False), ("clusters", False, True), (None, False, False)],
)
def test_only_what_is_asked_for_is_kept(rows, few, preserve, zeros, distinct):
    rounded = tfbig.quantize_aware(few, *rows, preserve=preserve, **OPTIONS)
    mine, theirs = (model.get_layer("lstm").cell.kernel.numpy() for model in (rounded, few))
    assert bool((mine[theirs == 0] == 0).all()) is zeros
    assert (len(np.unique(mine)) <= 5) is distinct


def test_a_constraint_of_the_user_and_one_of_a_callback_stay_on(rows):
    positive = keras.constraints.NonNeg()
    layers = [L.Dense(16, kernel_constraint=positive, name="float"), L.Flatten(), L.Dense(2, name="logits")]
    model = keras.Sequential([keras.Input((6, 4)), *layers])
    kernel = np.abs(model.layers[0].kernel.numpy())
    model.layers[0].kernel.assign(np.where(kernel > np.median(kernel), kernel, 0))
    rounded = tfbig.quantize_aware(model, *rows, layers="logits", **OPTIONS)
    mine = rounded.get_layer("float").kernel
    assert type(mine.constraint) is keras.constraints.NonNeg
    assert (mine.numpy() >= 0).all()
    assert (mine.numpy()[kernel <= np.median(kernel)] == 0).all()
    prune = tfbig.Prune(0.8, layers="float")
    rounded = tfbig.quantize_aware(model, *rows, layers="logits", callbacks=prune, **OPTIONS)
    assert prune.report.overall == pytest.approx(0.8, abs=0.01)
    assert not any(isinstance(v.constraint, Holding) for v in rounded.variables)


def test_weight_averaging_does_not_undo_it(rows, few):
    optimizer = keras.optimizers.Adam(use_ema=True)
    rounded = tfbig.quantize_aware(few, *rows, optimizer=optimizer, **OPTIONS)
    mine, theirs = (model.get_layer("lstm").cell.kernel.numpy() for model in (rounded, few))
    assert (mine[theirs == 0] == 0).all()
    assert len(np.unique(mine)) <= 5


OVER_REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import tfbig
x = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32"); y = (x[:, :, 0].sum(1) > 0).astype(int)
layers = [keras.layers.GRU(8, name="gru"), keras.layers.Dense(2, name="logits")]
model = keras.Sequential([keras.Input((6, 4)), *layers])
kernel = model.layers[0].cell.kernel.numpy()
model.layers[0].cell.kernel.assign(np.where(np.abs(kernel) > np.median(np.abs(kernel)), kernel, 0))
rounded = tfbig.quantize_aware(model, x, y, epochs=2, strategy=["CPU:0", "CPU:1"], verbose=0)
mine, theirs = (m.get_layer("gru").cell.kernel.numpy() for m in (rounded, model))
print(int(np.array_equal(mine == 0, theirs == 0)), int(np.array_equal(mine, theirs)))
"""


def test_zeros_stay_over_replicas():
    result = subprocess.run(
        [sys.executable, "-c", OVER_REPLICAS], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split()[-2:] == ["1", "0"]
