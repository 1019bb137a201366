"""Pictures between files, PIL and tensors."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, features

from vqclip.errors import InputError, UsageError
from vqclip.files import images
from vqclip.files.carry_metadata import enlarged
from vqclip.files.images import (
    fit,
    load_image,
    load_with_alpha,
    opened,
    round_size,
    shown_size,
    tile,
    to_picture,
    to_tensor,
)

CASES = Path(__file__).parents[2] / "data" / "cases"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def save(tmp_path):
    """Return a function that saves a picture and gives its path."""

    def to(picture, name="a.png", **options):
        picture.save(tmp_path / name, **options)
        return tmp_path / name

    return to


def two(left=RED, right=BLUE, mode="RGB", size=(40, 20)):
    picture = Image.new(mode, size, left)
    ImageDraw.Draw(picture).rectangle((size[0] // 2, 0, *size), right)
    return picture


def near(colour, other, by=12):
    return all(abs(a - b) <= by for a, b in zip(colour, other, strict=True))


# -- reading


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff"])
def test_every_format_is_read_as_rgb(save, name):
    picture = load_image(save(two(), name))
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    assert near(picture.getpixel((5, 10)), RED)


def test_a_path_may_be_text(save):
    assert load_image(str(save(two()))).size == (40, 20)


def test_a_picture_is_turned_as_its_exif_says(save):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    picture = load_image(save(two(), "a.jpg", exif=exif, quality=95))
    assert picture.size == (20, 40)
    assert near(picture.getpixel((10, 5)), RED)


def test_transparent_places_become_white(save):
    assert load_image(save(two((255, 0, 0, 0), (0, 0, 255, 255), "RGBA"))).getpixel((5, 10)) == WHITE


def test_half_transparent_places_become_half_white(save):
    assert near(load_image(save(two((0, 0, 0, 128), (0, 0, 255, 255), "RGBA"))).getpixel((5, 10)), (127, 127, 127), 1)


def test_opaque_places_beside_transparent_ones_keep_their_colour(save):
    assert load_image(save(two((255, 0, 0, 0), (0, 0, 255, 255), "RGBA"))).getpixel((35, 10)) == BLUE


def test_grey_with_transparency_is_laid_over_white(save):
    assert load_image(save(two((0, 0), (0, 255), "LA"))).getpixel((5, 10)) == WHITE


def test_a_transparent_palette_colour_becomes_white(save):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    assert load_image(save(picture, transparency=0)).getpixel((0, 0)) == WHITE


def test_a_grey_picture_is_read_as_rgb(save):
    assert load_image(save(Image.new("L", (4, 4), 77))).getpixel((0, 0)) == (77, 77, 77)


def test_a_sixteen_bit_picture_keeps_its_brightness(save):
    picture = Image.new("I;16", (4, 4))
    picture.putdata([32768] * 16)
    assert near(load_image(save(picture)).getpixel((0, 0)), (128, 128, 128), 1)


@pytest.mark.parametrize(("mode", "white"), [("F", 1.0), ("F", 255.0), ("F", 65535.0), ("I", 65535), ("I", 255)])
def test_numbers_without_a_known_white_take_that_of_the_largest(save, mode, white):
    picture = Image.new(mode, (2, 1))
    picture.putdata([white, white / 2 if mode == "F" else white // 2])
    read = load_image(save(picture, "a.tif"))
    assert (read.getpixel((0, 0)), read.getpixel((1, 0))[0] in (127, 128)) == (WHITE, True)


def test_a_black_and_white_picture_is_read_as_rgb(save):
    assert load_image(save(Image.new("1", (4, 4), 1))).getpixel((0, 0)) == WHITE


def test_a_picture_in_ink_colours_is_read_as_rgb(save):
    assert near(load_image(save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg")).getpixel((0, 0)), RED, 30)


def test_of_an_animation_the_first_frame_is_read(save):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    assert load_image(save(frames[0], "a.gif", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("name", "size"),
    [("badexif2.jpg", (160, 120)), ("exif-orient-ascii.jpg", (20, 10)), ("exif-orient6+xres-byte.jpg", (10, 20))],
)
def test_broken_exif_is_left_out_without_a_word(name, size):
    picture = load_with_alpha(CASES / name)
    assert picture.size == size
    with opened(CASES / name) as file:
        assert shown_size(file) == size
    for ending in ("a.jpg", "a.png", "a.webp"):
        assert enlarged(picture, picture.info, Path(ending), {"name": "x", "sha256": "0" * 64}, 2)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(save):
    assert near(load_image(save(two(), "a.avif")).getpixel((5, 10)), RED)


# -- what cannot be read


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("a.psd", b"8BPS\0\1" + bytes(30), "PSD"),
        ("a.svg", b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        ("a.jxl", b"\xff\x0a" + bytes(30), "JPEG XL"),
        ("https:/example.org/a.png", None, "address"),
    ],
)
def test_what_is_no_picture_but_meant_as_one_is_named(tmp_path, name, data, word):
    if data:
        (tmp_path / name).write_bytes(data)
    assert word in refused(tmp_path / name)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "a.png")
    assert "regular" in refused(tmp_path / "a.png")


def refused(path):
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert "\n" not in caught.value.what
    return caught.value.what


def test_a_missing_file_is_told(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.png")


def test_a_folder_is_told(tmp_path):
    assert "folder" in refused(tmp_path)


def test_text_is_not_a_picture(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    assert "not an image" in refused(tmp_path / "a.png")


def test_an_empty_file_is_not_a_picture(tmp_path):
    (tmp_path / "a.png").touch()
    assert "not an image" in refused(tmp_path / "a.png")


def test_a_program_for_printers_is_not_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    assert "not an image" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
def test_half_a_picture_is_damaged(save, name):
    path = save(Image.effect_noise((64, 64), 90).convert("RGB"), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)


def test_a_picture_over_the_limit_is_refused(save, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 799)
    assert "40x20" in refused(save(two()))


def test_a_picture_at_the_limit_is_read(save, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 800)
    assert load_image(save(two())).size == (40, 20)


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_file_that_claims_to_be_huge_is_refused_unread(tmp_path, side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert "64 million" in refused(tmp_path / "a.png")


def samples():
    """Return a small file of each format, some with EXIF."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for kind, options in {
        "PNG": {"exif": exif},
        "JPEG": {"exif": exif},
        "WEBP": {"exif": exif},
        "GIF": {},
        "BMP": {},
        "TIFF": {},
    }.items():
        buffer = io.BytesIO()
        two(size=(12, 8)).save(buffer, kind, **options)
        yield buffer.getvalue()


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on what it skips
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(list(samples())),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_file_gives_a_picture_or_an_input_error(tmp_path, content, changes):
    data = bytearray(content)
    for place, value in changes:
        data[int(place * len(data))] = value
    (tmp_path / "a.img").write_bytes(data)
    with contextlib.suppress(InputError):
        assert load_image(tmp_path / "a.img").mode == "RGB"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_wrong_exif_entry_gives_a_picture_or_an_input_error(save, kind):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    wrong = exif.tobytes().replace(b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02")  # text as the width, which is a number
    assert wrong != exif.tobytes()
    path = save(two(), f"a.{kind.lower()}", format=kind, exif=wrong)
    with contextlib.suppress(InputError):
        assert load_image(path).mode == "RGB"


# -- tensors


def test_a_tensor_has_channels_then_rows_then_columns():
    tensor = to_tensor(two(RED, BLUE, size=(4, 2)))
    assert tensor.shape == (1, 3, 2, 4)
    assert tensor[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_tensor_lies_between_zero_and_one():
    assert to_tensor(Image.new("RGB", (1, 1), (0, 51, 255))).flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_every_shade_comes_back_the_same():
    shades = Image.frombytes("RGB", (16, 16), bytes(range(256)) * 3)
    assert to_picture(to_tensor(shades)).tobytes() == shades.tobytes()


def test_a_picture_has_columns_for_width():
    assert to_picture(torch.zeros(1, 3, 2, 5)).size == (5, 2)


def test_a_batch_axis_may_be_missing():
    assert to_picture(torch.zeros(3, 2, 5)).size == (5, 2)


def test_values_out_of_range_are_clamped():
    assert to_picture(torch.tensor([-0.5, 0.5, 1.5]).view(3, 1, 1)).getpixel((0, 0)) == (0, 128, 255)


def test_values_are_rounded_and_not_cut_off():
    assert to_picture(torch.full((3, 1, 1), 99.6 / 255)).getpixel((0, 0)) == (100, 100, 100)


def test_a_tensor_with_gradient_becomes_a_picture():
    assert to_picture(torch.ones(3, 1, 1, requires_grad=True)).getpixel((0, 0)) == WHITE


# -- sizes


@pytest.mark.parametrize("size", [(10, 10), (30, 10), (10, 30), (100, 50)])
def test_a_fitted_picture_has_the_size_asked_for(size):
    assert fit(two(), size).size == size


def test_a_fitted_picture_keeps_its_middle():
    fitted = fit(two(size=(40, 20)), (20, 20))
    assert near(fitted.getpixel((4, 10)), RED)
    assert near(fitted.getpixel((15, 10)), BLUE)


def test_a_fitted_picture_keeps_its_aspect():
    disc = Image.new("RGB", (80, 40), "black")
    ImageDraw.Draw(disc).ellipse((20, 0, 59, 39), "white")
    left, top, right, bottom = fit(disc, (20, 20)).convert("L").point(lambda v: 255 * (v > 127)).getbbox()
    assert (right - left) == pytest.approx(bottom - top, abs=1)


@pytest.mark.parametrize(
    ("size", "f", "rounded"), [((128, 128), 16, (128, 128)), ((130, 100), 16, (128, 96)), ((137, 89), 16, (144, 96))]
)
def test_a_size_is_rounded_to_whole_places(size, f, rounded):
    assert round_size(size, f) == rounded


@given(st.integers(1, 40), st.integers(0, 2000), st.integers(0, 2000))
def test_a_rounded_size_is_the_nearest_multiple(f, width, height):
    size = (2 * f + width, 2 * f + height)
    assert all(new % f == 0 and abs(new - old) <= f / 2 for new, old in zip(round_size(size, f), size, strict=True))


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_a_size_of_less_than_two_places_is_refused(size):
    with pytest.raises(UsageError) as caught:
        round_size(size, 16)
    assert "at least 32 pixels" in caught.value.hint


def flat(size, colour):
    return Image.new("RGB", size, colour)


def test_tile_fills_a_square_row_by_row():
    sheet = tile([flat((2, 1), colour) for colour in ("red", "lime", "blue")])
    assert sheet.size == (4, 2)
    corners = [sheet.getpixel(corner) for corner in ((0, 0), (2, 0), (0, 1), (2, 1))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def test_tile_keeps_gap_and_margin_clear():
    sheet = tile([flat((3, 3), "red"), flat((3, 3), "blue")], columns=2, gap=2, margin=1, background="black")
    assert sheet.size == (1 + 3 + 2 + 3 + 1, 1 + 3 + 1)
    row = [sheet.getpixel((x, 2)) for x in range(sheet.width)]
    black, red, blue = (0, 0, 0), (255, 0, 0), (0, 0, 255)
    assert row == [black, *[red] * 3, *[black] * 2, *[blue] * 3, black]


def test_tile_puts_a_smaller_image_at_the_top_middle_of_its_cell():
    sheet = tile([flat((4, 4), "white"), flat((2, 2), "red")], columns=2, background="black")
    red = [(x, y) for x in range(8) for y in range(4) if sheet.getpixel((x, y)) == (255, 0, 0)]
    assert red == [(x, y) for x in (5, 6) for y in (0, 1)]
