"""Settings made ready to run: models loaded, prompts embedded, the first latent chosen."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..config.resolve import complete
from ..core.devices import LOWER_PRECISION, choose_device, choose_precision
from ..core.init import INITS, encode
from ..core.interfaces import Clip, LoopInputs, Target, Vqgan
from ..core.loop import State, Step, optimize
from ..core.quantize import quantize
from ..core.targets import add_image_prompt, long_prompt_notes, make_targets
from ..files.images import fit, load_image, round_size, to_picture, to_tensor
from ..files.paths import sha256
from ..models import load_clip, load_dalle, load_vqgan
from ..models.catalogue import find
from ..models.dalle import Dalle
from ..settings.schema import Settings
from .candidates import OnCode, best, partner, told, unread
from .checkpoint import with_stage


@dataclass
class Session:
    """Everything loaded and ready to run: models, targets and the first latent."""

    settings: Settings
    device: torch.device
    vqgan: Vqgan
    clips: list[Clip]
    targets: list[Target]
    begin: Callable[[], Tensor]  # makes z
    notes: tuple[str, ...] = ()  # what was done otherwise than asked, a line each
    pictures: dict[str, str] = field(default_factory=dict)  # path of each given picture -> sha256
    folder: Path | None = None  # the run's, where candidates are kept as they are drawn
    on_code: OnCode | None = None  # hears of every code of theirs
    begun_in: float = 0.0  # seconds that making z took
    nearness: dict[str, Tensor] = field(default_factory=dict)  # of z, as in Step.losses, where candidates were ranked
    networks: "Networks | None" = None  # where a Mini DALL-E stays for the runs that follow

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the latent's shape `(1, C, h, w)`."""
        width, height = self.settings.size
        return 1, self.vqgan.codebook.shape[1], height // self.vqgan.f, width // self.vqgan.f

    @cached_property
    def z(self) -> Tensor:
        """The first latent `[1, C, h, w]`; made when it is first asked for, since a large one takes memory."""
        began = time.monotonic()
        z = self.begin()
        self.begun_in = time.monotonic() - began
        return z

    def steps(self, state: State | None = None) -> Iterator[Step]:
        """Run the loop, one Step at a time, from the start or from a state; `state` is moved to the device."""
        z = self.z  # may add to the targets
        state = state and with_stage(state, self.shape).to(self.device)
        return optimize(LoopInputs(self.vqgan, self.clips, self.targets, self.settings), z, state=state)

    def change(self, values: Mapping[str, Any]) -> None:
        """Lay values over the settings of the steps to come."""
        self.settings = self.settings.model_copy(update=values)

    def picture(self, latent: Tensor) -> Image.Image:
        """Quantise and decode a latent `[1, C, h, w]`; one of the coarse steps is enlarged."""
        with torch.no_grad():
            picture = to_picture(self.vqgan.decode(quantize(latent, self.vqgan.codebook)))
        return picture if picture.size == self.settings.size else fit(picture, self.settings.size)

    def title(self) -> str:
        """Return what the run is named after: the prompt, or the first image prompt's file name."""
        return self.settings.prompt.strip() or Path(self.settings.image_prompts[0]).stem

    def record(self) -> dict[str, Any]:
        """Return what is needed to make the picture again: settings, models and their hashes, versions, machine."""
        cards = [find("vqgan", self.settings.vqgan), *(find("clip", name) for name in self.settings.clips)]
        described = [{"name": card.name, "sha256": card.sha256()} for card in cards]
        drawn = find("dalle", self.settings.dalle) if self.settings.drawn() else None
        more = {"dalle": {"name": drawn.name, "sha256": drawn.sha256()}} if drawn else {}
        packages = ("torch", "kornia", "open_clip_torch", "pillow")
        return {
            "settings": self.settings.model_dump(mode="json"),
            "models": {"vqgan": described[0], "clips": described[1:]} | more,
            "pictures": self.pictures,
            "versions": {"vqclip": __version__, "python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in packages},
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }


class Networks:
    """Keeps the networks that were last asked for, so that runs after one another load them once."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str], Any] = {}

    def of(self, settings: Settings, device: torch.device) -> tuple[Vqgan, list[Clip]]:
        """Return the networks that settings name; those that they don't are let go first."""
        named = [("vqgan", settings.vqgan), *(("clip", name) for name in settings.clips)]
        wanted = [(kind, name, settings.precision) for kind, name in named]
        drawing = [("dalle", settings.dalle, "")] if settings.drawn() else []
        self._held = {key: self._held[key] for key in [*wanted, *drawing] if key in self._held}
        for kind, name, precision in wanted:
            if (kind, name, precision) not in self._held:
                network: Any = (load_vqgan if kind == "vqgan" else load_clip)(name, device)
                if precision == "bfloat16":
                    network.lower(LOWER_PRECISION)
                self._held[kind, name, precision] = network
        return self._held[wanted[0]], [self._held[key] for key in wanted[1:]]

    def dalle(self, name: str, device: torch.device) -> Dalle:
        """Return a Mini DALL-E, which is loaded when a run that has none of its candidates yet first asks."""
        if not self.has_dalle(name):
            self._held["dalle", name, ""] = load_dalle(name, device)
        return self._held["dalle", name, ""]

    def has_dalle(self, name: str) -> bool:
        """Say whether a Mini DALL-E is loaded."""
        return ("dalle", name, "") in self._held


def prepare(settings: Settings, device: str = "auto", networks: Networks | None = None) -> Session:
    """Read the pictures, load the models (or take them from `networks`) and embed the prompts.

    The start is chosen when it is asked for.

    Raises InputError for a picture, ModelError or IntegrityError for a model, UsageError for a device or a size.
    """
    settings = complete(settings)
    if settings.drawn():
        told(settings)
        partner(settings.dalle, settings.vqgan)
    for kind, name in (("vqgan", settings.vqgan), *(("clip", name) for name in settings.clips)):
        find(kind, name)  # a wrong name is said before anything is read
    place = choose_device(device)
    # Gradients that several threads add up come out in any order otherwise. On CUDA grid_sample has no such kernel.
    torch.use_deterministic_algorithms(place.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    pictures = [load_image(path) for path in settings.image_prompts]
    start = load_image(settings.init_image) if settings.init_image else None
    hashes = {path: sha256(Path(path)) for path in settings.pictures()}
    settings = settings.model_copy(update={"precision": choose_precision(settings.precision, place)})
    vqgan, clips = (networks or Networks()).of(settings, place)
    width, height = round_size(settings.size, vqgan.f)
    notes = []
    if (width, height) != settings.size:
        notes.append(f"the size {settings.size[0]}x{settings.size[1]} is rounded to multiples of {vqgan.f}")
    settings = settings.model_copy(update={"size": (width, height)})
    texts = [prompt.text for prompt in settings.prompts()]
    notes += [note for clip in clips for note in long_prompt_notes(clip, texts, settings.long_prompts)]
    targets = make_targets(clips, settings, pictures, place)

    def begin() -> Tensor:
        if start is not None:
            return encode(vqgan, to_tensor(fit(start, (width, height))))
        if settings.drawn():
            dalle = networks.dalle(settings.dalle, place) if networks else load_dalle(settings.dalle, place)
            found = best(settings, dalle, vqgan, clips, targets, folder=session.folder, on_code=session.on_code)
            session.notes += (*unread(dalle, settings), found.note)
            session.nearness = {"prompt": torch.tensor([found.distance])}
            if settings.candidate_weight:
                session.targets = [add_image_prompt(clip, target, found.picture, settings.candidate_weight, place)
                                   for clip, target in zip(clips, targets, strict=True)]  # fmt: skip
            return found.latent
        return INITS[settings.init](LoopInputs(vqgan, clips, targets, settings))

    session = Session(settings, place, vqgan, clips, targets, begin, tuple(notes), hashes, networks=networks)
    return session
