import keras
import numpy as np
import pytest

import tfbig
from tfbig.deployment.contents import read_contents
from tfbig.deployment.finer_averages import take_averages_in_parts
from tfbig.deployment.packing import repacked

L = keras.layers


def network(size=8, filters=64, flatten=True, head=5, pool=None, activation=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3))
    x = L.Conv2D(filters, 3, padding="same", activation="relu")(inputs)
    x = L.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = pool(x) if pool else L.AveragePooling2D(size)(x)
    x = L.Flatten()(x) if flatten else x
    x = L.Dense(head, activation=activation, bias_initializer="normal")(x)
    return keras.Model(inputs, x)


def rows(model, count=96):
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype("float32")


def pools(content):
    """The shape of each average."""
    contents = read_contents(content)
    found = [op for op in contents.operations if op.name == "AVERAGE_POOL_2D"]
    return [contents.tensors[op.outputs[0]].shape for op in found]


def exported(model, folder, mode, **options):
    return tfbig.export(model, folder / f"{mode}.tflite", quantize=mode, calibration=rows(model), **options)


@pytest.mark.parametrize(("size", "parts"), [(8, (2, 2)), (9, (3, 3)), (7, (1, 1))])
def test_an_average_that_a_dense_layer_reads_is_taken_in_parts(size, parts, tmp_path):
    model = network(size=size, head=3)
    content = exported(model, tmp_path, None).path.read_bytes()
    assert pools(content) == [(1, 1, 1, 64)]
    changed = repacked(content, take_averages_in_parts)
    assert pools(changed) == [(1, *parts, 64)]
    path = tmp_path / "parts.tflite"
    path.write_bytes(changed)
    expected = model.predict(rows(model), verbose=0)
    assert np.allclose(tfbig.LiteModel(path).predict(rows(model)), expected, atol=1e-5)


def test_int8_files_answer_closer(bare_int8, tmp_path):
    model = network()
    x = rows(model, 400)
    content = bare_int8(model, x[:96], tmp_path / "saved")
    expected, errors = model.predict(x, verbose=0), []
    for name, file in {"whole": content, "parts": repacked(content, take_averages_in_parts)}.items():
        (tmp_path / name).write_bytes(file)
        errors.append(np.abs(tfbig.LiteModel(tmp_path / name).predict(x) - expected).mean())
    assert errors[1] <= 0.8 * errors[0]


def test_export_takes_averages_in_parts_in_int8_alone(tmp_path):
    model = network()
    whole, parts = [(1, 1, 1, 64)], [(1, 2, 2, 64)]
    found = {
        mode: pools(exported(model, tmp_path, mode).path.read_bytes()) for mode in (None, "int16x8", "int8")
    }
    assert found == {None: whole, "int16x8": whole, "int8": parts}
    assert exported(model, tmp_path / "refined", "int8", refine=True).report.refined is not None


def test_biases_that_would_not_fit_leave_it_whole(tmp_path):
    model = network()
    content = exported(model, tmp_path, "int8").path.read_bytes()

    def whole_with_a_huge_bias(model):
        (dense,) = [op for op in model.subgraphs[0].operators if len(op.inputs) == 3][-1:]
        bias = model.subgraphs[0].tensors[dense.inputs[2]]
        model.buffers[bias.buffer].data = np.full(5, 2**30, np.int32).view(np.uint8)

    changed = repacked(content, whole_with_a_huge_bias)
    assert repacked(changed, take_averages_in_parts) == changed


@pytest.mark.parametrize(
    "build",
    [
        lambda: network(head=100),  # its kernel repeated would be a good part of the file
        lambda: network(pool=L.AveragePooling2D(4)),  # not the whole image
        lambda: network(pool=L.MaxPooling2D(8)),
        lambda: network(pool=L.GlobalAveragePooling2D(), flatten=False),  # MEAN has a scale of its own
        lambda: network(flatten=False),  # the layer behind keeps height and width
    ],
)
def test_others_are_left_alone(build, tmp_path):
    content = exported(build(), tmp_path, None).path.read_bytes()
    assert repacked(content, take_averages_in_parts) == repacked(content)
