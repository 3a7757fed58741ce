import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import tfbig
from tfbig.errors import InvalidModel, InvalidOption, UnknownOption
from tfbig.layers.kernels import QuantizedLayer

L = keras.layers
OPTIONS = {"epochs": 2, "seed": 0, "verbose": 0}


def integer_kernels(path):
    """The int8 weights in a file by shape, output channels first, and how many scales each has."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    found = []
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and tensor.type == schema.TensorType.INT8 and len(tensor.shape) > 1:
            codes = np.asarray(data, np.uint8).view(np.int8).reshape(tensor.shape)
            found.append((codes, len(tensor.quantization.scale)))
    return sorted(found, key=lambda kernel: kernel[0].size)


def agreement(model, lite, x):
    return (np.asarray(model(x)).argmax(1) == lite.predict(x).argmax(1)).mean()


def every_row(digits):
    """All 1,797 rows, of which rounding decides one or none, at a tie between two classes.

    On the 360 test rows alone two such rows on another processor would decide a test.
    """
    return np.concatenate([digits.x_train, digits.x_test])


def accuracy(model, digits):
    return tfbig.evaluate(model, digits.x_test, digits.y_test)["accuracy"]


@pytest.fixture(scope="module")
def small():
    """A convolutional network with batch normalization, trained on digits, and the rows."""
    data = tfbig.load_dataset("digits")
    digits = tfbig.split((data.x / 16).astype("float32"), data.y, seed=0)
    layers = [
        keras.Input((8, 8, 1), name="x"),
        *(L.Conv2D(8, 3, use_bias=False, name="first"), L.BatchNormalization(momentum=0.9), L.ReLU()),
        *(L.Conv2D(16, 3, activation="relu", name="second"), L.Flatten()),
        *(L.Dense(24, use_bias=False, name="hidden"), L.BatchNormalization(momentum=0.9), L.ReLU()),
        L.Dense(10, name="logits"),
    ]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(layers, name="small")
    tfbig.fit(model, digits.x_train, digits.y_train, epochs=8, seed=0, verbose=0)
    return model, digits


@pytest.fixture(scope="module")
def rounded(small):
    """The network, quantized. Shared by tests: none may change it."""
    return quantized(small, optimizer=keras.optimizers.Adam(1e-4))


@pytest.fixture(scope="module")
def thin(small):
    """The network, pruned."""
    model, digits = small
    return tfbig.prune(model, digits.x_train, digits.y_train, sparsity=0.7, **{**OPTIONS, "epochs": 4})


def quantized(small, **options):
    model, digits = small
    return tfbig.quantize_aware(model, digits.x_train, digits.y_train, **{**OPTIONS, **options})


def exported(model, folder):
    return tfbig.export(model, folder / "model.tflite", quantize="int8")


def test_digits_stay_accurate_and_file_and_model_agree(small, rounded, tmp_path):
    model, digits = small
    lite = exported(rounded, tmp_path)
    assert agreement(rounded, lite, every_row(digits)) >= 0.995
    assert accuracy(lite, digits) >= accuracy(model, digits) - 0.01
    assert lite.report.float_ops == ()


def test_training_goes_through_the_rounding(small):
    model, digits = small
    still = quantized(small, weight_bits=4, epochs=1, optimizer=keras.optimizers.Adam(1e-9))
    trained = quantized(small, weight_bits=4, epochs=4)
    loss = [m.evaluate(digits.x_train, digits.y_train, verbose=0)[0] for m in (model, still, trained)]
    # 15 levels cost something, and training wins it back; with no gradient through rounding nothing would move.
    assert loss[0] < loss[1]
    assert loss[2] < 0.7 * loss[1]


def test_zeros_and_shared_values_stay_to_the_file(small, thin, tmp_path):
    _, digits = small
    shared = tfbig.cluster(thin, digits.x_train, digits.y_train, clusters=8, **OPTIONS)
    rounded = tfbig.quantize_aware(shared, digits.x_train, digits.y_train, **OPTIONS)
    for layer in tfbig.clusters(rounded).layers:
        assert layer.distinct <= 8
        assert layer.zeros / layer.weights == pytest.approx(0.7, abs=0.02)
    moved = [not np.allclose(a, b) for a, b in zip(kernels(shared), kernels(rounded), strict=True)]
    assert all(moved)  # the shared values train
    lite = exported(rounded, tmp_path)
    assert agreement(rounded, lite, every_row(digits)) >= 0.995
    assert accuracy(lite, digits) >= accuracy(shared, digits) - 0.02
    found = integer_kernels(lite.path)
    assert [codes.shape[0] for codes, _ in found] == [8, 10, 16, 24]
    for (codes, scales), before in zip(found, sorted(kernels(thin), key=np.size), strict=True):
        assert (codes == 0).sum() >= (before == 0).sum()
        if codes.shape[0] == 24:  # dense, with a normalization folded in: a scale per channel
            assert max(len(np.unique(channel)) for channel in codes) <= 8
        else:
            assert len(np.unique(codes)) <= 8
            assert scales in (1, codes.shape[0])


def kernels(model):
    layers = [layer.layer if isinstance(layer, QuantizedLayer) else layer for layer in model.layers]
    return [np.asarray(layer.kernel) for layer in layers if hasattr(layer, "kernel")]


def test_zeros_stay_to_the_file(small, thin, tmp_path):
    _, digits = small
    rounded = tfbig.quantize_aware(thin, digits.x_train, digits.y_train, **{**OPTIONS, "epochs": 1})
    assert tfbig.sparsity(rounded).overall == tfbig.sparsity(thin).overall
    found = integer_kernels(exported(rounded, tmp_path).path)
    for (codes, _), before in zip(found, sorted(kernels(thin), key=np.size), strict=True):
        assert 0.69 <= (before == 0).mean() <= (codes == 0).mean()


def test_values_shared_per_channel_stay_so(small, tmp_path):
    model, digits = small
    options = {"clusters": 4, "per_channel": True, "layers": ["second", "hidden"]}
    shared = tfbig.cluster(model, digits.x_train, digits.y_train, **options, **OPTIONS)
    rounded = tfbig.quantize_aware(shared, digits.x_train, digits.y_train, **OPTIONS)
    found = {codes.shape[0]: codes for codes, _ in integer_kernels(exported(rounded, tmp_path).path)}
    for channels in (16, 24):
        assert max(len(np.unique(channel)) for channel in found[channels]) <= 4
    assert len(np.unique(found[8])) > 8  # the first layer was free


def test_what_is_not_to_be_preserved_trains(small, thin):
    _, digits = small
    options = {**OPTIONS, "epochs": 1, "preserve": "clusters"}
    rounded = tfbig.quantize_aware(thin, digits.x_train, digits.y_train, **options)
    assert all(layer.zeros is layer.clusters is None for layer in tfbig.quantization(rounded).layers)
    assert tfbig.sparsity(rounded).overall < 0.1


def test_learned_ranges_are_trained_and_a_delay_is_waited_for(small, tmp_path):
    model, digits = small
    rounded = quantized(small, ranges="learned", delay=20)
    lowest, highest = tfbig.quantization(rounded).ranges["x_range"]
    # Rows lie in [0, 1]; the end at 0 stays, the other may move by 70 steps of Adam, 0.001 each.
    assert lowest == 0
    assert highest == pytest.approx(1, abs=0.07)
    assert highest != 1
    assert accuracy(exported(rounded, tmp_path), digits) >= accuracy(model, digits) - 0.015


def test_four_bits_are_packed_in_the_file(small, tmp_path):
    rounded = quantized(small, weight_bits={"first": 4, "sec*": 4}, epochs=1)
    assert [layer.bits for layer in tfbig.quantization(rounded).layers] == [4, 4, 8, 8]
    lite = exported(rounded, tmp_path)
    # Biases are stored in steps of (input scale × kernel scale), 18 times as coarse as with 8 bits.
    assert agreement(rounded, lite, every_row(small[1])) >= 0.989
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(lite.path.read_bytes(), 0))
    packed = {
        tuple(tensor.shape): len(model.buffers[tensor.buffer].data)
        for tensor in model.subgraphs[0].tensors
        if tensor.type == schema.TensorType.INT4
    }
    assert packed == {(8, 3, 3, 1): 36, (16, 3, 3, 8): 576}  # two weights a byte


def test_layers_not_asked_for_stay_in_float_and_are_listed(small, tmp_path):
    _, digits = small
    rounded = quantized(small, layers=["first", "second"], epochs=1)
    report = tfbig.quantization(rounded)
    assert [layer.name for layer in report.layers][:2] == ["first", "second"]
    assert report.in_float == {
        "hidden": "not among the layers asked for",
        "logits": "not among the layers asked for",
    }
    lite = exported(rounded, tmp_path)
    assert lite.report.float_ops == ("FULLY_CONNECTED",)
    assert list(lite.outputs.values()) == ["float32"]
    assert agreement(rounded, lite, every_row(digits)) >= 0.995
    with pytest.raises(InvalidOption, match="input_type='int8' needs ranges.*Use input_type=\"float32\""):
        tfbig.export(rounded, tmp_path / "other.tflite", quantize="int8", input_type="int8")


def test_sixteen_bits_train_and_export(small, tmp_path):
    model, digits = small
    rounded = quantized(small, activation_bits=16, epochs=1)
    assert tfbig.quantization(rounded).activation_bits == 16
    assert accuracy(rounded, digits) >= accuracy(model, digits) - 0.015
    lite = tfbig.export(rounded, tmp_path / "wide.tflite", quantize="int16x8")
    assert (lite.report.quantize, lite.report.float_ops) == ("int16x8", ())
    assert agreement(rounded, lite, every_row(digits)) == 1.0


def test_normalizers_compute_in_integers_for_images_and_in_float_for_units(digits, digits_model, tmp_path):
    rounded = tfbig.quantize_aware(digits_model, digits.x_train, digits.y_train, **OPTIONS)
    lite = exported(rounded, tmp_path)
    assert lite.report.float_ops == ()
    assert agreement(rounded, lite, every_row(digits)) >= 0.995
    wine = tfbig.load_dataset("wine")  # columns from 0.1 to 1,680

    def build(x):
        return tfbig.models.mlp((13,), 3, hidden=(16,), normalizer=tfbig.normalizer(x))

    model = tfbig.fit(build, wine.x, wine.y, epochs=20, seed=0, verbose=0).model
    rounded = tfbig.quantize_aware(model, wine.x, wine.y, **OPTIONS)
    (reason,) = tfbig.quantization(rounded).in_float.values()
    assert "different units" in reason
    lite = tfbig.export(rounded, tmp_path / "wine.tflite", quantize="int8", calibration=wine.x)
    assert lite.report.proof.inputs == "calibration"
    assert list(lite.inputs.values()) == ["float32"]
    x = wine.x.astype("float32")
    assert agreement(rounded, lite, x) >= 0.99  # one of 178 rows
    largest = np.abs(lite.predict(x) - np.asarray(rounded(x))).max()
    assert largest <= 0.02 * np.ptp(np.asarray(rounded(x)))


def test_compile_settings_names_and_several_outputs_carry_over(tmp_path):
    wide, deep = keras.Input((3,), name="wide"), keras.Input((2,), name="deep")
    hidden = L.Concatenate()([L.Dense(4, activation="relu")(deep), wide])
    outputs = {
        "kind": L.Dense(2, activation="softmax", name="kind")(hidden),
        "size": L.Dense(1, name="size")(hidden),
    }
    model = keras.Model({"wide": wide, "deep": deep}, outputs)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    model.compile(keras.optimizers.SGD(0.05), losses, loss_weights={"kind": 2.0, "size": 0.5})
    generator = np.random.default_rng(0)
    x = {name: generator.normal(size=(64, n)).astype("float32") for name, n in (("wide", 3), ("deep", 2))}
    y = {"kind": generator.integers(0, 2, 64), "size": generator.normal(size=(64, 1))}
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    rounded = tfbig.quantize_aware(model, batches, epochs=2, verbose=0)
    assert type(rounded.optimizer) is keras.optimizers.SGD
    assert rounded.loss == losses
    assert rounded.output_names == ["kind", "size"]
    assert model.count_params() == sum(int(np.prod(w.shape)) for w in rounded.trainable_weights)


def test_a_model_that_ends_in_softmax_is_still_known_to_give_probabilities(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax", name="chances")])
    x, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 3
    rounded = tfbig.quantize_aware(model, x, y, epochs=1, verbose=0)
    assert rounded.loss.get_config()["from_logits"] is False
    assert rounded.layers[-1].name == "chances"
    lite = exported(rounded, tmp_path)
    # The file's own scale of a softmax is 1/256, and so are the model's levels. LiteRT computes a softmax of
    # integers by tables, so a value in the middle between two levels may come out as the other one.
    levels, steps = np.asarray(rounded(x.astype("float32"))) * 256, lite.predict(x) * 256
    assert np.array_equal(levels, levels.round())
    assert np.array_equal(steps, steps.round())
    assert np.abs(levels - steps).max() <= 1
    assert np.mean(levels == steps) > 0.9


def test_bad_models_are_refused_with_what_to_do(small, rounded):
    model, digits = small
    x, y = digits.x_train, digits.y_train

    class Hidden(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(10)

        def call(self, inputs):
            return self.dense(L.Flatten()(inputs))

    hidden = Hidden()
    hidden(x[:1])
    quantized, adapted, weightless = (
        keras.Sequential([keras.Input((8, 8)), L.Flatten(), *layers])
        for layers in ([L.Dense(10, name="d")], [L.Dense(10, name="d")], [L.Rescaling(2.0)])
    )
    quantized.quantize("int8")
    adapted.get_layer("d").enable_lora(2)
    cases = [
        (quantized, r"Keras quantized d \(model.quantize\), which leaves nothing to train"),
        (adapted, "LoRA adapts d, .* save_weights"),
        (weightless, "has no layer to quantize: none of its layers has weights"),
        (rounded, "is quantized already. To train it further, use tfbig.fit"),
        (hidden, r"is subclassed.*tfbig.export\(model, path, quantize=\"int8\", calibration=x\)"),
        (keras.Sequential([L.Dense(10)]), "has no weights yet: build it"),
        (keras.Sequential([keras.Input((8, 8)), L.LSTM(10)]), "has no layer to quantize; in float: {'lstm"),
        ({}, "Expected a keras.Model; got dict"),
    ]
    for bad, message in cases:
        with pytest.raises(InvalidModel, match=message):
            tfbig.quantize_aware(bad, x, y)
    with pytest.raises(InvalidModel, match="'small' is not quantized. tfbig.quantize_aware makes one"):
        tfbig.quantization(model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight_bits": 5}, InvalidOption, "weight_bits must be one of 4, 8; got 5"),
        ({"weight_bits": {"first": 3}}, InvalidOption, r"weight_bits\['first'\] must be one of 4, 8; got 3"),
        ({"weight_bits": {"frist": 4}}, InvalidOption, "matches no layer. Did you mean 'first'"),
        ({"activation_bits": 4}, InvalidOption, "activation_bits must be one of 8, 16; got 4"),
        ({"ranges": "learnt"}, InvalidOption, "ranges must be one of .* Did you mean 'learned'"),
        (
            {"preserve": "sparsity"},
            InvalidOption,
            "preserve must be one of 'auto', 'zeros', 'clusters', None",
        ),
        ({"delay": -1}, InvalidOption, "delay must be a whole number of at least 0"),
        ({"delay": 90, "epochs": 2}, InvalidOption, "delay=90 outlasts this training of 90 steps"),
        ({"layers": "conv9"}, InvalidOption, "matches no layer"),
        ({"weight_bit": 8}, UnknownOption, "no option 'weight_bit'. Did you mean 'weight_bits'"),
    ],
)
def test_bad_options_are_refused_before_training(small, monkeypatch, options, error, message):
    model, digits = small
    monkeypatch.setattr(
        "tfbig.compression.quantization.fit", lambda *_, **__: pytest.fail("training started")
    )
    with pytest.raises(error, match=message):
        tfbig.quantize_aware(model, digits.x_train, digits.y_train, **options)


def test_a_delay_is_checked_for_streams_too():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2, name="logits")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.random.default_rng(0).normal(size=(64, 4)).astype("float32"), np.arange(64) % 2
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    with pytest.raises(InvalidOption, match="delay=8 outlasts this training of 8 steps"):
        tfbig.quantize_aware(model, batches, delay=8, epochs=2, verbose=0)
    endless = batches.filter(lambda x, y: True)  # of no known length
    with pytest.warns(
        UserWarning, match="ended after 8 steps, before delay=8: activations were never rounded"
    ):
        tfbig.quantize_aware(model, endless, delay=8, epochs=2, verbose=0)


def test_bits_of_a_frozen_layer_can_be_chosen(blobs):
    layers = [L.Dense(8, activation="relu", name="first"), L.Dense(3, name="logits")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.layers[0].trainable = False
    rounded = tfbig.quantize_aware(model, *blobs, weight_bits={"first": 4}, epochs=1, verbose=0)
    assert [layer.bits for layer in tfbig.quantization(rounded).layers] == [4, 8]
    assert np.array_equal(rounded.get_layer("first").layer.kernel, model.layers[0].kernel)


def test_shared_values_of_a_quantized_model_are_not_pruned_and_listed(blobs):
    layers = [L.Dense(8, activation="relu", name="hidden"), L.Dense(3, name="logits")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    few = tfbig.cluster(model, *blobs, clusters=4, layers="hidden", epochs=1, verbose=0)
    rounded = tfbig.quantize_aware(few, *blobs, epochs=1, verbose=0)
    prune = tfbig.Prune(0.5)
    rounded.fit(*blobs, epochs=3, callbacks=[prune], verbose=0)
    assert [layer.name for layer in prune.report.layers] == ["logits_kernel/logits"]
    assert "its weights share values" in prune.report.skipped["hidden/hidden"]
    assert (rounded.get_layer("logits_kernel").rounded_kernel().numpy() == 0).mean() >= 0.5
    with pytest.raises(InvalidModel, match="no kernel that trains; skipped: .*prune or cluster before"):
        rounded.fit(*blobs, callbacks=[tfbig.Prune(0.5, layers="hidden/*")], verbose=0)


def test_another_file_than_int8_is_refused(rounded, tmp_path):
    for mode in (None, "float16", "dynamic"):
        with pytest.raises(
            InvalidOption, match='was trained for quantize="int8".*export the model that it was made'
        ):
            tfbig.export(rounded, tmp_path / "m.tflite", quantize=mode)
    assert list(tmp_path.iterdir()) == []


def test_the_report_says_what_was_done(rounded):
    report = tfbig.quantization(rounded)
    text = str(report)
    assert "first          Conv2D: 8 bits, 8 scales, normalization folded in" in text
    assert "activations    8 bits, 5 ranges" in text
    assert type(report).from_json(report.to_json()) == report


UNDER_A_STRATEGY = """
import json
import keras
import numpy as np
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import tfbig

