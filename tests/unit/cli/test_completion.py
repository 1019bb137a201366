"""Shell completion: what each word may become, in the forms of three shells, and how quickly."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from vqclip.cli.completion_table import make_table
from vqclip.config.completion import complete, table, typed

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def known():
    return make_table()


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("", {"generate", "models", "watch"}),
        ("gen", {"generate"}),
        ("generate --pres", {"--preset"}),
        ("generate owl --preset ", {"auto", "tiny", "standard"}),
        ("generate --init s", {"sample", "smooth"}),
        ("generate --vqgan ti", {"tiny"}),
        ("generate --clip RN50-q", {"RN50-quickgelu:openai"}),
        ("generate --augments flip,aff", {"flip,affine"}),
        ("batch --palette red,te", {"red,teal"}),
        ("video x --codec a", {"av1", "apng"}),
        ("video --between l", {"latent"}),
        ("story x --border re", {"reflect"}),
        ("sample x --keep ", set()),
        ("upscale a.png --tile ", set()),  # pixels here, not the axes of generate --tile
        ("models ", {"list", "pull", "words"}),
        ("models pull sta", {"standard"}),
        ("models show real", {"realesr-animevideov3"}),
        ("generate --seed ", set()),
        ("generate --json --init gr", {"grey"}),
        ("resume ", set()),
    ],
)
def test_a_word_is_completed(known, line, some):
    words, _, begun = line.rpartition(" ")
    found = set(complete(known, words.split(), begun))
    assert some <= found
    assert all(name.startswith(begun) for name in found)
    assert bool(found) == bool(some)


def test_the_shells_tell_what_is_typed():
    assert typed({"COMP_WORDS": "vqclip generate --in", "COMP_CWORD": "2"}) == (["generate"], "--in")
    assert typed({"COMP_WORDS": "vqclip generate ", "COMP_CWORD": "2"}) == (["generate"], "")
    assert typed({"_TYPER_COMPLETE_ARGS": "vqclip generate 'an owl' --in"}) == (["generate", "an owl"], "--in")
    assert typed({"_TYPER_COMPLETE_ARGS": "vqclip generate 'an "})[0][:1] == ["generate"]  # the quote is still open


@pytest.mark.full
@pytest.mark.parametrize(
    ("shell", "environ", "answer"),
    [
        ("bash", {"COMP_WORDS": "vqclip generate --init gr", "COMP_CWORD": "3"}, "grey"),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "vqclip generate --init gr", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "grey",
        ),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "vqclip generate --init gr"}, "_arguments '*: :((\"grey\"))'"),
    ],
)
def test_a_shell_is_answered_at_once_from_the_second_time_on(tmp_path, shell, environ, answer):
    environ = os.environ | environ | {
        "_VQCLIP_COMPLETE": f"complete_{shell}", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)
    }  # fmt: skip
    spent = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "vqclip"], env=environ, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.stdout.strip() == answer
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert spent[1] < 0.2  # seconds of the processor


def test_the_table_is_made_anew_when_the_users_catalogue_changes(tmp_path, monkeypatch, known):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []
    make = lambda: made.append(1) or make_table()  # noqa: E731
    table(make)
    assert (len(table(make)["commands"]), len(made)) == (len(known["commands"]), 1)
    Path(os.environ["VQCLIP_CATALOGUE"]).write_text("")
    table(make)
    assert len(made) == 2
    kept = tmp_path / "vqclip" / "completion.json"
    for text in ("", "[]", json.dumps({"made from": {}}), '{"made from": 3}'):
        kept.write_text(text)
        assert table(make)["commands"]["commands"]
    assert len(made) == 6


@pytest.mark.full
def test_nothing_is_read_of_the_users_catalogue_before_a_command_asks(tmp_path):
    (tmp_path / "models.toml").write_text("what is this")
    environ = os.environ | {"VQCLIP_CATALOGUE": str(tmp_path / "models.toml"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", "import vqclip.cli"], env=environ, check=True)


def test_a_cache_that_can_not_be_written_costs_no_answer(tmp_path, monkeypatch):
    (tmp_path / "vqclip").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert table(make_table)["commands"]["commands"]
