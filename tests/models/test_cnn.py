import numpy as np
import pytest

from tfbig.backend import keras
from tfbig.data.normalization import normalizer
from tfbig.errors import InvalidOption, UnknownOption
from tfbig.models import cnn


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def rows(*shape):
    return np.random.default_rng(0).normal(5, 3, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "options", "parameters"),
    [
        ((8, 8, 1), {"filters": (4,), "dense": ()}, (3 * 3 * 1 + 1) * 4 + (4 * 4 * 4 + 1) * 10),
        (
            (9, 8, 2),
            {"filters": (4, 6), "dense": (5,), "kernel_size": 5},
            (5 * 5 * 2 + 1) * 4 + (5 * 5 * 4 + 1) * 6 + (2 * 2 * 6 + 1) * 5 + (5 + 1) * 10,
        ),
        ((12, 3), {"filters": (4,), "dense": ()}, (3 * 3 + 1) * 4 + (6 * 4 + 1) * 10),
        ((5, 4, 1), {"filters": (2, 2), "dense": (), "pool_size": 1}, 20 + 38 + (5 * 4 * 2 + 1) * 10),
        (
            (8, 8, 1),
            {"filters": (4,), "dense": (), "batch_norm": True},
            (3 * 3 * 1) * 4 + 4 * 4 + (4 * 4 * 4 + 1) * 10,
        ),
    ],
    ids=["image", "uneven image", "sequence", "no pooling", "batch norm"],
)
def test_it_has_as_many_parameters_as_its_layers_add_up_to(shape, options, parameters):
    assert cnn(shape, 10, **options).count_params() == parameters


def normalized(parameters, filters):
    """A convolution without bias and its batch normalization: scale, offset, moving mean and variance."""
    return parameters + 4 * filters


def residual(filters, blocks, *, window=3 * 3, channels=3):
    total, before = normalized(window * channels * filters[0], filters[0]), filters[0]
    for count in filters:
        for _ in range(blocks):
            total += normalized(window * before * count, count) + normalized(window * count * count, count)
            total += normalized(before * count, count) if before != count else 0
            before = count
    return total + (filters[-1] + 1) * 10


def separable(filters, blocks, *, window=3 * 3, channels=3):
    total, before = normalized(window * channels * filters[0], filters[0]), filters[0]
    for count in filters:
        for _ in range(blocks):
            total += normalized(window * before, before) + normalized(before * count, count)
            before = count
    return total + (filters[-1] + 1) * 10


def plain(filters, blocks, dense, *, side=32, window=3 * 3, channels=3):
    total, before = 0, channels
    for count in filters:
        for _ in range(blocks):
            total += (window * before + 1) * count
            before = count
        side //= 2
    return total + (side * side * before + 1) * dense + (dense + 1) * 10


@pytest.mark.parametrize(
    ("variant", "preset", "parameters"),
    [
        ("plain", "tiny", plain((8, 16), 1, 32)),
        ("plain", "small", plain((32, 64), 1, 64)),
        ("plain", "base", plain((64, 128, 256), 2, 256)),
        ("plain", "large", plain((64, 128, 256, 512), 2, 512)),
        ("residual", "tiny", residual((8, 16, 32), 1)),
        ("residual", "small", residual((16, 32, 64), 1)),
        ("residual", "base", residual((16, 32, 64), 3)),
        ("residual", "large", residual((64, 128, 256, 512), 2)),
        ("separable", "tiny", separable((16, 32), 1)),
        ("separable", "small", separable((32, 64, 128), 1)),
        ("separable", "base", separable((64, 128, 256), 2)),
        ("separable", "large", separable((64, 128, 256, 512), 4)),
    ],
)
def test_a_preset_has_as_many_parameters_as_its_docstring_says(variant, preset, parameters):
    assert cnn((32, 32, 3), 10, variant=variant, preset=preset).count_params() == parameters
    assert f"{parameters:,}" in cnn.__doc__


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("residual", residual((4, 6), 2, window=5, channels=2)),
        ("separable", separable((4, 6), 2, window=5, channels=2)),
    ],
)
def test_variants_work_on_sequences_too(variant, parameters):
    model = cnn((12, 2), 10, variant=variant, filters=(4, 6), blocks=2, kernel_size=5)
    assert model.count_params() == parameters


