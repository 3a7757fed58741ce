import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.data.csv_files import stream_csv
from tfbig.data.stream_order import orders_in
from tfbig.data.streams import row_errors_named
from tfbig.errors import InvalidData, InvalidOption, UnknownOption, UnreadableFile

HEADER = "a,b,kind\n"


@pytest.fixture
def folder(tmp_path):
    """Three files of 100 rows; a counts from 0, b is half of it and kind a third's remainder."""
    for part in range(3):
        rows = range(100 * part, 100 * (part + 1))
        text = "".join(f"{i},{i / 2},{i % 3}\n" for i in rows)
        (tmp_path / f"part-{part}.csv").write_text(HEADER + text)
    return tmp_path


def written(tmp_path, text, name="rows.csv", newline=""):
    path = tmp_path / name
    with open(path, "w", newline=newline, encoding="utf-8") as file:
        file.write(text)
    return path


def read(path, **options):
    """All rows in the files' order, as one x and one y."""
    batches = list(stream_csv(path, **{"target": "kind", "shuffle_buffer": 0, **options}).as_numpy_iterator())
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def test_rows_come_in_the_order_of_the_files(folder):
    x, y = read(folder / "part-*.csv")
    np.testing.assert_array_equal(x, np.stack([np.arange(300), np.arange(300) / 2], axis=1))
    np.testing.assert_array_equal(y, np.arange(300) % 3)
    assert (x.dtype, y.dtype) == ("float32", "float32")


def test_batches_have_the_size_asked_for_and_the_last_one_the_rest(folder):
    stream = stream_csv(folder / "part-*.csv", target="kind", batch_size=128)
    assert [len(y) for _, y in stream] == [128, 128, 44]


def test_a_path_a_pattern_and_a_list_are_taken(folder):
    assert len(read(folder / "part-0.csv")[0]) == 100
    assert len(read(str(folder / "part-[01].csv"))[0]) == 200
    assert len(read([folder / "part-0.csv", folder / "part-[12].csv"])[0]) == 300


def test_columns_are_chosen_and_ordered(folder):
    x, y = read(folder / "part-0.csv", features=["kind", "a"], target="b")
    np.testing.assert_array_equal(x[5], [5 % 3, 5])
    assert y[5] == 2.5


def test_several_targets_are_columns_of_y(folder):
    x, y = read(folder / "part-0.csv", target=["kind", "b"])
    assert (x.shape, y.shape) == ((100, 1), (100, 2))
    np.testing.assert_array_equal(y[7], [7 % 3, 3.5])


def test_a_list_of_one_target_keeps_its_axis(folder):
    assert read(folder / "part-0.csv", target=["kind"])[1].shape == (100, 1)


def orders(path, epochs=2, **options):
    stream = stream_csv(path, target="kind", shuffle_buffer=1000, **options)
    return [np.concatenate([x[:, 0] for x, _ in stream.as_numpy_iterator()]) for _ in range(epochs)]


