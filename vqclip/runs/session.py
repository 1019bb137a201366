"""Settings made ready to run: models loaded, prompts embedded, the start chosen."""

import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..config.resolve import complete
from ..core.decoding import decode_to_show
from ..core.devices import choose_device, choose_precision
from ..core.forms import FORMS
from ..core.init import INITS, encode, framed
from ..core.interfaces import Clip, Kept, LoopInputs, Reference, Target, Vqgan
from ..core.loop import State, Step, optimize
from ..core.quantize import quantize
from ..core.regions import make_mask
from ..core.targets import add_image_prompt, load_prompt_images, long_prompt_notes, make_targets, style_of
from ..core.threads import use_threads
from ..errors import InputError, UsageError
from ..files.images import fit, load_image, round_size, snap, to_picture, to_tensor, wrapped
from ..files.paths import sha256_once
from ..models.catalogue import find
from ..models.dalle import Dalle
from ..models.wording import bundled
from ..settings.remarks import notes_on_prompts, remarks
from ..settings.schema import AXES, Settings
from ..settings.sizes import shaped
from .candidates import draw_best_candidate, notes_on_unread_text, text_to_draw, vqgan_of_dalle
from .checkpoint import with_stage
from .heads import heads_of, marked_clips
from .inpainting import Inpainting
from .memory import require_for_drawing
from .networks import Networks
from .progress import Progress
from .run_dir import slugify
from .upscale import Enlarger

BEYOND = 16  # pixels of a tile's other side that the upscaler sees beyond each edge
LANCZOS = Image.Resampling.LANCZOS
PACKAGES = ("torch", "kornia", "open_clip_torch", "pillow")


