import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfbig
from tfbig.deployment.contents import read_contents
from tfbig.deployment.metadata import LABELS, read_labels, with_metadata
from tfbig.errors import UnreadableFile

ENTRIES = {"maker": b"someone", LABELS: json.dumps([f"digit {i}" for i in range(10)]).encode()}


@pytest.fixture(scope="module")
def content(digits_lite):
    return digits_lite.path.read_bytes()


def test_what_was_added_is_read_back_and_the_rest_stays(content):
    before, after = read_contents(content), read_contents(with_metadata(content, ENTRIES))
    assert after.metadata == {**before.metadata, **ENTRIES}
    assert (after.graphs, after.signatures) == (before.graphs, before.signatures)


def test_the_file_computes_the_same(digits, digits_lite, content, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(content, ENTRIES))
    labelled = tfbig.LiteModel(path, trusted=True)
    assert np.array_equal(labelled.predict(digits.x_test), digits_lite.predict(digits.x_test))
    assert labelled.labels == tuple(f"digit {i}" for i in range(10))


def test_a_file_grows_by_little_more_than_what_is_added(content):
    payload = sum(len(name) + len(values) for name, values in ENTRIES.items())
    # Names and values are padded, each entry takes two tables, and the packer shares a little less.
    assert len(with_metadata(content, ENTRIES)) - len(content) <= payload + 200


def test_adding_again_replaces(content):
    once = with_metadata(content, {"maker": b"a"})
    twice = with_metadata(once, {"maker": b"b"})
    assert read_contents(twice).metadata["maker"] == b"b"
    assert len(twice) == len(once)


def test_every_buffer_lies_where_litert_wants_it(content):
    changed = with_metadata(content, {"odd": b"12345"})
    model = schema.Model.GetRootAs(changed, 0)
    values = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength())]
    places = [
        array.ctypes.data - np.frombuffer(changed, np.uint8).ctypes.data
        for array in values
        if np.size(array) > 1
    ]
    assert len(places) > 8
    assert all(place % 16 == 0 for place in places)


def test_a_broken_file_is_refused(content):
    with pytest.raises(UnreadableFile):
        with_metadata(content[:1000], ENTRIES)


def test_a_file_without_labels_has_none(content):
    assert read_labels(read_contents(content)) is None


@pytest.mark.parametrize("values", [b"\xff\xfe", b"not json", b'{"a": 1}'])
def test_labels_that_are_no_list_are_refused(content, values):
    with pytest.raises(UnreadableFile, match="labels"):
        read_labels(read_contents(with_metadata(content, {LABELS: values})))