@pytest.mark.parametrize("variant", ["residual", "separable"])
def test_each_stage_but_the_first_shrinks_the_sides_once(variant):
    model = cnn((9, 6, 1), 3, variant=variant, filters=(4, 4, 4), blocks=2)
    sides = [layer.output.shape[1:3] for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    assert list(dict.fromkeys(sides)) == [(9, 6), (5, 3), (3, 2)]


def test_a_residual_block_adds_what_went_in():
    model = cnn((4, 4, 1), 2, variant="residual", filters=(3,), norm=None, activation="linear")
    x = rows(5, 4, 4, 1)
    first, *block = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for layer in block:  # blocks that give nothing: what went in is left
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    average = np.asarray(first(x)).mean(axis=(1, 2))
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model(x), average @ kernel + bias, rtol=1e-4, atol=1e-5)  # float32 sums


@pytest.mark.parametrize(
    ("variant", "options", "norm"),
    [
        ("plain", {}, None),
        ("residual", {}, "BatchNormalization"),
        ("separable", {"norm": "group"}, "GroupNormalization"),
        ("separable", {"norm": None}, None),
        ("plain", {"norm": "layer"}, "LayerNormalization"),
    ],
)
def test_the_norm_is_the_one_asked_for_or_suits_the_variant(variant, options, norm):
    found = {kind for kind in kinds(cnn((8, 8, 1), 3, variant=variant, **options)) if "Norm" in kind}
    assert found == ({norm} if norm else set())


def test_depthwise_kernels_have_no_penalty():
    model = cnn((4, 4, 1), 3, variant="separable", filters=(2,), norm=None, l2=0.01)
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 2.0))
    kernels = 3 * 3 * 1 * 2 + 2 * 2 + 2 * 3
    # Sums of float32.
    assert float(sum(model.losses)) == pytest.approx(kernels * 0.01 * 2**2, rel=1e-5)


def test_blocks_of_the_plain_variant_stand_before_each_pooling():
    model = cnn((8, 8, 1), 3, filters=(4,), blocks=2, dense=())
    assert kinds(model)[:5] == ["Conv2D", "Activation"] * 2 + ["MaxPooling2D"]


@pytest.mark.parametrize(
    ("shape", "convolution", "pooling"),
    [((8, 8, 1), "Conv2D", "MaxPooling2D"), ((8, 3), "Conv1D", "MaxPooling1D")],
)
def test_layers_stand_in_order_with_every_option(shape, convolution, pooling):
    model = cnn(
        shape,
        3,
        filters=(4,),
        dense=(5,),
        dropout=0.25,
        batch_norm=True,
        normalizer=normalizer(rows(9, *shape)),
    )
    block = [convolution, "BatchNormalization", "Activation", pooling]
    assert kinds(model) == ["Normalization", *block, "Flatten", "Dropout", "Dense", "Dropout", "Dense"]


def test_pooling_by_1_leaves_the_pooling_layers_out():
    assert "MaxPooling2D" not in kinds(cnn((8, 8, 1), 3, pool_size=1))


@pytest.mark.parametrize("kernel_size", [1, 2, 5])
def test_only_pooling_shrinks(kernel_size):
    model = cnn((9, 6, 1), 3, filters=(4, 4), kernel_size=kernel_size)
    pooled = [
        layer.output.shape[1:3] for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)
    ]
    assert pooled == [(4, 3), (2, 1)]


def test_dropout_precedes_each_dense_layer_and_the_head_at_its_rate():
    model = cnn((8, 8, 1), 3, filters=(4,), dense=(6, 5), dropout=0.25)
    assert kinds(model)[-6:] == ["Dropout", "Dense"] * 3
    assert {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} == {0.25}


