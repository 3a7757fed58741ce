"""What only a machine with GPUs can show. Run them alone there: `pytest -m gpu`."""

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf

layers = keras.layers
GPUS = tf.config.list_physical_devices("GPU")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="there is no GPU")]


def data():
    digits = tfbig.load_dataset("digits")
    return (digits.x[:301] / 16).astype("float32"), digits.y[:301]


def network():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3),
            layers.LayerNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def train(optimizer, **options):
    return tfbig.fit(
        network(), *data(), optimizer=optimizer, epochs=3, batch_size=32, seed=0, verbose=0, **options
    )


@pytest.fixture
def exact_arithmetic():
    """TF32 rounds factors to 10 bits, which would hide what is compared."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.mark.skipif(len(GPUS) < 2, reason="there are fewer than two GPUs")
@pytest.mark.parametrize(
    ("make", "tolerance"),
    # As between CPU replicas: sums are rounded in another order, and Adam divides by roots of small numbers. GPU
    # kernels also add in an order of their own, so ten times as much.
    [(lambda: keras.optimizers.SGD(0.1), 1e-4), (keras.optimizers.Adam, 5e-4)],
    ids=["SGD", "Adam"],
)
def test_all_gpus_give_the_weights_of_one(exact_arithmetic, make, tolerance):
    alone, together = train(make(), strategy=None), train(make(), strategy="auto")
    assert together.strategy == f"MirroredStrategy, {len(GPUS)} replicas"
    for a, b in zip(alone.model.get_weights(), together.model.get_weights(), strict=True):
        assert np.abs(a - b).max() <= tolerance


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_learns_as_float32_does(precision):
    before = keras.mixed_precision.dtype_policy().name
    run = train("adam", strategy="auto", precision=precision)
    assert keras.mixed_precision.dtype_policy().name == before
    plain = train("adam", strategy="auto")
    # Of 301 rows a handful may fall on the other side.
    assert run.history["accuracy"][-1] == pytest.approx(plain.history["accuracy"][-1], abs=0.05)
    assert all(np.isfinite(w).all() for w in run.model.get_weights())
