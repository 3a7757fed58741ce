import pytest
import tf_keras

from tfbig.deployment.legacy_keras1 import is_keras_1, to_keras_2
from tfbig.deployment.legacy_names import check_names
from tfbig.errors import UnreadableFile

CONVOLUTION = {
    "class_name": "Convolution2D",
    "config": {
        **{"name": "c", "trainable": True, "batch_input_shape": [None, 8, 8, 1], "input_dtype": "float32"},
        **{
            "nb_filter": 3,
            "nb_row": 3,
            "nb_col": 2,
            "init": "he_normal",
            "activation": "relu",
            "bias": False,
        },
        **{"border_mode": "same", "subsample": [2, 1], "dim_ordering": "tf", "b_regularizer": None},
        **{"W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.5}},
        "W_constraint": {"name": "MaxNorm", "m": 2, "axis": 0},
    },
}


def sequential(*layers):
    return {"class_name": "Sequential", "config": list(layers), "keras_version": "1.2.2"}


def test_a_convolution_in_new_words():
    config = check_names(to_keras_2(sequential(CONVOLUTION), "m.json"), "m.json")
    layer = tf_keras.models.model_from_config(config).layers[0]
    assert (layer.filters, layer.kernel_size, layer.strides) == (3, (3, 2), (2, 1))
    assert (layer.padding, layer.use_bias, layer.data_format) == ("same", False, "channels_last")
    assert layer.kernel_regularizer.l2 == 0.5
    assert layer.kernel_constraint.max_value == 2
    assert layer.output_shape == (None, 8 // 2, 8, 3)


def test_recurrent_layers_and_their_gates():
    config = {
        "name": "l",
        "output_dim": 4,
        "inner_init": "orthogonal",
        "forget_bias_init": "one",
        "inner_activation": "hard_sigmoid",
    }
    lstm = {"class_name": "LSTM", "config": {**config, "consume_less": "gpu", "dropout_U": 0.2}}
    new = to_keras_2(sequential(lstm), "m.json")["config"]["layers"][0]["config"]
    assert new == {
        **{"name": "l", "units": 4, "recurrent_initializer": "orthogonal", "unit_forget_bias": True},
        **{"recurrent_activation": "hard_sigmoid", "recurrent_dropout": 0.2},
    }
    gru = {
        "class_name": "Bidirectional",
        "config": {"name": "b", "layer": {"class_name": "GRU", "config": {"p": 0}}},
    }
    assert (
        to_keras_2(sequential(gru), "m.json")["config"]["layers"][0]["config"]["layer"]["config"][
            "reset_after"
        ]
        is False
    )


def test_merges_become_layers_of_their_own():
    merge = {
        "class_name": "Merge",
        "name": "m",
        "inbound_nodes": [],
        "config": {"name": "m", "mode": "concat", "concat_axis": 1},
    }
    new = to_keras_2({"class_name": "Model", "config": {"layers": [merge]}}, "m.json")["config"]["layers"][0]
    assert (new["class_name"], new["config"]) == ("Concatenate", {"name": "m", "axis": 1})
    merge["config"]["mode"] = "cos"
    with pytest.raises(UnreadableFile, match="mode 'cos'"):
        to_keras_2({"class_name": "Model", "config": {"layers": [merge]}}, "m.json")


def test_what_keras_2_cannot_do_is_refused():
    strange = {"class_name": "BatchNormalization", "config": {"name": "bn", "mode": 1}}
    with pytest.raises(UnreadableFile, match="mode 1"):
        to_keras_2(sequential(strange), "m.json")


def test_versions_are_told_apart_by_their_words():
    keras_2 = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "Dense", "config": {"units": 3}}]},
    }
    assert is_keras_1(sequential(CONVOLUTION))
    assert not is_keras_1(keras_2)
