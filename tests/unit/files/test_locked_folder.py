"""A folder that one process at a time writes to."""

import shutil

import pytest

from vqclip.errors import OutputError, RunLocked
from vqclip.files.locked_folder import LockedFolder


def test_a_folder_is_held_once_until_it_is_closed(tmp_path):
    first = LockedFolder(tmp_path)
    with pytest.raises(RunLocked):
        LockedFolder(tmp_path)
    first.close()
    LockedFolder(tmp_path).close()


def test_names_that_exist_are_numbered(tmp_path):
    made = [LockedFolder.create(tmp_path / "runs", "heart") for _ in range(3)]
    assert [folder.path.name for folder in made] == ["heart", "heart-2", "heart-3"]
    for folder in made:
        folder.close()


def test_half_written_files_of_a_killed_process_are_swept(tmp_path):
    (tmp_path / "frames").mkdir()
    parts = [tmp_path / f".{'0a' * 8}.part", tmp_path / "frames" / f".{'1b' * 8}.part"]
    for part in parts:
        part.touch()
    (tmp_path / "kept.png").touch()
    LockedFolder(tmp_path, "frames").close()
    assert not any(part.exists() for part in parts)
    assert (tmp_path / "kept.png").exists()


@pytest.mark.parametrize("inner", ["", "frames"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_was_moved_away_is_not_written_to(tmp_path, inner, replaced):
    (tmp_path / "a").mkdir()
    folder = LockedFolder(tmp_path / "a", "frames")
    folder.check()
    shutil.move(tmp_path / "a" / inner, tmp_path / "elsewhere")
    if replaced:
        (tmp_path / "a" / inner).mkdir()
    with pytest.raises(OutputError):
        folder.check()
    folder.close()


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        LockedFolder.create(tmp_path / "file", "a")
