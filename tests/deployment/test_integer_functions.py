import keras
import numpy as np
import pytest

import tfbig
from tfbig.backend.keras_functions import keras_function
from tfbig.deployment.integer_functions import calls_such, integer_functions

L, ops = keras.layers, keras.ops
ROWS = np.random.default_rng(0).normal(scale=2, size=(64, 6, 4)).astype("float32")
# A layer, an activation or a function of the graph, by name.
PARTS = {
    **{name: L.Activation(name) for name in ("elu", "selu", "celu", "softplus", "mish", "log_sigmoid")},
    **{name: L.Activation(name) for name in ("soft_shrink", "sparse_plus")},
    "ELU of another slope": L.ELU(0.5),
    "unit norm": L.UnitNormalization(),
    "RMS norm": L.RMSNormalization(),
    "group norm": L.GroupNormalization(2),
    "instance norm": L.GroupNormalization(-1),
    "additive attention": lambda x: L.AdditiveAttention()([x, x]),
    "sum": lambda x: ops.sum(x, axis=1),
    "negative": lambda x: -x,
    "square": lambda x: ops.square(x),
    "variance": lambda x: ops.var(x, axis=-1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1),
    "where": lambda x: ops.where(x > 0, x, 0.1 * x),
}


def model_of(*parts):
    """Each part on units of its own, with an output of its own."""
    x = keras.Input((6, 4))
    model = keras.Model(x, [L.Dense(3)(L.Flatten()(part(L.Dense(4)(x)))) for part in parts])
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(np.asarray(weight) + 0.1 * generator.normal(size=weight.shape))
    return model


@pytest.mark.parametrize(("mode", "most"), [("int8", 0.01), ("int16x8", 0.003)])
def test_integer_files_compute_it_in_integers(tmp_path, mode, most):
    model = model_of(*PARTS.values())
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize=mode, calibration=ROWS, strict=True)
    errors = {
        name: np.abs(given - expected).mean() / np.ptp(expected)
        for name, given, expected in zip(
            PARTS, lite.predict(ROWS), model.predict(ROWS, verbose=0), strict=True
        )
    }
    assert max(errors.values()) <= most, errors


@pytest.mark.parametrize("name", integer_functions(wide=True))
def test_the_forms_compute_what_keras_does(name):
    original, form = keras_function(name), integer_functions(wide=True)[name]
    x = np.concatenate([ROWS, np.zeros((1, 6, 4), "float32"), 30 * ROWS[:4]])
    for options in (
        {},
        {"axis": 1},
        {"axis": (0, 2), "keepdims": True},
        {"alpha": 0.3},
        {"order": 3},
        {"threshold": 0.2},
    ):
        if name == "moments":
            options = {"axes": options.get("axis", -1)}
        try:
            expected = original(x, **options)
        except TypeError:  # no such option
            continue
        for one, other in zip(
            keras.tree.flatten(form(x, **options)), keras.tree.flatten(expected), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_other_numbers_and_open_sizes_take_keras_own_way():
    functions = integer_functions(wide=True)
    assert functions["sum"](np.arange(4)).dtype == "int64"
    assert functions["negative"](np.arange(4)).numpy().tolist() == [0, -1, -2, -3]


def test_models_that_may_call_one_are_known():
    class Own(L.Layer):
        def call(self, inputs):
            return ops.sum(inputs, axis=1)

    assert not calls_such(tfbig.models.cnn((8, 8, 1), 3))
    assert calls_such(model_of(L.Dense(4, activation="selu")))
    assert calls_such(keras.Sequential([model_of(PARTS["sum"])]))
    assert calls_such(model_of(Own()))
