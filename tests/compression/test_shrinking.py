import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbig
from tfbig.compression.shrink_report import ShrinkReport
from tfbig.errors import InvalidData, InvalidModel, InvalidOption, UnknownOption

L = keras.layers


def units(model):
    return [layer.units for layer in model.layers if hasattr(layer, "units")]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return tfbig.models.mlp((4,), 3, hidden=(32, 16))


def test_half_the_channels_give_a_smaller_model_that_is_as_accurate(digits, digits_model, tmp_path):
    smaller = tfbig.shrink(digits_model, digits.x_train, digits.y_train, epochs=8, seed=0, verbose=0)
    before = tfbig.evaluate(digits_model, digits.x_test, digits.y_test)["accuracy"]
    # 360 held-out rows: 3 points is 11 rows; untrained, the smaller model loses ten times that.
    assert tfbig.evaluate(smaller, digits.x_test, digits.y_test)["accuracy"] >= before - 0.03
    report = tfbig.shrink_plan(digits_model)
    assert smaller.count_params() == report.after.parameters < 0.3 * report.before.parameters
    assert tfbig.summary(smaller).macs == report.after.macs < 0.3 * report.before.macs

    lite = tfbig.export(smaller, tmp_path / "smaller.tflite", quantize="int8", calibration=digits.x_train)
    assert lite.report.proof.agreement >= 0.97
    # The graph, scales and names come on top of the weights: 6 to 10 kB at this size.
    assert 0 < lite.path.stat().st_size - report.after.int8_bytes < 10_000


def test_the_given_model_is_not_changed(model, blobs):
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before, optimizer = model.get_weights(), model.optimizer
    tfbig.shrink(model, *blobs, epochs=1, importance="taylor", optimizer="adam", verbose=0)
    assert model.optimizer is optimizer
    assert int(optimizer.iterations) == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_without_data_nothing_is_trained_and_the_largest_stay(model):
    smaller = tfbig.shrink(model, keep=0.25)
    first, second = model.layers[0].kernel.numpy(), model.layers[2].kernel.numpy()
    stay = np.sort(np.argsort(-np.linalg.norm(first, axis=0))[:8])
    then = np.sort(np.argsort(-np.linalg.norm(second, axis=0))[:4])
    assert np.array_equal(smaller.layers[0].kernel.numpy(), first[:, stay])
    assert np.array_equal(smaller.layers[2].kernel.numpy(), second[np.ix_(stay, then)])
    assert not smaller.compiled


def test_compile_settings_come_along(model, blobs):
    model.compile(
        keras.optimizers.SGD(0.123, momentum=0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    smaller = tfbig.shrink(model)
    assert smaller.optimizer is not model.optimizer
    assert smaller.optimizer.get_config() == model.optimizer.get_config()
    assert smaller.loss.get_config() == model.loss.get_config()
    assert set(smaller.evaluate(*blobs, verbose=0, return_dict=True)) == {"loss", "accuracy"}
    smaller.fit(*blobs, verbose=0)


def test_rounds_reach_the_share_by_even_factors_and_share_the_epochs(model, blobs):
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(units(watch.model)))
    smaller = tfbig.shrink(
        model,
        *blobs,
        keep=1 / 8,
        rounds=3,
        epochs=7,
        callbacks=[watch],
        optimizer=keras.optimizers.SGD(),
        verbose=0,
    )
    assert seen == [[16, 8, 3]] * 2 + [[8, 4, 3]] * 2 + [[4, 2, 3]] * 3
    assert units(smaller) == [4, 2, 3]


def test_each_round_is_resumed_from_a_folder_of_its_own(model, blobs, tmp_path):
    ran = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: ran.append(epoch))
    options = {
        "rounds": 2,
        "epochs": 3,
        "checkpoint_dir": tmp_path / "run",
        "callbacks": [watch],
        "seed": 0,
        "verbose": 0,
    }
    first = tfbig.shrink(model, *blobs, keep=0.25, **options)
    assert ran == [0, 0, 1]
    again = tfbig.shrink(model, *blobs, keep=0.25, **options)
    assert ran == [0, 0, 1]  # finished before: nothing was trained again
    assert sorted(folder.name for folder in (tmp_path / "run").iterdir()) == ["round_1", "round_2"]
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), again.get_weights(), strict=True))


def test_a_choice_by_a_function_of_size_holds_through_all_rounds(model, blobs):
    options = {
        "layers": lambda layer: getattr(layer, "units", 0) == 32,
        "rounds": 2,
        "epochs": 2,
        "verbose": 0,
    }
    assert units(tfbig.shrink(model, *blobs, keep=0.25, **options)) == [8, 16, 3]


