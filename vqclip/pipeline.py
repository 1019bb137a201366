"""From settings to a picture: the one place that sees both networks and folders."""

import importlib.metadata
import platform
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from . import __version__
from .errors import OutOfMemory, OutputError, OutputExists, UsageError, VqclipError
from .images import fit, load_image, round_size, to_picture, to_tensor
from .inits import INITS, best_of
from .losses import Target
from .models import load_clip, load_vqgan
from .models.cards import find, preset
from .models.interfaces import Clip, Vqgan
from .optimize import Step, optimize
from .outputs import to_png, writer_for
from .quantize import quantize
from .rundir import RunDir, refused, slugify, write_atomic
from .settings import Settings, absolute, make_settings

CROPS = ((0.5, 0.5, 1.0), (0.0, 0.0, 0.8), (1.0, 0.0, 0.8), (0.0, 1.0, 0.8), (1.0, 1.0, 0.8))  # x, y, side


@dataclass
class Session:
    """Everything loaded and ready to run: models, targets and the first latent."""

    settings: Settings
    device: torch.device
    vqgan: Vqgan
    clips: list[Clip]
    targets: list[Target]
    z: Tensor  # [1, C, h, w]

    def steps(self) -> Iterator[Step]:
        """Run the loop, one Step at a time."""
        return optimize(self.z, self.vqgan, self.clips, self.targets, self.settings)

    def picture(self, latent: Tensor) -> Image.Image:
        """Quantise and decode a latent `[1, C, h, w]`."""
        with torch.no_grad():
            return to_picture(self.vqgan.decode(quantize(latent, self.vqgan.codebook)))

    def record(self) -> dict[str, Any]:
        """Return what is needed to make the picture again: settings, models and their hashes, versions, machine."""
        cards = [find("vqgan", self.settings.vqgan), *(find("clip", name) for name in self.settings.clips)]
        described = [{"name": card.name, "sha256": card.sha256()} for card in cards]
        packages = ("torch", "kornia", "open_clip_torch", "pillow")
        return {
            "settings": self.settings.model_dump(mode="json"),
            "models": {"vqgan": described[0], "clips": described[1:]},
            "versions": {"vqclip": __version__, "python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in packages},
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }


@dataclass(frozen=True)
class Result:
    """A finished (or stopped) run."""

    picture: Image.Image
    settings: Settings
    steps: int  # steps done
    distance: float  # loss of the prompts at the last step
    seconds: float  # of the loop
    run: Path | None  # the run directory, if one was made
    path: Path | None  # the final picture's file, if one was written


def choose_device(name: str = "auto") -> torch.device:
    """Return the device: `auto` takes CUDA, then MPS, then the CPU. Raises UsageError for one that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"the device {name!r} is not there", "use --device cpu, cuda or mps; auto picks the best") from None
    if device.type == "meta":
        raise UsageError("the device 'meta' computes nothing", "use --device cpu, cuda or mps; auto picks the best")
    return device


def resolve(prompt: str, preset_name: str = "auto", seed: int | None = None, **values: Any) -> Settings:
    """Lay given values over the preset's, over the defaults. Without a seed, one is drawn and recorded."""
    for key in ("init_image",):
        if values.get(key) is not None:
            values[key] = absolute(values[key])
    if values.get("image_prompts"):
        values["image_prompts"] = tuple(absolute(path) for path in values["image_prompts"])
    given = {key: value for key, value in values.items() if value is not None}
    return make_settings(
        **(preset(preset_name) | given), prompt=prompt, seed=secrets.randbelow(2**32) if seed is None else seed
    )


def prepare(settings: Settings, device: torch.device | None = None) -> Session:
    """Read the pictures, load the models, embed the prompts and choose the start."""
    prompts, pictures = settings.prompts(), [load_image(path) for path in settings.image_prompts]
    start = load_image(settings.init_image) if settings.init_image else None
    device = device or choose_device()
    vqgan = load_vqgan(settings.vqgan, device)
    clips: list[Clip] = [load_clip(name, device) for name in settings.clips]
    width, height = round_size(settings.size, vqgan.f)
    settings = settings.model_copy(update={"size": (width, height)})

    weight = settings.image_prompt_weight
    weights = torch.tensor([p.weight for p in prompts] + [weight] * len(pictures), device=device)
    stop = float("-inf") if weight >= 0 else -0.95
    stops = torch.tensor([p.stop for p in prompts] + [stop] * len(pictures), device=device)
    targets = []
    for clip in clips:
        embeds = [clip.encode_text([p.text for p in prompts])] if prompts else []
        embeds += [embed_picture(clip, picture, device) for picture in pictures]
        targets.append(Target(torch.cat(embeds), weights, stops))

    if start is not None:
        with torch.no_grad():
            z = vqgan.encode(to_tensor(fit(start, (width, height))).to(device))
    else:
        z = best_of(vqgan, clips, targets, INITS[settings.init], width, height, settings.seed, settings.tries)
    return Session(settings, device, vqgan, clips, targets, z)


def embed_picture(clip: Clip, picture: Image.Image, device: torch.device) -> Tensor:
    """Embed an image prompt as `[1, D]`: the mean over the whole picture and its four corners, unaltered."""
    side = min(picture.size)
    views = [to_tensor(fit(picture, (clip.size, clip.size)))]
    for x, y, share in CROPS[1:]:
        edge = max(1, round(side * share))
        left, top = round((picture.width - edge) * x), round((picture.height - edge) * y)
        crop = picture.crop((left, top, left + edge, top + edge))
        views.append(to_tensor(crop.resize((clip.size, clip.size), Image.Resampling.LANCZOS)))
    with torch.no_grad():
        return torch.nn.functional.normalize(clip.encode_image(torch.cat(views).to(device)).mean(0, keepdim=True), dim=1)


def generate(
    prompt: str = "",
    *,
    out: str | Path | None = None,
    runs: str | Path | None = None,
    overwrite: bool = False,
    metadata: bool = True,
    frames_every: int = 10,
    device: str = "auto",
    preset: str = "auto",
    seed: int | None = None,
    on_start: Callable[[Session, RunDir | None], None] | None = None,
    on_step: Callable[[Step], bool | None] | None = None,
    **values: Any,
) -> Result:
    """Make one picture from a prompt.

    out: also write the final picture there. runs: make a run directory with frames and metrics below it.
    frames_every: steps between frames; 0 saves none but the final picture. values: any field of Settings.
    on_start gets the session and run directory before the first step; on_step gets every step, and may
    return True to end the run there: the picture so far is then the result.

    Raises a VqclipError: UsageError, InputError, ModelError, OutputError, OutputExists, OutOfMemory, Diverged.
    """
    settings = resolve(prompt, preset, seed, **values)
    if frames_every < 0:
        raise UsageError(f"frames-every: {frames_every} is negative", "use 0 for none, or a number of steps")
    target = _check_target(out, overwrite)
    for name, kind in ((settings.vqgan, "vqgan"), *((clip, "clip") for clip in settings.clips)):
        find(kind, name)
    try:
        return _run(settings, choose_device(device), target, runs, metadata, frames_every, on_start, on_step)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _too_little_memory(settings) from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise _too_little_memory(settings) from error
        raise


def _run(
    settings: Settings,
    device: torch.device,
    target: Path | None,
    runs: str | Path | None,
    metadata: bool,
    frames_every: int,
    on_start: Callable[[Session, RunDir | None], None] | None,
    on_step: Callable[[Step], bool | None] | None,
) -> Result:
    session = prepare(settings, device)
    settings, record = session.settings, session.record()
    title = settings.prompt or Path(settings.image_prompts[0]).stem
    run = RunDir.create(Path(runs), f"{slugify(title)}-{settings.seed}") if runs is not None else None

    def png(latent: Tensor, step: int) -> bytes:
        return to_png(session.picture(latent), record | {"step": step} if metadata else None)

    if run:
        run.write_json(record | {"status": "running", "steps_done": 0})
        if frames_every:
            run.write_frame(0, png(session.z, 0))
    if on_start:
        on_start(session, run)
    began = last = time.monotonic()
    step = Step(0, session.z, {}, 0.0)
    status, stopped = "failed", False
    try:
        for step in session.steps():
            now = time.monotonic()
            if run:
                losses = {name: round(float(value.mean()), 6) for name, value in step.losses.items()}
                run.add_metrics({"step": step.step, **losses, "changed": round(step.changed, 6), "seconds": round(now - last, 4)})
                if frames_every and step.step % frames_every == 0:
                    run.write_frame(step.step, png(step.latent, step.step))
            last = now
            stopped = bool(on_step and on_step(step))
            if stopped:
                break
        status = "stopped" if stopped else "done"
    finally:  # whatever ended the loop, the picture so far is kept
        seconds = time.monotonic() - began
        final = None
        if run:
            final = run.write_final(png(step.latent, step.step))
            if frames_every and step.step % frames_every:
                run.write_frame(step.step, final.read_bytes())
                (run.path / "latest.png").unlink(missing_ok=True)
            run.write_json(record | {"status": status, "steps_done": step.step, "seconds": round(seconds, 2)})
            run.close()
        if target:
            picture = session.picture(step.latent)
            write_atomic(target, writer_for(target)(picture, record | {"step": step.step} if metadata else None))
    distance = float(step.losses["prompt"].mean()) if step.losses else float("nan")
    return Result(
        session.picture(step.latent), settings, step.step, distance, seconds, run.path if run else None, target or final
    )


def _check_target(out: str | Path | None, overwrite: bool) -> Path | None:
    """Refuse an output that can't be written, before any work is done."""
    if out is None:
        return None
    path = Path(out).expanduser()
    writer_for(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder", "give a file name, e.g. -o picture.png")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already", "give another name, or --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist", "make it first")
    probe = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise refused(path, error) from error
    return path


def _too_little_memory(settings: Settings) -> VqclipError:
    width, height = settings.size
    return OutOfMemory(
        f"there is too little memory for {width}x{height} pixels with {settings.cutouts} cutouts",
        "use a smaller --size or fewer --cutouts",
    )
