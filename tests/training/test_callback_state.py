import json

import numpy as np
import pytest

from tfbig.backend import keras, tf
from tfbig.training.callback_state import restore, state_of


class Holder(keras.callbacks.Callback):
    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


def carried(source, target):
    """Through JSON, as in a checkpoint's file."""
    arrays = {}
    state = json.loads(json.dumps(state_of(source, arrays.__setitem__)))
    restore(target, state, arrays.__getitem__)
    return target


def same(one, other):
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


VALUES = {
    "none": None,
    "truth": True,
    "number": 3,
    "fraction": 0.1,
    "infinity": float("inf"),
    "text": "val_loss",
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "empty": np.zeros((0, 2)),
    "no arrays": [],
    "weights": [np.ones((2, 2), np.float32), np.zeros(3, np.float32)],
    "pair": (1, (2.5, "a")),
    "mapping": {"a": [1, 2], "b": {"c": np.arange(2)}},
    "dict that looks encoded": {"array": "x"},
    "named list": {"list": [1]},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_plain_values_and_arrays_are_carried(value):
    assert same(carried(Holder(value=value), Holder(value="other")).value, value)


def test_not_a_number_is_carried():
    assert np.isnan(carried(Holder(best=float("nan")), Holder()).best)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(3), np.bool_(True)], ids=repr)
def test_numpys_numbers_become_pythons(value):
    found = carried(Holder(value=value), Holder()).value
    assert found == value
    assert type(found) in (float, int, bool)


@pytest.mark.parametrize("make", [tf.Variable, keras.Variable], ids=["tf", "keras"])
def test_variables_keep_their_place_and_take_the_value(make):
    target = Holder(mask=make(np.zeros(3, np.float32)))
    mask = target.mask
    carried(Holder(mask=make(np.array([1, 2, 3], np.float32))), target)
    assert target.mask is mask
    assert np.array(mask).tolist() == [1, 2, 3]


@pytest.mark.parametrize("make", [tf.Variable, keras.Variable], ids=["tf", "keras"])
def test_variables_inside_lists_and_mappings_keep_their_place(make):
    def holder(value):
        variables = [make(np.full(2, value, np.float32)), value]
        return Holder(masks=variables, named={"a": make(np.float32(value))})

    target = holder(0)
    masks, mask, named = target.masks, target.masks[0], target.named["a"]
    carried(holder(7), target)
    assert target.masks[0] is mask
    assert target.named["a"] is named
    assert np.array(mask).tolist() == [7, 7]
    assert float(named) == target.masks[1] == 7
    assert len(masks) == 2


@pytest.mark.parametrize(
    "value",
    [open, lambda: None, object(), [1, object()], {"a": print}, {1: 2}],
    ids=["builtin", "lambda", "object", "list", "mapping", "keys"],
)
def test_what_cannot_be_carried_stays_as_it_is(value):
    mine = object()
    target = Holder(value=mine)
    carried(Holder(value=value, count=5), target)
    assert target.value is mine
    assert target.count == 5


def test_the_model_and_the_run_are_those_of_the_new_process():
    source, target = Holder(), Holder()
    source.set_model("old")
    source.set_params({"epochs": 1})
    target.set_model("new")
    target.set_params({"epochs": 5})
    carried(source, target)
    assert (target.model, target.params) == ("new", {"epochs": 5})


def watched(callback, losses):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        model.set_weights([np.array([[float(epoch)]]), np.zeros(1)])
        callback.on_epoch_end(epoch, {"val_loss": loss})
    return callback


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True),
        lambda: keras.callbacks.ReduceLROnPlateau("val_loss", patience=2),
    ],
    ids=["EarlyStopping", "ReduceLROnPlateau"],
)
def test_keras_callbacks_know_what_they_had_seen(make):
    losses = [3.0, 1.0, 2.0, 2.0]
    source, whole = watched(make(), losses), watched(make(), [*losses, 2.0])
    target = carried(source, watched(make(), []))
    target.on_epoch_end(4, {"val_loss": 2.0})
    for name in ("best", "wait", "stopped_epoch", "best_epoch"):
        assert getattr(target, name, None) == getattr(whole, name, None)
    assert target.model.stop_training == whole.model.stop_training
    best = getattr(target, "best_weights", None)
    assert best is None or np.array(best[0]).item() == 1


def test_a_log_that_goes_on_has_one_header(tmp_path):
    path = tmp_path / "log.csv"
    first, again = (keras.callbacks.CSVLogger(path, append=True) for _ in range(2))
    for logger in (first, again):
        logger.set_model(keras.Sequential())
    first.on_train_begin()
    first.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    state = state_of(first, {}.__setitem__)
    first.on_train_end()
    again.on_train_begin()
    restore(again, state, {}.__getitem__)
    again.on_epoch_end(1, {"loss": 0.5, "val_loss": 1.5})
    again.on_train_end()
    assert path.read_text().splitlines() == ["epoch,loss,val_loss", "0,1.0,2.0", "1,0.5,1.5"]
