"""What happens when a user goes on with a compressed model: it is a plain Keras model, and its report keeps up."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.errors import InvalidModel

L = keras.layers


@pytest.fixture
def thin(blobs):
    stack = [keras.Input((4,)), L.Dense(16, name="first"), L.BatchNormalization(name="norm")]
    model = keras.Sequential([*stack, L.Dense(8, name="second"), L.Dense(3, name="head")])
    return tfbig.prune(model, *blobs, sparsity=0.5, epochs=2, verbose=0)


def by_name(model):
    return {layer.name: (layer.asked, layer.sparsity) for layer in tfbig.sparsity(model).layers}


def test_a_layer_taken_off_leaves_the_report(thin, blobs):
    thin.pop()
    assert by_name(thin) == {"first": (0.5, 0.5), "second": (0.5, 0.5)}
    thin.add(L.Dense(3, name="new"))
    assert by_name(thin) == {"first": (0.5, 0.5), "second": (0.5, 0.5), "new": (None, 0.0)}
    # It trains and is pruned again; the new layer with it.
    again = tfbig.prune(thin, *blobs, sparsity=0.75, epochs=2, verbose=0)
    assert {name: asked for name, (asked, _) in by_name(again).items()} == dict.fromkeys(
        ("first", "second", "new"), 0.75
    )


def test_a_skipped_layer_that_was_taken_off_is_not_listed(blobs):
    stack = [keras.Input((4,)), L.Dense(16, name="first"), L.Dense(8, name="second")]
    thin = tfbig.prune(keras.Sequential(stack), *blobs, sparsity=0.5, layers="first", epochs=2, verbose=0)
    assert set(tfbig.sparsity(thin).skipped) == {"second"}
    thin.pop()
    assert tfbig.sparsity(thin).skipped == {}


def test_weights_that_are_set_anew_are_measured_as_they_are(thin):
    kernel, bias = thin.get_layer("first").get_weights()
    thin.get_layer("first").set_weights([np.ones_like(kernel), bias])
    assert by_name(thin)["first"] == (0.5, 0.0)
    line = next(line for line in str(tfbig.sparsity(thin)).splitlines() if line.startswith("first"))
    assert line.endswith("fewer than asked")


def test_training_on_without_prune_is_said_by_the_report_and_with_it_keeps_zeros(thin, blobs):
    tfbig.fit(thin, *blobs, epochs=1, verbose=0)
    assert by_name(thin)["first"][1] < 0.5
    tfbig.fit(thin, *blobs, epochs=2, callbacks=[tfbig.Prune(0.5)], verbose=0)
    assert by_name(thin)["first"] == (0.5, 0.5)


def test_a_layer_that_is_frozen_afterwards_keeps_its_zeros(thin, blobs):
    thin.get_layer("first").trainable = False
    again = tfbig.prune(thin, *blobs, sparsity=0.75, epochs=2, verbose=0)
    assert by_name(again)["first"] == (None, 0.5)
    assert "it is frozen" in tfbig.sparsity(again).skipped["first"]


def test_all_layers_taken_off_is_an_error(thin):
    while thin.layers:
        thin.pop()
    with pytest.raises(InvalidModel, match=r"no kernel|no weights yet"):
        tfbig.sparsity(thin)


def test_clusters_are_counted_as_they_are_after_every_edit(blobs):
    stack = [keras.Input((4,)), L.Dense(16, name="first"), L.Dense(3, name="head")]
    few = tfbig.cluster(keras.Sequential(stack), *blobs, clusters=4, epochs=1, verbose=0)
    assert [layer.distinct for layer in tfbig.clusters(few).layers] == [4, 4]
    tfbig.fit(few, *blobs, epochs=1, verbose=0)
    assert all(layer.distinct > 4 for layer in tfbig.clusters(few).layers)
    few.pop()
    few.add(L.Dense(3, name="new"))
    again = tfbig.cluster(few, *blobs, clusters=4, epochs=1, verbose=0)
    assert {layer.name: layer.distinct for layer in tfbig.clusters(again).layers} == {"first": 4, "new": 4}


def test_a_subclassed_model_is_pruned_clustered_and_measured_in_place(blobs):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.head = L.Dense(16, "relu"), L.Dense(3)

        def call(self, x):
            return self.head(self.first(x))

    model = Net()
    model(blobs[0])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for technique, callback in ((tfbig.prune, "Prune"), (tfbig.cluster, "Cluster")):
        option = {"sparsity": 0.5} if callback == "Prune" else {}
        with pytest.raises(
            InvalidModel, match=f"subclassed one, train it in place with the {callback} callback"
        ):
            technique(model, *blobs, **option)
    with pytest.raises(InvalidModel, match=r"Pruning and clustering work on it, by the Prune and Cluster"):
        tfbig.shrink(model)
    model.fit(*blobs, epochs=3, callbacks=[tfbig.Prune(0.5)], verbose=0)
    model.fit(*blobs, epochs=1, callbacks=[tfbig.Cluster(4)], verbose=0)
    assert [layer.sparsity for layer in tfbig.sparsity(model).layers] == [0.5, 0.5]
    assert [layer.distinct for layer in tfbig.clusters(model).layers] == [4, 4]
    assert tfbig.summary(model).parameters == model.count_params()
