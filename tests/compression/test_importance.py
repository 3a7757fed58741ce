import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbig
from tfbig.compression.channel_groups import make_plan
from tfbig.compression.importance import Data, score
from tfbig.errors import InvalidData, InvalidOption

L = keras.layers


def two_layers(activation="relu", units=6, outputs=3):
    keras.utils.set_random_seed(0)
    stack = [L.Dense(units, activation, name="hidden"), L.Dense(outputs, name="logits")]
    return keras.Sequential([keras.Input((4,)), *stack])


def scores(model, importance, keep=0.5, **data):
    """The scores of each group, in the order of its channels."""
    plan = make_plan(model, keep)
    found = score(model, plan, importance, Data(**data))
    return [[found[int(root)] for root in group.sets] for group in plan.groups]


@pytest.mark.parametrize(
    ("importance", "norm"),
    [("l1", lambda rows: abs(rows).sum(0)), ("l2", lambda rows: np.sqrt((rows**2).sum(0)))],
)
def test_norms_are_those_of_each_units_weights_against_their_mean(importance, norm):
    model = two_layers()
    expected = norm(model.layers[0].kernel.numpy())
    # float32 sums of four terms
    np.testing.assert_allclose(scores(model, importance)[0], expected / expected.mean(), rtol=1e-6)


def test_the_kernels_of_every_gate_of_a_unit_count():
    model = keras.Sequential([keras.Input((5, 3)), L.LSTM(4), L.Dense(2)])
    cell = model.layers[0].cell
    both = np.concatenate([cell.kernel.numpy(), cell.recurrent_kernel.numpy()])
    per_unit = np.sqrt((both.reshape(7, 4, 4) ** 2).sum(axis=(0, 1)))  # (rows, gates, units)
    np.testing.assert_allclose(scores(model, "l2")[0], per_unit / per_unit.mean(), rtol=1e-5)


def test_the_query_key_and_value_kernels_of_a_head_count():
    x = keras.Input((5, 6))
    model = keras.Model(x, L.MultiHeadAttention(3, 2, name="attention")(x, x))
    parts = {layer.name: layer for layer in model.layers[1]._layers}
    kernels = [parts[name].kernel.numpy() for name in ("query", "key", "value")]
    expected = sum(np.abs(kernel).sum(axis=(0, 2)) for kernel in kernels)
    np.testing.assert_allclose(scores(model, "l1")[0], expected / expected.mean(), rtol=1e-5)


def test_layers_whose_channels_go_together_are_added_each_against_its_own_mean():
    x = keras.Input((1,))
    a, b = L.Dense(3, name="a"), L.Dense(3, name="b")
    model = keras.Model(x, L.Dense(1)(L.Add()([a(x), b(x)])))
    a.kernel.assign([[1.0, 2, 3]])
    b.kernel.assign([[200.0, 300, 100]])  # a hundred times as large, and not a hundred times as important
    assert scores(model, "l1")[0] == pytest.approx([0.5 + 1, 1 + 1.5, 1.5 + 0.5])
    smaller = tfbig.shrink(model, keep=1 / 3, importance="l1")
    assert smaller.get_layer("a").kernel.numpy().tolist() == [[2.0]]
    assert smaller.get_layer("b").kernel.numpy().tolist() == [[300.0]]


def test_activations_are_measured_where_they_are_read(blobs):
    model = two_layers()
    hidden = np.abs(model.layers[0](blobs[0])).mean(axis=0)
    np.testing.assert_allclose(scores(model, "activation", x=blobs[0])[0], hidden / hidden.mean(), rtol=1e-4)


def test_a_unit_that_never_fires_goes_first_by_activation_however_large_its_weights(blobs):
    model = two_layers()
    kernel, bias = model.layers[0].get_weights()
    kernel[:, 2] *= 10
    bias[2] = -1e6
    model.layers[0].set_weights([kernel, bias])
    kept = tfbig.shrink(model, blobs[0], keep=5 / 6, importance="activation").layers[0].kernel.numpy()
    assert np.array_equal(kept, np.delete(kernel, 2, axis=1))
    assert np.argmax(scores(model, "l2")[0]) == 2


def test_whole_numbers_are_taken_as_the_model_takes_them(digits):
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3), L.Flatten(), L.Dense(10)])
    whole, floats = digits.x_train[:64].astype("uint8"), digits.x_train[:64].astype("float32")
    assert scores(model, "activation", x=whole) == scores(model, "activation", x=floats)


def test_activations_inside_nested_models_and_of_sequences_are_measured():
    inner = keras.Sequential([keras.Input((6, 4)), L.Dense(5, "relu"), L.LSTM(3)], name="inner")
    x = keras.Input((6, 4))
    model = keras.Model(x, L.Dense(2)(inner(x)))
    data = np.random.default_rng(0).normal(size=(70, 6, 4)).astype("float32")
    dense = np.abs(inner.layers[0](data)).mean(axis=(0, 1))
    final = np.abs(inner(data)).mean(axis=0)
    for found, expected in zip(scores(model, "activation", x=data), (dense, final), strict=True):
        np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-4)


def test_a_layer_that_keeps_its_state_is_left_in_the_state_it_had():
    x = keras.Input(batch_shape=(8, 6, 4))
    recurrent = L.GRU(3, stateful=True)
    model = keras.Model(x, L.Dense(2)(L.Dense(5, "relu")(recurrent(x))))
    data = tf.data.Dataset.from_tensors(np.ones((8, 6, 4), "float32"))
    scores(model, "activation", x=data)
    assert not recurrent.states[0].numpy().any()


