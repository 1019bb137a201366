"""A Mini DALL-E into the store: imported from a folder, or pulled file by file; and what the catalogue says."""

import dataclasses
import json
import shutil

import pytest
import torch

from tests.unit.models.test_dalle import (
    CONFIG,
    CPU,
    SMALL,
    flax_names,
    randomized,
    write_flax,
    write_torch,
    write_words,
)
from vqclip.config.resolve import resolve
from vqclip.errors import InputError, IntegrityError, ModelError
from vqclip.files.paths import sha256
from vqclip.models import install, load_dalle, load_vqgan, store
from vqclip.models.catalogue import catalogue, goes_with, model_entry
from vqclip.models.dalle import PARTNER
from vqclip.models.dalle.bart import DalleBart, Shape
from vqclip.models.dalle.checkpoints import check_file
from vqclip.models.download import Fetched

CONTEXT = install.InstallContext(lambda done, total: None, lambda text: None)


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    write_torch(folder, randomized(DalleBart(SMALL)))
    (folder / "config.json").write_text(CONFIG)
    return folder


def test_a_folder_is_imported_and_loads(run_here, published):
    done = run_here("models", "import", published, "--name", "own")
    assert done.code == 0
    assert done.out.strip() == str(store.folder("dalle", "own"))
    loaded = load_dalle("own", CPU)
    weights = torch.load(published / "decoder_mini.pt", weights_only=True)["lm_head.weight"]
    assert torch.equal(loaded.model.decoder.lm_head.weight, weights.float())
    assert (loaded.vqgan, loaded.pixels, loaded.model.shape.codes) == ("imagenet_f16_16384", "unit", 11)


def test_what_is_installed_is_in_the_list_and_can_be_removed(run_here, published):
    run_here("models", "import", published, "--name", "own")
    rows = json.loads(run_here("models", "list", "--json").out)
    assert ("dalle", "own", True) in [(row["kind"], row["name"], row["installed"]) for row in rows]
    assert run_here("models", "remove", "own").code == 0
    assert store.installed("dalle") == []


def test_a_folder_as_its_makers_publish_it_is_to_be_imported_first(run_here, published):
    done = run_here("sample", "a", "--dalle", published)
    assert (done.code, done.out) == (5, "")
    assert "vqclip models import" in done.lines[1]


def test_what_is_not_whole_leaves_nothing(run_here, published):
    (published / "decoder_mini.pt").unlink()
    assert run_here("models", "import", published, "--name", "own").code == 5
    assert store.installed("dalle") == []


def test_pull_fetches_every_file_and_joins_them(monkeypatch, tmp_path):
    remote, wide = (
        tmp_path / "remote",
        dataclasses.replace(SMALL, width=64, heads=1),
    )  # heads as in the published: 64 wide
    remote.mkdir()
    write_torch(remote, randomized(DalleBart(wide)))

    def download(wanted, part, progress, say, adopt, offline):
        source = remote / wanted.mirrors[0].rpartition("/")[2]
        shutil.copyfile(source, part)
        fetched = Fetched(part, wanted.mirrors[0], source.stat().st_size, sha256(source))
        adopt(fetched)
        return fetched

    monkeypatch.setattr(install, "download", download)
    monkeypatch.setattr(catalogue().models["dalle"]["mini"], "codes", 11)
    assert install.pull("dalle", "mini", CONTEXT).installed()
    assert load_dalle("mini", CPU).model.shape == wide
    assert set(store.read_record(store.folder("dalle", "mini"))["source"]) == {
        "encoder.pt", "decoder.pt", "vocab.json", "merges.txt"}  # fmt: skip
    assert list((store.root() / "parts").glob("*.files")) == []


