import json
import subprocess
import sys

import numpy as np
import pytest

from tfbig.data.row_reading import read_rows
from tfbig.errors import UnreadableFile

VALUES = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float32)
SOME = np.array([7, 8, 9, 3, 49, 0, 0, 12])


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    return tmp_path / "x.npy"


def raw(path, offset):
    with open(path, "wb") as file:
        file.write(b"?" * offset)
        file.write(VALUES.tobytes())
    return np.memmap(path, np.float32, "r", offset=offset, shape=VALUES.shape)


VIEWS = {
    "whole": lambda x: x,
    "from row 10 on": lambda x: x[10:],
    "every second row": lambda x: x[::2],
    "backwards": lambda x: x[::-1],
    "part of each row": lambda x: x[:, 1:],
    "rows of one value": lambda x: x[:, 0, 0],
    "columns first": lambda x: x.transpose(2, 0, 1),
    "flat": lambda x: x.reshape(50, -1),
    "plain view": np.asarray,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_the_rows_are_those_of_the_array(path, view, mode):
    mapped, plain = view(np.load(path, mmap_mode=mode)), view(VALUES)
    rows = SOME[len(plain) > SOME]
    np.testing.assert_array_equal(read_rows(mapped, rows), plain[rows])


@pytest.mark.parametrize("offset", [0, 13, 8192], ids=str)
def test_a_file_with_something_before_the_array(tmp_path, offset):
    mapped = raw(tmp_path / "x.bin", offset)
    np.testing.assert_array_equal(read_rows(mapped[5:], SOME[:4]), VALUES[5:][SOME[:4]])


def test_arrays_in_memory_and_no_rows_and_negative_numbers(path):
    mapped = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(read_rows(VALUES, SOME), VALUES[SOME])
    assert read_rows(mapped, np.array([], int)).shape == (0, 3, 4)
    np.testing.assert_array_equal(read_rows(mapped, np.array([-1, 2])), VALUES[[-1, 2]])


def test_changes_are_seen_whether_the_mapping_is_shared_or_private(path):
    for mode in ("r+", "c"):
        mapped = np.load(path, mmap_mode=mode)
        mapped[3] = 7.0
        assert (read_rows(mapped, np.array([3])) == 7.0).all()


def test_what_is_returned_is_a_new_array(path):
    rows = read_rows(np.load(path, mmap_mode="r"), SOME)
    rows[:] = 0
    np.testing.assert_array_equal(np.load(path), VALUES)


def test_a_row_outside_is_an_index_error_as_in_numpy(path):
    with pytest.raises(IndexError, match="50 is out of bounds"):
        read_rows(np.load(path, mmap_mode="r"), np.array([50]))


def test_a_file_that_became_shorter_is_an_error(path):
    mapped = np.load(path, mmap_mode="r")
    with open(path, "r+b") as file:
        file.truncate(1000)
    # 128 bytes of header and 49 rows of 48 bytes come before row 49.
    with pytest.raises(UnreadableFile, match=r"x\.npy ends before byte 2480, where the array"):
        read_rows(mapped, np.array([1, 49]))


MEMORY = """
import json, sys
import numpy as np
from tfbig.data.row_reading import read_rows
def mapped_files():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssFile")) / 1024
x = np.load(sys.argv[1], mmap_mode="r")
order = np.random.default_rng(0).permutation(len(x))
read_rows(x, order[:8])
before = mapped_files()
for start in range(0, len(x), 1024):
    read_rows(x, order[start : start + 1024])
print(json.dumps(mapped_files() - before))
"""


def test_no_page_of_the_file_is_mapped(tmp_path):
    path = tmp_path / "large.npy"
    np.save(path, np.ones((64 * 256, 1024), np.float32))  # 64 MiB
    command = [sys.executable, "-c", MEMORY, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(result.stdout) < 2  # code that is loaded meanwhile
