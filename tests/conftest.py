"""Fixtures that more than one test file uses."""

import copy
import functools
import os
import sys

import pytest
from hypothesis import settings

TIERS = {  # folder, or marker -> how to run it
    "tests/models": "the bundled models, the examples, the manual",
    "tests/process": "real processes: signals, crashes, faults, what release 0.1.0 left behind",
    "tests/fuzz": "bad files and bad input",
}
settings.register_profile("quick", deadline=None, max_examples=25, database=None, derandomize=True)
settings.register_profile("all", settings.get_profile("quick"), max_examples=300)
settings.load_profile("quick")

OURS = []  # the catalogue that is shipped, as `_plain` has it, once it was read
# with the fakes, some 20 ms
QUICK = ("--steps", "3", "--size", "32x32", "--cutouts", "2", "--seed", "7")


class Outcome:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.lines = err.splitlines()


class Networks:
    """The fakes that stand in for the networks, and the names that were asked for."""

    def __init__(self) -> None:
        from tests.support.fakes import FakeClip, FakeVqgan  # heavy: only the tests that use this load torch

        self.vqgan, self.clip = FakeVqgan(), FakeClip()
        self.loaded: list[str] = []

    def load_vqgan(self, name, device):
        self.loaded.append(name)
        return self.vqgan

    def load_clip(self, name, device):
        self.loaded.append(name)
        return self.clip


os.environ["HF_HUB_CACHE"] = "/nowhere"  # read when huggingface_hub is imported


@pytest.fixture(autouse=True)
def _empty_store(monkeypatch, tmp_path):
    """Keep the user's own models, catalogue and tokens out of the tests, and the number of cores."""
    from vqclip.models import catalogue as cards

    monkeypatch.setenv("VQCLIP_MODELS", str(tmp_path / "store"))
    monkeypatch.setenv("VQCLIP_CATALOGUE", str(tmp_path / "catalogue.toml"))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "VQCLIP_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VQCLIP_THREADS", "1")  # in a fixed order, whatever the machine
    cards.catalogue.cache_clear()
    yield
    cards.catalogue.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def _no_power_cuts():
    """Wait for no disk: tests of power cuts put their own fsync in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _plain(request, monkeypatch):
    """Let the preset tiny begin from grey and enlarge nothing, which is quick, but where a test is `as_shipped`.

    Processes of their own are as shipped in any case.
    """
    from vqclip.models import catalogue as cards

    def plain(path, *more):
        if path.parent != cards.PACKAGE:
            return read_toml(path, *more)
        if not OURS:
            OURS.append(read_toml(path, *more))
            OURS[0]["preset"]["tiny"] = {"about": "quick", "vqgan": "tiny", "clips": ["tiny"]}
        return copy.deepcopy(OURS[0])

    read_toml = cards.read_toml
    if "as_shipped" not in request.keywords:
        monkeypatch.setattr(cards, "read_toml", plain)


@pytest.fixture
def server(monkeypatch):
    """Return a server on the loopback, which is the hub too; what fails is tried again without a pause."""
    from tests.support.servers import Server
    from vqclip.models import download

    monkeypatch.setattr(download, "PAUSE", 0.01)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    yield made
    made.close()


def stand_in(patch):
    """Let every run load fakes; every known name gives the same two."""
    import vqclip.models.catalogue
    import vqclip.runs.memory
    from tests.support.fakes import count_memory_once
    from vqclip.runs.networks import LOADERS

    fakes = Networks()
    patch.setattr(vqclip.runs.memory, "count_memory", count_memory_once)
    patch.setitem(LOADERS, "vqgan", fakes.load_vqgan)
    patch.setitem(LOADERS, "clip", fakes.load_clip)
    patch.setattr(vqclip.models.catalogue.ModelEntry, "sha256", lambda card: "0123456789abcdef" * 4)
    return fakes


@pytest.fixture
def networks(monkeypatch):
    """Let the pipeline load fakes."""
    return stand_in(monkeypatch)


@functools.cache
def built(get_command):
    """Return typer's function that makes the commands, which makes each once: that takes longer than most tests."""
    return functools.cache(get_command)


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    """Return the command as a function, run here, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("VQCLIP_DEBUG", raising=False)

    import typer.main

    import vqclip.cli

    monkeypatch.setattr(typer.main, "get_command", built(typer.main.get_command))

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["vqclip", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            vqclip.cli.main()
        return Outcome(ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def vq(run_here, networks):
    """Return the command as a function, with the fakes for networks."""
    return run_here


def pytest_terminal_summary(terminalreporter, config):
    """Say which tiers were left out, and how to run them."""
    if config.args == list(config.getini("testpaths")):
        folders = ", ".join(f"{folder} ({what})" for folder, what in TIERS.items())
        command = "python -m pytest tests -m 'not slow'"
        terminalreporter.write_line(f"Left out: {folders}, and what takes seconds. All: {command}, then -m slow")
