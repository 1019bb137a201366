"""vqclip models: pull, import, convert, verify, remove; two at once, offline, every bad input with its exit code."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import vqclip.cli
from tests.support.checkpoints import lightning, reference, tensors
from tests.support.servers import cutting, good, send
from vqclip.cli.progress import progress_bar
from vqclip.config.resolve import resolve
from vqclip.errors import OutputExists
from vqclip.models import catalogue as cards
from vqclip.models import download, install, load_vqgan, store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a small checkpoint as a public one is: Lightning's, with a loss inside."""
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    torch.save(lightning(tensors() | {"loss.discriminator.weight": torch.zeros(3)}), path)
    return path


@pytest.fixture
def catalogue(tmp_path):
    """Return a function that writes the user's own catalogue."""

    def write(text):
        (tmp_path / "catalogue.toml").write_text(text)
        cards.catalogue.cache_clear()

    return write


@pytest.fixture
def web(server, catalogue, checkpoint):
    """Return a hub that has a small VQGAN, of which the catalogue knows as `small`."""
    server.data = checkpoint.read_bytes()
    server.path = "/o/r/resolve/main/small.ckpt"
    server.files[server.path] = server.data
    catalogue(entry(server.data))
    return server


def entry(data, name="small", **more):
    facts = {"mirrors": ["hf:o/r@main/small.ckpt"], "size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
             "f": 2, "codes": 24, "dim": 8, "data": "drawings", "licence": "none at all"} | more  # fmt: skip
    return f"[vqgan.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in facts.items())


@pytest.fixture
def vq(run_here):
    """Return the command as a function, with the networks as they are."""
    return run_here


def models(vq, *args):
    return vq("models", *args)


def nothing_is_half_installed():
    left = [path.name for path in store.root().rglob("*") if path.is_file() and path.suffix != ".lock"]
    return [name for name in left if not name.endswith((".part", ".note"))] == [] and store.installed("vqgan") == []


# pull


def test_pull_installs_plain_tensors_and_prints_where(vq, web, checkpoint):
    done = models(vq, "pull", "small")
    folder = Path(done.out.strip())
    assert done.code == 0
    assert folder == store.root() / "vqgan" / "small"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.json", "model.safetensors"]
    assert load_file(folder / "model.safetensors").keys() == tensors().keys()


def test_pull_says_data_and_licence(vq, web):
    err = models(vq, "pull", "small").err
    assert "drawings" in err
    assert "none at all" in err


def test_after_a_pull_the_pickle_is_gone(vq, web):
    models(vq, "pull", "small")
    assert [path.name for path in (store.root() / "parts").iterdir() if path.suffix != ".lock"] == []


def test_what_was_pulled_loads_by_its_name(vq, web):
    models(vq, "pull", "small")
    assert load_vqgan("small", CPU).codebook.shape == (24, 8)


def test_the_record_says_where_it_came_from(vq, web):
    models(vq, "pull", "small")
    record = store.read_record(store.folder("vqgan", "small"))
    assert record["source"] == {"url": web.url + web.path, "size": len(web.data),
                                "sha256": hashlib.sha256(web.data).hexdigest()}  # fmt: skip
    weights = (store.folder("vqgan", "small") / "model.safetensors").read_bytes()
    assert record["sha256"] == hashlib.sha256(weights).hexdigest()


def test_pulling_again_asks_nobody(vq, web):
    models(vq, "pull", "small")
    web.asked.clear()
    assert models(vq, "pull", "small").code == 0
    assert web.asked == []


