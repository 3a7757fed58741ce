"""Metrics by name read the outputs as the loss does; those that cannot are refused."""

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidOption
from tfbig.training.metrics import get_metrics, metric_names

LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
LIKELY = keras.losses.BinaryCrossentropy()
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
BITS = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize("name", ["accuracy", "acc", "binary_accuracy", "BinaryAccuracy"])
@pytest.mark.parametrize(
    ("loss", "cut"),
    [(LOGITS, 0.0), (LIKELY, 0.5), ("hinge", 0.0)],
    ids=["logits", "probabilities", "margins"],
)
def test_accuracy_by_name_cuts_where_the_loss_does(name, loss, cut):
    (metric,) = get_metrics([name], loss)
    assert (type(metric), metric.threshold, metric.name) == (keras.metrics.BinaryAccuracy, cut, name)


def test_metrics_by_name_are_those_of_evaluate():
    model = tfbig.models.mlp((4,), 1, task="binary", hidden=(8,))
    options = {"loss": "binary_focal_crossentropy", "metrics": ["accuracy", "auc", "precision", "recall"]}
    options |= {"epochs": 2, "verbose": 0}
    run = tfbig.fit(model, X, BITS, validation_data=(X, BITS), seed=0, **options)
    scores = tfbig.evaluate(model, X, BITS)
    for name in ("accuracy", "precision", "recall"):
        assert run.history[f"val_{name}"][-1] == pytest.approx(scores[name])
    # Keras sums 200 thresholds up.
    assert run.history["val_auc"][-1] == pytest.approx(scores["roc_auc"], abs=0.01)


def test_a_cross_entropy_by_name_is_told_of_logits():
    (metric,) = get_metrics(["sparse_categorical_crossentropy"], CLASSES)
    assert metric.get_config()["from_logits"] is True
    assert get_metrics(["binary_crossentropy"], LIKELY) == ["binary_crossentropy"]


@pytest.mark.parametrize(
    "metric",
    [
        keras.metrics.BinaryIoU(),
        keras.metrics.Precision(),
        keras.metrics.TruePositives(thresholds=0.5),
        keras.metrics.AUC(),
        keras.metrics.BinaryAccuracy(),
        keras.metrics.F1Score(threshold=0.5),
        "f1_score",
        keras.metrics.BinaryCrossentropy(),
    ],
    ids=lambda metric: metric if isinstance(metric, str) else f"{metric.name} object",
)
def test_what_would_read_logits_as_probabilities_is_refused(metric):
    with pytest.raises(InvalidOption, match="takes probabilities.*tfbig.evaluate"):
        get_metrics([metric], LOGITS)
    assert len(get_metrics([metric], LIKELY)) == 1


@pytest.mark.parametrize(
    "metric",
    [
        keras.metrics.AUC(from_logits=True),
        keras.metrics.BinaryAccuracy(threshold=0.0),
        keras.metrics.Recall(thresholds=0),
        keras.metrics.MeanAbsoluteError(),
        lambda y, p: keras.ops.mean(p),
    ],
    ids=["auc", "accuracy", "recall", "error", "function"],
)
def test_what_is_right_with_logits_stays_as_it_is(metric):
    assert get_metrics([metric], LOGITS)[0] is metric


def test_names_of_several_classes_are_kerass():
    assert get_metrics(["accuracy", "sparse_top_k_categorical_accuracy"], CLASSES) == [
        "accuracy",
        "sparse_top_k_categorical_accuracy",
    ]


@pytest.mark.parametrize("metric", ["sparse_categorical_accuracy", keras.metrics.SparseCategoricalAccuracy()])
def test_a_metric_of_labels_is_refused_where_they_are_made_one_hot(metric):
    with pytest.raises(InvalidOption, match="'sparse_categorical_accuracy' takes labels.*one-hot"):
        get_metrics([metric], CLASSES, one_hot=True)


@pytest.mark.parametrize("metrics", [["acuracy"], [["acuracy"], None], {"head": ["acuracy"]}])
def test_an_unknown_name_is_told_the_nearest_before_training(metrics):
    model = tfbig.models.mlp((4,), 1, task="binary", hidden=())
    with pytest.raises(
        InvalidOption, match="metrics must be one of .*; got 'acuracy'. Did you mean 'accuracy'?"
    ):
        tfbig.fit(model, X, BITS, metrics=metrics, verbose=0)
    assert not model.compiled


def test_every_listed_name_is_a_metric():
    names = metric_names()
    assert {"accuracy", "auc", "f1_score", "precision", "mse", "root_mean_squared_error"} <= set(names)
    for name in set(names) - {"accuracy", "acc", "crossentropy", "ce"}:
        assert keras.metrics.get(name) is not None


@pytest.mark.parametrize("metrics", [None, {"a": ["mae"]}, [["mae"], None]])
def test_other_structures_are_returned_as_they_are(metrics):
    assert get_metrics(metrics, LOGITS) == metrics
