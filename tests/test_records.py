import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest

from tfbig.errors import UnreadableFile
from tfbig.records import Record


@dataclass(frozen=True)
class Part(Record):
    name: str
    count: int = 1


@dataclass(frozen=True)
class Whole(Record):
    first: Part
    parts: tuple[Part, ...]
    by_name: Mapping[str, Part]
    scores: Mapping[str, tuple[float, ...]]
    spare: Part | None = None
    labels: tuple[Any, ...] | None = None
    anything: Any = None


@dataclass(frozen=True, eq=False)
class Table(Record):
    values: np.ndarray


WHOLE = Whole(
    first=Part("a"),
    parts=(Part("b"), Part("c", 2)),
    by_name={"d": Part("d", 3)},
    scores={"accuracy": (0.5, 0.75)},
    spare=Part("e"),
    labels=("cat", 3, None),
    anything="text",
)


@pytest.mark.parametrize("record", [Part("a", 2), WHOLE, Whole(Part("a"), (), {}, {})])
def test_a_record_comes_back_equal_from_json(record):
    assert type(record).from_json(record.to_json()) == record


def test_a_record_comes_back_equal_from_a_file(tmp_path):
    WHOLE.to_json(tmp_path / "whole.json")
    assert Whole.from_json(tmp_path / "whole.json") == WHOLE


def test_to_dict_gives_plain_python_values():
    record = Whole(
        first=Part("a", np.int64(3)),
        parts=(),
        by_name={},
        scores={"r2": (np.float32(0.5),)},
        anything=np.array([[1, 2]]),
    )
    plain = record.to_dict()
    assert (type(plain["first"]["count"]), type(plain["scores"]["r2"][0])) == (int, float)
    assert plain["anything"] == [[1, 2]]


def test_an_array_comes_back_as_an_array():
    values = Table.from_json(Table(np.array([[1.5, 2.5]])).to_json()).values
    np.testing.assert_array_equal(values, np.array([[1.5, 2.5]]), strict=True)


def test_a_field_with_a_default_may_be_absent():
    assert Part.from_json('{"name": "a"}') == Part("a", 1)


def test_a_record_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Part("a").name = "b"


def test_the_file_holds_the_returned_text(tmp_path):
    text = Part("a").to_json(tmp_path / "part.json")
    assert (tmp_path / "part.json").read_text() == text + "\n"
    assert json.loads(text) == {"name": "a", "count": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a", "Expected a Part as JSON; got text that is not JSON"),
        ("[1, 2]", "Expected a Part as a JSON object; got a list"),
        ('{"nam": "a"}', r"A Part has no fields \['nam'\]; it has \['count', 'name'\]"),
        ('{"count": 2}', "not a complete Part: .*missing 1 required positional argument: 'name'"),
    ],
)
def test_text_that_is_no_such_record_is_unreadable(text, message):
    with pytest.raises(UnreadableFile, match=message):
        Part.from_json(text)


@pytest.mark.parametrize("field", ["first", "parts", "by_name"])
@pytest.mark.parametrize("value", [3, [3], "text"])
def test_a_field_of_another_kind_is_unreadable(field, value):
    values = {**WHOLE.to_dict(), field: value}
    with pytest.raises(UnreadableFile, match=r"Part|Whole"):
        Whole.from_json(json.dumps(values))


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableFile, match=r"part\.json"):
        Part.from_json(tmp_path / "part.json")


def test_a_binary_file_is_unreadable(tmp_path):
    (tmp_path / "part.json").write_bytes(b"\xff\xfe\x00TFL3")
    with pytest.raises(UnreadableFile, match="Expected a Part as JSON"):
        Part.from_json(tmp_path / "part.json")
