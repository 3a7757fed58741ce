import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.training.precision import PRECISIONS, precision, scaled, unscaled, with_precision

MIXED = ["mixed_bfloat16", "mixed_float16"]
SIXTEEN = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16", "float32": "float32"}


def mlp(**options):
    return tfbig.models.mlp((4,), 3, hidden=(16,), **options)


def computes_in(model):
    return {layer.name: layer.compute_dtype for layer in model.layers}


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_global_policy_is_put_back_also_after_an_error(name):
    before = keras.config.dtype_policy()
    with pytest.raises(ZeroDivisionError), precision(name):
        assert keras.config.dtype_policy().name == name
        raise ZeroDivisionError
    assert keras.config.dtype_policy() == before


def test_a_policy_the_user_had_set_is_put_back():
    try:
        keras.config.set_dtype_policy("float64")
        with precision("mixed_bfloat16"):
            pass
        assert keras.config.dtype_policy().name == "float64"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", PRECISIONS)
def test_hidden_layers_compute_in_16_bits_and_weights_are_float32(name):
    model = mlp()
    twin = with_precision(model, name)
    assert computes_in(twin) == {
        **{layer.name: SIXTEEN[name] for layer in model.layers[:-1]},
        "logits": "float32",
    }
    assert {str(w.dtype) for w in twin.get_weights()} == {"float32"}
    for mine, theirs in zip(twin.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_model_and_the_global_policy_are_not_changed():
    model = mlp()
    before = model.get_config(), keras.config.dtype_policy()
    with_precision(model, "mixed_float16")
    assert (model.get_config(), keras.config.dtype_policy()) == before


def test_normalizers_and_a_head_before_a_denormalizer_stay_in_float32():
    y = np.arange(20.0)
    model = tfbig.models.mlp(
        (4,),
        1,
        task="regression",
        hidden=(8,),
        normalizer=tfbig.normalizer(np.random.default_rng(0).normal(size=(20, 4)) * 1e5),
        denormalizer=tfbig.normalizer(y.reshape(-1, 1), invert=True),
    )
    dtypes = [layer.compute_dtype for layer in with_precision(model, "mixed_bfloat16").layers]
    assert dtypes == ["float32", "bfloat16", "bfloat16", "float32", "float32"]


def test_a_head_of_the_users_own_stays_in_float32_wherever_it_stands_in_the_list():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, name="hidden")(inputs)
    early = keras.layers.Dense(2, name="early")(hidden)
    late = keras.layers.Dense(2, name="late")(keras.layers.Dense(4, name="more")(hidden))
    twin = with_precision(keras.Model(inputs, [early, late]), "mixed_bfloat16")
    dtypes = {name: dtype for name, dtype in computes_in(twin).items() if name != inputs.name}
    assert dtypes == {
        **dtypes,
        "hidden": "bfloat16",
        "more": "bfloat16",
        "early": "float32",
        "late": "float32",
    }


def test_layers_inside_layers_and_models_inside_models_are_reached():
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="deep"), keras.layers.Dense(3)])
    layers = [keras.Input((5, 4)), keras.layers.Bidirectional(keras.layers.LSTM(3), name="both"), inner]
    model = keras.Sequential(layers)
    twin = with_precision(model, "mixed_bfloat16")
    both, last = twin.layers
    assert both.forward_layer.cell.compute_dtype == both.backward_layer.cell.compute_dtype == "bfloat16"
    assert [layer.compute_dtype for layer in last.layers] == ["bfloat16", "float32"]
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    # bfloat16 keeps 8 bits: steps of 0.4%; a few layers of them on values below 1.
    np.testing.assert_allclose(twin.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.03)


def test_a_layer_with_a_precision_of_its_own_keeps_it():
    layers = [keras.Input((4,)), keras.layers.Dense(4, dtype="float64", name="fine"), keras.layers.Dense(2)]
    twin = with_precision(keras.Sequential(layers), "mixed_bfloat16")
    assert computes_in(twin)["fine"] == "float64"


def test_a_frozen_layer_stays_frozen():
    model = mlp()
    model.layers[0].trainable = False
    assert with_precision(model, "mixed_bfloat16").layers[0].trainable is False


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_that_rounds_to_levels_trains_on(blobs, name):
    x, y = blobs
    rounded = tfbig.quantize_aware(tfbig.models.mlp((4,), 3, batch_norm=True), x, y, epochs=1, verbose=0)
    before = rounded.get_weights()
    tfbig.fit(rounded, x, y, epochs=1, precision=name, verbose=0)
    assert any((a != b).any() for a, b in zip(before, rounded.get_weights(), strict=True))


