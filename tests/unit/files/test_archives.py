"""An archive in place of an image, a folder or a model: it is called one, and is to be unpacked."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUICK
from vqclip.files.archives import archive_at


def tar(name="photos/a.png"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photos/a.png", b"")
    return buffer.getvalue()


ARCHIVES = {
    "a.tar": tar(),
    "a.tar.gz": gzip.compress(tar()),
    "a.7z": b"7z\xbc\xaf\x27\x1c" + bytes(99),
    "a.zip": zipped(),
}


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["upscale", "{}"], 4),
        (["rank", "{}", "--prompt", "a"], 4),
        (["video", "{}"], 4),
        (["restyle", "{}", "a"], 4),
        (["models", "import", "{}", "--name", "x", "--kind", "dalle"], 5),
        (["generate", "a", "--init-image", "{}"], 4),
        (["batch", "p.txt", "-o", "out", "--init-images", "{}"], 4),
        (["generate", "a", "--vqgan", "{}"], 5),
        (["models", "import", "{}", "--name", "x", "--kind", "vqgan"], 5),
    ],
)
def test_an_archive_is_to_be_unpacked(run_here, name, words, code):
    Path(name).write_bytes(ARCHIVES[name])
    Path("p.txt").write_text("a fox\n")
    done = run_here(*(word.format(name) for word in words), *(QUICK if words[0] == "generate" else ()))
    assert (done.code, len(done.lines)) == (code, 2)
    assert name in done.lines[0]
    assert "unpack it" in done.lines[1]


@pytest.mark.parametrize("data", [b"", b"PK", b"\x89PNG\r\n\x1a\n", b"ustar", tar()[:200]])
def test_anything_else_is_none(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    assert archive_at(tmp_path / "a.tar") == archive_at(tmp_path / "none") == archive_at(tmp_path) == ""
