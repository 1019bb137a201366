"""Upscalers: any factor with any network, tile by tile; files of all kinds, honest and not."""

import math

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vqclip.core.torch_private import Tally
from vqclip.errors import IntegrityError, ModelError, UsageError, VqclipError
from vqclip.files.images import to_picture
from vqclip.files.paths import sha256
from vqclip.models import catalogue, install, load_upscaler, store
from vqclip.models.fast.no_init import NoInit
from vqclip.models.upscaler import compact
from vqclip.models.upscaler.enlarge import enlarge, margin, passes
from vqclip.models.upscaler.image import bytes_needed, enlarge_image
from vqclip.models.upscaler.load import load

CPU = torch.device("cpu")
TALK = install.InstallContext(lambda done, total: None, lambda text: None)


class Nearest:
    """An upscaler that repeats pixels, and remembers what it saw."""

    def __init__(self, scale=4, radius=0, step=1):
        self.name, self.scale, self.radius, self.step, self.pixel_bytes = "nearest", scale, radius, step, 0
        self.seen = []

    def __call__(self, image):
        self.seen.append(tuple(image.shape))
        return image.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def network(features=8, depth=3, scale=2, seed=0):
    torch.manual_seed(seed)
    return compact.Compact(features, depth, scale)


def saved(tmp_path, tensors, name="x.safetensors"):
    path = tmp_path / name
    tensors = {key: value.clone().contiguous() for key, value in tensors.items()}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


# factors


@pytest.mark.parametrize("factor", range(2, 9))
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_factor_is_reached_with_every_network(factor, scale):
    large = enlarge(noise(2, 3, 9, 14), factor, Nearest(scale))
    assert large.shape == (2, 3, 9 * factor, 14 * factor)
    assert 0 <= large.min() <= large.max() <= 1