@pytest.mark.parametrize("lost", ["encoder.pt", "merges.txt"])
def test_where_one_file_cannot_be_had_flaxs_stand_in(monkeypatch, tmp_path, lost):
    wide = dataclasses.replace(SMALL, width=64, heads=1)
    model = randomized(DalleBart(wide))
    write_torch(tmp_path, model)
    write_flax(tmp_path / "flax_model.msgpack", flax_names(model, scanned=False))
    write_words(tmp_path)
    said = []

    def download(wanted, part, progress, say, adopt, offline):
        if wanted.file == lost and "kuprel" in wanted.mirrors[0]:
            raise ModelError(f"{wanted.title} could not be downloaded", "")
        source = tmp_path / wanted.mirrors[0].rpartition("/")[2]
        shutil.copyfile(source, part)
        fetched = Fetched(part, wanted.mirrors[0], source.stat().st_size, sha256(source))
        adopt(fetched)
        return fetched

    monkeypatch.setattr(install, "download", download)
    monkeypatch.setattr(catalogue().models["dalle"]["mini"], "codes", 11)
    assert install.pull("dalle", "mini", install.InstallContext(lambda done, total: None, said.append)).installed()
    assert "flax_model.msgpack" in store.read_record(store.folder("dalle", "mini"))["source"]
    assert any("flax_model.msgpack" in text for text in said)


def test_offline_the_hint_names_the_model_and_its_folder(run_here):
    done = run_here("models", "pull", "mini", "--offline")
    assert done.code == 5
    assert "vqclip models import FOLDER --name mini" in done.lines[-1]
    assert "encoder.pt" not in done.lines[-1]


def test_what_a_stopped_download_left_can_be_removed(run_here, monkeypatch):
    def stop(remote, part, progress, say, adopt, offline):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "download", stop)
    with pytest.raises(KeyboardInterrupt):
        install.pull("dalle", "mini", CONTEXT)
    assert run_here("models", "remove", "mini").code == 0
    assert [path.name for path in (store.root() / "parts").iterdir()] == ["dalle-mini.lock"]
    assert run_here("models", "remove", "mini").code == 5


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("encoder.pt", "encoder_mini.pt", "decoder_mini.pt"),
        ("decoder.pt", "decoder_mini.pt", "encoder_mini.pt"),
        ("decoder.pt", "decoder_mini.pt", "vocab_mini.json"),
        ("vocab.json", "vocab_mini.json", "merges_mini.txt"),
        ("vocab.json", "vocab_mini.json", "config.json"),
        ("merges.txt", "merges_mini.txt", "vocab_mini.json"),
    ],
)
def test_a_file_of_another_kind_is_known_for_what_it_is(published, name, right, wrong):
    check_file(name, published / right)
    with pytest.raises((ModelError, IntegrityError)):
        check_file(name, published / wrong)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", ".hidden", ""])
def test_a_file_cannot_lead_out_of_its_models_folder(tmp_path, name):
    entry = f"[dalle.x]\nfiles = [{{ name = {json.dumps(name)}, mirror = 'https://example.com/x' }}]\n"
    (tmp_path / "catalogue.toml").write_text(entry)
    catalogue.cache_clear()
    with pytest.raises(InputError, match="name"):
        catalogue()


@pytest.mark.parametrize("place", ["mirror = 'https://e.com/x'", "mirrors = ['https://e.com/x']"])
def test_files_alone_say_where_a_model_is(tmp_path, place):
    (tmp_path / "catalogue.toml").write_text(f"[dalle.x]\nfiles = [{{ name = 'encoder.pt', {place} }}]\n")
    catalogue.cache_clear()
    assert catalogue().models["dalle"]["x"].files[0].name == "encoder.pt"


def test_show_tells_where_each_file_is(run_here):
    (row,) = json.loads(run_here("models", "show", "mini", "--json").out)
    assert [line.split()[0] for line in row["files"]] == ["encoder.pt", "decoder.pt", "vocab.json", "merges.txt"]
    assert all("hf:" in line for line in row["files"])


def test_a_missing_one_says_what_brings_it():
    with pytest.raises(ModelError) as error:
        load_dalle("mini", CPU)
    assert "vqclip models pull mini" in error.value.hint


@pytest.mark.parametrize("args", [("sample", "a cat"), ("generate", "a cat", "--init", "sample")])
def test_the_command_says_what_brings_the_one_that_goes_with_the_vqgan(run_here, tmp_path, args):
    done = run_here(*args, "--vqgan", "imagenet")
    assert (done.code, done.out) == (5, "")
    what, hint = done.lines
    assert "'mini' is not installed" in what
    assert "vqclip models pull mini imagenet_f16_16384" in hint
    assert "--dalle FOLDER" in hint
    assert not (tmp_path / "here" / "runs").exists()


