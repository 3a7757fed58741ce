import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.data.normalization import normalizer
from tfbig.errors import InvalidOption, UnknownOption
from tfbig.models import mlp


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def rows(*shape):
    return np.random.default_rng(0).normal(5, 3, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "hidden", "outputs", "parameters"),
    [
        ((64,), (128, 64), 10, (64 + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 10),
        (7, (5,), 3, (7 + 1) * 5 + (5 + 1) * 3),
        ((4,), (), 2, (4 + 1) * 2),
        ((8, 8, 1), (6,), 2, (8 * 8 * 1 + 1) * 6 + (6 + 1) * 2),
        ((2, 3, 4, 5), (1,), 2, (2 * 3 * 4 * 5 + 1) * 1 + (1 + 1) * 2),
    ],
)
def test_it_has_as_many_parameters_as_its_docstring_says(shape, hidden, outputs, parameters):
    assert mlp(shape, outputs, hidden=hidden).count_params() == parameters


def test_batch_norm_puts_a_scale_and_an_offset_in_place_of_each_bias():
    model = mlp((4,), 3, hidden=(6, 5), batch_norm=True)
    trainable = sum(weight.numpy().size for weight in model.trainable_weights)
    moving = sum(weight.numpy().size for weight in model.non_trainable_weights)
    assert trainable == (4 + 1) * 6 + (6 + 1) * 5 + (5 + 1) * 3 + (6 + 5)
    assert moving == 2 * (6 + 5)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("tiny", (64 + 1) * 32 + (32 + 1) * 10),
        ("small", (64 + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 10),
        ("base", (64 + 1) * 512 + (512 + 1) * 256 + (256 + 1) * 10),
        ("large", (64 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 512 + (512 + 1) * 10),
    ],
)
def test_a_preset_has_as_many_parameters_as_its_docstring_says(preset, parameters):
    assert mlp((64,), 10, preset=preset).count_params() == parameters
    assert f'"{preset}"' in mlp.__doc__
    assert f"{parameters:,}" in mlp.__doc__


def test_the_preset_is_small_and_a_size_given_goes_before_it():
    assert mlp((4,), 3).count_params() == mlp((4,), 3, preset="small").count_params()
    assert mlp((4,), 3, preset="large", hidden=(6,)).count_params() == (4 + 1) * 6 + (6 + 1) * 3


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_other_norms_put_a_scale_and_an_offset_in_place_of_each_bias(norm):
    model = mlp((4,), 3, hidden=(8, 5), norm=norm)
    assert model.count_params() == (4 + 1) * 8 + (8 + 1) * 5 + (5 + 1) * 3 + (8 + 5)
    assert kinds(model)[1] == f"{norm.capitalize()}Normalization"


def test_the_initializer_is_that_of_every_kernel():
    model = mlp((4,), 3, hidden=(6,), initializer="ones")
    assert all(np.all(layer.kernel.numpy() == 1) for layer in model.layers if hasattr(layer, "kernel"))


def test_layers_stand_in_order_with_every_option():
    model = mlp((2, 2), 3, hidden=(6,), batch_norm=True, dropout=0.25, normalizer=normalizer(rows(9, 2, 2)))
    assert kinds(model) == [
        "Normalization",
        "Flatten",
        "Dense",
        "BatchNormalization",
        "Activation",
        "Dropout",
        "Dense",
    ]


def test_dropout_follows_each_hidden_layer_at_its_rate():
    model = mlp((4,), 3, hidden=(6, 5), dropout=0.25)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.25]
    assert kinds(model)[-2:] == ["Dropout", "Dense"]


def test_the_activation_is_that_of_hidden_layers_only():
    model = mlp((4,), 3, hidden=(6,), activation="tanh")
    activations = [layer.activation.__name__ for layer in model.layers]
    assert activations == ["linear", "tanh", "linear"]


def test_penalties_are_on_every_kernel_and_on_no_bias():
    model = mlp((4,), 3, hidden=(6, 5), l1=0.1, l2=0.01)
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 2.0))
    kernels = 4 * 6 + 6 * 5 + 5 * 3
    # Sums of float32.
    assert float(sum(model.losses)) == pytest.approx(kernels * (0.1 * 2 + 0.01 * 2**2), rel=1e-5)


def test_without_penalties_there_is_no_loss_of_its_own():
    assert mlp((4,), 3).losses == []


def test_a_normalizer_sees_the_inputs_first():
    x = rows(50, 4)
    plain, normalized = mlp((4,), 3, hidden=(6,)), mlp((4,), 3, hidden=(6,), normalizer=normalizer(x))
    normalized.set_weights(plain.get_weights())
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    # Float32 statistics on one side, float64 on the other.
    np.testing.assert_allclose(normalized.predict(x, verbose=0), plain.predict(z, verbose=0), atol=1e-5)


def test_a_denormalizer_turns_the_last_values_into_those_of_y():
    y = np.array([[10.0], [30.0]])
    model = mlp((4,), 1, task="regression", hidden=(6,), denormalizer=normalizer(y, invert=True))
    values = keras.Model(model.inputs, model.get_layer("values").output)
    x = rows(20, 4)
    expected = 20 + 10 * values.predict(x, verbose=0)
    # One multiplication and one addition in float32.
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)


def test_it_is_built_named_and_not_compiled():
    model = mlp((4,), 3, name="small")
    assert (model.built, model.compiled, model.name) == (True, False, "small")
    assert (model.input_shape, model.output_shape) == ((None, 4), (None, 3))


def test_it_gives_the_same_answers_after_saving_and_loading(tmp_path):
    x, y = rows(20, 4), rows(20, 2)
    model = mlp(
        (4,),
        2,
        task="regression",
        hidden=(6,),
        dropout=0.5,
        l2=0.1,
        batch_norm=True,
        normalizer=normalizer(x),
        denormalizer=normalizer(y, invert=True),
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": 0}, "outputs must be a whole number of at least 1; got 0"),
        ({"outputs": 1}, 'pass task="binary" or task="regression"'),
        ({"task": "regresion"}, "Did you mean 'regression'"),
        ({"hidden": (8, 0)}, r"hidden\[1\] must be a whole number of at least 1; got 0"),
        ({"hidden": (8, 2.5)}, r"hidden\[1\] must be a whole number of at least 1; got 2\.5"),
        ({"hidden": 8}, r"hidden must .*got 8"),
        ({"preset": "bas"}, r"preset must be one of 'tiny', .* got 'bas'\. Did you mean 'base'"),
        ({"norm": "layers"}, r"norm must be one of .* got 'layers'\. Did you mean 'layer'"),
        ({"task": "sequence"}, "answers once per example"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\); got 1\.0"),
        ({"l2": -1}, "penalties of at least 0; got l1=0.0, l2=-1"),
        (
            {"denormalizer": keras.layers.Normalization(mean=0.0, variance=1.0)},
            "A denormalizer .* got 'multi",
        ),
        ({"input_shape": (1, 2, 3, 4, 5)}, r"must have 1 or 2 or 3 or 4 axes .* got \(1, 2, 3, 4, 5\)"),
        ({"input_shape": 3.5}, r"input_shape must .*got 3\.5"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        mlp(**{"input_shape": (4,), "outputs": 3, **options})


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(UnknownOption, match=r"mlp\(\) has no option 'hiden'\. Did you mean 'hidden'\?"):
        mlp((4,), 3, hiden=(8,))
