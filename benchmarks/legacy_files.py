"""Legacy model files of every kind, for `legacy.py`: written by tf_keras, or edited to what older versions wrote."""

import json

import h5py
import keras as keras3
import numpy as np
import tf_keras as keras

L = keras.layers
KINDS = {}


def kind(name, allowed=1e-5):
    """Registers a function that writes a file into a folder, and returns load_model's arguments and the model."""

    def register(function):
        KINDS[name] = (function, allowed)
        return function

    return register


def edit_config(path, edit):
    """Rewrites the configuration in an .h5 file, as an older version would have written it."""
    with h5py.File(path, "r+") as file:
        text = json.dumps(edit(json.loads(file.attrs["model_config"])))
        del file.attrs["model_config"]
        file.attrs["model_config"] = text


def each_layer(config):
    for layer in config["config"]["layers"]:
        yield layer
        if "layers" in layer["config"]:
            yield from each_layer(layer)


def images():
    x = keras.Input((12, 12, 3), name="image")
    y = L.Rescaling(1 / 2, offset=0.1)(x)
    y = L.Conv2D(6, 3, use_bias=False, name="block/conv")(y)
    y = L.BatchNormalization(name="block/norm")(y)
    y = L.ReLU(6.0)(y)
    y = L.DepthwiseConv2D(3, padding="same")(y)
    y = L.SeparableConv2D(5, 3)(y)
    y = L.UpSampling2D(2, interpolation="bilinear")(y)
    y = L.Conv2DTranspose(4, 3, strides=2)(y)
    y = L.GlobalAveragePooling2D()(y)
    return randomized(keras.Model(x, L.Dense(4, activation="softmax", name="logits/out")(y)))


def recurrent():
    model = keras.Sequential(
        [
            L.Input((7, 3)),
            L.Masking(),
            L.Bidirectional(
                L.LSTM(5, return_sequences=True, recurrent_activation="hard_sigmoid", implementation=1)
            ),
            L.TimeDistributed(L.Dense(4, activation="tanh")),
            L.GRU(4, return_sequences=True, reset_after=False),
            L.RNN([L.LSTMCell(3), L.GRUCell(4)], return_sequences=True),
            L.Bidirectional(L.SimpleRNN(3), merge_mode="sum", name="both/ways"),
        ]
    )
    return randomized(model)


def nested():
    inner = keras.Sequential(
        [L.Input((6,)), L.Dense(5, activation="relu", name="in/side"), L.Dropout(0.5)], name="shared/tower"
    )
    z = keras.Input((5,))
    heads = keras.Model(z, [L.Dense(3)(z), L.Dense(2, trainable=False)(z)], name="heads")
    a, b = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    first, second = heads(L.Average()([inner(a), inner(b)]))
    other = heads(inner(b))[0]
    return randomized(
        keras.Model([a, b], {"first": first, "second": second, "third": L.Multiply()([first, other])})
    )


def randomized(model):
    """Weights as after training: nothing is left at zero or one, and variances stay positive."""
    generator = np.random.default_rng(1)
    model.set_weights([w + np.abs(generator.normal(scale=0.2, size=w.shape)) for w in model.get_weights()])
    return model


def h5(folder, model):
    path = folder / "model.h5"
    model.save(path)
    return {"path": path}, model


@kind(".h5: convolutions, depthwise with groups, slashes in names")
def _(folder):
    return h5(folder, images())


@kind(".h5: nested, shared, two inputs, three outputs")
def _(folder):
    return h5(folder, nested())


@kind(".h5: LSTM, GRU, cells, bidirectional, masking, hard sigmoid")
def _(folder):
    return h5(folder, recurrent())


@kind(".h5: as TensorFlow 2.0 wrote dtype policies and initializers")
def _(folder):
    arguments, model = h5(folder, images())

    def edit(config):
        for layer in each_layer(config):
            if layer["class_name"] == "BatchNormalization":
                layer["class_name"] = "BatchNormalizationV2"
            if layer["class_name"] != "InputLayer":
                layer["config"]["dtype"] = {
                    "class_name": "Policy",
                    "config": {"name": "infer", "loss_scale": None},
                }
            if "kernel_initializer" in layer["config"]:
                uniform = {
                    "scale": 1.0,
                    "mode": "fan_avg",
                    "distribution": "uniform",
                    "seed": None,
                    "dtype": "float32",
                }
                layer["config"]["kernel_initializer"] = {"class_name": "VarianceScaling", "config": uniform}
                layer["config"]["bias_initializer"] = {"class_name": "Zeros", "config": {"dtype": "float32"}}
        return config

    edit_config(arguments["path"], edit)
    return arguments, model


