"""Techniques that meet on one kernel in one training."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.compression.clusters import Cluster
from tfbig.compression.holding import Holding
from tfbig.errors import InvalidOption


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    model = tfbig.models.mlp((4,), 3, hidden=(16,))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def held(model):
    return [v for v in model.variables if isinstance(v.constraint, Holding)]


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (
            lambda: [tfbig.Prune(0.5), Cluster(4)],
            "Cluster cannot hold dense.*, logits: Prune does so in this",
        ),
        (
            lambda: [Cluster(4), tfbig.Prune(0.5)],
            "Prune cannot hold dense.*, logits: Cluster does so in this",
        ),
        (
            lambda: [tfbig.Prune(0.5), tfbig.Prune(0.7, layers="logits")],
            "Prune cannot hold logits: Prune does",
        ),
    ],
    ids=["Prune, Cluster", "Cluster, Prune", "two Prunes"],
)
def test_two_that_hold_the_same_kernel_are_refused_before_any_step(model, blobs, callbacks, message):
    before = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    with pytest.raises(InvalidOption, match=message):
        model.fit(*blobs, epochs=2, callbacks=callbacks(), verbose=0)
    assert int(model.optimizer.iterations) == 0
    # What the first one has put on comes off with the next training that holds kernels.
    model.fit(*blobs, epochs=2, callbacks=[tfbig.Prune(0.75)], verbose=0)
    assert tfbig.sparsity(model).overall == pytest.approx(0.75, abs=0.01)
    assert held(model) == []
    assert before[0].shape == (4, 16)


def test_each_may_hold_kernels_of_its_own(model, blobs):
    prune, few = tfbig.Prune(0.75, layers="logits"), Cluster(4, layers="dense*")
    model.fit(*blobs, epochs=3, callbacks=[prune, few], verbose=0)
    assert prune.report.overall == 0.75
    assert [layer.distinct for layer in few.report.layers] == [4]
    assert held(model) == []


def test_one_after_the_other_is_free_and_zeros_stay(model, blobs):
    model.fit(*blobs, epochs=3, callbacks=[tfbig.Prune(0.75)], verbose=0)
    zeros = [layer.kernel.numpy() == 0 for layer in model.layers if hasattr(layer, "kernel")]
    model.fit(*blobs, epochs=2, callbacks=[Cluster(4)], verbose=0)
    after = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    assert all((kernel[zero] == 0).all() for zero, kernel in zip(zeros, after, strict=True))
    assert max(len(np.unique(kernel)) for kernel in after) <= 4


def test_a_training_that_broke_off_leaves_nothing_to_the_other_technique(model, blobs):
    def fail(epoch, logs):
        raise RuntimeError("stopped by the test")

    broken = keras.callbacks.LambdaCallback(on_epoch_end=fail)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        model.fit(*blobs, callbacks=[tfbig.Prune(0.75), broken], verbose=0)
    assert held(model)
    few = Cluster(4, preserve_sparsity=False)
    model.fit(*blobs, epochs=2, callbacks=[few], verbose=0)
    assert held(model) == []
    assert sum(layer.zeros for layer in few.report.layers) == 0
