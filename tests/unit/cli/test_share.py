"""The man page and the completion scripts that the wheel brings."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vqclip.cli.completion_table import make_table

SHARE = Path(__file__).parents[3] / "examples" / "packaging" / "share"
pytestmark = pytest.mark.skipif(not SHARE.is_dir(), reason="the tests lie beside an installed package")


@pytest.fixture(scope="module")
def write():
    spec = importlib.util.spec_from_file_location("share_write", SHARE / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_typers(write, shell):
    assert (SHARE / write.SCRIPTS[shell]).read_text() == write.completion_script(shell)


def test_the_man_page_has_every_command():
    page = (SHARE / "man/man1/vqclip.1").read_text()
    for name, command in make_table()["commands"]["commands"].items():
        for below in ("", *(f" {each}" for each in command["commands"])):
            assert f'"vqclip {name}{below}"' in page, "run python examples/packaging/share/write.py"


def test_the_page_is_well_formed(write):
    page = write.man_page()
    assert not re.search(r"^[.'](?!TH|SH|SS|TP|B|I)", page, re.MULTILINE)
    if shutil.which("man"):
        done = subprocess.run(
            ["man", "--warnings", "-l", "-"], input=page, capture_output=True, text=True, check=True,
            env={"MANPAGER": "cat", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )  # fmt: skip
        assert done.stderr == ""
        assert "text to image with VQGAN+CLIP" in done.stdout


def test_the_context_of_the_dockerfile_has_what_is_copied():
    root = SHARE.parents[2]
    ignored = root / ".dockerignore"
    if not ignored.exists():
        pytest.skip("the tests lie beside an installed package")
    let_through = {line[1:] for line in ignored.read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (.*) \S+$", (SHARE.parent / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (root / name).exists()
        assert name in let_through
