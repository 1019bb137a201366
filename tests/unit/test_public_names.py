"""What the package offers: names that exist, and that no module hides."""

import importlib
import re
from pathlib import Path

import pytest

import vqclip

ROOT = Path(vqclip.__file__).parent


@pytest.mark.parametrize("name", vqclip.__all__)
def test_a_public_name_is_there(name):
    assert getattr(vqclip, name) is not None


@pytest.mark.parametrize("name", ["generate", "prepare", "Settings", "Step", "VqclipError", "parse_prompts"])
def test_the_package_offers(name):
    assert name in vqclip.__all__


def test_dir_lists_what_is_public():
    assert dir(vqclip) == sorted(vqclip.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        vqclip.nonsense


def test_no_module_is_called_like_a_public_name():
    modules = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert modules & set(vqclip.__all__) == set()


@pytest.mark.parametrize("name", [name for name in vqclip.__all__ if name != "__version__"])
def test_a_public_name_is_that_of_its_module(name):
    thing = getattr(vqclip, name)
    assert getattr(importlib.import_module(thing.__module__), name) is thing


def test_the_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", vqclip.__version__)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").is_file()


CITED = {  # files of other projects
    "base.py", "ema.py", "model.py", "patch_vqgan.py", "reconstruction_vq_ddp.py", "taming_gumbel_vqvae.py",
    "train_amused.py",
}  # fmt: skip


def test_every_module_that_a_text_names_exists():
    root = Path(__file__).parents[2]  # beside which the package may be installed elsewhere
    texts = [*ROOT.rglob("*.py"), *root.glob("*.md"), *(root / "examples").rglob("*.md")]
    modules = {path.name for folder in (ROOT, root / "tests", root / "examples") for path in folder.rglob("*.py")}
    named = {
        name: path for path in texts for name in re.findall(r"\b[a-z_0-9]+\.py\b", path.read_text(encoding="utf-8"))
    }
    assert {name: path for name, path in named.items() if name not in modules | CITED} == {}
