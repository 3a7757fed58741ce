"""Files as others make them, through `LiteModel`: every batch, every dtype, states, several signatures."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tfbig
from tfbig.deployment.runner import Runner
from tfbig.errors import InvalidData, InvalidModel, InvalidOption


@pytest.fixture
def converted(tmp_path):
    """Makes a file of a function, without a signature: `converted(function, (shape, dtype), …)`."""

    def convert(function, *inputs, **options):
        import tensorflow as tf

        specs = [tf.TensorSpec(shape, dtype, name=f"x{i}") for i, (shape, dtype) in enumerate(inputs)]
        traced = tf.function(function, input_signature=specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], traced)
        path = tmp_path / "m.tflite"
        path.write_bytes(converter.convert())
        return tfbig.LiteModel(path, trusted=True, **options)

    return convert


X = np.random.default_rng(0).normal(size=(600, 4)).astype("float32")


def total(x):
    import tensorflow as tf

    return tf.reduce_sum(x)


@pytest.mark.parametrize("rows", [1, 7, 256, 257, 600])
@pytest.mark.parametrize("batch", [None, 1, 8])
def test_any_number_of_rows_runs_in_files_of_any_batch(converted, batch, rows):
    lite = converted(lambda x: x * 2 + 1, ((batch, 4), "float32"))
    assert np.array_equal(lite.predict(X[:rows]), X[:rows] * 2 + 1)


def test_batches_of_changing_sizes_run_one_after_the_other(converted):
    lite = converted(lambda x: x * 2, ((None, 4), "float32"))
    for rows in (5, 1, 9, 1, 300, 2):
        assert np.array_equal(lite.predict(X[:rows]), X[:rows] * 2)
    assert lite.benchmark(seconds=0.01).runs >= 10
    assert np.array_equal(lite.predict(X[:3]), X[:3] * 2)


def test_other_open_axes_take_any_length(converted):
    lite = converted(lambda x: x * 2, ((1, None), "float32"))
    for length in (4, 2, 9):
        x = np.ones((3, length), "float32")
        assert np.array_equal(lite.predict(x), 2 * x)


def test_an_open_axis_may_be_one_that_a_single_value_is_too_short_for(converted):
    import tensorflow as tf

    kernel = tf.ones((3, 1, 1))
    lite = converted(lambda x: tf.nn.conv1d(x, kernel, 1, "VALID"), ((1, None, 1), "float32"))
    assert lite.predict(np.ones((2, 5, 1))).tolist() == [[[3], [3], [3]]] * 2


@pytest.mark.parametrize("batch", [None, 1])
def test_an_output_without_an_axis_of_rows_is_one_row(converted, batch):
    lite = converted(total, ((batch, 4), "float32"))
    assert np.allclose(lite.predict(X[:5]), X[:5].sum(axis=1), atol=1e-5)


def test_an_output_that_mixes_a_fixed_batch_is_refused(converted):
    lite = converted(total, ((8, 4), "float32"))
    with pytest.raises(InvalidModel, match="do not have one row for each of the 8"):
        lite.predict(X[:8])


def test_inputs_of_different_batches_are_refused(converted):
    lite = converted(lambda a, b: (a, b * 2), ((2, 4), "float32"), ((3, 4), "float32"))
    with pytest.raises(InvalidModel, match="different numbers of rows at once"):
        lite.predict([X[:6], X[:6]])


def test_a_scalar_input_is_a_row(converted):
    lite = converted(lambda x: x * 2, ((), "float32"))
    assert lite.predict([1, 2, 3]).tolist() == [2, 4, 6]


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "int32", "bool", "uint8"])
def test_inputs_of_every_dtype(converted, dtype):
    import tensorflow as tf

    lite = converted(lambda x: tf.cast(x, tf.float32) * 2, ((1, 3), dtype))
    got = lite.predict([[0, 1, 1], [1, 0, 1]])
    assert got.dtype == np.float32
    assert got.tolist() == [[0, 2, 2], [2, 0, 2]]


def test_outputs_that_stand_for_themselves_keep_their_dtype(converted):
    import tensorflow as tf

    lite = converted(lambda x: (x > 0, tf.argmax(x, axis=1)), ((1, 4), "float32"))
    positive, largest = lite.predict(X[:5])
    assert positive.dtype == bool
    assert np.array_equal(positive, X[:5] > 0)
    assert np.array_equal(largest, X[:5].argmax(axis=1))


def test_what_litert_refuses_is_an_error_and_the_next_rows_run(converted):
    import tensorflow as tf

    lite = converted(lambda i: tf.gather(tf.constant([10.0, 20.0]), i), ((1, 2), "int32"))
    with pytest.raises(InvalidData, match=r"gather index out of bounds"):
        lite.predict([[0, 7]])
    assert lite.predict([[0, 1]]).tolist() == [[10, 20]]


def test_the_benchmark_of_a_file_that_refuses_zeros_runs_on_ones(converted):
    lite = converted(lambda x: 7 // x, ((1, 2), "int32"))
    assert lite.benchmark(seconds=0.01).runs >= 10
    assert lite.predict([[1, 2]]).tolist() == [[7, 3]]


def test_a_benchmark_runs_open_axes_as_long_as_the_rows_before(converted, monkeypatch):
    import tensorflow as tf

    ran = []
    real = Runner._runs_main
    monkeypatch.setattr(
        Runner, "_runs_main", lambda self, parts: ran.append(parts[0][0].shape) or real(self, parts)
    )
    lite = converted(lambda x: tf.nn.conv1d(x, tf.ones((3, 1, 1)), 1, "VALID"), ((1, None, 1), "float32"))
    monkeypatch.setattr(lite._runner, "_runs", lambda parts: lite._runner._runs_main(list(parts)))
    lite.benchmark(seconds=0.01)
    assert set(ran) == {(1, 1, 1), (1, 64, 1)}  # one step is too short for this convolution
    assert lite.predict(np.ones((2, 5, 1))).shape == (2, 3, 1)
    ran.clear()
    lite.benchmark(seconds=0.01)
    assert set(ran) == {(1, 5, 1)}


def test_several_inputs_come_as_a_dict_or_a_list_but_all_of_them(converted):
    lite = converted(lambda a, b: a - b, ((1, 4), "float32"), ((1, 4), "float32"))
    expected = X[:5] - X[5:10]
    assert np.array_equal(lite.predict([X[:5], X[5:10]]), expected)
    assert np.array_equal(lite.predict({"x1": X[5:10], "x0": X[:5]}), expected)
    for wrong in ([X], [X, X, X], X[:2], {"x0": X}):
        with pytest.raises(InvalidData, match=r"takes the inputs \['x0', 'x1'\]"):
            lite.predict(wrong)
    with pytest.raises(InvalidData, match=r"differ in rows: {'x0': 5, 'x1': 4}"):
        lite.predict([X[:5], X[:4]])


def test_every_signature_predicts(tmp_path):
    import tensorflow as tf

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def double(self, x):
            return {"y": x * 2}

        @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, name="a")])
        def split(self, a):
            return {"half": a / 2, "third": a / 3}

    two = Two()
    tf.saved_model.save(two, str(tmp_path / "saved"), signatures={"double": two.double, "split": two.split})
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    assert np.array_equal(tfbig.LiteModel(path).predict(X), X * 2)
    split = tfbig.LiteModel(path, signature="split")
    assert (split.signature, split.signatures) == ("split", ("double", "split"))
    assert (split.inputs, split.outputs) == ({"a": "float32"}, {"half": "float32", "third": "float32"})
    half, third = split.predict(X[:300, :3])
    assert np.allclose(half, X[:300, :3] / 2)
    assert np.allclose(third, X[:300, :3] / 3)
    assert split.benchmark(seconds=0.01).median_us > 0
    with pytest.raises(InvalidOption, match="signature must be one of 'double', 'split'; got 'splt'"):
        tfbig.LiteModel(path, signature="splt")


def with_a_state():
    """A file of one SVDF: it gives the sum of its last four inputs, the three before this run out of its state."""
    names = ["x", "features", "times", "state", "y"]
    shapes = [[1, 1], [1, 1], [1, 4], [1, 4], [1, 1]]
    values = {"features": np.ones(1, "float32"), "times": np.ones(4, "float32")}
    buffers, tensors = [schema.BufferT()], []
    for name, shape in zip(names, shapes, strict=True):
        held = name in values
        if held:
            buffers.append(schema.BufferT(data=values[name].view("uint8")))
        tensors.append(
            schema.TensorT(
                shape=shape,
                type=schema.TensorType.FLOAT32,
                buffer=len(buffers) - 1 if held else 0,
                name=name,
                isVariable=name == "state",
            )
        )
    options = schema.SVDFOptionsT(rank=1)
    op = schema.OperatorT(
        opcodeIndex=0,
        inputs=[0, 1, 2, -1, 3],
        outputs=[4],
        builtinOptionsType=schema.BuiltinOptions.SVDFOptions,
        builtinOptions=options,
    )
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[4], operators=[op], name="main")
    code = schema.OperatorCodeT(
        deprecatedBuiltinCode=schema.BuiltinOperator.SVDF, builtinCode=schema.BuiltinOperator.SVDF
    )
    model = schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=buffers)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_state_begins_anew_with_every_row(tmp_path):
    content = with_a_state()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    remembered = []
    for value in (1, 10, 100):
        interpreter.set_tensor(0, np.array([[value]], "float32"))
        interpreter.invoke()
        remembered.append(float(interpreter.get_tensor(4)[0, 0]))
    assert remembered == [1, 11, 111]  # the file does have a memory
    path = tmp_path / "state.tflite"
    path.write_bytes(content)
    lite = tfbig.LiteModel(path)
    assert lite.predict([[1], [10], [100]]).tolist() == [[1], [10], [100]]
    lite.benchmark(seconds=0.01)
    assert lite.predict([[5]]).tolist() == [[5]]