@pytest.mark.parametrize(
    ("factor", "scale", "expected"),
    [(2, 4, [1]), (4, 4, [1]), (5, 4, [1, 2]), (8, 4, [1, 2]), (8, 2, [1, 2, 4]), (7, 3, [1, 3]), (3, 2, [1, 2])],
)
def test_the_network_sees_no_more_than_it_must(factor, scale, expected):
    assert passes(factor, scale) == expected
    upscaler = Nearest(scale)
    enlarge(noise(1, 3, 8, 8), factor, upscaler)
    assert [shape[-1] // 8 for shape in upscaler.seen] == expected


@pytest.mark.parametrize("factor", [1, 9, 0, -2])
def test_other_factors_are_refused(factor):
    with pytest.raises(UsageError):
        enlarge(noise(1, 3, 8, 8), factor, Nearest())


def test_bytes_come_back_as_bytes():
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(enlarge(image, 4, Nearest()), image.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_an_image_does_not_depend_on_its_neighbours(tmp_path):
    upscaler = load(saved(tmp_path, network().state_dict()), name="x", device=CPU)
    pair = noise(2, 3, 20, 20)
    assert torch.equal(enlarge(pair, 2, upscaler)[1:], enlarge(pair[1:], 2, upscaler))


def test_the_image_that_is_given_stays_as_it_is(tmp_path):
    from spandrel.architectures.RCAN import RCAN  # which writes into its input

    given = RCAN(scale=2, n_resgroups=1, n_resblocks=1, n_feats=16, reduction=4)
    upscaler = load(saved(tmp_path, given.state_dict()), name="x", device=CPU)
    image = noise(1, 3, 16, 16)
    before = image.clone()
    upscaler(image)
    assert torch.equal(image, before)


# tiles


@pytest.mark.parametrize(("height", "width", "tile"), [(50, 40, 16), (17, 90, 32), (16, 16, 16), (33, 33, 16)])
def test_tiles_cover_all_once_and_none_is_larger(height, width, tile):
    upscaler, image = Nearest(4, radius=3), noise(1, 3, height, width)
    assert torch.allclose(enlarge(image, 4, upscaler, tile), enlarge(image, 4, Nearest(4), 0), atol=1e-5)
    around = margin(4, upscaler)
    assert all(max(shape[-2:]) <= tile + 2 * around for shape in upscaler.seen)
    assert len(upscaler.seen) == math.ceil(height / tile) * math.ceil(width / tile)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_margin_of_the_networks_reach_makes_tiles_equal_to_the_whole(tmp_path, factor):
    upscaler = load(saved(tmp_path, network(depth=6).state_dict()), name="x", device=CPU)
    assert upscaler.radius == 8
    image = noise(1, 3, 70, 45)
    assert (enlarge(image, factor, upscaler, 16) - enlarge(image, factor, upscaler, 0)).abs().max() < 1e-4


def test_what_is_outside_the_margin_counts_for_nothing(tmp_path):
    upscaler = load(saved(tmp_path, network(depth=6).state_dict()), name="x", device=CPU)
    around = margin(2, upscaler)
    image = noise(1, 3, 8, around + 30)
    other = image.clone()
    other[..., :10] = 1 - other[..., :10]
    apart = (enlarge(image, 2, upscaler, 0) - enlarge(other, 2, upscaler, 0)).abs().amax((0, 1, 2))
    assert apart[: 2 * 10].max() > 0.01
    assert apart[2 * (10 + around) :].max() == 0


def test_tiles_begin_at_the_networks_steps():
    upscaler = Nearest(2, radius=32, step=16)
    enlarge(noise(1, 3, 16, 400), 2, upscaler, 100)
    assert len(upscaler.seen) == 4
    assert all(shape[-1] % 16 == 0 for shape in upscaler.seen)


def test_a_tile_too_small_is_refused():
    with pytest.raises(UsageError):
        enlarge(noise(1, 3, 8, 8), 2, Nearest(), 4)


def test_memory_is_that_of_a_tile():
    with Tally() as small:
        enlarge(noise(1, 3, 64, 64), 4, Nearest(), 32)
    with Tally() as large:
        enlarge(noise(1, 3, 64, 640), 4, Nearest(), 32)
    images = 4 * 3 * 64 * (640 - 64) * (1 + 16)
    assert large.peak - small.peak == pytest.approx(images, rel=0.15)


# colours and alpha


def test_flat_colours_come_back_as_they_were(tmp_path):
    upscaler = load(saved(tmp_path, network(seed=1).state_dict()), name="x", device=CPU)
    image = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    inside = enlarge(image, 2, upscaler)[..., 30:-30, 30:-30]
    assert (inside.mean((2, 3)) - image[..., 0, 0]).abs().max() < 0.01


def half(colour_of_the_hidden):
    image = Image.new("RGBA", (24, 20), colour_of_the_hidden)
    image.paste((200, 60, 40, 255), (0, 0, 12, 20))
    return image


def test_alpha_is_enlarged_and_clear_stays_clear():
    large = enlarge_image(half((0, 0, 0, 0)), 4, Nearest())
    assert (large.mode, large.size) == ("RGBA", (96, 80))
    alpha = large.getchannel("A")
    assert alpha.crop((0, 0, 44, 80)).getextrema() == (255, 255)
    assert alpha.crop((52, 0, 96, 80)).getextrema() == (0, 0)


def test_colours_that_nobody_sees_don_t_shine_through():
    black, green = (enlarge_image(half(hidden), 4, Nearest()) for hidden in ((0, 0, 0, 0), (0, 255, 0, 0)))
    assert black.tobytes() == green.tobytes()
    assert black.convert("RGB").getpixel((60, 40)) == (200, 60, 40)


def test_an_image_all_clear_is_no_fault():
    large = enlarge_image(Image.new("RGBA", (7, 5), (9, 8, 7, 0)), 2, Nearest(2))
    assert large.getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 2)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_smallest_images(tmp_path, size, mode):
    upscaler = load(saved(tmp_path, network().state_dict()), name="x", device=CPU)
    assert enlarge_image(Image.new(mode, size, "red"), 3, upscaler).size == (size[0] * 3, size[1] * 3)


# networks and files


@pytest.mark.parametrize(("features", "depth", "scale"), [(8, 2, 2), (12, 5, 4), (16, 0, 3)])
def test_the_small_network_is_spandrels(tmp_path, features, depth, scale):
    from spandrel import ModelLoader

    tensors = network(features, depth, scale).state_dict()
    theirs = ModelLoader().load_from_state_dict(dict(tensors)).model.eval()
    ours, image = compact.build(tensors), noise(1, 3, 17, 23)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), atol=1e-6)


