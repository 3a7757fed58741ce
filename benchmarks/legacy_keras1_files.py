"""Files as Keras 1 wrote them, by hand from its documentation, for `legacy.py`."""

import json

import h5py
import numpy as np
import tf_keras as keras
from legacy_files import kind, randomized

L = keras.layers


@kind("json and .h5 of Keras 1: convolution")
def _(folder):
    layers = [L.Input((8, 8, 1)), L.Conv2D(3, (3, 2), strides=2, activation="relu"), L.BatchNormalization()]
    model = randomized(
        keras.Sequential([*layers, L.Dropout(0.3), L.Flatten(), L.Dense(2, activation="softmax")])
    )
    config = [
        {
            "class_name": "Convolution2D",
            "config": {
                **{"name": "convolution2d_1", "trainable": True, "batch_input_shape": [None, 8, 8, 1]},
                **{
                    "input_dtype": "float32",
                    "nb_filter": 3,
                    "nb_row": 3,
                    "nb_col": 2,
                    "init": "glorot_uniform",
                },
                **{"activation": "relu", "border_mode": "valid", "subsample": [2, 2], "dim_ordering": "tf"},
                **{
                    "W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01},
                    "b_regularizer": None,
                },
                **{"activity_regularizer": None, "W_constraint": None, "b_constraint": None, "bias": True},
            },
        },
        {
            "class_name": "BatchNormalization",
            "config": {
                **{
                    "name": "batchnormalization_1",
                    "trainable": True,
                    "epsilon": 0.001,
                    "mode": 0,
                    "axis": -1,
                },
                **{"momentum": 0.99, "gamma_regularizer": None, "beta_regularizer": None},
            },
        },
        {"class_name": "Dropout", "config": {"name": "dropout_1", "trainable": True, "p": 0.3}},
        {"class_name": "Flatten", "config": {"name": "flatten_1", "trainable": True}},
        {"class_name": "Dense", "config": dense_of_keras_1("dense_1", 2, "softmax")},
    ]
    return keras_1(folder, config, model, [layer.get_weights() for layer in model.layers])


@kind("json and .h5 of Keras 1: LSTM")
def _(folder):
    lstm = L.LSTM(3, recurrent_activation="hard_sigmoid")
    model = randomized(keras.Sequential([L.Input((5,)), L.Embedding(12, 4), lstm, L.Dense(2)]))
    common = {"trainable": True, "W_regularizer": None, "init": "glorot_uniform"}
    config = [
        {
            "class_name": "Embedding",
            "config": {
                **common,
                **{
                    "name": "embedding_1",
                    "batch_input_shape": [None, 5],
                    "input_dtype": "int32",
                    "input_dim": 12,
                },
                **{
                    "output_dim": 4,
                    "input_length": 5,
                    "mask_zero": False,
                    "dropout": 0.0,
                    "W_constraint": None,
                },
                **{"init": "uniform", "activity_regularizer": None},
            },
        },
        {
            "class_name": "LSTM",
            "config": {
                **common,
                **{"name": "lstm_1", "return_sequences": False, "go_backwards": False, "stateful": False},
                **{
                    "unroll": False,
                    "consume_less": "cpu",
                    "input_dim": 4,
                    "input_length": None,
                    "output_dim": 3,
                },
                **{"inner_init": "orthogonal", "forget_bias_init": "one", "activation": "tanh"},
                **{"inner_activation": "hard_sigmoid", "U_regularizer": None, "b_regularizer": None},
                **{"dropout_W": 0.0, "dropout_U": 0.0},
            },
        },
        {"class_name": "Dense", "config": dense_of_keras_1("dense_1", 2, "linear")},
    ]
    arrays = [layer.get_weights() for layer in model.layers]
    # Keras 1 kept a kernel, a recurrent kernel and a bias for each of: input, candidate, forget, output.
    gates = [np.split(array, 4, axis=-1) for array in arrays[1]]
    arrays[1] = [gates[part][gate] for gate in (0, 2, 1, 3) for part in range(3)]
    return keras_1(folder, config, model, arrays)


def dense_of_keras_1(name, units, activation):
    return {
        **{
            "name": name,
            "trainable": True,
            "output_dim": units,
            "init": "glorot_uniform",
            "activation": activation,
        },
        **{"W_regularizer": None, "b_regularizer": None, "activity_regularizer": None, "W_constraint": None},
        **{"b_constraint": None, "bias": True, "input_dim": None},
    }


def keras_1(folder, layers, model, arrays):
    config = {"class_name": "Sequential", "config": layers, "keras_version": "1.2.2"}
    (folder / "model.json").write_text(json.dumps(config))
    with h5py.File(folder / "w.h5", "w") as file:
        names = [layer["config"]["name"] for layer in layers]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name, values in zip(names, arrays, strict=True):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_{i}".encode() for i in range(len(values))]
            for i, value in enumerate(values):
                group[f"{name}_{i}"] = value
    return {"path": folder / "model.json", "weights": folder / "w.h5"}, model