@kind(".h5: mixed_float16", allowed=2e-2)
def _(folder):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return h5(folder, images())
    finally:
        keras.mixed_precision.set_global_policy("float32")


@kind(".h5: embedding, attention, layer normalization, einsum")
def _(folder):
    words = keras.Input((9,), dtype="int32")
    y = L.Embedding(20, 8, mask_zero=True)(words)
    y = L.LayerNormalization()(L.Add()([y, L.MultiHeadAttention(2, 4)(y, y)]))
    y = L.EinsumDense("abc,cd->abd", output_shape=(None, 6), bias_axes="d")(y)
    y = L.Attention(use_scale=True)([y, y])
    return h5(folder, randomized(keras.Model(words, L.Dense(2)(L.GlobalMaxPooling1D()(y)))))


@kind(".h5: activations")
def _(folder):
    x = keras.Input((8,))
    layers = [
        L.LeakyReLU(),
        L.ELU(0.5),
        L.PReLU(),
        L.ThresholdedReLU(0.7),
        L.Softmax(),
        L.ReLU(1.0, 0.1, 0.2),
    ]
    names = ["hard_sigmoid", "swish", "gelu", "selu", "softplus", "softsign", "exponential", "mish", "elu"]
    towers = [layer(x) for layer in layers] + [L.Activation(name)(x) for name in names]
    return h5(
        folder, randomized(keras.Model(x, L.Dense(6, activation="hard_sigmoid")(L.Concatenate()(towers))))
    )


@kind(".h5: normalizer with learned statistics, sequences, ConvLSTM")
def _(folder):
    normalizer = L.Normalization()
    normalizer.adapt(np.random.default_rng(2).normal(3.0, 2.0, (64, 6, 6, 6, 2)))
    x = keras.Input((6, 6, 6, 2))
    y = L.ConvLSTM2D(3, 3, return_sequences=False)(normalizer(x))
    y = L.Conv1D(4, 2, padding="causal")(L.Reshape((16, 3))(y))
    return h5(folder, randomized_dense(keras.Model(x, L.Dense(2)(L.Flatten()(L.ZeroPadding1D(1)(y))))))


def randomized_dense(model):
    randomized(model.layers[-1])
    return model


@kind(".h5: open image size")
def _(folder):
    x = keras.Input((None, None, 3))
    y = L.Conv2D(4, 3, strides=2)(L.Resizing(20, 20)(x))
    return h5(folder, randomized(keras.Model(x, L.GlobalMaxPooling2D()(y))))


@kind(".h5 of Keras 3")
def _(folder):
    model = keras3.Sequential([keras3.Input((5,)), keras3.layers.Dense(4, "relu"), keras3.layers.Dense(2)])
    model.save(folder / "model.h5")
    return {"path": folder / "model.h5"}, model


@kind("json and .weights.h5 of Keras 3")
def _(folder):
    model = keras3.Sequential([keras3.Input((5,)), keras3.layers.Dense(4, "relu"), keras3.layers.Dense(2)])
    return architecture(folder, model, "w.weights.h5")


@kind(".h5: sequence to sequence, first states given")
def _(folder):
    x, start = keras.Input((6, 3)), keras.Input((4, 3))
    _, *state = L.LSTM(5, return_state=True)(x)
    y = L.LSTM(5, return_sequences=True)(start, initial_state=state)
    return h5(folder, randomized(keras.Model([x, start], L.TimeDistributed(L.Dense(2))(y))))


@kind("SavedModel")
def _(folder):
    model = images()
    model.save(folder / "saved")
    return {"path": folder / "saved"}, model


@kind("SavedModel: nested, two inputs, three outputs")
def _(folder):
    model = nested()
    model.save(folder / "saved")
    return {"path": folder / "saved"}, model


@kind("SavedModel: recurrent")
def _(folder):
    model = recurrent()
    model.save(folder / "saved")
    return {"path": folder / "saved"}, model


@kind(".keras of tf_keras")
def _(folder):
    model = nested()
    model.save(folder / "model.keras")
    return {"path": folder / "model.keras"}, model


def architecture(folder, model, weights):
    (folder / "model.json").write_text(model.to_json())
    model.save_weights(folder / weights)
    return {"path": folder / "model.json", "weights": folder / weights}, model


@kind("json and .h5")
def _(folder):
    return architecture(folder, recurrent(), "w.h5")


@kind("json and .weights.h5")
def _(folder):
    return architecture(folder, images(), "w.weights.h5")


@kind("json and TensorFlow checkpoint")
def _(folder):
    return architecture(folder, nested(), "w")
