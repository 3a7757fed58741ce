"""Fails loudly when Keras moves or renames a function that `tfbig.backend.keras_functions` stands in for."""

import importlib
import threading

import keras
import numpy as np
import pytest

from tfbig.backend.keras_functions import PLACES, keras_function, keras_functions

L, ops = keras.layers, keras.ops
X = np.array([[1.0, -2.0, 3.0]], "float32")
# How users come to each of the functions.
WAYS = {
    "elu": [L.ELU(), L.Activation("elu"), ops.elu, keras.activations.elu],
    "selu": [L.Activation("selu"), ops.selu],
    "celu": [L.Activation("celu"), ops.celu],
    "softplus": [L.Activation("softplus"), L.Activation("mish"), ops.softplus],
    "log_sigmoid": [L.Activation("log_sigmoid"), ops.log_sigmoid],
    "squareplus": [L.Activation("squareplus"), ops.squareplus],
    "soft_shrink": [L.Activation("soft_shrink"), ops.soft_shrink],
    "sparse_plus": [L.Activation("sparse_plus"), ops.sparse_plus],
    "moments": [lambda x: ops.moments(x, -1)],
    "add": [lambda x: ops.add(x, x), lambda x: L.Add()([x, x]), L.Dense(2)],
    "sum": [ops.sum, lambda x: L.AdditiveAttention()([x[None], x[None]])],
    "square": [ops.square, L.RMSNormalization()],
    "negative": [ops.negative],
    "var": [ops.var],
    "logsumexp": [ops.logsumexp],
    "normalize": [ops.normalize, L.UnitNormalization()],
    "rms_normalization": [ops.rms_normalization, L.RMSNormalization()],
}


def absolute(x, alpha=1.0):
    return abs(x)


def found():
    return {
        name: getattr(importlib.import_module(module), attribute)
        for name, (module, attribute) in PLACES.items()
    }


@pytest.mark.parametrize("name", WAYS)
def test_all_ways_lead_to_the_other_function_inside(name):
    for way in WAYS[name]:
        way(X)  # builds it
        called, original = [], keras_function(name)
        with keras_functions({name: lambda *a, _o=original, _c=called, **k: _c.append(1) or _o(*a, **k)}):
            way(X)
            assert called
        before = len(called)
        way(X)
        assert len(called) == before


def test_every_place_is_tried_above_or_with_the_hidden_scores():
    assert set(PLACES) - set(WAYS) == {"hidden score of attention", "hidden score of softmax"}


def test_they_are_put_back_whatever_happens():
    before = found()
    with pytest.raises(ZeroDivisionError), keras_functions({"elu": absolute}):
        assert ops.elu(X)[0, 1] == 2
        1 / 0  # noqa: B018
    assert found() == before


def test_blocks_may_overlap_and_other_threads_see_keras_own():
    before, seen = found(), {}
    entered, leave = threading.Event(), threading.Event()

    def beside():
        seen["outside"] = float(ops.elu(X)[0, 1])
        with keras_functions({"elu": lambda x, alpha=1.0: x * 10}):
            entered.set()
            leave.wait(10)
            seen["inside"] = float(ops.elu(X)[0, 1])

    with keras_functions({"elu": absolute}):
        thread = threading.Thread(target=beside)
        thread.start()
        entered.wait(10)
        assert ops.elu(X)[0, 1] == 2
        with keras_functions({"sum": lambda x, axis=None, keepdims=False: 7}):
            assert (ops.sum(X), ops.elu(X)[0, 1]) == (7, 2)
    assert float(ops.elu(X)[0, 1]) == pytest.approx(np.expm1(-2))
    leave.set()
    thread.join()
    assert seen == {"outside": pytest.approx(np.expm1(-2)), "inside": -20}
    assert found() == before
