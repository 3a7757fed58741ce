"""Copies of models with what Keras's own cloning loses: inner layers that are frozen, losses and metrics by code."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.backend.internals import every_layer
from tfbig.compression.copies import copy_model
from tfbig.errors import InvalidModel

L = keras.layers


def halved(y, outputs):
    return 0.5 * keras.ops.mean(keras.ops.square(y - outputs), axis=-1)


class Pinball(keras.losses.Loss):
    def __init__(self, share):
        super().__init__()
        self.share = share

    def call(self, y, outputs):
        return keras.ops.mean(
            keras.ops.maximum(self.share * (y - outputs), (self.share - 1) * (y - outputs)), axis=-1
        )


class Largest(keras.metrics.Metric):
    def __init__(self, name="largest", **options):
        super().__init__(name=name, **options)
        self.value = self.add_weight(name="value", initializer="zeros")

    def update_state(self, y, outputs, sample_weight=None):
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(keras.ops.abs(y - outputs))))

    def result(self):
        return self.value


def with_backbone():
    """A nested backbone that is frozen but for one layer inside, and a head."""
    inner = [keras.Input((4,)), L.Dense(8, activation="relu", name="one"), L.Dense(8, name="two")]
    backbone = keras.Sequential(inner, name="backbone")
    x = keras.Input((4,))
    model = keras.Model(x, L.Dense(1, name="head")(backbone(x)))
    backbone.trainable = False
    backbone.layers[1].trainable = True
    model.compile("sgd", "mse")
    return model


TECHNIQUES = {
    "prune": lambda model, *data, **options: tfbig.prune(model, *data, sparsity=0.5, **options),
    "cluster": lambda model, *data, **options: tfbig.cluster(model, *data, clusters=3, **options),
    "shrink": lambda model, *data, **options: tfbig.shrink(model, *data, importance="taylor", **options),
    "quantize_aware": tfbig.quantize_aware,
}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_is_frozen_and_what_is_not_inside_a_nested_model_stays_so(technique):
    model = with_backbone()
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    made = TECHNIQUES[technique](model, x, x[:, :1], epochs=2, verbose=0)
    layers = {layer.name: getattr(layer, "layer", layer) for layer in every_layer(made)}
    names = ("backbone_one", "backbone_two") if technique == "quantize_aware" else ("one", "two")
    assert [layers[name].kernel.trainable for name in names] == [False, True]
    assert len(made.trainable_weights) == len(model.trainable_weights) == 4


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("loss", [halved, Pinball(0.9)], ids=["function", "class"])
def test_losses_and_metrics_that_are_registered_nowhere_carry_over(technique, loss):
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, activation="relu"), L.Dense(1)])
    own = Largest()
    model.compile(keras.optimizers.SGD(0.02), loss, metrics=[own, halved])
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y = x[:, :1] + 1
    made = TECHNIQUES[technique](model, x, y, epochs=4, verbose=0)
    assert made.loss is loss
    assert made.optimizer is not model.optimizer
    assert float(made.optimizer.learning_rate) == pytest.approx(0.02)
    results = made.evaluate(x, y, return_dict=True, verbose=0)
    apart = np.abs(y - made.predict(x, verbose=0))
    assert results["largest"] == pytest.approx(apart.max(), rel=1e-5)  # float32
    assert results["halved"] == pytest.approx(np.mean(0.5 * apart**2), rel=1e-5)
    assert float(own.result()) == 0  # the copy's metric counts by itself


def test_a_plan_to_shrink_needs_no_loss_that_can_be_written_down():
    model = keras.Sequential([keras.Input((4,)), L.Dense(8), L.Dense(1)])
    model.compile("sgd", Pinball(0.9))
    assert tfbig.shrink_plan(model).after.parameters < model.count_params()


def test_a_layer_that_cannot_be_made_again_is_not_taken_for_a_subclassed_model():
    class Times(L.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return x * self.factor

    model = keras.Sequential([keras.Input((4,)), L.Dense(8), Times(2)])
    with pytest.raises(InvalidModel, match=r"a layer in it does not come back from its get_config\(\)"):
        copy_model(model, "Prune")


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_layers_of_code_are_copied(technique):
    layers = [keras.Input((4,)), L.Dense(8), L.Dense(8), L.Lambda(lambda x: 3 * x), L.Dense(1)]
    model = keras.Sequential(layers)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    options = {"epochs": 4, "batch_size": 8, "optimizer": keras.optimizers.SGD(0.0), "verbose": 0}
    changed = TECHNIQUES[technique](model, x, x[:, 0], **options)
    code = next(layer for layer in changed.layers if isinstance(layer, L.Lambda))
    assert code is not model.layers[2]
    assert np.array_equal(code(x), 3 * x)
