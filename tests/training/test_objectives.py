import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidData, InvalidModel
from tfbig.training.objectives import fit_targets, infer_task, loss_and_metrics

LABELS = np.array([0, 2, 1, 0])
ONE_HOT = np.eye(3, dtype=int)[LABELS]
BITS = np.array([0, 1, 1, 0])
MULTI_HOT = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
VALUES = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
ROWS_OF_VALUES = np.stack([VALUES, VALUES, VALUES], axis=1)


def mlp(outputs, task=None, **options):
    return lambda: tfbig.models.mlp((4,), outputs, task=task, hidden=(8,), **options)


def plain(outputs, *after, activation=None):
    """A model not built by tfbig: its head has a name of Keras's making."""
    return lambda: keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(outputs, activation=activation), *[make() for make in after]]
    )


def nested(activation):
    return lambda: keras.Sequential([keras.Input((4,)), plain(3, activation=activation)()])


# The head, y, and what follows: task, dtype and shape of the targets, loss and whether it is given logits.
CASES = {
    "mlp, labels": (mlp(3), LABELS, "multiclass", "int64", (4,), True),
    "mlp, labels as floats": (mlp(3), LABELS.astype(np.float32), "multiclass", "int64", (4,), True),
    "mlp, labels as bytes": (mlp(3), LABELS.astype(np.uint8), "multiclass", "int64", (4,), True),
    "mlp, labels in a column": (mlp(3), LABELS[:, None], "multiclass", "int64", (4,), True),
    "mlp, two classes as booleans": (mlp(2), BITS.astype(bool), "multiclass", "int64", (4,), True),
    "mlp, one-hot": (mlp(3), ONE_HOT, "multiclass", "int64", (4,), True),
    "mlp, one-hot floats": (mlp(3), ONE_HOT.astype(np.float32), "multiclass", "int64", (4,), True),
    "mlp, binary": (mlp(1, "binary"), BITS, "binary", "float32", (4, 1), True),
    "mlp, binary floats": (mlp(1, "binary"), BITS.astype(np.float32), "binary", "float32", (4, 1), True),
    "mlp, binary in a column": (mlp(1, "binary"), BITS[:, None], "binary", "float32", (4, 1), True),
    "mlp, multilabel": (mlp(3, "multilabel"), MULTI_HOT, "multilabel", "float32", (4, 3), True),
    "mlp, values": (mlp(1, "regression"), VALUES, "regression", "float32", (4, 1), None),
    "mlp, rows of values": (mlp(3, "regression"), ROWS_OF_VALUES, "regression", "float32", (4, 3), None),
    "mlp, values that are 0 and 1": (mlp(1, "regression"), BITS, "regression", "float32", (4, 1), None),
    "mlp, rows of values that are 0 and 1": (
        mlp(3, "regression"),
        ONE_HOT,
        "regression",
        "float32",
        (4, 3),
        None,
    ),
    "softmax, labels": (plain(3, activation="softmax"), LABELS, "multiclass", "int64", (4,), False),
    "softmax, one-hot floats": (
        plain(3, activation="softmax"),
        ONE_HOT.astype(np.float32),
        "multiclass",
        "int64",
        (4,),
        False,
    ),
    "softmax as a layer": (plain(3, keras.layers.Softmax), LABELS, "multiclass", "int64", (4,), False),
    "softmax as an activation layer": (
        plain(3, lambda: keras.layers.Activation("softmax")),
        LABELS,
        "multiclass",
        "int64",
        (4,),
        False,
    ),
    "softmax in a model in the model": (nested("softmax"), LABELS, "multiclass", "int64", (4,), False),
    "sigmoid": (plain(1, activation="sigmoid"), BITS, "binary", "float32", (4, 1), False),
    "sigmoid, floats": (
        plain(1, activation="sigmoid"),
        BITS.astype(np.float32),
        "binary",
        "float32",
        (4, 1),
        False,
    ),
    "sigmoids": (plain(3, activation="sigmoid"), MULTI_HOT, "multilabel", "float32", (4, 3), False),
    "linear, labels": (plain(3), LABELS, "multiclass", "int64", (4,), True),
    "linear, one-hot": (plain(3), ONE_HOT, "multiclass", "int64", (4,), True),
    "linear, bits": (plain(1), BITS, "binary", "float32", (4, 1), True),
    "linear, rows of bits": (plain(3), MULTI_HOT, "multilabel", "float32", (4, 3), True),
    "linear, values": (plain(1), VALUES, "regression", "float32", (4, 1), None),
    "linear, whole values": (plain(1), np.array([3, 1, 0, 7]), "regression", "float32", (4, 1), None),
    "linear, rows of values": (plain(3), ROWS_OF_VALUES, "regression", "float32", (4, 3), None),
}
LOSSES = {
    "multiclass": keras.losses.SparseCategoricalCrossentropy,
    "binary": keras.losses.BinaryCrossentropy,
    "multilabel": keras.losses.BinaryCrossentropy,
    "regression": keras.losses.MeanSquaredError,
}


