import errno
import os
import shutil
import warnings

import numpy as np
import pytest

from tfbig.data.row_reading import read_rows
from tfbig.errors import InvalidOption, OutputNotWritable
from tfbig.training import checkpoints
from tfbig.training.checkpoints import Checkpoint, CheckpointFolder, check_same_training, fingerprint


def checkpoint(step):
    arrays = {"model/0": np.full((3, 4), step, np.float32), "callback/0/best/1": np.arange(step)}
    return Checkpoint({"position": {"step": step}, "best": float("inf")}, arrays)


def same(one, other):
    return (
        one.facts == other.facts
        and set(one.arrays) == set(other.arrays)
        and all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
    )


@pytest.fixture
def folder(tmp_path):
    """A folder of two checkpoints, of steps 10 and 20."""
    made = CheckpointFolder(tmp_path / "checkpoints")
    made.save(checkpoint(10), 10)
    made.save(checkpoint(20), 20)
    return made


def files(folder):
    return sorted(path.name for path in folder.path.iterdir())


def newest(folder):
    return folder.path / files(folder)[-1]


def test_what_is_saved_is_loaded(folder):
    assert same(CheckpointFolder(folder.path).load(), checkpoint(20))


def test_dtypes_survive(tmp_path):
    arrays = {str(kind): np.ones(2, kind) for kind in ("float16", "float64", "int8", "bool", "uint32")}
    CheckpointFolder(tmp_path).save(Checkpoint({}, arrays), 1)
    assert {name: str(value.dtype) for name, value in CheckpointFolder(tmp_path).load().arrays.items()} == {
        name: name for name in arrays
    }


def test_an_empty_folder_has_none(tmp_path):
    assert CheckpointFolder(tmp_path).load() is None


def test_two_are_kept(folder):
    folder.save(checkpoint(30), 30)
    assert [name[:14] for name in files(folder)] == ["step-000000020", "step-000000030"]


def test_a_number_of_steps_past_nine_digits_is_still_the_newest(folder):
    folder.save(checkpoint(5), 12_345_678_901)
    assert same(CheckpointFolder(folder.path).load(), checkpoint(5))


def test_of_two_of_one_step_the_later_is_the_newest(folder):
    older = folder.save(checkpoint(31), 30)
    os.utime(older, (1, 1))
    folder.save(checkpoint(32), 30)
    assert same(CheckpointFolder(folder.path).load(), checkpoint(32))


def test_other_files_in_the_folder_are_left_alone(folder):
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "step-1.npz").write_text("mine too")
    folder.save(checkpoint(30), 30)
    assert same(CheckpointFolder(folder.path).load(), checkpoint(30))
    assert {"notes.txt", "step-1.npz"} < set(files(folder))


def test_what_a_killed_process_had_half_written_is_removed(folder):
    half = folder.path / f".step-000000030-{'0' * 16}.npz.123"
    half.write_bytes(b"PK")
    assert same(CheckpointFolder(folder.path).load(), checkpoint(20))
    assert not half.exists()