def others():
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.PLKSR import PLKSR
    from spandrel.architectures.SwinIR import SwinIR

    return {
        "esrgan": lambda: ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4),
        "plksr": lambda: PLKSR(dim=16, n_blocks=1, upscaling_factor=2),
        "swinir": lambda: SwinIR(img_size=32, window_size=8, depths=[2], embed_dim=12, num_heads=[2], upscale=2,
                                 upsampler="pixelshuffle", img_range=1.0, mlp_ratio=2, resi_connection="1conv"),
    }  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("kind", ["esrgan", "plksr", "swinir"])
@pytest.mark.filterwarnings("ignore")
def test_a_network_of_spandrels_is_read_whole(tmp_path, kind):
    torch.manual_seed(0)
    given = others()[kind]().eval()
    image = noise(1, 3, 21, 30)
    with torch.no_grad():
        expected = given(image.clone()).clamp(0, 1)
    upscaler = load(saved(tmp_path, given.state_dict(), "x.pth"), name="x", device=CPU)
    assert torch.allclose(upscaler(image), expected, atol=1e-5)
    assert enlarge(image, 3, upscaler, 16).shape == (1, 3, 63, 90)
    assert bytes_needed((64, 64), upscaler.scale, upscaler) > 64 * 64 * 3


@pytest.mark.parametrize("nest", ["params", "params_ema", "state_dict", "model", "net", "model_state_dict"])
def test_tensors_may_lie_one_level_in(tmp_path, nest):
    torch.save({nest: dict(network().state_dict())}, tmp_path / "x.pth")
    assert load(tmp_path / "x.pth", name="x", device=CPU).scale == 2


def test_the_averaged_ones_are_used(tmp_path):
    plain, averaged = network(seed=1), network(seed=2)
    torch.save({"params": dict(plain.state_dict()), "params_ema": dict(averaged.state_dict())}, tmp_path / "x.pth")
    image = noise(1, 3, 9, 9)
    with torch.no_grad():
        expected = averaged(image).clamp(0, 1)
    assert torch.equal(load(tmp_path / "x.pth", name="x", device=CPU)(image), expected)


def test_the_prefixes_of_training_code_are_taken_off(tmp_path):
    path = saved(tmp_path, {f"module.{key}": value for key, value in network().state_dict().items()})
    assert load(path, name="x", device=CPU).scale == 2


class Payload:
    def __reduce__(self):
        import os

        return os.system, ("touch ran",)


def test_a_file_that_could_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"params": dict(network().state_dict()), "more": Payload()}, tmp_path / "x.pth")
    with pytest.raises(ModelError):
        load(tmp_path / "x.pth", name="x", device=CPU)
    assert not (tmp_path / "ran").exists()


def gray():
    from spandrel.architectures.Compact import Compact

    return Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=1, upscale=2).state_dict()


def denoiser():
    from spandrel.architectures.NAFNet import NAFNet

    return NAFNet(img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]).state_dict()


LIES = {
    "a network of grey images": (gray, "channels"),
    "one that makes nothing larger": (lambda: network(scale=1).state_dict(), "1 times"),
    "one that makes all too large": (lambda: network(scale=9).state_dict(), "9 times"),
    "one that takes noise away": (denoiser, "not an upscaler"),
    "no network": (lambda: {"some.weight": torch.zeros(3)}, "no network that is known"),
    "a layer far out": (lambda: network().state_dict() | {"body.99999999.weight": torch.zeros(3)}, "names a layer"),
    "an empty layer": (lambda: network().state_dict() | {"body.0.weight": torch.zeros(0, 3, 3, 3)}, "is empty"),
    "no dimensions": (lambda: network().state_dict() | {"body.0.weight": torch.zeros(())}, "does not load"),
    "numbers that are none": (
        lambda: network().state_dict() | {"body.0.weight": torch.full((8, 3, 3, 3), math.nan)},
        "not finite",
    ),
    "shapes that don't fit": (
        lambda: network().state_dict() | {"body.2.weight": torch.zeros(8, 7, 3, 3)},
        "does not load",
    ),
    "half a network": (
        lambda: {k: v for k, v in network().state_dict().items() if not k.startswith("body.4.")},
        "does not load",
    ),
}