def test_shuffling_keeps_every_row_and_differs_from_epoch_to_epoch(folder):
    first, second = orders(folder / "part-*.csv", seed=1)
    assert sorted(first) == sorted(second) == list(range(300))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.arange(300))
    # Rows of all files are mixed: among the first hundred, each file has at least some.
    assert set((first[:100] // 100).tolist()) == {0, 1, 2}


def test_the_seed_decides_the_order(folder):
    path = folder / "part-*.csv"
    np.testing.assert_array_equal(orders(path, seed=1), orders(path, seed=1))
    assert not np.array_equal(orders(path, seed=1), orders(path, seed=2))


def test_texts_of_the_target_become_labels(tmp_path):
    path = written(tmp_path, 'size,pet\n1,cat\n2, dog \n3,"cat"\n4,"a ""wild"" one (big)"\n')
    x, y = read(path, target="pet", classes=["dog", "cat", 'a "wild" one (big)'])
    assert (y.tolist(), y.dtype) == ([1, 0, 1, 2], "int64")
    np.testing.assert_array_equal(x[:, 0], [1, 2, 3, 4])


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
def test_blank_lines_quotes_blanks_and_a_byte_order_mark_are_understood(tmp_path, newline):
    text = '\ufeffa,"b, really",kind\n\n 1.5 ,"-2e-1",0\n\n+.5,3.,1\n\n'
    x, y = read(written(tmp_path, text, newline=newline))
    np.testing.assert_allclose(x, [[1.5, -0.2], [0.5, 3.0]])
    assert y.tolist() == [0, 1]


def test_a_column_that_is_not_read_may_hold_anything(tmp_path):
    path = written(tmp_path, 'note,a,kind\n"x, ""y""",1,0\n,2,1\n')
    np.testing.assert_array_equal(read(path, features=["a"])[0], [[1], [2]])


def test_another_delimiter(tmp_path):
    path = written(tmp_path, "a|kind\n1|0\n2|1\n")
    np.testing.assert_array_equal(read(path, delimiter="|")[0], [[1], [2]])


def test_packed_files_are_unpacked_as_they_are_read(tmp_path):
    with gzip.open(tmp_path / "rows.csv.gz", "wt") as file:
        file.write("a,kind\n1,0\n2,1\n")
    np.testing.assert_array_equal(read(tmp_path / "rows.csv.gz")[0], [[1], [2]])


def test_many_columns(tmp_path):
    names = [f"f{i}" for i in range(600)]
    values = np.random.default_rng(0).normal(size=(3, 600)).astype(np.float32)
    lines = [",".join([*map(repr, map(float, row)), "1"]) for row in values]
    path = written(tmp_path, "\n".join([",".join([*names, "kind"]), *lines]))
    np.testing.assert_array_equal(read(path)[0], values)


def test_a_model_trains_on_the_stream_and_is_validated_on_another(folder):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Of 200 rows in batches of 32. Without a length, Keras 3.15 counts an optimizer step more in each epoch.
    length = tf.data.experimental.assert_cardinality(7)
    run = tfbig.fit(
        lambda: tfbig.models.mlp((2,), 3, hidden=()),
        stream_csv(folder / "part-[01].csv", target="kind", seed=1).apply(length),
        validation_data=stream_csv(folder / "part-2.csv", target="kind", shuffle_buffer=0),
        loss=loss,
        epochs=2,
        seed=0,
        verbose=0,
    )
    assert int(run.model.optimizer.iterations) == 2 * 7
    assert len(run.history["val_loss"]) == 2


BAD_ROWS = {
    "text": ("1,2,0\nx,2,0\n", r"line 3: expected 3 fields, with numbers in a, b, kind; got: x,2,0"),
    "missing value": ("1,,0\n", "line 2: .*; got: 1,,0"),
    "NaN": ("1,nan,0\n", "line 2: .*; got: 1,nan,0"),
    "too few fields": ("1,2,0\n\n1,2\n", "line 4: expected 3 fields, .*; got: 1,2$"),
    "too many fields": ("1,2,0,5\n", "line 2: .*; got: 1,2,0,5"),
    "a quote that does not end": ('1,"2,0\n', "line 2"),
    "letters beyond ASCII": ("ä,2,0\n", "line 2: .*; got: ä,2,0"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_read_is_named(tmp_path, rows, message):
    path = written(tmp_path, HEADER + rows)
    with pytest.raises(InvalidData, match=message) as caught, row_errors_named():
        list(stream_csv(path, target="kind", shuffle_buffer=0))
    assert str(caught.value).startswith(f"Cannot read {path}, line ")


def test_a_bad_row_among_many_is_named_with_its_own_line_and_file(folder):
    path = folder / "part-1.csv"
    lines = path.read_text().splitlines()
    lines[77] = "oops,1,2"
    path.write_text("\n".join(lines))
    with pytest.raises(InvalidData, match=r"part-1\.csv, line 78: .*got: oops,1,2"), row_errors_named():
        list(stream_csv(folder / "*.csv", target="kind"))


def test_an_unknown_class_is_named(tmp_path):
    path = written(tmp_path, "a,pet\n1,cat\n2,cow\n")
    message = "line 3: expected 2 fields, with numbers in a and one of 'cat', 'dog' in pet; got: 2,cow"
    with pytest.raises(InvalidData, match=message), row_errors_named():
        list(stream_csv(path, target="pet", classes=["cat", "dog"]))


def test_in_a_bare_fit_tensorflows_error_has_the_text(tmp_path):
    path = written(tmp_path, HEADER + "x,2,0\n")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"Cannot read {path}, line 2"):
        model.fit(stream_csv(path, target="kind"), verbose=0, shuffle=False)


def test_other_errors_of_tensorflow_pass_as_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError, match="mine"), row_errors_named():
        tf.debugging.Assert(False, ["mine"])


BAD_FILES = {
    "no match": ({}, {}, UnreadableFile, r"No file matches '.*rows\.csv'"),
    "nothing": ({"rows.csv": ""}, {}, UnreadableFile, "holds nothing"),
    "names only": ({"rows.csv": HEADER}, {}, UnreadableFile, "holds no rows below its first line"),
    "one name twice": ({"rows.csv": "a,a,kind\n1,2,3\n"}, {}, UnreadableFile, "two columns of one name: a"),
    "other columns": (
        {"rows.csv": "a,kind\n1,2\n", "rows.csv2": "kind,a\n1,2\n"},
        {"pattern": "rows.csv*"},
        UnreadableFile,
        r"must have the same columns: .*rows\.csv begins with a, kind, and .*rows\.csv2 with kind, a",
    ),
    "binary": ({"rows.csv": b"\xff\xfe\x00\n\xff"}, {}, UnreadableFile, "cannot be read as CSV text"),
    "no target": (
        {"rows.csv": "a,kind\n1,2\n"},
        {"target": "kindd"},
        InvalidOption,
        r"has no column 'kindd'\. Did you mean 'kind'\? Its columns: a, kind",
    ),
    "no feature": ({"rows.csv": "a,kind\n1,2\n"}, {"features": ["c"]}, InvalidOption, "has no column 'c'"),
    "target alone": ({"rows.csv": "kind\n1\n"}, {}, InvalidOption, "at least one column each"),
    "classes of two": (
        {"rows.csv": HEADER + "1,2,3\n"},
        {"target": ["b", "kind"], "classes": ["1"]},
        InvalidOption,
        "classes are for one target column; got 2",
    ),
    "long delimiter": ({}, {"delimiter": "::"}, InvalidOption, "delimiter must be one character.*'::'"),
    "no batch": ({"rows.csv": "a,kind\n1,2\n"}, {"batch_size": 0}, InvalidOption, "batch_size must be"),
    "no buffer": ({"rows.csv": "a,kind\n1,2\n"}, {"shuffle_buffer": -1}, InvalidOption, "at least 0; got -1"),
    "misspelt": ({}, {"shufle_buffer": 1}, UnknownOption, "Did you mean 'shuffle_buffer'?"),
}


@pytest.mark.parametrize(("files", "options", "error", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_cannot_be_streamed_is_refused_at_once(tmp_path, files, options, error, message):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    options = dict(options)
    pattern = tmp_path / options.pop("pattern", "rows.csv")
    with pytest.raises(error, match=message):
        stream_csv(pattern, **{"target": "kind", **options})


def test_an_empty_list_of_files_is_refused():
    with pytest.raises(UnreadableFile, match="got an empty list"):
        stream_csv([], target="kind")


MEMORY = """
import json, sys
from tfbig.data.csv_files import stream_csv
from tfbig.data.stream_order import orders_in
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024
stream = stream_csv(sys.argv[1], target="y", batch_size=256, shuffle_buffer=2000, seed=0)
rows, first = 0, None
for x, y in stream:
    rows += len(y)
    if first is None and rows > 20_000:
        first = resident()
print(json.dumps([rows, resident() - first]))
"""


def test_memory_stays_flat_over_a_large_file(tmp_path):
    path = tmp_path / "large.csv"
    block = "".join(f"{i * 0.123456},{i * 0.654321},{i * 0.111111},{i % 3}\n" for i in range(1000))
    with open(path, "w") as file:
        file.write("a,b,c,y\n")
        for _ in range(200):
            file.write(block)
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, timeout=300, check=True
    )
    rows, growth = json.loads(result.stdout.splitlines()[-1])
    assert rows == 200_000
    # The text alone is 5 MiB and its rows in memory would be 10 times that as objects; buffers may settle yet.
    assert growth < 20


def test_the_order_is_a_function_of_seed_and_epoch(folder):
    def orders(*epochs, seed=None, training=7):
        stream = stream_csv(folder / "*.csv", target="kind", batch_size=4, seed=seed).prefetch(1)
        (order,) = orders_in(stream)
        found = []
        for epoch in epochs:
            order.begin(epoch, training)
            found.append(np.concatenate([x for x, _ in stream.as_numpy_iterator()]).tolist())
        return found

    first, second, again = orders(0, 1, 0)
    assert first == again
    assert first != second
    assert sorted(first) == sorted(second)
    # In another process, which begins with epoch 1; or in another worker.
    assert orders(1) == [second]
    assert orders(0, training=8) != [first]
    # A seed of its own goes before that of the training; a seed that is set for all of TensorFlow changes nothing.
    own = orders(0, 1, seed=3)
    tf.random.set_seed(0)
    assert orders(0, 1, seed=3, training=8) == own != [first, second]


def test_after_a_training_each_iteration_has_an_order_of_its_own_again(folder):
    stream = stream_csv(folder / "*.csv", target="kind", batch_size=4, seed=3)
    (order,) = orders_in(stream)

    def rows():
        return np.concatenate([x for x, _ in stream.as_numpy_iterator()]).tolist()

    order.begin(0, 1)
    pinned = [rows(), rows()]
    order.end()
    free = [rows(), rows()]
    assert pinned[0] == pinned[1]
    assert len({str(one) for one in (pinned[0], *free)}) == 3


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_that_is_none_is_refused(folder, seed):
    with pytest.raises(InvalidOption, match=f"seed must be a whole number of at least 0; got {seed}"):
        stream_csv(folder / "*.csv", target="kind", seed=seed)