def test_heads_are_told_apart_by_their_weights_when_activations_are_measured():
    x = keras.Input((5, 6))
    model = keras.Model(x, L.MultiHeadAttention(3, 2)(x, x))
    data = np.ones((8, 5, 6), "float32")
    assert scores(model, "activation", x=data) == scores(model, "l2")


def test_taylor_is_the_squared_slope_of_the_loss_at_a_gate_on_the_channel(blobs):
    x, y = blobs[0][:32], blobs[1][:32]  # one batch
    model = two_layers("sigmoid")
    first, second = model.layers
    with tf.GradientTape() as tape:
        gate = tf.ones(6)
        tape.watch(gate)
        logits = second(first(x) * gate)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    expected = tape.gradient(loss, gate).numpy() ** 2
    found = scores(model, "taylor", x=x, y=y)[0]
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-3)  # squares of float32 sums


def test_taylor_sees_that_nothing_reads_a_unit_and_norms_do_not(blobs):
    model = two_layers()
    kernel, bias = model.layers[1].get_weights()
    kernel[3] = 0
    model.layers[1].set_weights([kernel, bias])
    assert scores(model, "taylor", x=blobs[0], y=blobs[1])[0][3] == 0
    assert scores(model, "l2")[0][3] > 0


def test_taylor_works_for_recurrent_units_heads_and_nested_models(blobs):
    x = keras.Input((6, 4))
    h = L.MultiHeadAttention(4, 2)(L.Dense(4)(x), x)
    inner = keras.Sequential([keras.Input((6, 4)), L.GRU(5)])
    model = keras.Model(x, L.Dense(3)(inner(h)))
    rows = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    for group in scores(model, "taylor", x=rows, y=blobs[1][:64]):
        assert min(group) > 0
        assert np.mean(group) == pytest.approx(1)


def test_taylor_neither_compiles_nor_changes_the_given_model(blobs):
    model = two_layers()
    before = model.get_weights()
    scores(model, "taylor", x=blobs[0], y=blobs[1])
    assert not model.compiled
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("importance", ["activation", "taylor"])
def test_a_dataset_scores_as_its_arrays_do(blobs, importance):
    model = two_layers()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = np.random.default_rng(0).permutation(200)  # the order in which arrays are seen
    stream = tf.data.Dataset.from_tensor_slices((blobs[0][rows], blobs[1][rows])).batch(32)
    arrays = scores(model, importance, x=blobs[0], y=blobs[1])[0]
    np.testing.assert_allclose(scores(model, importance, x=stream)[0], arrays, rtol=1e-5)


@pytest.mark.parametrize("pack", [lambda x: x, lambda x: (x,), lambda x: {"rows": x}])
def test_activations_need_no_targets_in_a_dataset(blobs, pack):
    x = keras.Input((4,), name="rows")
    model = keras.Model(x, L.Dense(2)(L.Dense(6, "relu")(x)))
    stream = tf.data.Dataset.from_tensor_slices(pack(blobs[0])).batch(50)
    arrays = scores(model, "activation", x=blobs[0])[0]
    np.testing.assert_allclose(scores(model, "activation", x=stream)[0], arrays, rtol=1e-5)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.x[i * 50 : i * 50 + 50], self.y[i * 50 : i * 50 + 50]


def test_a_pydataset_scores_as_its_arrays_do(blobs):
    model = two_layers()
    arrays = scores(model, "activation", x=blobs[0])[0]
    np.testing.assert_allclose(scores(model, "activation", x=Batches(*blobs))[0], arrays, rtol=1e-5)


def test_random_scores_follow_the_seed():
    model = two_layers()
    assert scores(model, "random", seed=1) == scores(model, "random", seed=1)
    assert scores(model, "random", seed=1) != scores(model, "random", seed=2)


def test_a_function_gets_the_weights_of_each_layer_and_decides():
    model = keras.Sequential(
        [keras.Input((5, 3)), L.Conv1D(4, 2, name="conv"), L.LSTM(3, name="lstm"), L.Dense(2)]
    )
    seen = {}

    def last_first(name, weights):
        seen[name] = weights.shape
        return np.arange(len(weights))

    # Only what can go is asked about.
    smaller = tfbig.shrink(model, importance=last_first, layers="conv")
    assert seen == {"conv": (4, 2 * 3)}
    assert np.array_equal(smaller.layers[0].kernel.numpy(), model.layers[0].kernel.numpy()[..., 2:])


@pytest.mark.parametrize("result", [1.0, np.ones(3), np.full(6, np.nan)])
def test_a_function_that_gives_no_score_per_channel_is_refused(result):
    with pytest.raises(InvalidOption, match=r"one finite score per channel, shape \(6,\) for 'hidden'"):
        tfbig.shrink(two_layers(), importance=lambda name, weights: result)


def test_an_unknown_importance_gets_the_list():
    expected = (
        "importance must be one of 'l1', 'l2', 'activation', 'taylor', 'random'; got 'L2'. Did you mean 'l2'?"
    )
    with pytest.raises(InvalidOption, match=expected.replace("?", r"\?")):
        tfbig.shrink(two_layers(), importance="L2")


def test_missing_data_is_said(blobs):
    with pytest.raises(InvalidData, match="'activation' is measured on data: pass x, or choose 'l1' or 'l2'"):
        tfbig.shrink(two_layers(), importance="activation")
    with pytest.raises(InvalidData, match="'taylor' is measured on the loss: pass y too"):
        tfbig.shrink(two_layers(), blobs[0], importance="taylor")
    with pytest.raises(InvalidData, match="would use up batches of a generator"):
        tfbig.shrink(two_layers(), iter([blobs]), importance="taylor")