@pytest.mark.parametrize("how", ["--offline", "VQCLIP_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_is_heeded_at_once(vq, web, monkeypatch, how):
    if not how.startswith("--"):
        monkeypatch.setenv(how, "1")
    began = time.monotonic()
    done = models(vq, "pull", "small", *([how] if how.startswith("--") else []))
    assert time.monotonic() - began < 2
    assert (done.code, web.asked) == (5, [])
    assert "models import FILE --name small" in done.err


def test_offline_a_model_that_is_there_is_fine(vq, web):
    models(vq, "pull", "small")
    assert models(vq, "pull", "small", "--offline").code == 0


def test_a_file_of_another_model_is_not_installed(vq, web, catalogue):
    catalogue(entry(web.data, codes=16384))
    done = models(vq, "pull", "small")
    assert done.code == 5
    assert "codes is 24, not 16384" in done.err
    assert nothing_is_half_installed()


@pytest.mark.parametrize("keep", [True, False])
def test_wrong_bytes_are_not_installed(vq, web, keep):
    web.files[web.path] = web.data[:-1] + b"x" if keep else web.data[:-100]
    done = models(vq, "pull", "small")
    assert done.code == (6 if keep else 5)
    assert nothing_is_half_installed()


def test_an_error_of_the_disk_leaves_nothing(vq, web, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vqclip.models.formats.read.save_file", full)
    done = models(vq, "pull", "small")
    assert done.code == 8
    assert "No space left" in done.err
    assert nothing_is_half_installed()
    monkeypatch.undo()


def open_to_all(place):
    """Say whether another user could reach a folder."""
    return all(folder.stat().st_mode & 0o001 for folder in (place, *place.parents))


def lowly(code):
    """Run Python code as a user who is not root, to whom permissions mean something; return its output."""
    drop = "import os\nif os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    # all is imported before, since another user may not be able to read it where this is installed
    head = (
        "import contextlib, io, sys, vqclip.cli, vqclip.models.install\n"
        "sys.argv = ['vqclip', 'models', 'path']\n"  # typer imports some of itself as it runs
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): vqclip.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", head + drop + code], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="there are no permissions of this kind")
@pytest.mark.skipif(not open_to_all(Path(sys.prefix)), reason="nobody else may read the libraries here")
@pytest.mark.parametrize("mode", [0o500, 0o000], ids=["readable", "closed"])
def test_a_store_of_somebody_elses_is_told(web, tmp_path, mode):
    (tmp_path / "store").mkdir(mode=mode)
    modes = [(place, place.stat().st_mode) for place in (tmp_path, *tmp_path.parents)]
    shut = [(place, before) for place, before in modes if not before & 0o001]  # pytest lets nobody else in
    try:
        for place, before in shut:
            place.chmod(before | 0o011)
        code, out, err = lowly("sys.argv = ['vqclip', 'models', 'pull', 'small']\nvqclip.cli.main()")
        listed = lowly("sys.argv = ['vqclip', 'models', 'list']\nvqclip.cli.main()")
    finally:
        for place, before in shut:
            place.chmod(before)
    assert (code, out) == (8, ""), err
    assert [line.startswith("error: ") for line in err.splitlines()] == [False, True, False]
    assert "Permission denied" in err
    assert "VQCLIP_MODELS" in err
    assert listed[0] == 0, listed[2]


def test_a_store_that_cannot_be_made_is_told(vq, web, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("VQCLIP_MODELS", str(tmp_path / "file" / "store"))
    done = models(vq, "pull", "small")
    assert done.code == 8
    assert "VQCLIP_MODELS" in done.err


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "vqclip", "models", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(vqclip.__file__).parents[1],
    )


@pytest.mark.full
def test_two_processes_download_it_once(web):
    """The server answers the first once the second has said that it waits."""
    waits = threading.Event()
    web.manners[web.path] = lambda handler, data: (waits.wait(200), good(handler, data))
    both = [start("pull", "small") for _ in range(2)]
    outputs = [[], []]

    def listen(process, lines):
        for line in process.stderr:
            lines.append(line)
            if "waiting" in line:
                waits.set()

    ears = [threading.Thread(target=listen, args=pair) for pair in zip(both, outputs, strict=True)]
    for ear in ears:
        ear.start()
    for process, ear in zip(both, ears, strict=True):
        process.wait(timeout=250)
        ear.join()
        process.stdout.close()
        process.stderr.close()
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(web.asked) == 1
    assert sum("waiting" in "".join(lines) for lines in outputs) == 1


@pytest.mark.full
def test_ctrl_c_keeps_what_came_and_the_next_process_goes_on(vq, web):
    import signal

    def halting(handler, data):
        send(handler, 200, data[:100_000], length=len(data), ETag='"one"')
        handler.wfile.flush()
        time.sleep(30)

    web.manners[web.path] = halting
    process = start("pull", "small")
    part = store.root() / "parts" / "vqgan-small.part"
    for _ in range(3000):
        if part.exists() and part.stat().st_size >= 50_000:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "goes on" in err
    del web.manners[web.path]
    assert models(vq, "pull", "small").code == 0
    assert web.ranges(web.path) == ["", "bytes=100000-"]


def test_a_cut_line_is_mended(vq, web):
    web.manners[web.path] = cutting(50_000, 200_000)
    assert models(vq, "pull", "small").code == 0


# names


@pytest.mark.parametrize(("typo", "meant"), [("imagnet_f16_16384", "imagenet_f16_16384"), ("standart", "standard")])
@pytest.mark.parametrize("command", ["pull", "show", "remove", "path", "verify"])
def test_a_name_with_a_typo_is_answered_with_the_nearest(vq, command, typo, meant):
    done = models(vq, command, typo)
    assert done.code == 5
    assert meant in done.lines[1]


def test_a_model_that_is_not_installed_is_told_with_what_to_do(vq):
    done = vq("generate", "x", "--vqgan", "imagenet_f16_16384")
    assert done.code == 5
    assert "vqclip models pull imagenet_f16_16384" in done.err


def test_what_users_of_other_tools_type_is_understood():
    assert resolve("x", vqgan="sflickr", clips=("ViT-B/32",)).clips == ("ViT-B-32-quickgelu:openai",)
    assert resolve("x", vqgan="sflickr").vqgan == "sflckr_f16_1024"


def test_a_tag_of_open_clip_is_a_name_and_no_path():
    assert resolve("x", clips=("ViT-B-32:laion2b_e16", "hf-hub:o/r")).clips == ("ViT-B-32:laion2b_e16", "hf-hub:o/r")


def test_auto_is_standard_once_that_is_installed():
    assert resolve("x").vqgan == "tiny"
    for kind, name in cards.models_of("standard"):
        folder = store.folder(kind, name)
        folder.mkdir(parents=True)
        (folder / store.WEIGHTS[kind]).write_bytes(b"")
    assert resolve("x").vqgan == "imagenet_f16_16384"
    assert resolve("x").size == (256, 256)


@pytest.mark.parametrize("name", ["tiny", "standard", "fine", "painting"])
def test_a_presets_settings_are_settings(name):
    assert resolve("x", name).vqgan in cards.catalogue().models["vqgan"]


def test_every_entry_is_complete_and_well_formed():
    known = {name for kind in cards.KINDS for name in cards.catalogue().models[kind]}
    for kind in cards.KINDS:
        for name, facts in cards.catalogue().models[kind].items():
            assert facts.about, name
            assert facts.licence, name
            if facts.folder:
                continue
            assert facts.data, name
            assert bool(facts.size) != bool(facts.roughly), name
            of_files = [mirror for file in facts.files for mirror in (file.mirror, *file.mirrors) if mirror]
            mirrors = [*facts.mirrors, *of_files]
            assert mirrors, name
            assert all(download.resolve(mirror).startswith("https://") for mirror in mirrors), name
            assert set(facts.needs) <= known, name
    assert set(cards.catalogue().aliases.values()) <= known


def test_the_catalogue_has_the_hashes_of_the_published_files():
    facts = cards.catalogue().models["vqgan"]
    assert facts["imagenet_f16_16384"].sha256.startswith("845a6880")
    assert facts["imagenet_f16_16384"].size == 980_092_370
    assert facts["gumbel_f8_8192"].sha256.endswith("e7ab14")
    assert facts["wikiart_f16_16384"].size == 1_005_327_541
    assert facts["coco_f16_8192"].sha256.startswith("106cc20f")
    assert facts["sflckr_f16_1024"].size == 4_263_525_412
    assert facts["faceshq_f16_1024"].sha256.startswith("3274bba5")
    clips = cards.catalogue().models["clip"]
    assert clips["ViT-B-32-quickgelu:openai"].sha256.startswith("e6d1bd7789aa45192b3bf905")
    assert clips["ViT-B-32-quickgelu:openai"].size == 605_143_284
    assert clips["ViT-B-16-quickgelu:openai"].sha256.endswith("9148560ee02b820f")
    assert clips["RN50-quickgelu:openai"].size == 408_291_932
    assert [name for name, facts in clips.items() if not facts.sha256] == ["ViT-B-16-SigLIP:webli"]


def test_openais_hashes_are_those_in_open_clips_own_table():
    import open_clip

    for name, facts in cards.catalogue().models["clip"].items():
        if name.endswith(":openai"):
            address = open_clip.get_pretrained_cfg(name.partition("-quickgelu")[0], "openai")["url"]
            assert address in facts.mirrors
            assert len(download.named_sha256(address)) == 64


# own entries


def test_an_entry_of_ones_own_may_be_a_file(catalogue, checkpoint):
    catalogue(f"[vqgan.mine]\npath = {json.dumps(str(checkpoint))}\nabout = 'my own'")
    assert load_vqgan("mine", CPU).codebook.shape == (24, 8)


def test_an_entry_whose_file_has_gone_is_told_and_listed(vq, catalogue):
    catalogue("[vqgan.mine]\npath = '/no/such/file.ckpt'\n[clip.eye]\npath = '/no/such/file.pt@ViT-B-32'")
    done = vq("generate", "x", "--vqgan", "mine")
    assert done.code == 5
    assert "/no/such/file.ckpt is not there" in done.err
    assert "catalogue.toml" in done.err
    out = models(vq, "list").out
    assert " mine " in out
    assert " eye " in out
    for command in ("verify", "path", "pull"):
        done = models(vq, command, "mine")
        assert (done.code, "correct the path of mine" in done.err) == (5, True), command


def test_an_entry_with_a_hash_is_held_to_it(vq, catalogue, checkpoint):
    good = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    path = json.dumps(str(checkpoint))
    catalogue(f"[vqgan.mine]\npath = {path}\nsha256 = '{good}'")
    assert load_vqgan("mine", CPU).f == 2
    catalogue(f"[vqgan.mine]\npath = {path}\nsha256 = '{'0' * 64}'")
    done = vq("generate", "x", "--vqgan", "mine")
    assert done.code == 6
    assert "catalogue.toml" in done.err
    assert models(vq, "verify").code == 6


def test_an_entry_that_leads_nowhere_spoils_no_list(vq, catalogue, tmp_path):
    save_file(tensors(), tmp_path / "eye.safetensors")
    (tmp_path / "nothing").mkdir()
    catalogue(f"[vqgan.mine]\npath = '{tmp_path / 'nothing'}'\n[clip.eye]\npath = '{tmp_path / 'eye.safetensors'}'")
    assert models(vq, "list").code == 0
    assert vq("generate", "x", "--vqgan", "mine").code == 5
    done = vq("generate", "x", "--clip", "eye")
    assert done.code == 5
    assert "no CLIP" in done.err


def test_a_presets_names_mean_what_they_mean_on_the_command_line(catalogue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    catalogue('[preset.night]\nvqgan = "wikiart"\nclips = ["ViT-B/32", "here/my-clip"]\nclip_weights = [1, 0.5]')
    settings = resolve("x", "night")
    assert settings.vqgan == "wikiart_f16_16384"
    assert settings.clips == ("ViT-B-32-quickgelu:openai", str(tmp_path / "here" / "my-clip"))
    assert settings.clip_weights == (1, 0.5)


def test_show_of_a_preset_has_its_settings(vq):
    out = models(vq, "show", "standard").out
    assert "256x256" in out
    assert "imagenet_f16_16384" in out
    (preset, *rows) = json.loads(models(vq, "show", "standard", "--json").out)
    assert (preset["kind"], preset["name"], preset["settings"]["steps"]) == ("preset", "standard", 300)
    assert [row["kind"] for row in rows] == ["vqgan", "clip"]


def test_show_has_every_kind_of_a_name(vq):
    rows = json.loads(models(vq, "show", "tiny", "--json").out)
    assert [row["kind"] for row in rows] == ["preset", "vqgan", "clip", "dalle"]
    assert "MIT; data as vqgan.tiny" in models(vq, "show", "tiny").out


def test_a_preset_of_ones_own(catalogue):
    catalogue('[preset.night]\nvqgan = "tiny"\nclips = ["tiny"]\nsteps = 7')
    assert resolve("x", "night").steps == 7


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ('"64x32"', (64, 32)), ("[64, 32]", (64, 32))])
def test_a_size_in_a_preset_is_written_as_everywhere(catalogue, text, size):
    catalogue(f"[preset.quick]\nsize = {text}")
    assert resolve("x", "quick").size == size


@pytest.mark.full
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stepz = 3", "unknown setting 'stepz': did you mean 'steps'?"),
        ('size = "big"', "'big' is not a size"),
        ('steps = "many"', "steps: 'many' is not a whole number"),
        ("dalle = []", "dalle: [] is not text"),
        ("init_image = 3", "init-image: 3 is not text"),
        ("clip_weights = [1, 2]", "clip-weights: 2 for 1 CLIPs"),
        ("seed = 3", "seed is no setting of a preset"),
        ('prompt = "a cat"', "prompt is no setting of a preset"),
    ],
)
def test_a_wrong_setting_of_a_preset_is_told_with_its_place(vq, catalogue, tmp_path, line, message):
    catalogue(f"[preset.quick]\n{line}")
    done = vq("generate", "a cat", "--preset", "quick")
    assert done.code == 4
    assert done.lines[0].startswith(f"error: {tmp_path / 'catalogue.toml'}: preset.quick: {message}")
    assert done.lines[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[vqgan.x", "can't be read"),
        ("[vqgam.x]\npath='y'", "vqgam"),
        ("[vqgan.x]\npath='y'\nsha='z'", "sha"),
        ("[vqgan.x]\nabout='y'", "where it is"),
        ("[vqgan.x]\npath=3", "path"),
        ("vqgan = 3", "vqgan"),
        ("[vqgan]\nx = 3", "vqgan.x"),
        ("[vqgan.x]\nfolder='tiny/vqgan'", "folder"),
        ("[vqgan.x]\nmirrors=[3]", "mirrors"),
        ("[vqgan.x]\npath='y'\nsha256='abc'", "sha256"),
        ("[preset.x]\nvqgan=3", "preset.x"),
        ("[preset.x]\nclips='tiny'", "preset.x"),
        ("[preset.x]\nclips=[3]", "preset.x"),
    ],
)
def test_a_wrong_entry_of_ones_own_is_told_with_its_place(vq, catalogue, text, message):
    catalogue(text)
    done = models(vq, "list")
    assert done.code == 4
    assert message in done.lines[0]
    assert "catalogue.toml" in done.lines[0]


