"""Files of 16-bit activations: without their biases mended they refuse to run, or answer wrongly."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.errors import InvalidOption

L = keras.layers
BODIES = {
    "convolutions": (
        (8, 8, 1),
        lambda: [
            L.Conv2D(4, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.DepthwiseConv2D(3, activation="relu6"),
            L.Flatten(),
            L.Dense(16, activation="tanh"),
        ],
    ),
    "transposed": (
        (8, 8, 1),
        lambda: [
            L.Conv2D(4, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Conv2DTranspose(4, 2, strides=2),
            L.AveragePooling2D(2),
            L.GlobalAveragePooling2D(),
        ],
    ),
    "sequence": (
        (8, 4),
        lambda: [
            L.Conv1D(6, 3, activation="silu"),
            L.SeparableConv1D(4, 2, activation="sigmoid"),
            L.Flatten(),
        ],
    ),
    "dense": ((6,), lambda: [L.Dense(8, activation="relu"), L.Dense(8, activation="softmax")]),
}
# Of 65,536: what rounding in each of up to six operators adds up to.
STEPS = 12


@pytest.fixture(scope="module", params=BODIES)
def rounded(request):
    """A model of few weights, trained through rounding, with rows."""
    shape, layers = BODIES[request.param]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *layers(), L.Dense(3, name="logits")])
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:  # biases too, which begin at 0
        weight.assign(weight + generator.normal(scale=0.2, size=weight.shape))
    x, y = generator.normal(size=(128, *shape)).astype("float32"), np.arange(128) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"optimizer": keras.optimizers.SGD(1e-6), "loss": loss, "epochs": 1, "verbose": 0}
    return tfbig.quantize_aware(model, x, y, activation_bits=16, **options), x


@pytest.mark.parametrize("edges", ["float32", "int16"])
def test_a_file_of_16_bit_activations_gives_the_models_answers(rounded, edges, tmp_path):
    model, x = rounded
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize="int16x8", input_type=edges)
    assert lite.report.float_ops == ()
    assert set(lite.inputs.values()) | set(lite.outputs.values()) == {edges}
    lowest, highest = tfbig.quantization(model).ranges["logits"]
    step = (highest - lowest) / 65535
    assert np.abs(np.asarray(model(x)) - lite.predict(x)).max() <= STEPS * step


def test_only_the_mode_that_it_was_trained_for(rounded, tmp_path):
    with pytest.raises(InvalidOption, match="trained for quantize=\"int16x8\"; got quantize='int8'"):
        tfbig.export(rounded[0], tmp_path / "m.tflite", quantize="int8")


SHARED = {
    "dense": ((6,), lambda: L.Dense(8)),
    "convolution": ((8, 8, 3), lambda: L.Conv2D(4, 3)),
    "depthwise": ((8, 8, 3), lambda: L.DepthwiseConv2D(3)),
    "transposed": ((4, 4, 3), lambda: L.Conv2DTranspose(4, 2, strides=2)),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_layer_called_on_inputs_of_other_ranges_adds_its_bias_to_each(name, tmp_path):
    shape, kind = SHARED[name]
    layer, small, large = kind(), keras.Input(shape), keras.Input(shape)
    calls = [layer(small), layer(large), layer(large * 4)]
    model = keras.Model([small, large], L.Dense(3)(L.Flatten()(L.Concatenate()(calls))))
    layer.bias.assign(np.linspace(1, 2, layer.bias.shape[0]))
    generator = np.random.default_rng(0)
    x = [(scale * generator.normal(size=(32, *shape))).astype("float32") for scale in (1, 5)]
    lite = tfbig.export(model, tmp_path / "m.tflite", quantize="int16x8", calibration=x)
    assert (
        lite.report.proof.mean_error <= 0.002
    )  # kernels of 8 bits; with one bias for all calls, 0.05 and more