def test_the_activation_is_that_of_all_layers_but_the_head():
    model = cnn((8, 8, 1), 3, filters=(4,), dense=(5,), activation="tanh")
    activations = [layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")]
    assert activations == ["linear", "tanh", "tanh", "linear"]


def test_penalties_are_on_every_kernel_and_on_no_bias():
    model = cnn((4, 4, 1), 3, filters=(2,), dense=(5,), l1=0.1, l2=0.01)
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 2.0))
    kernels = 3 * 3 * 1 * 2 + 2 * 2 * 2 * 5 + 5 * 3
    # Sums of float32.
    assert float(sum(model.losses)) == pytest.approx(kernels * (0.1 * 2 + 0.01 * 2**2), rel=1e-5)


def test_a_normalizer_sees_the_inputs_first():
    x = rows(50, 4, 4, 2)
    plain, normalized = (cnn((4, 4, 2), 3, filters=(2,), normalizer=n) for n in (None, normalizer(x)))
    normalized.set_weights(plain.get_weights())
    z = (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2))
    # Float32 statistics on one side, float64 on the other.
    np.testing.assert_allclose(normalized.predict(x, verbose=0), plain.predict(z, verbose=0), atol=1e-5)


def test_it_is_built_named_and_not_compiled():
    model = cnn((8, 8, 1), 3, name="small")
    assert (model.built, model.compiled, model.name) == (True, False, "small")
    assert (model.input_shape, model.output_shape) == ((None, 8, 8, 1), (None, 3))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 3)], ids=["image", "sequence"])
def test_it_gives_the_same_answers_after_saving_and_loading(tmp_path, shape):
    x, y = rows(20, *shape), rows(20, 1)
    model = cnn(
        shape,
        1,
        task="regression",
        filters=(4,),
        dropout=0.5,
        l1=0.1,
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
        ({"filters": ()}, "filters must name at least one block's filters; got none. Without any, use mlp"),
        ({"filters": (8, 0)}, r"filters\[1\] must be a whole number of at least 1; got 0"),
        ({"filters": 8}, r"filters must .*got 8"),
        ({"dense": (8, -1)}, r"dense\[1\] must be a whole number of at least 1; got -1"),
        ({"dense": 8}, r"dense must .*got 8"),
        ({"kernel_size": 0}, "kernel_size must be a whole number of at least 1; got 0"),
        ({"pool_size": 0}, "pool_size must be a whole number of at least 1; got 0"),
        ({"blocks": 0}, "blocks must be a whole number of at least 1; got 0"),
        ({"variant": "resnet"}, "variant must be one of 'plain', 'residual', 'separable'; got 'resnet'"),
        ({"preset": "huge"}, "preset must be one of 'tiny', 'small', 'base', 'large'; got 'huge'"),
        ({"norm": "none"}, "norm must be one of .* got 'none'"),
        ({"initializer": "he"}, "initializer must be a name that Keras knows; got 'he'"),
        ({"task": "sequence"}, "answers once per example"),
        ({"dropout": 1}, r"dropout must be a number in \[0, 1\); got 1"),
        ({"l1": -1}, "penalties of at least 0; got l1=-1, l2=0.0"),
        ({"outputs": 1}, 'pass task="binary" or task="regression"'),
        (
            {"input_shape": (8,)},
            r"must have 2 or 3 axes besides the batch, such as \(28, 28, 1\) .* got \(8,\)",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        cnn(**{"input_shape": (8, 8, 1), "outputs": 3, **options})


@pytest.mark.parametrize(
    ("shape", "left"), [((8, 3, 1), r"\(4, 1\)"), ((3, 8, 1), r"\(1, 4\)"), ((3, 1), r"\(1,\)")]
)
def test_pooling_that_leaves_nothing_names_the_block_and_the_ways_out(shape, left):
    with pytest.raises(
        InvalidOption,
        match=f"Pooling by 2 in block 2 of 2 would shrink {left} below 1.*fewer filters.*larger",
    ):
        cnn(shape, 3, filters=(4, 4))


def test_strides_that_leave_nothing_name_the_block():
    with pytest.raises(InvalidOption, match=r"in block 3 of 3 would shrink \(2, 1\) below 1"):
        cnn((3, 2, 1), 3, variant="separable", filters=(4, 4, 4))


def test_a_misspelt_option_gets_did_you_mean():
    with pytest.raises(UnknownOption, match=r"cnn\(\) has no option 'filter'\. Did you mean 'filters'\?"):
        cnn((8, 8, 1), 3, filter=(8,))