# list, show, path


def test_list_says_what_is_installed(vq, web):
    models(vq, "pull", "small")
    rows = {row["name"]: row for row in json.loads(models(vq, "list", "--json").out) if row["kind"] == "vqgan"}
    assert rows["small"]["installed"]
    assert rows["small"]["bytes"] == (store.folder("vqgan", "small") / "model.safetensors").stat().st_size
    assert rows["tiny"]["bundled"]
    assert not rows["imagenet_f16_16384"]["installed"]
    assert rows["imagenet_f16_16384"]["licence"]
    assert "small" in models(vq, "list").out


def test_list_is_a_table_without_a_heading_where_it_is_piped(vq, web):
    models(vq, "pull", "small")
    done = models(vq, "list")
    rows = [row.split(maxsplit=4) for row in done.out.splitlines()]
    assert done.err == ""
    assert len({line.index(f" {row[1]}") for line, row in zip(done.out.splitlines(), rows, strict=True)}) == 1
    here = {(kind, name): state for kind, name, state, *_ in rows}
    assert [here["vqgan", name] for name in ("tiny", "small", "wikiart_f16_16384")] == ["bundled", "installed", "no"]


def test_show_has_the_facts(vq):
    (row,) = json.loads(models(vq, "show", "wikiart", "--json").out)
    assert row["name"] == "wikiart_f16_16384"
    assert row["licence"]
    assert len(row["mirrors"]) == 3
    assert "non-commercial" in models(vq, "show", "wikiart").out


