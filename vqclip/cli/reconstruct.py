"""vqclip reconstruct: what a VQGAN makes of pictures; the quickest check of a checkpoint."""

import json
import math
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import typer

from ..errors import OutputExists
from ..files.atomic import check_folder, refused, write_atomic
from ..files.metadata import to_png
from ..files.paths import expand
from ..models.catalogue import find, known_or_absolute, preset
from .options import Device, Overwrite, Quiet
from .progress import loading, put, say

EXAMPLES = """
Examples:

  vqclip reconstruct photo.jpg

  vqclip reconstruct *.png --vqgan imagenet_f16_16384 -o rebuilt
"""


def reconstruct(
    images: Annotated[
        list[Path],
        typer.Argument(parser=expand, metavar="IMAGE...", help="Pictures of any size.", show_default=False),
    ],
    vqgan: Annotated[
        str | None, typer.Option("--vqgan", help="A VQGAN's name, folder or checkpoint.", show_default="as preset auto")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", parser=expand, metavar="DIR", help="Where NAME-reconstructed.png is written.")
    ] = Path(),
    alone: Annotated[
        bool, typer.Option("--alone", help="Write the reconstruction without the original beside it.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture.")] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Encode, quantise and decode pictures; print PSNR, SSIM and codes used, and where each is, beside the original."""
    name = known_or_absolute("vqgan", vqgan) if vqgan else preset("auto")["vqgan"]
    find("vqgan", name)  # a wrong name is said before anything is loaded

    loading(quiet=quiet)
    from ..files.images import load_image
    from ..models import load_vqgan
    from ..runs.reconstruct import reconstruct as rebuild
    from ..runs.reconstruct import side_by_side
    from ..runs.session import choose_device

    for path in images:
        load_image(path)  # what is wrong with one is said before the model loads; all at once could be too much to hold
    targets = _targets(images, out)
    check_folder(out)
    for target in targets:
        if target.exists() and not overwrite:
            raise OutputExists(f"{target} exists already", "give another folder with -o, or --overwrite")
    model = load_vqgan(name, choose_device(device))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(out, error) from error
    for path, target in zip(images, targets, strict=True):
        picture = load_image(path)
        found = rebuild(model, picture)
        shown = found.picture if alone else side_by_side(picture, found.picture)
        write_atomic(target, to_png(shown), replace=overwrite)
        if not quiet:
            say(f"{path.name}: PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.3f}, {found.used} different codes of "
                f"{found.codes} in {found.places} places (VQGAN {model.name})")  # fmt: skip
        if as_json:
            ratio = round(found.psnr, 4) if math.isfinite(found.psnr) else None
            put(json.dumps({"path": str(target), "image": str(path), "vqgan": model.name, "psnr": ratio,
                                   "ssim": round(found.ssim, 5), "used": found.used, "codes": found.codes,
                                   "places": found.places}))  # fmt: skip
        else:
            put(str(target))


def _targets(images: list[Path], folder: Path) -> list[Path]:
    """Name what is written: by the picture, and a number where another one before it is called the same."""
    found: list[Path] = []
    for path in images:
        names = (
            folder / f"{path.stem}{number}-reconstructed.png" for number in chain([""], (f"-{k}" for k in count(2)))
        )
        found.append(next(name for name in names if name not in found))
    return found