@pytest.mark.parametrize("args", [("sample", "a cat"), ("generate", "a cat", "--init", "sample")])
def test_a_copy_without_the_bundled_one_says_so(run_here, monkeypatch, args):
    monkeypatch.setattr(catalogue().models["dalle"]["tiny"], "folder", "tiny/nowhere")
    done = run_here(*args)
    assert (done.code, done.out) == (5, "")
    assert "not in this copy of vqclip" in done.lines[0]
    assert "install vqclip again" in done.lines[1]


@pytest.mark.parametrize("args", [("sample", "a cat"), ("generate", "a cat", "--init", "sample")])
def test_a_vqgan_whose_codes_none_writes(run_here, args):
    done = run_here(*args, "--vqgan", "wikiart")
    assert (done.code, done.out) == (5, "")
    assert "no Mini DALL-E is known" in done.lines[0]


def test_the_bundled_one_goes_with_the_bundled_vqgan_and_mini_with_that_of_imagenet(monkeypatch):
    assert [goes_with(name) for name in ("tiny", PARTNER, "wikiart_f16_16384")] == ["tiny", "mini", ""]
    here = model_entry("dalle", "mega").weights
    here.parent.mkdir(parents=True)
    here.touch()
    assert goes_with(PARTNER) == "mega"  # the one that is here


@pytest.mark.parametrize(("vqgan", "dalle"), [("tiny", "tiny"), ("imagenet", "mini"), ("wikiart", "")])
def test_settings_choose_by_the_vqgan(vqgan, dalle):
    assert resolve("a", init="sample", vqgan=vqgan).dalle == dalle
    assert resolve("a", init="sample", vqgan=vqgan, dalle="mega").dalle == "mega"
    assert resolve("a", vqgan=vqgan).dalle == ""


def test_each_is_guided_as_suits_it():
    """dalle-mini's notebook takes condition_scale 10; the bundled one was measured at 4."""
    guided = [resolve("a", init="sample", dalle=name).guidance for name in ("tiny", "mini", "mega", "/some/folder")]
    assert guided == [4.0, 10.0, 10.0, 10.0]
    assert resolve("a", init="sample", vqgan="imagenet").guidance == 10.0
    assert resolve("a", init="sample", dalle="mini", guidance=3.0).guidance == 3.0
    assert resolve("a").guidance == 0.0


def test_the_bundled_one_is_hashed_loads_and_fits_its_vqgan():
    entry = model_entry("dalle", "tiny")
    if not entry.installed():
        pytest.skip("its weights are not in this copy")
    assert entry.expected_sha256 == sha256(entry.weights)
    dalle, vqgan = load_dalle("tiny", CPU), load_vqgan("tiny", CPU)
    assert (dalle.vqgan, dalle.pixels, dalle.model.shape.codes) == ("tiny", "vqgan", len(vqgan.codebook))
    assert dalle.side * vqgan.f == 128


def test_what_the_hint_pulls_can_be_pulled():
    assert [model_entry("dalle", "mini").name, model_entry("vqgan", "imagenet_f16_16384").name] == [
        "mini",
        "imagenet_f16_16384",
    ]
    for name in ("mini", "mega"):
        assert model_entry("dalle", name).facts.needs == [PARTNER]


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "hidden", "words", "rows"),
    [("mini", 12, 1024, 16, 2730, 50264, 16385), ("mega", 24, 2048, 32, 4096, 50272, 16416)],
)
def test_the_catalogues_sizes_are_those_of_half_precision(name, layers, width, heads, hidden, words, rows):
    with torch.device("meta"):
        model = DalleBart(Shape(width, heads, hidden, layers, layers, words, rows, 16384))
    for half in ("encoder", "decoder"):
        size = next(file for file in model_entry("dalle", name).facts.files if file.name == f"{half}.pt").size
        count = 2 * sum(p.numel() for p in getattr(model, half).parameters())
        assert not size or 0 < size - count < 400_000  # the zip around the numbers
