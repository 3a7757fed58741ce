import numpy as np
import pytest

import tfbig
from tfbig.deployment.contents import read_contents
from tfbig.deployment.integer_graph import IntegerGraph, along


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    path = tmp_path_factory.mktemp("graph") / "m.tflite"
    model = tfbig.models.mlp((4,), 3, hidden=(8,))
    for weight in model.weights:  # a bias of zeros is left out of a file
        weight.assign(weight + 0.01)
    lite = tfbig.export(model, path, quantize="int8", calibration=rows)
    return rows, lite, IntegerGraph(path.read_bytes())


def test_other_numbers_are_written_in_place(made):
    _, lite, graph = made
    kernel, bias = graph.operations[0].inputs[1:3]
    result = graph.operations[0].outputs[0]
    values = np.full_like(graph.constant(kernel), 5)
    scales = np.full(8, 0.25)
    content = graph.bytes_with(
        {kernel: values, bias: np.arange(8)}, {kernel: scales, result: [0.5]}, {result: -7}
    )
    new = IntegerGraph(content)
    assert len(content) == lite.report.bytes
    assert (new.constant(kernel) == 5).all()
    assert np.array_equal(new.constant(bias), np.arange(8))
    assert np.array_equal(new.scales(kernel), scales)
    tensor = read_contents(content).tensors[result]
    assert (tensor.scale, tensor.zero_point) == (0.5, -7)


def test_nothing_else_changes(made):
    _, lite, graph = made
    assert graph.bytes_with({}, {}, {}) == lite.path.read_bytes()
    kernel = graph.operations[0].inputs[1]
    same = graph.bytes_with({kernel: graph.constant(kernel)}, {kernel: graph.scales(kernel)}, {})
    assert same == lite.path.read_bytes()


def test_a_run_gives_what_the_file_answers(made):
    rows, lite, graph = made
    (output,) = graph.contents.outputs.values()
    name = next(iter(graph.contents.inputs))
    got = np.concatenate([values for (values,) in graph.run({name: rows}, 1, [output])])
    assert np.array_equal(got, lite.predict(rows))


def test_values_along_an_axis():
    assert along(np.arange(3), 1, 3).shape == (1, 3, 1)
    assert along(np.ones(1), 0, 2).shape == (1, 1)
