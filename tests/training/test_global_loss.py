import numpy as np
import pytest

from tfbig.backend import keras, tf
from tfbig.errors import InvalidModel
from tfbig.training.global_loss import GlobalLoss, rows_in_replicas


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("mse", "mean_squared_error"),
        (keras.losses.huber, "huber"),
        (keras.losses.BinaryCrossentropy(name="mine"), "mine"),
        (lambda y, p: tf.reduce_sum(tf.abs(y - p), axis=-1), "<lambda>"),
    ],
    ids=["name", "function", "loss", "lambda"],
)
def test_outside_of_replicas_it_is_the_loss(identifier, name):
    y, p = np.array([[0.0], [1.0], [1.0]], np.float32), np.array([[0.2], [0.7], [0.4]], np.float32)
    loss = GlobalLoss(identifier)
    assert loss.name == name
    for weight in (None, np.array([1.0, 0.0, 3.0], np.float32)):
        assert float(loss(y, p, weight)) == float(loss.inner(y, p, weight))


@pytest.mark.parametrize("reduction", [None, "none"])
def test_a_loss_that_is_no_number_is_refused(reduction):
    with pytest.raises(
        InvalidModel, match=r'"mine" has reduction|.mine. has reduction=.*one number: use "sum_over'
    ):
        GlobalLoss(keras.losses.MeanSquaredError(reduction=reduction, name="mine"))


class Context:
    """One replica of several, each called after the other: the sums over all are those of the call before."""

    num_replicas_in_sync = 2

    def __init__(self, sums):
        self.sums, self.sent = sums, []

    def all_reduce(self, _, value):
        self.sent.append(float(value))
        return tf.constant(self.sums[len(self.sent) - 1], tf.float32)


def over_replicas(monkeypatch, loss, parts):
    """Values and gradients of each replica's part."""

    def round_of(sums):
        sent, results = [], []
        for y, p, weight in parts:
            context = Context(sums)
            monkeypatch.setattr(tf.distribute, "get_replica_context", lambda context=context: context)
            p = tf.constant(p)
            with tf.GradientTape() as tape:
                tape.watch(p)
                value = loss(y, p, weight)
            results.append((float(value), tape.gradient(value, p).numpy()))
            sent.append(context.sent)
        return [sum(column) for column in zip(*sent, strict=True)], results

    sums, _ = round_of([1.0, 1.0])  # the counts are right at once,
    sums, _ = round_of(sums)  # what is divided by them then,
    return round_of(sums)[1]  # and all of it now


Y = np.arange(10, dtype=np.float32).reshape(5, 2)
P = np.sqrt(Y)
WEIGHT = np.array([0.5, 2, 0, 1, 4], np.float32)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize("cut", [1, 3])
def test_shares_add_up_to_the_whole(monkeypatch, reduction, weight, cut):
    loss = GlobalLoss(keras.losses.MeanSquaredError(reduction=reduction))
    with tf.GradientTape() as tape:
        p = tf.constant(P)
        tape.watch(p)
        whole = loss.inner(Y, p, weight)
    gradient = tape.gradient(whole, p).numpy()
    parts = [
        (Y[part], P[part], None if weight is None else weight[part])
        for part in (slice(cut), slice(cut, None))
    ]
    results = over_replicas(monkeypatch, loss, parts)
    # float32, summed in another order.
    assert [value for value, _ in results] == pytest.approx([float(whole)] * 2, rel=1e-6)
    np.testing.assert_allclose(np.concatenate([part for _, part in results]), gradient, rtol=1e-6)
    assert loss.inner.reduction == reduction


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_rows_in_every_replica_count_once(monkeypatch, reduction):
    loss = GlobalLoss(keras.losses.MeanSquaredError(reduction=reduction))
    whole = float(loss.inner(Y, P, WEIGHT))
    with rows_in_replicas(2):
        results = over_replicas(monkeypatch, loss, [(Y, P, WEIGHT)] * 2)
    assert [value for value, _ in results] == pytest.approx([whole] * 2, rel=1e-6)


def test_rows_of_no_weight_at_all_give_0_and_not_nan(monkeypatch):
    loss = GlobalLoss(keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    nothing = np.zeros(5, np.float32)
    results = over_replicas(monkeypatch, loss, [(Y, P, nothing), (Y, P, nothing)])
    assert [value for value, _ in results] == [0, 0]


def scalar(y, p):
    return tf.reduce_mean(tf.square(y - p))


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (scalar, "one number"),
        (keras.losses.Dice(), "one number"),
        (keras.losses.Dice(reduction="sum"), "one number"),
        (lambda y, p: tf.reduce_mean(tf.abs(y - p), axis=0), r"values of shape \(2,\)"),
        (lambda y, p: tf.reduce_mean(tf.abs(y - p), keepdims=True), r"values of shape \(1, 1\)"),
    ],
    ids=["mean", "dice", "sum", "by column", "kept axes"],
)
def test_a_loss_that_gives_no_value_per_row_is_refused_over_replicas_only(monkeypatch, loss, got):
    with pytest.raises(InvalidModel, match=f"gives {got} for a whole batch.*one value per row"):
        over_replicas(monkeypatch, GlobalLoss(loss), [(Y[:3], P[:3], None), (Y[3:], P[3:], None)])
    monkeypatch.undo()
    assert float(GlobalLoss(loss)(Y, P)) == pytest.approx(float(GlobalLoss(loss).inner(Y, P)))


def test_several_values_per_row_in_one_axis_are_no_values_of_a_batch(monkeypatch):
    def flat(y, p):
        return tf.reshape(tf.square(y - p), [-1])

    results = over_replicas(monkeypatch, GlobalLoss(flat), [(Y[:3], P[:3], None), (Y[3:], P[3:], None)])
    assert [value for value, _ in results] == pytest.approx([float(np.mean((Y - P) ** 2))] * 2, rel=1e-6)
