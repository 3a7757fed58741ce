import sys

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.data.parquet_files import stream_parquet
from tfbig.data.stream_order import orders_in
from tfbig.errors import InvalidData, InvalidOption, UnreadableFile


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(ImportError, match=r'pip install "tfbig\[parquet\]"'):
        stream_parquet("rows.parquet", target="k")


@pytest.fixture
def write(tmp_path):
    """Writes columns to a Parquet file of the folder, in groups of 30 rows."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def written(name, **columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / name, row_group_size=30)
        return tmp_path / name

    return written


@pytest.fixture
def folder(write, tmp_path):
    """Three files of 100 rows; a counts from 0, b is half of it and kind is "even" or "odd"."""
    for part in range(3):
        a = np.arange(100 * part, 100 * (part + 1))
        write(f"part-{part}.parquet", a=a, b=a / 2, kind=[("even", "odd")[i % 2] for i in a])
    return tmp_path / "part-*.parquet"


def rows(stream):
    x, y = zip(*stream.as_numpy_iterator(), strict=True)
    return np.concatenate(x), np.concatenate(y)


def test_rows_come_in_the_order_of_the_files(folder):
    stream = stream_parquet(folder, target="kind", classes=["even", "odd"], shuffle_buffer=0, batch_size=128)
    x, y = rows(stream)
    np.testing.assert_array_equal(x, np.stack([np.arange(300), np.arange(300) / 2], axis=1))
    np.testing.assert_array_equal(y, np.arange(300) % 2)
    assert (x.dtype, y.dtype, [len(y) for _, y in stream]) == ("float32", "int64", [128, 128, 44])


def test_columns_are_chosen_and_ordered_and_targets_may_be_several(folder):
    x, y = rows(stream_parquet(folder, target=["b", "a"], features=["a"], shuffle_buffer=0))
    assert (x.shape, y[3].tolist()) == ((300, 1), [1.5, 3])
    assert rows(stream_parquet(folder, target="b", features=["a"]))[1].shape == (300,)


def test_shuffled_rows_are_the_same_rows_in_an_order_that_follows_from_the_seed(folder):
    def order(seed):
        stream = stream_parquet(folder, target="b", features=["a"], seed=seed)
        assert len(orders_in(stream)) == 1
        return [rows(stream)[0][:, 0].tolist() for _ in range(2)]

    first, again, other = order(1), order(1), order(2)
    assert first == again
    assert first[0] != first[1] != other[1]
    assert sorted(first[0]) == list(range(300))


def fitted(stream):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return tfbig.fit(model, stream, loss=loss, epochs=1, verbose=0)


def test_a_model_trains_on_it(folder):
    stream = stream_parquet(folder, target="kind", classes=["even", "odd"])
    assert np.isfinite(fitted(stream).history["loss"][0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": [1.0] * 40 + [None], "k": ["u"] * 41},
            "row 40: column a has a missing, NaN or infinite value",
        ),
        ({"a": [1.0] * 35, "k": ["u"] * 34 + ["w"]}, "row 34: expected one of 'u', 'v' in k; got 'w'"),
        ({"a": [1.0], "k": [None]}, "row 0: expected one of 'u', 'v' in k; got None"),
    ],
)
def test_a_bad_row_is_named_with_its_file(write, columns, message):
    path = write("rows.parquet", b=[2.0] * len(columns["k"]), **columns)
    with pytest.raises(InvalidData, match=f"Cannot read .*rows.parquet, {message}"):
        fitted(stream_parquet(path, target="k", classes=["u", "v"]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "kid"}, InvalidOption, "no column 'kid'. Did you mean 'kind'?"),
        ({"target": "kind"}, InvalidOption, "'kind' of .* holds no numbers.*give the target's classes="),
        ({"target": "a"}, InvalidOption, "'kind' of .* holds no numbers. Name the features= without it"),
        (
            {"target": ["a", "b"], "features": ["a"], "classes": [1]},
            InvalidOption,
            "for one target column; got 2",
        ),
        ({"target": "a", "features": []}, InvalidOption, "x and y need at least one column each"),
    ],
)
def test_columns_that_cannot_be_read_are_refused(folder, options, error, message):
    with pytest.raises(error, match=message):
        stream_parquet(folder, **options)


def test_files_that_cannot_be_read_are_refused(write, tmp_path):
    write("a.parquet", a=[1.0], b=[1.0])
    write("b.parquet", a=[1.0], c=[1.0])
    write("empty.parquet", a=np.zeros(0), b=np.zeros(0))
    (tmp_path / "text.parquet").write_text("a,b")
    for pattern, message in (
        ("[ab].parquet", "All files must have the same columns"),
        ("empty.parquet", "holds no rows"),
        ("text.parquet", "is no Parquet file that can be read"),
        ("gone.parquet", "No file matches"),
    ):
        with pytest.raises(UnreadableFile, match=message):
            stream_parquet(tmp_path / pattern, target="a")
