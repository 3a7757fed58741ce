import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfbig
from tfbig.deployment.contents import read_contents
from tfbig.deployment.packing import repacked, shorten_names

L = keras.layers


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [
        L.Conv2D(24, 3),
        L.BatchNormalization(),
        L.ReLU(),
        L.Conv2D(24, 3),
        L.BatchNormalization(),
        L.ReLU(),
    ]
    return keras.Sequential([keras.Input((10, 10, 1)), *layers, L.Flatten(), L.Dense(3, name="logits")])


@pytest.fixture(scope="module")
def converted(model, bare_int8, tmp_path_factory):
    """An int8 file as the bare converter makes it, and rows."""
    rows = np.random.default_rng(0).normal(size=(64, 10, 10, 1)).astype("float32")
    return bare_int8(model, rows, tmp_path_factory.mktemp("bare")), rows


def answers(content, path, rows):
    path.write_bytes(content)
    return tfbig.LiteModel(path, trusted=True).predict(rows)


def unpacked(content):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def test_a_file_shrinks_and_answers_the_same(converted, tmp_path):
    content, rows = converted
    packed = repacked(content, shorten_names)
    # Two kernels and two biases of 24 channels have a zero point for each, of 8 bytes: three of the four lists go.
    assert len(packed) <= len(content) - 3 * 24 * 8
    expected, got = (answers(c, tmp_path / f"{len(c)}.tflite", rows) for c in (content, packed))
    assert np.array_equal(expected, got)


def test_nothing_but_names_and_places_changes(converted):
    before, after = (unpacked(content) for content in (converted[0], repacked(converted[0])))
    for old, new in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        assert all(np.array_equal(*both) for both in zip(facts(before, old), facts(after, new), strict=True))


def facts(model, tensor):
    quantization, values = tensor.quantization, model.buffers[tensor.buffer].data
    numbers = [tensor.shape, quantization.scale, quantization.zeroPoint, values]
    return [tensor.name, tensor.type, *([] if given is None else given for given in numbers)]


def test_packing_again_changes_nothing(converted):
    once = repacked(converted[0], shorten_names)
    assert repacked(once, shorten_names) == once


def test_values_that_nothing_reads_are_left_out(converted):
    def orphan(model):
        model.buffers.append(schema.BufferT(data=np.ones(10_000, np.uint8)))

    assert len(repacked(converted[0], orphan)) <= len(repacked(converted[0])) + 32


def test_names_are_those_of_the_first_operation_and_stay_apart(converted):
    before = read_contents(converted[0])
    after = read_contents(repacked(converted[0], shorten_names))
    names = [tensor.name for tensor in after.tensors]
    assert len(set(names)) == len(names)
    assert any(";" in tensor.name for tensor in before.tensors)
    assert not any(";" in name for name in names)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    edges = [*before.inputs.values(), *before.outputs.values()]
    assert [names[place] for place in edges] == [before.tensors[place].name for place in edges]
    assert all(
        new.name.startswith(old.name.split(";")[0])
        for old, new in zip(before.tensors, after.tensors, strict=True)
    )


def test_single_scales_and_zero_points_have_places_of_their_own(converted):
    """`refine` writes other ones where they lie."""
    content = repacked(converted[0])
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    start = np.frombuffer(content, np.uint8).ctypes.data
    places = []
    for index in range(graph.TensorsLength()):
        quantization = graph.Tensors(index).Quantization()
        if quantization.ScaleLength():
            places += [quantization.ScaleAsNumpy().ctypes.data - start]
        if quantization.ZeroPointLength() == 1:
            places += [quantization.ZeroPointAsNumpy().ctypes.data - start]
    assert len(set(places)) == len(places) > 10
