"""The bundled upscaler is the published network: what ncnn makes of an image with the original files."""

from pathlib import Path

import pytest
import torch

from vqclip.files.images import load_image, to_picture, to_tensor
from vqclip.models import load_upscaler
from vqclip.models.catalogue import model_entry
from vqclip.models.upscaler import BUNDLED, FACTOR
from vqclip.models.upscaler.enlarge import enlarge
from vqclip.models.upscaler.image import bytes_needed

DATA = Path(__file__).parents[1] / "data" / "upscaler"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def upscaler():
    return load_upscaler(BUNDLED, CPU)


def test_it_makes_what_ncnn_makes_with_the_original_files(upscaler):
    made = to_tensor(to_picture(upscaler(to_tensor(load_image(DATA / "owl.png")))))
    apart = (made - to_tensor(load_image(DATA / "owl-ncnn.png"))).abs() * 255
    assert apart.max() <= 1.01  # a number on the border between two bytes
    assert (apart > 0.5).float().mean() < 1e-3


def test_it_is_the_file_that_the_catalogue_knows():
    found = model_entry("upscaler", BUNDLED)
    assert found.verified(whole=True) == found.folder
    assert found.facts.scale == FACTOR == load_upscaler(BUNDLED, CPU).scale


def test_its_licence_lies_beside_it():
    assert "Xintao Wang" in (model_entry("upscaler", BUNDLED).folder / "LICENSE").read_text()


def test_colours_stay(upscaler):
    image = to_tensor(load_image(DATA / "owl.png"))
    alone = torch.nn.functional.avg_pool2d(upscaler(image), 4) - image
    kept = torch.nn.functional.avg_pool2d(enlarge(image, 4, upscaler), 4) - image
    assert alone.mean() > 1.5 / 255  # it makes images lighter
    assert kept.mean().abs() < 0.3 / 255


def test_edges_are_sharper_than_those_of_a_resize(upscaler):
    image = to_tensor(load_image(DATA / "owl.png"))
    resized = torch.nn.functional.interpolate(image, scale_factor=4, mode="bicubic", antialias=True)

    def steepest(image):
        return (image[..., 1:] - image[..., :-1]).abs().flatten().topk(500).values.mean()

    assert steepest(enlarge(image, 4, upscaler)) > 1.5 * steepest(resized)


@pytest.mark.parametrize(("factor", "tile"), [(4, 16), (4, 20), (3, 16), (8, 24), (2, 48)])
def test_tiles_leave_no_seam(upscaler, factor, tile):
    image = to_tensor(load_image(DATA / "owl.png"))
    whole, tiled = enlarge(image, factor, upscaler, 0), enlarge(image, factor, upscaler, tile)
    assert (whole - tiled).abs().max() < 1e-4


def test_a_tile_takes_the_memory_of_a_tile(upscaler):
    one, many = (bytes_needed((side, side), 4, upscaler, 256) for side in (400, 4000))
    images = 4 * (4000**2 - 400**2) * (2 + 2 * 16)
    assert many - one == pytest.approx(images, rel=1e-6)
    assert bytes_needed((4000, 4000), 4, upscaler, 0) > 2 * many


def test_the_known_need_is_what_tensors_take_or_more(upscaler):
    from vqclip.models.upscaler.image import _counted

    counted = _counted(64, 64, 4, upscaler)
    assert counted <= upscaler.pixel_bytes * 64 * 64 <= 1.3 * counted
