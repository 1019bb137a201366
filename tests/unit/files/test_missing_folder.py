"""One rule for -o: a missing folder of what it names is made, and a folder has no name of a file."""

from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.unit.cli.test_upscale import drawing
from vqclip.errors import UsageError
from vqclip.files import metadata


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("generate", "a red heart", *QUICK), "new/folder/a.png"),
        (("generate", "a red heart", *QUICK, "--video", "film/a.gif", "--frames-every", "1"), "new/a.png"),
        (("upscale", "in.png", "--by", "2"), "new/a.png"),
        (("upscale", "in.png", "in.png", "--by", "2"), "new/folder"),
        (("reconstruct", "in.png"), "new/folder"),
    ],
)
def test_a_missing_folder_is_made(vq, words, out):
    drawing("in.png", size=(32, 32))
    done = vq(*words, "-o", out)
    assert done.code == 0, done.err
    assert Path(out).exists()


def test_a_folder_that_cannot_be_made_is_said_at_once(vq, networks):
    Path("file").write_text("")
    assert vq("generate", "a red heart", *QUICK, "-o", "file/new/a.png").code == 8
    assert networks.loaded == []
    for words in (("sample", "an owl"), ("batch", "-")):
        assert vq(*words, "-o", "a.png").code == 2


def test_a_new_format_of_images_is_one_row(monkeypatch, tmp_path):
    monkeypatch.setitem(metadata.WRITERS, ".tiff", metadata.WRITERS[".png"])
    metadata.check_target(tmp_path / "a.TIFF", overwrite=False)
    metadata.check_no_file(tmp_path / "new.folder")
    for ending in (".TIFF", ".jpg", ".mp4"):
        with pytest.raises(UsageError):
            metadata.check_no_file(tmp_path / f"a{ending}")
