import pytest

from tfbig.errors import ConversionTimedOut, OutputExists, OutputNotWritable
from tfbig.files import check_output, written_whole


def test_a_writable_path_is_returned_its_folders_made_and_left_empty(tmp_path):
    target = tmp_path / "deep" / "deeper" / "model.tflite"
    assert check_output(str(target), suffix=".tflite", overwrite=False) == target
    assert list(target.parent.iterdir()) == []


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(OutputNotWritable, match=r"must end in '\.tflite'; got '.*model\.h5'"):
        check_output(tmp_path / "model.h5", suffix=".tflite", overwrite=True)


def test_a_folder_is_no_output_file(tmp_path):
    (tmp_path / "model.tflite").mkdir()
    with pytest.raises(OutputNotWritable, match=r"must be a file; '.*model\.tflite' is a folder"):
        check_output(tmp_path / "model.tflite", suffix=".tflite", overwrite=True)


def test_an_existing_file_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(OutputExists, match=r"a\.json' exists already\. Pass overwrite=True"):
        check_output(tmp_path / "a.json", suffix=".json", overwrite=False)


def test_an_existing_file_stays_untouched_by_the_check_with_overwrite(tmp_path):
    (tmp_path / "a.json").write_text("old")
    check_output(tmp_path / "a.json", suffix=".json", overwrite=True)
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_folder_that_is_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OutputNotWritable, match=r"Nothing can be written in '.*file'.* Choose another folder"
    ):
        check_output(tmp_path / "file" / "a.json", suffix=".json", overwrite=False)


def test_a_folder_whose_file_system_takes_no_files_is_not_writable():
    with pytest.raises(OutputNotWritable, match=r"Nothing can be written in '/proc'"):
        check_output("/proc/a.json", suffix=".json", overwrite=False)


def test_a_name_that_the_file_system_does_not_take_is_not_writable(tmp_path):
    with pytest.raises(OutputNotWritable, match="written"):
        check_output(tmp_path / ("a" * 300 + ".json"), suffix=".json", overwrite=False)


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "a.json"
    with written_whole(target) as staged:
        staged.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"


def test_the_file_is_moved_not_copied_so_no_reader_sees_half_of_it(tmp_path):
    with written_whole(tmp_path / "a.json") as staged:
        staged.write_text("new")
        written = staged.stat().st_ino
    assert (tmp_path / "a.json").stat().st_ino == written


def test_the_staged_file_has_the_targets_ending(tmp_path):
    with written_whole(tmp_path / "model.keras") as staged:
        staged.write_text("")
        assert staged.suffix == ".keras"


def test_an_existing_file_is_replaced(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with written_whole(target) as staged:
        staged.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ConversionTimedOut])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.json"
    target.write_text("old")

    def write_half():
        with written_whole(target) as staged:
            staged.write_text("half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        write_half()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_full_disk_is_reported_with_what_became_of_the_old_file(tmp_path):
    with (
        pytest.raises(
            OutputNotWritable, match=r"No space left on device.*What was there before is unchanged"
        ),
        written_whole(tmp_path / "a.json"),
    ):
        raise OSError(28, "No space left on device")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(OutputNotWritable, match="could not be written"), written_whole(tmp_path / "a.json"):
        pass


def test_a_missing_folder_is_not_writable(tmp_path):
    with (
        pytest.raises(OutputNotWritable, match="could not be written"),
        written_whole(tmp_path / "missing" / "a.json") as staged,
    ):
        staged.write_text("")