def test_float32_brings_a_mixed_model_back():
    twin = with_precision(mlp(), "mixed_bfloat16")
    assert set(computes_in(with_precision(twin, "float32")).values()) == {"float32"}


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_model_learns_blobs_and_its_float32_twin_takes_the_weights(blobs, name):
    x, y = blobs
    keras.utils.set_random_seed(0)
    model = mlp(normalizer=tfbig.normalizer(x))
    twin = with_precision(model, name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    twin.compile(scaled(keras.optimizers.Adam(0.05), name), loss, metrics=["accuracy"])
    history = twin.fit(x, y, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.2 < 0.6 < history["loss"][0]
    model.set_weights(twin.get_weights())
    # The centres are 4.2 apart and the noise is 0.5: all but a handful of rows can be told apart.
    assert (model.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.95
    assert {str(w.dtype) for w in model.get_weights()} == {"float32"}


def test_float16_scales_the_loss_and_no_other_precision_does():
    adam = keras.optimizers.Adam()
    assert scaled(adam, "mixed_bfloat16") is adam
    assert scaled(adam, "float32") is adam
    wrapped = scaled(adam, "mixed_float16")
    assert isinstance(wrapped, keras.optimizers.LossScaleOptimizer)
    assert unscaled(wrapped) is adam
    assert unscaled(adam) is adam
    assert scaled(wrapped, "mixed_float16") is wrapped


def test_a_gradient_too_small_for_float16_trains_when_the_loss_is_scaled():
    moved = []
    for make in (lambda o: o, lambda o: scaled(o, "mixed_float16")):
        layers = [keras.layers.Dense(1, kernel_initializer="ones"), keras.layers.Activation("linear")]
        twin = with_precision(keras.Sequential([keras.Input((1,)), *layers]), "mixed_float16")
        # The loss is 1e-8 times the output: a gradient of 1e-8 is 0 in float16.
        loss = lambda y, p: 1e-8 * keras.ops.mean(p)  # noqa: E731
        twin.compile(make(keras.optimizers.SGD(1e7)), loss, auto_scale_loss=False)
        twin.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
        moved.append(abs(float(twin.get_weights()[0][0, 0]) - 1.0))
    assert moved[0] == 0
    assert moved[1] == pytest.approx(0.1, rel=0.01)  # 1e7 times 1e-8, in 11 bits


@pytest.mark.parametrize("call", [precision, lambda name: with_precision(mlp(), name)], ids=["scope", "twin"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("float16", "precision must be one of 'float32', 'mixed_bfloat16', 'mixed_float16'; got 'float16'"),
        ("mixed_bfloat", r"got 'mixed_bfloat'\. Did you mean 'mixed_bfloat16'\?"),
        (16, "must be one of .*; got 16"),
    ],
)
def test_another_name_lists_the_choices(call, name, message):
    with pytest.raises(InvalidOption, match=message), call(name):
        pass


def test_a_subclassed_model_is_refused_with_the_way_out():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    model = Own()
    model(np.ones((1, 1)))
    with pytest.raises(
        InvalidModel, match="cannot be made again in mixed_float16.*make its layers with dtype"
    ):
        with_precision(model, "mixed_float16")


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(InvalidModel, match="has no weights yet: build it, or begin it with keras.Input"):
        with_precision(keras.Sequential([keras.layers.Dense(1)]), "mixed_bfloat16")


@pytest.mark.parametrize("name", PRECISIONS)
def test_an_optimizer_that_scales_the_loss_by_itself_goes_on_from_one_fit_to_the_next(blobs, name):
    model = tfbig.models.mlp((4,), 3, hidden=(4,))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01, 0.9))
    for given in (optimizer, None):
        tfbig.fit(model, *blobs, optimizer=given, precision=name, epochs=1, batch_size=50, verbose=0)
    assert int(model.optimizer.inner_optimizer.iterations) == 2 * 4
    assert np.abs(model.optimizer.inner_optimizer.momentums[0].numpy()).max() > 0


def test_a_model_that_is_in_float16_already_trains_in_another_precision(blobs):
    """Keras's `compile` has wrapped its optimizer in one that scales the loss."""
    with precision("mixed_float16"):
        model = tfbig.models.mlp((4,), 3, hidden=(4,))
    for _ in range(2):
        tfbig.fit(model, *blobs, precision="mixed_bfloat16", epochs=1, batch_size=50, verbose=0)
    assert int(model.optimizer.inner_optimizer.iterations) == 2 * 4


def test_fit_trains_in_bfloat16_and_leaves_policy_and_model_as_they_were(blobs):
    seen = []

    class Noting(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append([layer.compute_dtype for layer in self.model.layers])

    model = tfbig.models.mlp((4,), 3, hidden=(8,))
    before = keras.config.dtype_policy()
    run = tfbig.fit(
        model,
        *blobs,
        precision="mixed_bfloat16",
        epochs=15,
        optimizer=keras.optimizers.Adam(0.05),
        seed=0,
        verbose=0,
        callbacks=[Noting()],
    )
    assert seen == [["bfloat16", "bfloat16", "float32"]]
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert keras.config.dtype_policy() == before
    assert run.history["accuracy"][-1] > 0.9
    # The float32 model, with the weights that the other one learned.
    assert model.evaluate(*blobs, verbose=0, return_dict=True)["accuracy"] > 0.9