def test_path_of_all_and_of_one(vq, web):
    assert models(vq, "path").out.strip() == str(store.root())
    assert models(vq, "path", "small").code == 5
    models(vq, "pull", "small")
    assert models(vq, "path", "small").out.strip() == str(store.folder("vqgan", "small"))


def test_the_store_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("VQCLIP_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert store.root() == tmp_path / "vqclip" / "models"


# verify, remove


def test_verify_finds_one_wrong_byte(vq, web):
    models(vq, "pull", "small")
    assert models(vq, "verify").code == 0
    weights = store.folder("vqgan", "small") / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = models(vq, "verify")
    assert done.code == 6
    assert "vqgan small: damaged" in done.out
    assert "vqgan tiny: sound" in done.out


@pytest.mark.parametrize("command", ["verify", "path"])
def test_of_a_model_that_is_not_here_it_is_said_how_to_get_it(vq, web, command):
    done = models(vq, command, "small")
    assert (done.code, done.out) == (5, "")
    assert "not installed" in done.err
    assert "models pull small" in done.err


def test_a_cut_model_is_not_loaded(vq, web):
    models(vq, "pull", "small")
    weights = store.folder("vqgan", "small") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = vq("generate", "x", "--vqgan", "small")
    assert done.code == 6


def test_remove(vq, web):
    models(vq, "pull", "small")
    assert models(vq, "remove", "small").code == 0
    assert not store.folder("vqgan", "small").exists()
    assert models(vq, "remove", "small").code == 5


def test_remove_takes_a_model_whose_weights_have_gone(vq, web):
    models(vq, "pull", "small")
    (store.folder("vqgan", "small") / "model.safetensors").unlink()
    assert models(vq, "remove", "small").code == 0
    assert not store.folder("vqgan", "small").exists()
    assert models(vq, "remove", "small").code == 5


def test_remove_takes_what_a_stopped_download_left(vq, web):
    store.part_path("vqgan", "small").write_bytes(web.data[:1000])
    assert models(vq, "remove", "small").code == 0
    assert not store.part_path("vqgan", "small").exists()
    assert models(vq, "remove", "small").code == 5


def test_a_link_in_the_store_is_removed_and_its_name_can_be_pulled_again(vq, web, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    models(vq, "pull", "small")
    shutil.move(store.folder("vqgan", "small"), tmp_path / "elsewhere" / "small")
    store.folder("vqgan", "small").symlink_to(tmp_path / "elsewhere" / "small")
    assert models(vq, "remove", "small").code == 0
    assert (tmp_path / "elsewhere" / "small" / "model.safetensors").exists()
    assert models(vq, "pull", "small").code == 0
    shutil.rmtree(store.folder("vqgan", "small"))
    store.folder("vqgan", "small").symlink_to(tmp_path / "nowhere")
    assert models(vq, "remove", "small").code == 0


@pytest.mark.parametrize("left", ["folder", "file", "link", "dangling"])
def test_what_a_killed_pull_left_blocks_no_other(vq, web, tmp_path, left):
    draft = store.folder("vqgan", "small").with_name(".small.draft")
    draft.parent.mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    if left == "folder":
        (draft / "deep").mkdir(parents=True)
    elif left == "file":
        draft.touch()
    else:
        draft.symlink_to(tmp_path / ("kept" if left == "link" else "nowhere"))
    assert models(vq, "pull", "small").code == 0
    assert (tmp_path / "kept").is_dir()


def test_another_model_at_the_first_mirror_is_left_for_the_second(vq, web, catalogue, tmp_path):
    """Without a hash, what it holds decides."""
    codes = tensors()["quantize.embedding.weight"]
    save_file(tensors() | {"quantize.embedding.weight": codes[:7].clone()}, tmp_path / "other.safetensors")
    web.files["/o/r/resolve/main/other.safetensors"] = (tmp_path / "other.safetensors").read_bytes()
    mirrors = ["hf:o/r@main/other.safetensors", "hf:o/r@main/small.ckpt"]
    catalogue(entry(web.data, sha256="", size=0, mirrors=mirrors))
    done = models(vq, "pull", "small")
    assert done.code == 0, done.err
    assert "another model" in done.err
    assert torch.equal(load_vqgan("small", CPU).codebook, codes)


def test_a_bundled_model_is_not_removed(vq):
    assert models(vq, "remove", "tiny").code == 2


# import, convert


def test_import_of_the_catalogues_file(vq, web, checkpoint):
    done = models(vq, "import", checkpoint, "--name", "small")
    assert done.code == 0
    assert web.asked == []
    assert load_vqgan("small", CPU).f == 2
    assert checkpoint.exists()


def test_import_of_another_file_under_the_catalogues_name_is_refused(vq, web, tmp_path):
    save_file(tensors(), tmp_path / "other.safetensors")
    done = models(vq, "import", tmp_path / "other.safetensors", "--name", "small")
    assert done.code == 6
    assert "name of your own" in done.err


@pytest.mark.parametrize(
    ("contents", "name", "kind"),
    [
        ({"visual.conv1.weight": torch.zeros(1), "token_embedding.weight": torch.zeros(1)}, "mine", "clip"),
        ({"module.visual.trunk.x": torch.zeros(1)}, "mine", "clip"),
        ({"state_dict": {"first_stage_model.encoder.conv_in.bias": torch.zeros(1)}}, "mine", "vqgan"),
        ({"params_ema": {"body.0.weight": torch.zeros(1)}}, "mine", "upscaler"),
        ({"conv_first.weight": torch.zeros(1)}, "mine", "upscaler"),
        ({"anything": torch.zeros(1)}, "gumbel_f8_8192", "vqgan"),
        ({"anything": torch.zeros(1)}, "ViT-B-32:own", "clip"),
    ],
)
def test_what_a_file_is_shows_in_its_names(tmp_path, contents, name, kind):
    torch.save(contents, tmp_path / "a.pth")
    assert install.kind_of(name, str(tmp_path / "a.pth")) == kind


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (["checkpoints/last.ckpt"], "checkpoints/last.ckpt"),
        (["open_clip_config.json", "open_clip_model.safetensors"], "--clip"),
        (["config.json", "model.safetensors"], "--vqgan"),
        (["notes.txt"], "give a checkpoint"),
    ],
)
def test_a_folder_of_another_kind_says_what_to_give(vq, tmp_path, files, hint):
    for file in files:
        (tmp_path / "f" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / file).touch()
    done = models(vq, "import", tmp_path / "f", "--name", "mine")
    assert done.code == 5
    assert hint in done.err
    assert "encoder*.pt" not in done.err


