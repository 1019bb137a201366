"""Latents beside frames, and videos decoded between them."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vqclip.video.latents
from tests.support.clips import facts
from tests.support.runs import contents, differing, frames_at_once
from vqclip.core.quantize import quantize
from vqclip.errors import InputError
from vqclip.files.images import load_image, to_picture
from vqclip.runs.api import generate, resume
from vqclip.runs.checkpoint import latent_to_bytes, load_state
from vqclip.video.latents import find_latents, interpolate_latents, read_latent
from vqclip.video.make import VideoOptions, make_video
from vqclip.video.timing import Timing

RUN = {"prompt": "a red heart", "preset": "tiny", "seed": 7, "steps": 8, "coarse": 0.5, "init": "codes",
       "size": (32, 32), "cutouts": 2, "frames_every": 3, "device": "cpu"}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch, networks):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vqclip.video.latents, "load_vqgan", networks.load_vqgan)
    return tmp_path


@pytest.fixture
def run(here):
    return generate(runs="runs", save_latents=True, **RUN).run


def frames(run):
    return sorted((run / "frames").iterdir())


def pixels(picture):
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float()


def test_every_frame_has_its_latent(run):
    names = [path.stem for path in frames(run)]
    assert names == ["000000", "000003", "000006", "000008"]
    assert [path.stem for path in sorted((run / "latents").iterdir())] == names
    shapes = [tuple(read_latent(path).shape) for path in find_latents(frames(run))]
    assert shapes == [(1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 8, 8), (1, 8, 8, 8)]  # half the size until step 4
    state, _ = load_state(run)
    assert torch.equal(read_latent(find_latents(frames(run))[-1]), state.ema)


def test_without_being_asked_for_there_are_none(here):
    run = generate(runs="runs", **RUN).run
    assert not (run / "latents").exists()
    with pytest.raises(InputError, match="latents"):
        make_video([str(run)], options=VideoOptions(timing=Timing(between="latent")))
    assert not (run / "video.mp4").exists()


def test_a_run_that_goes_on_has_the_same_latents(here):
    copies = []

    def keep(step):
        copies.append(Path(f"copy{step.step}"))
        shutil.copytree(next(Path("runs").iterdir()), copies[-1])

    with frames_at_once():
        whole = contents(generate(runs="runs", save_latents=True, checkpoint_every="2", **RUN, on_step=keep).run)
    for copy in copies:
        assert differing(contents(resume(copy, device="cpu").run), whole) == []


def test_at_whole_places_they_are_the_frames(run):
    paths = frames(run)
    found = list(interpolate_latents("tiny", find_latents(paths), [0.0, 2.0, 3.0]))
    assert [picture.tobytes() for picture in found] == [load_image(paths[k]).tobytes() for k in (0, 2, 3)]


def test_between_two_the_codes_are_mixed(run, networks):
    one, two = (quantize(read_latent(path), networks.vqgan.codebook) for path in find_latents(frames(run))[2:])
    [found] = interpolate_latents("tiny", find_latents(frames(run)), [2.25])
    assert found.tobytes() == to_picture(networks.vqgan.decode(one * 0.75 + two * 0.25)).tobytes()


@pytest.mark.parametrize("size", [(64, 64), (30, 50), (32, 16)], ids=str)
def test_they_are_decoded_at_another_size(run, size):
    timing = Timing(fps=10, length=1, hold_last=0, between="latent")
    made = make_video([str(run)], "out.mp4", VideoOptions(size=size, timing=timing))
    assert facts("out.mp4")[:3] == (10, size, pytest.approx(1.0))
    assert made.fps == 10
    [last] = interpolate_latents("tiny", find_latents(frames(run)), [3.0], size)
    assert last.size == size
    if size[0] == size[1]:  # not cropped: the same picture, larger
        small = last.resize((32, 32), Image.Resampling.BOX)
        assert (pixels(small) - pixels(load_image(run / "final.png"))).abs().mean() < 40


def test_ping_pong_goes_back_along_the_latents(run):
    timing = Timing(fps=12, length=1, hold_last=0, between="latent", ping_pong=True)
    make_video([str(run)], "out.apng", VideoOptions(timing=timing))
    with Image.open("out.apng") as film:
        seen = []
        for k in range(film.n_frames):
            film.seek(k)
            seen.append(film.convert("RGB").tobytes())
    assert seen[1] == seen[-1]
    assert seen[0] == load_image(frames(run)[0]).tobytes()


def test_the_command_decodes_between_latents(vq, networks, monkeypatch):
    monkeypatch.setattr(vqclip.video.latents, "load_vqgan", networks.load_vqgan)
    small = ("--steps", "3", "--size", "32x32", "--cutouts", "2", "--seed", "7", "--preset", "tiny")
    assert vq("generate", "an owl", "--save-latents", "--frames-every", "1", *small).code == 0
    done = vq("video", "runs/an-owl-7", "--between", "latent", "--length", "2", "--show-prompt")
    assert (done.code, done.out) == (0, "runs/an-owl-7/video.mp4\n")
    assert facts("runs/an-owl-7/video.mp4")[:2] == (60, (32, 32))
    Path("folder").mkdir()
    for k in range(3):
        Image.new("RGB", (32, 32)).save(f"folder/{k}.png")
    assert vq("video", "folder", "--between", "latent").code == 4
    assert vq("video", "runs/an-owl-7", "folder", "--between", "latent").code == 2
    assert vq("video", "runs/an-owl-7", "--grid", "--between", "latent").code == 2


def empty(path):
    path.write_bytes(b"")


def damaged(path):
    path.write_bytes(path.read_bytes()[:100])


def other(path):
    save_file({"z": torch.zeros(1, 5, 4, 4)}, path)


def nameless(path):
    save_file({"a": torch.zeros(1, 8, 4, 4)}, path)


def flat(path):
    save_file({"z": torch.zeros(8, 4)}, path)


@pytest.mark.parametrize("harm", [empty, damaged, other, nameless, flat, Path.unlink])
def test_a_latent_that_is_none_is_told_by_its_name(run, harm):
    harm(run / "latents" / "000003.safetensors")
    with pytest.raises(InputError, match=r"000003\.safetensors"):
        make_video([str(run)], "out.mp4", VideoOptions(timing=Timing(between="latent")))
    assert not Path("out.mp4").exists()


def test_a_latent_comes_back_as_it_went(tmp_path):
    z = torch.randn(1, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    (tmp_path / "z").write_bytes(latent_to_bytes(z.transpose(2, 3)))
    assert torch.equal(read_latent(tmp_path / "z"), z.transpose(2, 3))
