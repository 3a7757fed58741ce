"""What training refuses before, or as soon as, it can know: streams, losses, metrics."""

import contextlib
import warnings

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.errors import InvalidData, InvalidModel, InvalidOption
from tfbig.training.first_batch import check_order, first_batch

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 3


def fit(x=X, y=Y, model=None, **options):
    model = tfbig.models.mlp((4,), 3, hidden=(4,)) if model is None else model
    return tfbig.fit(model, x, y, **{"epochs": 1, "verbose": 0, **options})


def stream_fit(x, **options):
    return fit(x, None, **{"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options})


def dataset(x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(10)


class Batches(keras.utils.PyDataset):
    def __init__(self, count, x=X, y=Y):
        super().__init__()
        self.count, self.x, self.y = count, x, y

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        return self.x[10 * index : 10 * index + 10], self.y[10 * index : 10 * index + 10]


def generator(x=X, y=Y):
    for start in range(0, len(x), 10):
        yield x[start : start + 10], y[start : start + 10]


@pytest.mark.parametrize(
    "stream", [lambda: dataset().repeat(), lambda: Batches(None)], ids=["tf.data", "PyDataset"]
)
def test_a_stream_that_never_ends_is_refused(stream):
    with pytest.raises(InvalidData, match=r"x is a stream that never ends.*dataset\.take\(steps\)"):
        stream_fit(stream())
    with pytest.raises(InvalidData, match=r"validation_data is a stream that never ends"):
        fit(validation_data=stream())


@pytest.mark.parametrize(
    "stream",
    [lambda: dataset().take(0), lambda: Batches(0), lambda: generator(X[:0], Y[:0])],
    ids=["tf.data", "PyDataset", "generator"],
)
def test_a_stream_without_batches_is_refused(stream):
    with pytest.raises(InvalidData, match="x is a stream without batches"):
        stream_fit(stream())


def test_a_stream_that_turns_out_to_be_empty_is_told_of():
    with pytest.raises(InvalidData, match="The stream gave no batch in epoch 0 "):
        stream_fit(dataset().filter(lambda *_: False))


def test_a_generator_trains_one_epoch_on_all_its_batches():
    assert int(stream_fit(generator()).model.optimizer.iterations) == 4


def test_a_generator_is_refused_for_several_epochs():
    with pytest.raises(InvalidData, match=r"x is a generator, which can be gone through once, and 2 epochs"):
        stream_fit(generator(), epochs=2)
    with pytest.raises(InvalidData, match="validation_data is a generator"):
        fit(validation_data=generator(), epochs=2)


def test_looking_at_the_first_batch_loses_none():
    batch, again = first_batch(generator())
    assert batch[0].shape == (10, 4)
    assert np.concatenate([y for _, y in again]).tolist() == Y.tolist()


def test_a_dataset_that_says_its_shapes_is_not_read():
    def fail():
        raise AssertionError("read")
        yield

    specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,)))
    unread = tf.data.Dataset.from_generator(fail, output_signature=specs)
    assert first_batch(unread) == (specs, unread)
    rankless = tf.data.Dataset.from_generator(
        generator, output_signature=(tf.TensorSpec(None), tf.TensorSpec(None, tf.int64))
    )
    assert first_batch(rankless)[0][0].shape == (10, 4)


def holed(part):
    x, y = X.copy(), Y.astype(np.float32)
    (x if part == "x" else y)[25] = np.nan
    return x, y


