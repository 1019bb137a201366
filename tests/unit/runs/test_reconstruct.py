"""The VQGAN by itself: any size, honest figures, one file a picture."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import vqclip.cli
import vqclip.runs.session  # which binds load_vqgan: before a test replaces it
from tests.support.fakes import FakeVqgan
from vqclip.files.images import to_tensor
from vqclip.models import catalogue as cards
from vqclip.models import store
from vqclip.runs.reconstruct import reconstruct, side_by_side


def drawing(width, height):
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).ellipse((0, 0, width * 0.7, height * 0.8), fill="red")
    return picture


def size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (5, 90), (64, 3)])
def test_any_size_comes_back_in_its_size(size):
    found = reconstruct(FakeVqgan(), drawing(*size))
    assert found.image.size == size
    assert found.positions == math.ceil(size[0] / 4) * math.ceil(size[1] / 4)
    assert 1 <= found.used <= min(found.positions, found.codes)
    assert math.isfinite(found.ssim)


class Perfect(FakeVqgan):
    """Returns what it encoded, brighter by `shift`."""

    shift = 0.0

    def encode(self, image):
        self.image = image
        return super().encode(image)

    def decode(self, z):
        return self.image + self.shift


@pytest.mark.parametrize(("shift", "psnr"), [(0.0, math.inf), (51 / 255, 20 * math.log10(5))])
def test_psnr_by_hand(shift, psnr):
    vqgan = Perfect()
    vqgan.shift = shift
    found = reconstruct(vqgan, Image.new("RGB", (16, 12), (10, 20, 30)))
    assert found.psnr == pytest.approx(psnr, abs=1e-4)
    assert (found.ssim > 0.9999) == (shift == 0)


def test_the_figures_are_of_the_picture_that_is_returned():
    picture = drawing(40, 36)
    found = reconstruct(FakeVqgan(), picture)
    error = (to_tensor(found.image) - to_tensor(picture)).square().mean()
    assert found.psnr == pytest.approx(-10 * math.log10(float(error)), abs=1e-3)


def test_side_by_side_has_both():
    joined = side_by_side(Image.new("RGB", (64, 20), "red"), Image.new("RGB", (64, 20), "blue"))
    assert joined.size == (130, 20)
    assert (joined.getpixel((3, 3)), joined.getpixel((129, 3))) == ((255, 0, 0), (0, 0, 255))


# the command


@pytest.fixture
def vq(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vqclip.models.load_vqgan", lambda name, device: FakeVqgan())

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["vqclip", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            vqclip.cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    drawing(33, 47).save("a.png")
    drawing(20, 20).save("b.jpg")
    return run


def test_each_picture_gets_a_file_and_a_line(vq):
    code, out, err = vq("reconstruct", "a.png", "b.jpg")
    assert (code, out) == (0, "a-reconstructed.png\nb-reconstructed.png\n")
    assert err.count("PSNR") == 2
    assert size("a-reconstructed.png") == (33 * 2 + 2, 47)


def test_the_reconstruction_alone(vq):
    vq("reconstruct", "a.png", "--alone", "-q")
    assert size("a-reconstructed.png") == (33, 47)


def test_json(vq):
    _, out, _ = vq("reconstruct", "a.png", "--json")
    told = json.loads(out)
    assert told["path"] == "a-reconstructed.png"
    assert 0 < told["psnr"] < 60
    assert told["used"] <= told["codes"] == 64


def test_nothing_is_overwritten_unasked(vq):
    vq("reconstruct", "a.png")
    assert vq("reconstruct", "a.png")[0] == 10
    assert vq("reconstruct", "a.png", "--overwrite")[0] == 0


def test_its_folder_is_made(vq):
    assert vq("reconstruct", "a.png", "-o", "new/folder")[1] == "new/folder/a-reconstructed.png\n"
    assert size("new/folder/a-reconstructed.png") == (33 * 2 + 2, 47)


def test_pictures_of_one_name_get_a_file_each(vq):
    drawing(8, 9).save("a.jpg")
    code, out, _ = vq("reconstruct", "a.png", "a.jpg", "--alone")
    assert (code, out) == (0, "a-reconstructed.png\na-2-reconstructed.png\n")
    assert size("a-2-reconstructed.png") == (8, 9)
    assert vq("reconstruct", "b.jpg", "a.jpg", "a.png", "a.jpg")[:2] == (10, "")  # said before anything is written
    assert not Path("b-reconstructed.png").exists()


@pytest.mark.parametrize(
    ("args", "code"),
    [(["missing.png"], 4), (["a.png", "--vqgan", "imagnet"], 5), (["a.png", "-o", "b.jpg/x"], 8), ([], 2)],
)
def test_bad_input(vq, args, code):
    got, out, err = vq("reconstruct", *args)
    assert (got, out) == (code, "")
    assert "Traceback" not in err


def test_the_bundled_model_rebuilds_a_drawing(monkeypatch, tmp_path, capsys):
    drawing(100, 70).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vqclip", "reconstruct", "a.png", "--json"])
    with pytest.raises(SystemExit):
        vqclip.cli.main()
    told = json.loads(capsys.readouterr().out)
    assert told["vqgan"] == "tiny"
    assert told["psnr"] > 17


# doctor


def doctor(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["vqclip", "doctor", *args])
    with pytest.raises(SystemExit) as ended:
        vqclip.cli.main()
    return ended.value.code or 0, *capsys.readouterr()


def test_doctor_tells_versions_places_and_models(monkeypatch, capsys):
    code, out, _ = doctor(monkeypatch, capsys, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert told["models"]["vqgan tiny"] == "sound"
    assert told["devices"]["cpu"]
    assert "GB free" in told["places"]["room"]


def test_doctor_tells_no_home_and_no_token(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:password@proxy:1")
    monkeypatch.setenv("VQCLIP_MODELS", str(tmp_path / "models-of-hf_very_secret"))
    _, out, err = doctor(monkeypatch, capsys)
    assert str(tmp_path) not in out + err
    assert "hf_very_secret" not in out + err
    assert "password" not in out
    assert "HF_TOKEN" in out


def test_doctor_goes_on_with_a_broken_catalogue(monkeypatch, capsys):
    store.own_catalogue().write_text("[vqgan.x")
    cards.catalogue.cache_clear()
    code, out, _ = doctor(monkeypatch, capsys)
    assert code == 0
    assert "can't be read" in out


def test_doctor_tells_a_file_that_is_not_there(monkeypatch, capsys):
    store.own_catalogue().write_text('[vqgan.mine]\npath = "/no/such/file.ckpt"\n')
    cards.catalogue.cache_clear()
    code, out, _ = doctor(monkeypatch, capsys, "--json")
    assert code == 0
    assert json.loads(out)["models"]["vqgan mine"] == "not there: /no/such/file.ckpt"


def test_doctor_says_of_a_store_that_is_a_file_that_nothing_can_be_written(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("VQCLIP_MODELS", str(tmp_path / "file"))
    _, out, _ = doctor(monkeypatch, capsys, "--json", "--quick")
    assert json.loads(out)["places"]["writable"] == "no"


def test_doctor_finds_a_damaged_model(monkeypatch, capsys):
    folder = store.folder("vqgan", "mine")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x")
    store.write_record(folder, kind="vqgan", name="mine", sha256="0" * 64, size=1)
    code, out, err = doctor(monkeypatch, capsys)
    assert code == 6
    assert "DAMAGED" in out
    assert "vqgan mine" in err