def test_half_of_a_mini_dalle_is_no_vqgan(vq, tmp_path):
    torch.save({"layers.0.glu.fc0.weight": torch.zeros(1)}, tmp_path / "encoder.pt")
    done = models(vq, "import", tmp_path / "encoder.pt", "--name", "mine")
    assert done.code == 5
    assert str(tmp_path) in done.lines[1]


def test_import_replaces_nothing(vq, checkpoint, tmp_path):
    models(vq, "import", checkpoint, "--name", "mine")
    kept = (store.folder("vqgan", "mine") / "model.safetensors").read_bytes()
    done = models(vq, "import", checkpoint, "--name", "mine")
    assert done.code == 10
    assert "models remove mine" in done.err
    assert (store.folder("vqgan", "mine") / "model.safetensors").read_bytes() == kept


def test_an_import_of_a_large_file_shows_how_far_it_is(checkpoint, monkeypatch):
    monkeypatch.setattr(install, "LARGE", 1000)
    monkeypatch.setattr("vqclip.files.paths.CHUNK", 5000)
    seen, messages = [], []
    context = install.InstallContext(lambda done, total: seen.append((done, total)), messages.append)
    install.import_file("vqgan", "mine", str(checkpoint), context)
    size, kept = checkpoint.stat().st_size, (store.folder("vqgan", "mine") / "model.safetensors").stat().st_size
    assert (size, size) in seen
    assert (kept, kept) in seen
    assert len(seen) > size // 5000
    assert messages == [f"reading last.ckpt, {size / 1e6:,.0f} MB", "keeping its tensors"]