@pytest.mark.parametrize(("build", "y", "task", "dtype", "shape", "logits"), CASES.values(), ids=CASES)
def test_the_head_and_y_choose_the_task_targets_and_loss(build, y, task, dtype, shape, logits):
    model = build()
    assert infer_task(model, y) == task
    targets = fit_targets(task, model, y)
    assert (targets.dtype, targets.shape) == (dtype, shape)
    loss, _ = loss_and_metrics(task, model)
    assert type(loss) is LOSSES[task]
    assert getattr(loss, "from_logits", None) is logits


@pytest.mark.parametrize(
    "y",
    [LABELS, LABELS[:, None], ONE_HOT, ONE_HOT.astype(np.float32)],
    ids=["row", "column", "one-hot", "floats"],
)
def test_targets_of_a_multiclass_task_are_its_labels(y):
    np.testing.assert_array_equal(fit_targets("multiclass", mlp(3)(), y), LABELS)


def test_a_denormalizer_does_not_hide_the_head():
    y = np.array([0, 1, 1, 0])
    model = mlp(1, "regression", denormalizer=tfbig.normalizer(y, invert=True))()
    assert infer_task(model, y) == "regression"


def test_a_rescaling_does_not_hide_the_head():
    model = plain(3, keras.layers.Softmax, lambda: keras.layers.Rescaling(1.0))()
    assert loss_and_metrics("multiclass", model)[0].from_logits is False


@pytest.mark.parametrize(
    ("build", "output", "expected"),
    [
        pytest.param(plain(1), 0.3, 1.0, id="logit above 0"),
        pytest.param(plain(1), -0.3, 0.0, id="logit below 0"),
        pytest.param(plain(1, activation="sigmoid"), 0.6, 1.0, id="probability above a half"),
        pytest.param(plain(1, activation="sigmoid"), 0.3, 0.0, id="probability below a half"),
    ],
)
def test_binary_accuracy_cuts_where_the_outputs_do(build, output, expected):
    _, (accuracy,) = loss_and_metrics("binary", build())
    assert accuracy.name == "accuracy"
    assert float(accuracy(np.array([[1.0]]), np.array([[output]]))) == expected


@pytest.mark.parametrize(("task", "metrics"), [("multiclass", ["accuracy"]), ("regression", ["mae"])])
def test_the_metric_of_a_task(task, metrics):
    assert loss_and_metrics(task, plain(3)())[1] == metrics


@pytest.mark.parametrize(
    ("build", "y", "message"),
    [
        pytest.param(mlp(3), VALUES, "gives 3 outputs .*a model with 1 output for these values", id="values"),
        pytest.param(mlp(3), ONE_HOT[:, :2], r"gives 3 outputs .*\(4, 2\).*Needed: 2 outputs", id="columns"),
        pytest.param(
            mlp(1, "binary"), ONE_HOT, r"gives 1 output per row .*Needed: 3 outputs", id="one output"
        ),
        pytest.param(mlp(3, "regression"), VALUES, r"gives 3 outputs .*shape \(4,\)", id="regression"),
        pytest.param(plain(3), np.zeros((4, 3, 2)), r"y has shape \(4, 3, 2\)", id="three axes"),
        pytest.param(
            lambda: keras.Sequential([keras.layers.Dense(3)]), LABELS, "Pass loss=", id="shape not known yet"
        ),
    ],
)
def test_outputs_that_do_not_fit_y_are_refused(build, y, message):
    with pytest.raises(InvalidModel, match=message):
        infer_task(build(), y)


@pytest.mark.parametrize(
    ("task", "outputs", "y", "message"),
    [
        pytest.param("multiclass", 3, [0, 3], "from 0 to 2; row 1 of y holds 3", id="too high"),
        pytest.param("multiclass", 3, [-1, 0], "from 0 to 2; row 0 of y holds -1", id="negative"),
        pytest.param(
            "multiclass", 3, [0.0, 1.5], "whole numbers from 0 to 2; row 1 of y holds 1.5", id="half"
        ),
        pytest.param(
            "binary", 1, [0, 1, 2], "Labels of 2 classes .*row 2 of y holds 2.*tfbig.clean", id="binary"
        ),
        pytest.param("multilabel", 2, [[0, 1], [2, 0]], "row 1 of y holds 2", id="multilabel"),
    ],
)
def test_labels_outside_the_classes_are_refused(task, outputs, y, message):
    with pytest.raises(InvalidData, match=message):
        fit_targets(task, plain(outputs)(), np.array(y))