def test_a_residual_network_is_trained_in_rounds_on_a_stream(digits):
    x = keras.Input((8, 8, 1))
    h = L.Conv2D(8, 3, padding="same", activation="relu")(L.Rescaling(1 / 16)(x))
    h = L.Add()([h, L.Conv2D(8, 3, padding="same")(h)])
    model = keras.Model(x, L.Dense(10)(L.Flatten()(h)))
    stream = tf.data.Dataset.from_tensor_slices((digits.x_train[:256], digits.y_train[:256])).batch(64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"importance": "taylor", "rounds": 2, "epochs": 2, "loss": loss, "verbose": 0}
    smaller = tfbig.shrink(model, stream, keep=0.25, **options)
    assert [layer.filters for layer in smaller.layers if hasattr(layer, "filters")] == [2, 2]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (0.5, [16, 8]),
        (1, [32, 16]),
        (0.001, [1, 1]),
        ({"first": 0.25}, [8, 16]),
        ({"first": 0.25, "*": 0.75}, [8, 12]),
    ],
)
def test_keep_is_a_share_or_a_share_by_layer(keep, expected):
    stack = [L.Dense(32, name="first"), L.Dense(16, name="second"), L.Dense(3)]
    smaller = tfbig.shrink(keras.Sequential([keras.Input((4,)), *stack]), keep=keep)
    assert units(smaller) == [*expected, 3]


def test_heads_have_a_name_of_their_own():
    x = keras.Input((5, 4))
    model = keras.Model(x, L.Dense(2)(L.MultiHeadAttention(8, 2, name="attention")(x, x)))
    plan = tfbig.shrink_plan(model, keep={"attention/heads": 0.25})
    assert [(group.makers, group.kept) for group in plan.groups] == [(("attention/heads",), 2)]
    assert plan.skipped["attention"] == "not among the layers asked for"
    plan = tfbig.shrink_plan(model, keep={"attention": 0.5})
    assert [(group.makers, group.kept) for group in plan.groups] == [
        (("attention/heads",), 4),
        (("attention",), 2),
    ]


def test_naming_a_wrapper_names_what_it_holds():
    stack = [L.Bidirectional(L.GRU(8), name="both"), L.Dense(8, name="after"), L.Dense(2)]
    plan = tfbig.shrink_plan(keras.Sequential([keras.Input((5, 3)), *stack]), keep={"both": 0.25})
    assert [group.kept for group in plan.groups] == [2, 2]
    assert plan.skipped["after"] == "not among the layers asked for"


@pytest.mark.parametrize("layers", ["second", ["second"], lambda layer: layer.name == "second"])
def test_layers_are_chosen_and_the_others_listed(layers):
    stack = [L.Dense(8, name="first"), L.LSTM(8, name="second"), L.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((5, 4)), *stack])
    plan = tfbig.shrink_plan(model, layers=layers)
    assert [group.makers for group in plan.groups] == [("second",)]
    assert plan.skipped["first"] == "not among the layers asked for"
    assert units(tfbig.shrink(model, layers=layers)) == [8, 4, 2]


def test_what_goes_together_with_a_layer_not_asked_for_stays():
    x = keras.Input((4,))
    both = L.Add()([L.Dense(8, name="a")(x), L.Dense(8, name="b")(x)])
    model = keras.Model(x, L.Dense(2)(L.Dense(8, name="c")(both)))
    plan = tfbig.shrink_plan(model, layers=["a", "c"])
    assert [group.makers for group in plan.groups] == [("c",)]
    assert plan.skipped["a"] == "goes together with b, not among the layers asked for"
    with pytest.raises(
        InvalidOption, match=r"different shares to layers whose channels go together: {'a': 0.5, 'b'"
    ):
        tfbig.shrink(model, keep={"a": 0.5, "b": 0.25})


def test_the_plan_counts_what_the_arithmetic_says(model):
    plan = tfbig.shrink_plan(model, keep=0.25)
    parameters = (4 + 1) * 32 + (32 + 1) * 16 + (16 + 1) * 3
    kernels = 4 * 32 + 32 * 16 + 16 * 3
    assert plan.before.parameters == parameters
    assert plan.before.macs == kernels
    assert (plan.before.float_bytes, plan.before.int8_bytes) == (4 * parameters, kernels + 4 * (32 + 16 + 3))
    assert plan.after.parameters == (4 + 1) * 8 + (8 + 1) * 4 + (4 + 1) * 3
    assert [group.readers for group in plan.groups] == [(model.layers[2].name,), ("logits",)]