def test_on_a_terminal_each_file_has_its_bar(monkeypatch):
    """Also one of the same size, and one that begins anew; tqdm ends a bar with a new line."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("B", delay=0, unit_scale=True) as bar:
        for done, whole in ((5, 10), (10, 10), (3, 10), (10, 10), (4, 30)):
            bar.at(done, whole)
    assert terminal.getvalue().count("\n") == 3
    assert " 4.00/30.0 " in terminal.getvalue()


def test_of_two_imports_at_once_one_is_told_that_the_other_was_first(checkpoint, monkeypatch):
    """The second one has looked before the first was done, and waits for it."""
    context = install.InstallContext(lambda done, total: None, lambda text: None)
    looked = []

    def other_first(path, progress=None):
        if not looked:
            looked.append(path)
            install.import_file("vqgan", "mine", str(checkpoint), context)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(install, "sha256", other_first)
    with pytest.raises(OutputExists):
        install.import_file("vqgan", "mine", str(checkpoint), context)


def test_what_a_killed_import_left_is_no_model_and_is_cleaned_up(vq, checkpoint):
    draft = store.root() / "vqgan" / ".mine.draft"
    draft.mkdir(parents=True)
    store.write_record(draft, kind="vqgan", name="mine", sha256="0" * 64, size=1)
    assert store.installed("vqgan") == []
    assert models(vq, "import", checkpoint, "--name", "mine").code == 0
    assert [path.name for path in (store.root() / "vqgan").iterdir()] == ["mine"]


def test_what_lies_damaged_in_a_models_place_makes_room(vq, web):
    place = store.folder("vqgan", "small")
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    assert models(vq, "pull", "small").code == 0
    assert load_vqgan("small", CPU).f == 2


def test_import_under_a_new_name(vq, checkpoint):
    assert models(vq, "import", checkpoint, "--name", "my-own").code == 0
    assert load_vqgan("my-own", CPU).name == "my-own"
    assert "my-own" in models(vq, "list").out
    assert resolve("x", vqgan="my-own").vqgan == "my-own"


@pytest.mark.parametrize("name", ["tiny", "", ".", "a/../../b", "-"])
def test_import_under_an_impossible_name_stays_inside_the_store(vq, checkpoint, tmp_path, name):
    done = models(vq, "import", checkpoint, "--name", name)
    outside = [path for path in tmp_path.rglob("model.json") if store.root() not in path.parents]
    assert outside == []
    assert done.code in (0, 2)
    assert (done.code == 0) == (name == "a/../../b")


def test_convert_makes_a_folder_that_generate_takes(vq, checkpoint, tmp_path):
    done = models(vq, "convert", checkpoint, "-o", tmp_path / "made")
    assert done.out.strip() == str(tmp_path / "made")
    assert load_vqgan(str(tmp_path / "made"), CPU).codebook.shape == (24, 8)
    assert models(vq, "convert", checkpoint, "-o", tmp_path / "made").code == 10


def test_a_checkpoint_is_taken_as_it_is(checkpoint):
    assert torch.equal(load_vqgan(str(checkpoint), CPU).codebook, tensors()["quantize.embedding.weight"])


def test_a_config_beside_the_checkpoint_must_fit(vq, checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path / "x.ckpt")
    config = {"target": "taming.models.vqgan.VQModel", "params": reference("taming")["config"]}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"model": config}))
    assert load_vqgan(str(tmp_path / "x.ckpt"), CPU).f == 2
    config["params"]["n_embed"] = 1024
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"model": config}))
    done = vq("generate", "x", "--vqgan", tmp_path / "x.ckpt")
    assert done.code == 5
    assert "n_embed is 1024 there and 24 here" in done.err


BAD = {
    "truncated": (lambda path, good: path.write_bytes(good[: len(good) // 2]), 6),
    "text": (lambda path, good: path.write_text("hello\n" * 50), 5),
    "web page": (lambda path, good: path.write_text("<html></html>"), 5),
    "other zip": (lambda path, good: shutil.make_archive(str(path.with_suffix("")), "zip", path.parent / "here"), 5),
    "another model": (lambda path, good: save_file({"visual.conv1.weight": torch.zeros(2)}, path), 5),
    "missing": (lambda path, good: None, 5),
    "empty": (lambda path, good: path.write_bytes(b""), 5),
}


@pytest.mark.parametrize("how", ["generate", "import", "convert"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_two_lines_and_its_exit_code(vq, checkpoint, tmp_path, kind, how):
    make, code = BAD[kind]
    (tmp_path / "here" / "a.txt").write_text("x")
    make(tmp_path / "bad.zip", checkpoint.read_bytes())
    bad = tmp_path / "bad.zip"
    done = {
        "generate": lambda: vq("generate", "x", "--vqgan", bad),
        "import": lambda: models(vq, "import", bad, "--name", "bad"),
        "convert": lambda: models(vq, "convert", bad, "-o", tmp_path / "made"),
    }[how]()
    assert done.code == code
    assert len(done.lines) == 2
    assert done.lines[0].startswith("error: ")
    assert "Traceback" not in done.err
    assert done.out == ""
    assert nothing_is_half_installed()
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute and a half of one core, which others may want too
def test_the_first_picture_of_standard_in_full_shape(tmp_path, monkeypatch):
    """Random weights in the real shapes and formats: Lightning's .ckpt and a ViT-B-32, as `auto` takes them."""
    from PIL import Image

    from tests.support.fullshape import PUBLISHED, write_standard

    monkeypatch.setenv("VQCLIP_CATALOGUE", str(write_standard(tmp_path)))
    assert (tmp_path / "last.ckpt").stat().st_size == pytest.approx(PUBLISHED, rel=1e-3)
    command = [sys.executable, "-m", "vqclip", "generate", "a lighthouse", "--steps", "2", "--seed", "1", "--json"]
    done = subprocess.run(
        [*command, "--runs", tmp_path / "runs"], capture_output=True, text=True, cwd=Path(vqclip.__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 2
    with Image.open(result["path"]) as picture:
        assert picture.size == (256, 256)
        record = json.loads(picture.info["vqclip"])
    assert record["settings"]["vqgan"] == "imagenet_f16_16384"
    assert record["models"]["vqgan"]["sha256"] == hashlib.sha256((tmp_path / "last.ckpt").read_bytes()).hexdigest()


LOADING = """
import resource, sys, torch, vqclip.models.vqgan.taming, vqclip.models.vqgan.checkpoints
from vqclip.models import load_vqgan
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_vqgan(sys.argv[1], torch.device("cpu"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, "sympy" in sys.modules)
"""


def loading(path):
    """Return by how many bytes a process grows that loads a VQGAN, and whether it imports torch's compiler."""
    done = subprocess.run([sys.executable, "-c", LOADING, path], capture_output=True, text=True, check=True)
    grown, compiler = done.stdout.split()
    return int(grown) * 1024, compiler == "True"


@pytest.mark.full
def test_loading_imports_no_compiler(checkpoint):
    assert loading(checkpoint)[1] is False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a mapped file counts as is each system's own affair")
def test_a_full_shape_takes_little_more_memory_than_its_weights(vq, tmp_path):
    """Of plain tensors the weights alone; of a Lightning .ckpt its pages too, which count while they are copied."""
    from tests.support.fullshape import write_checkpoint

    write_checkpoint(tmp_path / "last.ckpt")
    models(vq, "convert", tmp_path / "last.ckpt")
    weights = 304_295_436
    assert loading(tmp_path / "last.ckpt")[0] < 2.3 * weights
    assert loading(tmp_path / "last-vqgan")[0] < 1.3 * weights


def test_import_and_convert_take_the_range_of_pixels(vq, checkpoint, tmp_path):
    assert models(vq, "import", checkpoint, "--name", "mine", "--pixels", "unit").code == 0
    assert load_vqgan("mine", CPU).pixels == "unit"
    assert models(vq, "convert", checkpoint, "-o", tmp_path / "made", "--pixels", "unit").code == 0
    assert load_vqgan(str(tmp_path / "made"), CPU).pixels == "unit"
    assert models(vq, "import", checkpoint, "--name", "other", "--pixels", "blue").code == 2