@pytest.mark.parametrize("kind", LIES)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_no_upscaler_is_told_in_a_line(tmp_path, kind):
    make, message = LIES[kind]
    path = saved(tmp_path, make())
    with pytest.raises(VqclipError, match=message) as refused:
        load(path, name="x", device=CPU)
    assert refused.value.exit_code in (5, 6)
    assert len(refused.value.what) < 400


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"<html>", b"\0" * 100, b"PK\x03\x04" + b"x" * 50])
def test_what_is_no_checkpoint_is_told_in_a_line(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(VqclipError) as refused:
        load(tmp_path / "x.pth", name="x", device=CPU)
    assert refused.value.exit_code in (5, 6)


def test_a_file_cut_short_is_told(tmp_path):
    path = saved(tmp_path, network().state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IntegrityError):
        load(path, name="x", device=CPU)


def test_drawing_no_first_weights_ends_where_a_truncated_normal_would_draw_again():
    with NoInit():
        torch.nn.init.trunc_normal_(torch.full((1000,), 9.0), std=0.02)
    drawn = torch.nn.init.trunc_normal_(torch.full((1000,), 9.0), std=0.02)
    assert drawn.abs().max() < 2  # and afterwards it draws


# the store


def test_an_upscaler_is_installed_from_a_file_and_loaded_by_name(tmp_path):
    path = saved(tmp_path, network().state_dict(), "mine.pth")
    entry = install.import_file("upscaler", "mine", str(path), TALK)
    assert store.installed("upscaler") == ["mine"]
    image = noise(1, 3, 9, 9)
    assert torch.equal(load_upscaler("mine", CPU)(image), load(path, name="x", device=CPU)(image))
    assert torch.equal(load_upscaler(str(path), CPU)(image), load_upscaler("mine", CPU)(image))
    install.remove(entry)
    assert store.installed("upscaler") == []


def test_an_upscaler_is_pulled_from_its_mirror(tmp_path, server, monkeypatch):
    path = saved(tmp_path, network(scale=4).state_dict(), "x.pth")
    server.files["/x.pth"] = path.read_bytes()
    facts = catalogue.catalogue().models["upscaler"]["realesr-general-x4v3"]
    known = {"mirrors": [server.url + "/x.pth"], "sha256": sha256(path), "size": path.stat().st_size}
    for name, value in known.items():
        monkeypatch.setattr(facts, name, value)
    assert install.pull("upscaler", "realesr-general-x4v3", TALK).installed()
    assert load_upscaler("realesr-general-x4v3", CPU).scale == 4


def test_another_file_than_the_catalogues_is_not_taken_for_it(tmp_path):
    path = saved(tmp_path, network(scale=4).state_dict(), "x.pth")
    with pytest.raises(IntegrityError):
        install.import_file("upscaler", "realesrgan-x4plus", str(path), TALK)


def test_a_file_of_ones_own_catalogue(tmp_path):
    path = saved(tmp_path, network().state_dict())
    store.own_catalogue().write_text(f'[upscaler.mine]\npath = "{path}"\n')
    catalogue.catalogue.cache_clear()
    assert load_upscaler("mine", CPU).scale == 2


def test_a_wrong_name_is_said_with_the_nearest():
    with pytest.raises(ModelError) as refused:
        load_upscaler("realesr-animevideo3", CPU)
    assert "realesr-animevideov3" in refused.value.hint


def test_the_official_ones_have_their_hashes():
    rows = [row for row in catalogue.catalogue().models["upscaler"].values() if row.mirrors]
    assert len(rows) == 4
    assert all(len(row.sha256) == 64 and row.size > 10**6 and row.scale in (2, 4) for row in rows)
    assert catalogue.model_entry("upscaler", "RealESRGAN_x4plus").name == "realesrgan-x4plus"


def test_to_picture_and_back_is_what_enlarge_image_does():
    image = to_picture(noise(1, 3, 12, 10))
    assert enlarge_image(image, 4, Nearest()).resize((10, 12), Image.Resampling.BOX).tobytes() == image.tobytes()