@pytest.mark.parametrize("part", ["x", "y"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    "make", [dataset, generator, lambda *data: Batches(4, *data)], ids=["tf", "gen", "py"]
)
def test_a_batch_of_a_stream_that_is_not_finite_is_named(part, steps, make):
    with pytest.raises(InvalidData, match=rf"^{part} holds NaN or infinite values in batch 2 of epoch 0 "):
        model = tfbig.models.mlp((4,), 1, task="regression", hidden=(4,))
        stream_fit(make(*holed(part)), model=model, loss="mse", steps_per_execution=steps, shuffle=False)


def test_a_batch_that_becomes_bad_later_is_named_with_its_epoch():
    seen = iter(range(1000))

    def spoilt(x, y):
        return (x * np.nan if next(seen) == 5 else x), y

    stream = dataset().map(lambda x, y: tf.numpy_function(spoilt, (x, y), (tf.float32, tf.int64)))
    stream = stream.map(lambda x, y: (tf.ensure_shape(x, (10, 4)), tf.ensure_shape(y, (10,))))
    with pytest.raises(InvalidData, match=r"^x holds NaN or infinite values in batch 1 of epoch 1 "):
        stream_fit(stream, epochs=3)


def test_a_bad_batch_of_validation_is_named_as_such():
    with pytest.raises(
        InvalidData, match=r"^validation x holds NaN or infinite values in batch 2 of epoch 0 "
    ):
        fit(validation_data=dataset(*holed("x")))


def test_a_step_over_a_stream_is_traced_once():
    calls = []
    model = tfbig.models.mlp((4,), 3, hidden=(4,))

    class Counting(keras.layers.Layer):
        def call(self, x):
            calls.append(1)
            return x

    counting = keras.Sequential([keras.Input((4,)), Counting(), model])
    stream_fit(dataset(), model=counting, epochs=1)
    once = len(calls)
    calls.clear()
    counting = keras.Sequential([keras.Input((4,)), Counting(), model])
    stream_fit(dataset(), model=counting, epochs=3)
    assert len(calls) == once


def head(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


def dense(units, **options):
    return head(keras.layers.Dense(units, **options))


FITTING = r"One that fits: keras\.losses\."
MISFITS = {
    "one-hot loss for values": (
        lambda: dense(3),
        X[:, 0],
        "categorical_crossentropy",
        r"gives 3 outputs per row, and y of shape \(40,\)\. .*a model with 1 output for these values",
    ),
    "labels' loss for one-hot": (
        lambda: dense(3),
        np.eye(3)[Y],
        "sparse_categorical_crossentropy",
        rf"y of shape \(40, 3\)\. {FITTING}",
    ),
    "binary loss for several labels": (
        lambda: dense(3, activation="softmax"),
        Y,
        "binary_crossentropy",
        rf"'binary_crossentropy' does not fit .*{FITTING}SparseCategoricalCrossentropy\(from_logits=False\)",
    ),
    "labels' loss for one output": (
        lambda: dense(1, activation="sigmoid"),
        Y % 2,
        keras.losses.SparseCategoricalCrossentropy(),
        rf"gives 1 output per row.*{FITTING}BinaryCrossentropy\(from_logits=False\)",
    ),
    "squares of labels": (
        lambda: dense(3),
        Y,
        "mse",
        rf"'mean_squared_error' does not fit .*{FITTING}Sparse",
    ),
    "probabilities of logits": (
        lambda: tfbig.models.mlp((4,), 3),
        Y,
        keras.losses.SparseCategoricalCrossentropy(),
        rf"has from_logits=False, and the model .* gives logits\. {FITTING}SparseCategoricalCrossentropy\(from_l",
    ),
    "logits of probabilities": (
        lambda: dense(3, activation="softmax"),
        Y,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        r"has from_logits=True, and the model .* gives probabilities\. .*\(from_logits=False\)",
    ),
    "no head that fits": (
        lambda: dense(2),
        np.zeros((40, 3), np.float32),
        "mse",
        r"'mean_squared_error' does not fit .*Needed: 3 outputs",
    ),
}


@pytest.mark.parametrize("by_user", [True, False], ids=["compiled", "passed"])
@pytest.mark.parametrize(("make", "y", "loss", "message"), MISFITS.values(), ids=MISFITS)
def test_a_loss_that_does_not_fit_the_head_is_refused_and_one_that_would_named(
    make, y, loss, message, by_user
):
    model = make()
    if by_user:
        model.compile("sgd", loss)
    with pytest.raises(InvalidModel, match=message):
        fit(X, y, model, **({} if by_user else {"loss": loss}))


FITS = {
    "one-hot loss for labels": (lambda: dense(3), Y, "categorical_crossentropy"),
    "logits by name": (lambda: tfbig.models.mlp((4,), 3), Y, "sparse_categorical_crossentropy"),
    "column of labels": (
        lambda: dense(3),
        Y[:, None],
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ),
    "one-hot": (lambda: dense(3, activation="softmax"), np.eye(3)[Y], "categorical_crossentropy"),
    "squares of one-hot": (lambda: dense(3), np.eye(3)[Y], "mse"),
    "a function": (lambda: dense(3), Y, lambda y, p: tf.reduce_mean(tf.square(p), axis=-1)),
    "a loss of another kind": (lambda: dense(3), np.eye(3)[Y], keras.losses.CosineSimilarity()),
    "sequences": (
        lambda: head(keras.layers.Reshape((2, 2)), keras.layers.Dense(1)),
        np.zeros((40, 2, 1)),
        "mse",
    ),
}


@pytest.mark.parametrize(("make", "y", "loss"), FITS.values(), ids=FITS)
def test_a_loss_that_fits_is_taken(make, y, loss):
    assert np.isfinite(fit(X, y, make(), loss=loss).history["loss"]).all()


SAME_NAMES = {
    "names": (["accuracy", "accuracy"], "'accuracy'"),
    "metrics": ([keras.metrics.AUC(name="a"), keras.metrics.Precision(name="a")], "'a'"),
    "name and metric": (["mae", keras.metrics.MeanSquaredError(name="mae")], "'mae'"),
    "of one output": ([["mae", "mae"], ["mae"]], "'mae'"),
    "of a named output": ({"head": ["mae", "mae"]}, "'mae'"),
}


@pytest.mark.parametrize(("metrics", "name"), SAME_NAMES.values(), ids=SAME_NAMES)
def test_two_metrics_of_one_name_are_refused(metrics, name):
    with pytest.raises(InvalidOption, match=f"Two metrics are named {name}; .*Pass name="):
        fit(metrics=metrics)


def test_a_metric_named_as_the_loss_is_refused():
    with pytest.raises(InvalidOption, match="A metric is named 'loss'"):
        fit(metrics=[keras.metrics.MeanSquaredError(name="loss")])


BESIDE = {
    "y": ({"y": Y}, "y is given"),
    "sample_weight": ({"sample_weight": np.ones(40)}, "sample_weight is given"),
}


@pytest.mark.parametrize(
    "stream", [dataset, lambda: Batches(4), generator], ids=["tf.data", "PyDataset", "generator"]
)
@pytest.mark.parametrize(("options", "what"), BESIDE.values(), ids=BESIDE)
def test_what_the_batches_of_a_stream_hold_is_refused_beside_it(stream, options, what):
    with pytest.raises(InvalidData, match=f"{what} beside it. Let the stream give"):
        fit(stream(), **{"y": None, "loss": "sparse_categorical_crossentropy", **options})


@pytest.mark.parametrize(
    "stream",
    [
        lambda: tf.data.Dataset.from_tensor_slices(X).batch(10),
        lambda: (X[i : i + 10] for i in range(0, 40, 10)),
    ],
    ids=["tf.data", "generator"],
)
def test_a_stream_without_targets_is_refused(stream):
    with pytest.raises(InvalidData, match=r"must give \(x, y\) or .*without targets"):
        stream_fit(stream())


BAD_OPTIONS = {
    "jit_compile": ({"jit_compile": "atuo"}, "jit_compile must be True, False or \"auto\"; got 'atuo'"),
    "NaN": ({"class_weight": {0: 1, 1: float("nan"), 2: 1}}, "finite and not negative; got nan for 1"),
    "negative": ({"class_weight": {0: 1, 1: 1, 2: -1}}, "finite and not negative; got -1 for 2"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        fit(**options)


SHUFFLES = {
    "by chance": (lambda data: data.shuffle(9), True, True),
    "anew in each epoch": (lambda data: data.shuffle(9, seed=1), False, True),
    "once, by chance": (lambda data: data.shuffle(9, reshuffle_each_iteration=False), True, True),
    "once": (lambda data: data.shuffle(9, seed=1, reshuffle_each_iteration=False), False, False),
    "not": (lambda data: data, False, False),
}


@pytest.mark.parametrize(("shuffle", "differs", "is_lost"), SHUFFLES.values(), ids=SHUFFLES)
def test_an_order_that_workers_or_a_restart_do_not_share_is_told_of(shuffle, differs, is_lost):
    tf.random.set_seed(None)  # set, it would be every shuffle's
    stream = shuffle(tf.data.Dataset.from_tensor_slices((X, Y))).map(lambda x, y: (2 * x, y)).batch(10)
    refused = pytest.raises(InvalidData, match="x is shuffled without a seed.*seed=0")
    with refused if differs else contextlib.nullcontext():
        check_order(stream, "x", several_workers=True, resumable=False)
    warned = pytest.warns(UserWarning, match="x is shuffled by tf.data in an order")
    with warned if is_lost else contextlib.nullcontext(), warnings.catch_warnings():
        if not is_lost:
            warnings.simplefilter("error")
        check_order(stream, "x", several_workers=False, resumable=True)


def test_fit_warns_of_a_shuffle_only_where_a_restart_can_meet_it(tmp_path):
    with pytest.warns(UserWarning, match="x is shuffled by tf.data in an order"):
        stream_fit(dataset().shuffle(9), checkpoint_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream_fit(dataset().shuffle(9))