data = tfbig.load_dataset("digits")
x, y = (data.x[:640] / 16).astype("float32"), data.y[:640]
keras.utils.set_random_seed(0)
layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
head = [keras.layers.Flatten(), keras.layers.Dense(10, name="logits")]
model = keras.Sequential([keras.Input((8, 8, 1), name="x"), *layers, *head])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(0.01), loss)
options = {"batch_size": 64, "strategy": ["CPU:0", "CPU:1"], "seed": 0, "verbose": 0}
before = model.evaluate(x, y, verbose=0)
rounded = tfbig.quantize_aware(model, x, y, epochs=4, **options)
ranges = tfbig.quantization(rounded).ranges
seen = [float(w.numpy()) for w in rounded.weights if w.name == "seen"]
print(json.dumps([before, rounded.evaluate(x, y, verbose=0), ranges["x_range"], seen]))
"""


def test_two_replicas_find_the_same_ranges():
    result = subprocess.run(
        [sys.executable, "-c", UNDER_A_STRATEGY], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    before, after, x_range, seen = json.loads(result.stdout.splitlines()[-1])
    assert after < 0.7 * before
    assert x_range == [0, 1]
    assert seen == [40] * 3  # steps, not steps of each replica


@pytest.mark.parametrize("join", [L.Concatenate(), L.Maximum(), L.Minimum()])
def test_a_join_of_what_is_read_elsewhere_too_is_not_clipped_to_its_range(join, tmp_path):
    x = keras.Input((8, 8, 4))
    maps = L.Conv2D(4, 3, padding="same")(x)
    wider = L.Conv2D(4, 3, padding="same", name="wider")(maps)
    model = keras.Model(x, L.Dense(3)(L.Flatten()(join([maps, 5 * wider]))))
    rows = np.random.default_rng(0).normal(size=(64, 8, 8, 4)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rounded = tfbig.quantize_aware(model, rows, np.arange(64) % 3, loss=loss, **OPTIONS)
    lite = tfbig.export(rounded, tmp_path / "model.tflite", quantize="int8", calibration=rows)
    assert lite.report.float_ops == ()
    assert lite.report.proof.mean_error <= 0.01


def test_an_operand_may_stand_twice_in_a_maximum(tmp_path):
    x = keras.Input((4,))
    units, others = L.Dense(4)(x), L.Dense(4)(x)
    largest = L.Maximum()([units, others, others])
    model = keras.Model(x, L.Dense(3)(L.Add()([largest, others])))
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rounded = tfbig.quantize_aware(model, rows, np.arange(64) % 3, loss=loss, **OPTIONS)
    lite = tfbig.export(rounded, tmp_path / "model.tflite", quantize="int8", calibration=rows)
    assert lite.report.float_ops == ()
    assert lite.report.proof.mean_error <= 0.01


@pytest.mark.parametrize(
    "options", [{}, {"ranges": "learned"}, {"delay": 6}, {"precision": "mixed_bfloat16"}]
)
def test_a_transformer_of_padded_sequences_is_all_integers_and_no_worse(options, tmp_path):
    generator = np.random.default_rng(0)
    x = generator.integers(1, 12, (600, 10))
    x[np.arange(10) >= generator.integers(3, 11, 600)[:, None]] = 0  # padding at the end
    y = ((x == 3).sum(1) > (x == 5).sum(1)).astype(int)
    sizes = {"depth": 1, "width": 16, "heads": 2, "vocabulary": 12, "padding": 0}
    model = tfbig.models.transformer((10,), 2, **sizes)
    tfbig.fit(model, x[:500], y[:500], epochs=12, learning_rate=0.01, seed=0, verbose=0)
    rounded = tfbig.quantize_aware(model, x[:500], y[:500], **{**OPTIONS, **options})
    lite = tfbig.export(rounded, tmp_path / "model.tflite", quantize="int8")
    assert lite.report.float_ops == ()
    assert tfbig.quantization(rounded).in_float == {}
    held_out = [tfbig.evaluate(m, x[500:], y[500:])["accuracy"] for m in (model, rounded, lite)]
    assert held_out[0] > 0.9
    assert min(held_out[1:]) >= held_out[0] - 0.03  # of 100 rows
    assert agreement(rounded, lite, x) >= 0.99


def test_dense_layers_on_open_steps_are_integers_too(tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    x = L.Dense(8, activation="relu")(L.Embedding(12, 8)(tokens))
    model = keras.Model(tokens, L.Dense(3, name="logits")(L.GlobalAveragePooling1D()(L.Dense(8)(x))))
    rows = np.random.default_rng(0).integers(0, 12, (64, 7))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rounded = tfbig.quantize_aware(model, rows, np.arange(64) % 3, loss=loss, **OPTIONS)
    lite = tfbig.export(rounded, tmp_path / "model.tflite", quantize="int8")
    assert lite.report.float_ops == ()
    for steps in (7, 3):
        got, want = lite.predict(rows[:, :steps]), np.asarray(rounded(rows[:, :steps]))
        assert np.abs(got - want).mean() <= 0.01 * np.ptp(want)