def truncated(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flipped(share):
    def flip(path):
        content = bytearray(path.read_bytes())
        content[int(share * len(content))] ^= 1
        path.write_bytes(content)

    return flip


def made_a_folder(path):
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("mine")


def swapped(path):
    """The content of the checkpoint before, under the name of this one."""
    (before,) = (other for other in path.parent.iterdir() if other != path)
    shutil.copy(before, path)


DAMAGE = {
    "empty": truncated(0),
    "first byte only": lambda path: path.write_bytes(path.read_bytes()[:1]),
    "half": truncated(0.5),
    "all but a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte too many": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "first bit flipped": flipped(0),
    "bit in the middle flipped": flipped(0.5),
    "last bit flipped": flipped(0.999),
    "garbage": lambda path: path.write_bytes(b"not a checkpoint" * 50),
    "another's content": swapped,
    "renamed to a later step": lambda path: path.rename(path.with_name(f"step-000000099-{'0' * 16}.npz")),
    "a folder": made_a_folder,
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_the_one_before_is_used(folder, damage):
    damage(newest(folder))
    again = CheckpointFolder(folder.path)
    with pytest.warns(UserWarning, match=r"step-0000000\d\d-.*is damaged and is passed over; the one before"):
        assert same(again.load(), checkpoint(10))
    again.save(checkpoint(21), 21)  # and the training goes on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(CheckpointFolder(folder.path).load(), checkpoint(21))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(folder, damage):
    damage(newest(folder))
    again = CheckpointFolder(folder.path)
    with pytest.warns(UserWarning, match="damaged"):
        again.load()
    last = again.save(checkpoint(15), 15)
    truncated(0.5)(last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(CheckpointFolder(folder.path).load(), checkpoint(10))


def test_a_folder_in_a_checkpoints_place_is_put_aside_when_the_checkpoint_comes_again(folder):
    place = newest(folder)
    made_a_folder(place)
    (place / "kept.txt").write_text("")
    again = CheckpointFolder(folder.path)
    with pytest.warns(UserWarning, match="is damaged"):
        again.load()
    assert again.save(checkpoint(20), 20) == place
    assert place.is_file()
    assert (folder.path / f"aside-{place.name}" / "kept.txt").exists()


def test_where_all_are_damaged_each_is_named_and_none_is_used(folder):
    for path in folder.path.iterdir():
        truncated(0.5)(path)
    with pytest.warns(UserWarning, match="or else the training begins anew") as told:
        assert CheckpointFolder(folder.path).load() is None
    assert len(told) == 2


def test_a_file_cannot_be_the_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(OutputNotWritable, match=r"must be a folder; .*file' is a file"):
        CheckpointFolder(path)
    assert path.read_text() == "mine"


def test_a_folder_inside_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputNotWritable, match=r"checkpoint_dir .*file/inside' cannot be made \(Not a dir"):
        CheckpointFolder(tmp_path / "file" / "inside")


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_full_disk_names_the_path_and_leaves_the_last_good_one(folder, monkeypatch, place):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files(folder)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, place, full)
        with pytest.raises(
            OutputNotWritable, match=r"checkpoints/step-000000030-.*No space left.*last good one is unchanged"
        ):
            folder.save(checkpoint(30), 30)
    assert files(folder) == before
    assert same(CheckpointFolder(folder.path).load(), checkpoint(20))


def test_a_folder_that_is_gone_is_named(folder):
    shutil.rmtree(folder.path)
    with pytest.raises(OutputNotWritable, match=r"checkpoints/step-000000030-.*No such file"):
        folder.save(checkpoint(30), 30)


def test_the_same_training_is_the_same_also_after_it_was_in_a_file(tmp_path):
    identity = {"model": [("Dense", [(4, 3)])], "rate": 0.1, "seed": None}
    CheckpointFolder(tmp_path).save(Checkpoint({"identity": identity}, {}), 1)
    check_same_training(identity, CheckpointFolder(tmp_path).load().facts["identity"], tmp_path)


def test_another_training_is_refused_and_each_difference_named(tmp_path):
    theirs = {"batch_size": 32, "seed": 1, "same": [1]}
    mine = {"batch_size": 64, "same": [1], "precision": "mixed_bfloat16"}
    with pytest.raises(InvalidOption) as told:
        check_same_training(mine, theirs, tmp_path)
    for part in (
        str(tmp_path),
        "batch_size: 32 there, 64 here",
        "seed: 1 there, None here",
        "precision: None there, mixed_bfloat16 here",
        "folder of its own",
    ):
        assert part in str(told.value)
    assert "same:" not in str(told.value)


def test_a_fingerprint_tells_data_apart():
    x = np.arange(12.0).reshape(4, 3)
    other = x.copy()
    other[3, 2] = 0
    prints = [fingerprint(data) for data in (x, other, x.astype(np.float32), x.reshape(3, 4), x[:3])]
    assert len({str(found) for found in prints}) == 5
    assert fingerprint(x) == fingerprint(x.copy()) == fingerprint(np.asfortranarray(x))
    assert fingerprint(x, None, other) == [*fingerprint(x), *fingerprint(other)]


def test_a_fingerprint_of_rows_in_memory_looks_at_all():
    x = np.zeros((5000, 2))
    for row in range(0, 5000, 61):
        other = x.copy()
        other[row] = 1
        assert fingerprint(other) != fingerprint(x)


def mapped(path, rows):
    stored = np.lib.format.open_memmap(path, "w+", np.float32, (rows, 4))
    stored[:] = np.arange(rows)[:, None]
    stored.flush()
    return np.load(path, mmap_mode="r+")


def test_a_fingerprint_of_rows_in_a_file_looks_at_some_from_the_first_to_the_last(tmp_path):
    x = mapped(tmp_path / "x.npy", 5000)
    before = fingerprint(x)
    for row in (0, -1):
        x[row] += 1
        x.flush()
        assert fingerprint(x) != before
        before = fingerprint(x)


def test_a_fingerprint_reads_no_more_than_it_may(tmp_path, monkeypatch):
    x, read = mapped(tmp_path / "x.npy", 5000), []

    def counting(array, rows):
        read.append(len(rows) * 16)
        return read_rows(array, rows)

    monkeypatch.setattr("tfbig.training.checkpoints.read_rows", counting)
    monkeypatch.setattr("tfbig.training.checkpoints._READ_BYTES", 4000)
    monkeypatch.setattr("tfbig.training.checkpoints._PIECE_BYTES", 160)
    fingerprint(x, x)
    assert 3000 < sum(read) <= 4000
    assert max(read) <= 160