@dataclass(frozen=True)
class Start:
    """Where a run begins. Made by `Session.start`.

    targets: what each CLIP is to see; with a candidate_weight the best candidate is one of their prompts.
    losses: as in Step, if candidates were ranked. notes: a line each. seconds: what it took.
    """

    z: Tensor  # [1, C, h, w]
    targets: list[Target]
    losses: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class Session:
    """Settings with their models loaded and their prompts embedded. Made by `Session.load`."""

    settings: Settings
    device: torch.device
    vqgan: Vqgan
    clips: list[Clip]
    targets: list[Target]  # what each CLIP is to see
    models: dict[str, Any]  # names and hashes, as run.json has them
    networks: Networks
    enlarger: Enlarger | None = None  # of the finished image
    init_image: Image.Image | None = None
    inpainting: Inpainting | None = None
    references: list[Reference] = field(default_factory=list)  # what each CLIP compares the image with beside them
    z_target: Tensor | None = None  # the latent of a target image, [1, C, h, w]
    image_hashes: dict[str, str] = field(default_factory=dict)  # path of each given image -> sha256
    # Lines for the user: where vqclip did something different from the request.
    notes: list[str] = field(default_factory=list)
    losses: dict[str, Callable[[Any], Tensor]] = field(default_factory=dict)  # of one's own: see LoopInputs
    on_cutouts: Callable[[int, int, Tensor], None] | None = None  # as of LoopInputs

    @classmethod
    def load(
        cls,
        settings: Settings,
        device: str = "auto",
        networks: Networks | None = None,
        whole: tuple[int, int] | None = None,
    ) -> Self:
        """Read the given images, load the models (or take them from `networks`) and embed the prompts.

        whole: the size of the image whose regions the settings' are, where what is drawn is a part of that.
        Raises InputError for an image, ModelError or IntegrityError for a model, UsageError for a device or a size.
        """
        networks, settings = networks or Networks(), complete(settings)
        marked_clips(settings)
        if settings.starts_from_candidates():
            text_to_draw(settings)
            vqgan_of_dalle(settings.dalle, settings.vqgan)
        small = are_small(settings)  # a wrong name is said before anything is read
        where = choose_device(device)
        make_deterministic(where)
        images = load_prompt_images(settings)
        init_image = load_image(settings.init_image) if settings.init_image else None
        style = load_image(settings.style_image) if settings.style_image else None
        target = load_image(settings.target_image) if settings.target_image else None
        image_hashes = {path: _hash_image(path) for path in settings.pictures()}
        inpainting = Inpainting.load(settings, init_image)
        for region in settings.parsed_regions():  # a black one is refused before models are loaded
            make_mask(region, images, whole or settings.size)
        settings = settings.model_copy(update={"precision": choose_precision(settings.precision, where)})
        use_threads(small=small)
        vqgan, clips = networks.of(settings, where)
        size = round_size(settings.size, vqgan.f)
        notes = [*vqgan.notes, *notes_on_prompts(settings), *remarks(settings)]
        if small:  # they know little, and draw something in any case
            notes += [note for prompt in settings.prompts() for note in bundled().remarks(prompt.text)][:1]
        if size != settings.size:
            notes.append(f"the size {settings.size[0]}x{settings.size[1]} is rounded to multiples of {vqgan.f}")
        if init_image and whole is None and would_keep_more(init_image.size, size, vqgan.f):
            given = f"{init_image.width}x{init_image.height}"
            notes.append(
                f"the init image, {given}, is cropped to the shape of {size[0]}x{size[1]}: --size auto keeps it"
            )
        settings = settings.model_copy(update={"size": size})
        texts = [prompt.text for prompt in settings.prompts()]
        notes += [note for clip in clips for note in long_prompt_notes(clip, texts, settings.long_prompts)]
        shape = settings if whole is None else settings.model_copy(update={"size": whole})
        targets = make_targets(clips, shape, images, where)
        styles = [style_of(clip, settings, style, where) if style else [] for clip in clips]
        heads = heads_of(settings, targets, where, networks)
        references = [Reference(style, head) for style, head in zip(styles, heads, strict=True)]
        z_target = encode(vqgan, to_tensor(fit(target, size))) if target else None
        enlarger = enlarger_of(settings, where, networks)
        inpainting = replace(inpainting, size=size) if inpainting else None
        return cls(
            settings, where, vqgan, clips, targets, describe_models(settings), networks, enlarger,
            init_image, inpainting, references, z_target, image_hashes, notes,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The latent's shape `(1, C, h, w)`."""
        width, height = self.settings.size
        return 1, self.vqgan.codebook.shape[1], height // self.vqgan.f, width // self.vqgan.f

    @property
    def moved_shape(self) -> tuple[int, int, int, int]:
        """The shape of what the optimiser moves: the latent's, or that of logits over the codebook."""
        batch, _, height, width = self.shape
        return batch, self.vqgan.codebook.shape[FORMS[self.settings.latent].axis], height, width

    def inputs(self, targets: list[Target] | None = None) -> LoopInputs:
        """Return all that the loop is given. targets: those of a start, if it has its own."""
        return LoopInputs(
            self.vqgan, self.clips, targets or self.targets, self.settings, self.kept, self.on_cutouts,
            self.references, self.z_target, self.losses,
        )  # fmt: skip

    @functools.cached_property
    def kept(self) -> Kept | None:
        """What a mask keeps of the init image: the same in every step and for every image that is shown."""
        return self.inpainting.kept(self.device) if self.inpainting else None

    def start(self, progress: Progress | None = None, folder: Path | None = None) -> Start | None:
        """Choose the first latent; None if it was stopped while candidates were drawn.

        folder: keep candidates there as they are drawn, and take up those that it has.
        """
        began, settings = time.monotonic(), self.settings
        if settings.starts_from_candidates():
            return self._best_candidate(progress or Progress(), folder, began)
        if self.init_image:
            z = encode(self.vqgan, to_tensor(fit(self.init_image, settings.size)))
        else:
            z = INITS[settings.init](self.inputs())
        return Start(framed(self.vqgan, z, settings), self.targets, seconds=time.monotonic() - began)

    def _best_candidate(self, progress: Progress, folder: Path | None, began: float) -> Start | None:
        dalle, weight = self.dalle(), self.settings.candidate_weight
        chosen = draw_best_candidate(self, dalle, progress, folder)
        if chosen is None:
            return None
        targets = self.targets
        if weight:
            pairs = zip(self.clips, targets, strict=True)
            targets = [add_image_prompt(clip, target, chosen.picture, weight, self.device) for clip, target in pairs]
        losses = {"prompt": torch.tensor([chosen.distance])}
        notes = (*notes_on_unread_text(dalle, self.settings), chosen.note)
        z = framed(self.vqgan, chosen.latent, self.settings)
        return Start(z, targets, losses, notes, time.monotonic() - began)

    def dalle(self) -> Dalle:
        """Return the Mini DALL-E, which is loaded when it is first needed. Raises OutOfMemory."""
        name = self.settings.dalle
        require_for_drawing(self.settings, self.device, loaded=self.networks.has_dalle(name))
        return self.networks.dalle(name, self.device)

    def steps(self, start: Start | None = None, state: State | None = None) -> Iterator[Step]:
        """Run the loop, one Step at a time, from its start or from a state, which is moved to the device."""
        start = start or self.start()
        assert start is not None  # nothing stopped it
        if state:
            state = with_stage(state, self.shape).to(self.device)
        return optimize(self.inputs(start.targets), start.z, state=state)

    def change(self, values: Mapping[str, Any]) -> None:
        """Lay values over the settings of the steps to come."""
        self.settings = self.settings.model_copy(update=values)

    def picture(self, latent: Tensor, step: int | None = None) -> Image.Image:
        """Quantise and decode a latent `[1, C, h, w]` after a step, or all; one of the coarse stage is enlarged."""
        with torch.no_grad():
            image = to_picture(decode_to_show(self.inputs(), quantize(latent, self.vqgan.codebook), step))
        return image if image.size == self.settings.size else fit(image, self.settings.size)

    def finished(self, image: Image.Image) -> Image.Image:
        """Return a drawn image as it is shown in the end: enlarged, and in the colours of a palette, where asked for.

        Raises OutOfMemory.
        """
        if self.enlarger:
            image = self._enlarged(image, self.enlarger)
            image = self.inpainting.paste(image) if self.inpainting else image
        return snap(image, self.settings.palette, self.settings.palette_snap) if self.snapped else image

    def _enlarged(self, image: Image.Image, enlarger: Enlarger) -> Image.Image:
        """Return an image enlarged; a tile with its other side beyond its edges, so that it still joins itself."""
        x, y = (
            min(BEYOND, length) * (axis in AXES[self.settings.tile])
            for axis, length in zip("xy", image.size, strict=True)
        )
        large, factor = enlarger.image(wrapped(image, x, y) if x or y else image), enlarger.factor
        left, top, width, height = (factor * length for length in (x, y, *image.size))
        return large.crop((left, top, left + width, top + height)) if x or y else large

    @property
    def snapped(self) -> bool:
        """Whether the finished image has the colours of a palette alone."""
        return self.settings.palette_snap != "none" and self.settings.counts("palette_snap")

    @property
    def finishing(self) -> bool:
        """Whether the finished image is another than the drawn one."""
        return bool(self.enlarger) or self.snapped

    def preview(self, image: Image.Image) -> Image.Image:
        """Return a drawn image in the size of the finished one, by a plain resize: a tenth of the network's time."""
        factor = self.settings.upscale
        return image.resize((image.width * factor, image.height * factor), LANCZOS) if self.enlarger else image

    @property
    def upscaled(self) -> dict[str, Any]:
        """What a finished image says of its enlargement beside the settings; nothing where there is none."""
        return {"upscale": self.enlarger.record} if self.enlarger else {}

    def folder_name(self) -> str:
        """Return the name of a run directory: the title and the seed."""
        return f"{slugify(self.settings.title())}-{self.settings.seed}"

    def record(self) -> dict[str, Any]:
        """Return what is needed to make the image again: settings, models and their hashes, versions, machine."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "models": self.models,
            "pictures": self.image_hashes,
            "versions": {"vqclip": __version__, "python": platform.python_version()} | _versions(),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of the packages that decide an image's bytes; to look them up takes 10 ms."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _hash_image(path: str) -> str:
    try:
        return sha256_once(Path(path))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}", "check the path") from None


def enlarger_of(settings: Settings, device: torch.device, networks: Networks) -> Enlarger | None:
    """Return what enlarges the finished image, with its network loaded. Raises ModelError, IntegrityError."""
    if not settings.upscale:
        return None
    hint = "use a smaller --upscale, or 0 for none"
    enlarger = Enlarger(settings.upscaler, settings.upscale, device=device, networks=networks, hint=hint)
    assert enlarger.network  # here, so that a file that is none is said before the work
    return enlarger


def would_keep_more(shape: tuple[int, int], size: tuple[int, int], f: int) -> bool:
    """Say whether `--size auto` would keep more of an image of such a shape; it takes none that is very long."""
    try:
        return round_size(shaped(shape, size), f) != size
    except UsageError:
        return False


def are_small(settings: Settings) -> bool:
    """Return whether the networks of settings are small: the bundled ones. Raises ModelError for an unknown one."""
    entries = [find(*model) for model in settings.models()]
    return all(entry.bundled for entry in entries if entry.kind != "upscaler")


def describe_models(settings: Settings) -> dict[str, Any]:
    """Return the names and hashes of the models, as run.json has them. Raises ModelError."""
    models: dict[str, Any] = {"clips": []}
    for kind, name in settings.models():
        entry = find(kind, name)
        model = {"name": entry.name, "sha256": entry.sha256()}
        if kind == "clip":
            models["clips"].append(model)
        else:
            models[kind] = model
    return models


def make_deterministic(device: torch.device) -> None:
    """Let threads add up gradients in one order on the CPU; on CUDA grid_sample has no such kernel."""
    # as torch.use_deterministic_algorithms, which imports torch's compiler for a second
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
