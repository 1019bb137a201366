"""vqclip reconstruct: what a VQGAN makes of images; the quickest check of a checkpoint."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from ..errors import OutputExists
from ..files.atomic import check_folder, write_atomic, writing
from ..files.metadata import check_no_file, to_png
from ..files.paths import expand
from ..models.catalogue import find, known_or_absolute, preset
from .commands import LOOK, command
from .options import MODELS, OUTPUT, AsJson, Device, Overwrite, Quiet, SkipBad, option
from .progress import loading, put, say, say_all

EXAMPLES = """
Examples:

  vqclip reconstruct photo.jpg

  vqclip reconstruct *.png --vqgan imagenet_f16_16384 -o rebuilt
"""


@command(LOOK, examples=EXAMPLES)
def reconstruct(
    images: Annotated[
        list[Path],
        typer.Argument(parser=expand, metavar="IMAGE", help="Images of any size.", show_default=False),
    ],
    vqgan: Annotated[
        str | None,
        option(MODELS, "--vqgan", "A name, folder or checkpoint.", show_default="as preset auto", metavar="NAME"),
    ] = None,
    out: Annotated[
        Path, option(OUTPUT, "--out", "Where NAME-reconstructed.png is written.", "-o", parser=expand, metavar="DIR")
    ] = Path(),
    alone: Annotated[
        bool, option(OUTPUT, "--alone", "Write the reconstruction without the original beside it.")
    ] = False,
    overwrite: Overwrite = False,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Encode, quantise and decode images; print PSNR, SSIM and codes used, and where each is, beside the original."""
    name = known_or_absolute("vqgan", vqgan) if vqgan else preset("auto")["vqgan"]
    find("vqgan", name)  # a wrong name is reported before anything is loaded

    loading(quiet=quiet)
    from ..core.devices import choose_device
    from ..files.images import check_images, load_image
    from ..models import load_vqgan
    from ..runs.reconstruct import reconstruct as run_vqgan
    from ..runs.reconstruct import side_by_side

    images = check_images(images, say if skip_bad else None)  # before the model loads
    targets = _name_targets(images, out)
    check_no_file(out)
    check_folder(out)
    for target in targets:
        if target.exists() and not overwrite:
            raise OutputExists(f"{target} exists already", "give another folder with -o, or --overwrite")
    model = load_vqgan(name, choose_device(device))
    say_all(model.notes, quiet=quiet)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for path, target in zip(images, targets, strict=True):
        original = load_image(path)
        result = run_vqgan(model, original)
        shown = result.image if alone else side_by_side(original, result.image)
        write_atomic(target, to_png(shown), replace=overwrite)
        quality = f"PSNR {result.psnr:.2f} dB, SSIM {result.ssim:.3f}"
        codes = f"{result.used} different codes of {result.codes} in {result.positions} positions"
        say_all([f"{path.name}: {quality}, {codes} (VQGAN {model.name})"], quiet=quiet)
        record = {
            "path": str(target),
            "image": str(path),
            "vqgan": model.name,
            "psnr": round(result.psnr, 4) if math.isfinite(result.psnr) else None,
            "ssim": round(result.ssim, 5),
            "used": result.used,
            "codes": result.codes,
            "places": result.positions,
        }
        put(json.dumps(record) if as_json else str(target))


def _name_targets(images: list[Path], folder: Path) -> list[Path]:
    """Return a file for each image: named by it, with a number if an image before it has the same name."""
    targets: list[Path] = []
    for path in images:
        target, number = folder / f"{path.stem}-reconstructed.png", 1
        while target in targets:
            number += 1
            target = folder / f"{path.stem}-{number}-reconstructed.png"
        targets.append(target)
    return targets