def test_the_plan_prints_goes_through_json_and_does_nothing(model):
    before = model.get_weights()
    plan = tfbig.shrink_plan(model)
    assert ShrinkReport.from_json(plan.to_json()) == plan
    lines = str(plan).splitlines()
    assert lines[0].endswith(f"16 of 32 channels, read by {model.layers[2].name}")
    assert "logits            skipped: its channels are the model's output" in lines
    assert "parameters        739 → 243  (32.9%)" in lines
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("keep", [0, -0.5, 1.01, "half", None, True, float("nan"), {"dense": 2}])
def test_a_share_outside_the_interval_is_refused(model, keep):
    with pytest.raises(InvalidOption, match=r"keep must be a number in \(0, 1\], the share of channels"):
        tfbig.shrink(model, keep=keep)


def test_a_name_that_matches_no_layer_is_refused(model):
    with pytest.raises(
        InvalidOption, match=r"keep names 'logit', which matches no layer.* Did you mean 'logits'\?"
    ):
        tfbig.shrink(model, keep={"logit": 0.5})
    with pytest.raises(InvalidOption, match=r"layers='logit' matches no layer. Did you mean 'logits'"):
        tfbig.shrink(model, layers="logit")
    with pytest.raises(InvalidOption, match="keep names no layer"):
        tfbig.shrink(model, keep={})


def test_a_model_with_nothing_to_shrink_is_refused():
    only_head = keras.Sequential([keras.Input((4,)), L.Dense(3, name="head")])
    with pytest.raises(
        InvalidModel, match=r"no channels that can go; skipped: {'head': \"its channels are the"
    ):
        tfbig.shrink(only_head)


def test_a_subclassed_model_is_refused_with_what_works(blobs):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, x):
            return self.dense(x)

    net = Net()
    net(blobs[0])
    with pytest.raises(
        InvalidModel, match="is a Net, whose channels cannot be followed.*Prune and Cluster callbacks"
    ):
        tfbig.shrink(net)


def test_a_model_that_is_not_built_and_what_is_no_model_are_refused():
    with pytest.raises(InvalidModel, match="has no weights yet: build it"):
        tfbig.shrink(keras.Sequential([L.Dense(3)]))
    with pytest.raises(InvalidModel, match="Expected a keras.Model"):
        tfbig.shrink("model.keras")


def test_a_layer_that_does_not_come_back_from_its_configuration_is_said(blobs):
    class Scaled(L.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return super().get_config()

    model = keras.Sequential([keras.Input((4,)), L.Dense(8), L.Dense(8), Scaled(2), L.Dense(2)])
    with pytest.raises(
        InvalidModel, match=r"(?s)cannot be made anew: .*must come back from its get_config\(\)"
    ):
        tfbig.shrink(model)


def test_options_of_training_without_data_are_refused(model, blobs):
    with pytest.raises(InvalidOption, match="epochs, rounds need data to train on"):
        tfbig.shrink(model, rounds=2, epochs=3)
    with pytest.raises(InvalidData, match="y is missing"):
        tfbig.shrink(model, blobs[0])
    with pytest.raises(InvalidOption, match="3 rounds need as many; got 2"):
        tfbig.shrink(model, *blobs, rounds=3, epochs=2)
    with pytest.raises(InvalidOption, match="rounds must be a whole number of at least 1"):
        tfbig.shrink(model, *blobs, rounds=0)
    with pytest.raises(UnknownOption, match=r"shrink\(\) has no option 'epoch'. Did you mean 'epochs'"):
        tfbig.shrink(model, *blobs, epoch=2)


def test_a_shrunk_model_is_pruned_and_shrunk_again(model, blobs):
    smaller = tfbig.shrink(tfbig.shrink(model), keep=0.5)
    assert units(smaller) == [8, 4, 3]
    thin = tfbig.prune(smaller, *blobs, sparsity=0.5, epochs=3, verbose=0)
    assert tfbig.sparsity(thin).overall == pytest.approx(0.5, abs=0.02)  # rounding in kernels of 12 weights


def test_a_layer_that_cannot_be_followed_is_named_by_a_warning():
    class Mixed(L.Dense):
        def call(self, x):
            return keras.ops.flip(super().call(x), axis=-1)

    stack = [L.Dense(8, name="before"), Mixed(6, name="mixed"), L.Dense(4, name="after"), L.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *stack])
    with pytest.warns(
        UserWarning, match=r"whole, .*: mixed \(a Mixed, which cannot be followed\)\. shrink_plan"
    ):
        smaller = tfbig.shrink(model)
    assert [layer.units for layer in smaller.layers] == [8, 6, 2, 2]
