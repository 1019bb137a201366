"""Compose captioned scenes from cut-out pictures: object, colour, place and background vary.

A scene is one picture (now and then two, or none) over a flat, graded or noisy background. The caption
names what is there, sometimes with its colour, a tag, or the background, so that a model
trained on scenes learns objects, colours and simple compositions apart from each other.
"""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from colours import COLOURS, HUES, SHADES, recolour
from names import canonical, synonyms
from torch import Tensor

TEMPLATES = ("{}", "{}", "{a}", "{a}", "{a}", "{a}", "a picture of {a}", "a drawing of {a}", "an emoji of {a}",
             "clip art of {a}", "a cartoon {}", "an illustration of {a}")  # fmt: skip
ICON_TEMPLATES = ("an icon of {a}", "{} icon", "{a} icon", "a simple icon of {a}", "{} symbol", "a pictogram of {a}")
GROUNDS = ("{} on a {} background", "{} on a {} background", "{} on a {} background", "{} on {}", "{} in front of {}",
           "{} with a {} background", "{}, {} background", "{} on {} ground")  # fmt: skip
PAIRS = ("{} and {}", "{} and {}", "{} and {}", "{} next to {}", "{} beside {}", "{} to the left of {}", "{} with {}",
         "{} on the left and {} on the right")  # fmt: skip
BACKDROPS = COLOURS | SHADES
WHITE = (1.0, 1.0, 1.0)  # the ground: paper; the colour of a white thing is a shade darker
SHARES = {"emoji": 0.7, "flag": 0.05, "icon": 0.08, "clipart": 0.17}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Scene:
    """What one composed picture shows: indices into the data set, and the words for it."""

    pictures: tuple[int, ...]
    caption: str
    wrong: str  # a caption with one attribute changed: a hard negative, or ""
    colour: str | None  # the colour to repaint the object with, if any
    background: str | None  # a colour name, or None for a graded or noisy one
    told: bool = False  # whether the caption names the background


def seldom(record: dict) -> float:
    """Return how often a picture is drawn, of 1: people of each job twice, clocks, buttons and letters fill up the list."""
    name = record["name"]
    if name.startswith(("man ", "woman ", "person ", "men ", "women ", "people ")):
        return 0.3
    if name.startswith(("letter ", "digit ", "japanese ", "input ")) or name.endswith(
        (" button", "oclock", "thirty", "arrow")
    ):
        return 0.3
    return 1.0 if len(name.split()) <= 3 or record["kind"] == "flag" else 0.6


def article(noun: str) -> str:
    """Put "a" or "an" before a noun, unless it looks like a plural or a phrase with its own."""
    if (noun.endswith("s") and not noun.endswith("ss")) or noun.split()[0] in {"a", "an", "the"}:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def swap(caption: str, old: str, new: str) -> str:
    """Put another colour in a caption, with the article that fits."""
    caption = re.sub(rf"\ban? {old}\b", article(new), caption, count=1)
    return re.sub(rf"\b{old}\b", new, caption, count=1)


class Scenes:
    """Draw random scenes from `DATA` as written by build_data.py; all randomness from one seed."""

    def __init__(
        self,
        data: Path,
        *,
        seed: int,
        shares: dict[str, float] = SHARES,
        skip: float = 0.0,
        split: int = 0,
        plain_share: float = 0.0,
        pair_share: float = 0.06,
        device: torch.device = CPU,
    ) -> None:
        """Read the data set. `skip` leaves out that share of pictures; `split` decides which.

        shares: how often a scene shows a picture of each kind. plain_share: of scenes that are a background and nothing
        else. Without them a flat blue picture is, to the model, a good "orange on a blue background". device: where
        scenes are drawn; other than the CPU's, it holds all pictures.
        """
        self.plain_share, self.pair_share, self.device = plain_share, pair_share, device
        self.rng = np.random.default_rng(seed)
        self.torch_rng = torch.Generator(device).manual_seed(seed)
        self.records = json.loads((data / "captions.json").read_text())
        for record in self.records:
            record["name"] = canonical(record["name"])
            colours = {w for w in COLOURS if record["colour"] not in (None, w)}  # no red car that is blue
            record["names"] = [
                n for n in synonyms(record["name"]) if record["kind"] == "flag" or not colours & set(n.split())
            ]
        self.pictures = np.load(data / "pictures128.npy", mmap_mode="r")
        large = np.load(data / "pictures.npy", mmap_mode="r")[: len(self.records)]
        if device.type == "cpu":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                self.small, self.large = torch.from_numpy(self.pictures), torch.from_numpy(large)
        else:
            self.small, self.large = (torch.from_numpy(np.array(part)).to(device) for part in (self.pictures, large))
        dice = np.random.default_rng(split).random(len(self.records))
        kept = [i for i, r in enumerate(self.records) if not r["held_out"] and dice[i] >= skip]
        pools = {kind: np.array([i for i in kept if self.records[i]["kind"] == kind]) for kind in shares}
        self.pools = {kind: pool for kind, pool in pools.items() if len(pool)}
        self.weights = {}
        for kind, pool in self.pools.items():
            often = np.array([seldom(self.records[i]) for i in pool])
            self.weights[kind] = often.cumsum() / often.sum()
        self.emoji = self.pools.get("emoji", np.array(kept))
        total = sum(shares[kind] for kind in self.pools)
        self.shares = [shares[kind] / total for kind in self.pools]

    def plan(self, count: int) -> list[Scene]:
        """Choose `count` scenes; about one in six repeats the object before it in another colour or place."""
        scenes: list[Scene] = []
        while len(scenes) < count:
            rng = self.rng
            if rng.random() < self.plain_share:
                scenes.append(self._plain())
                continue
            if scenes and scenes[-1].pictures and rng.random() < 0.17:
                scenes.append(self.scene(scenes[-1].pictures[0], vary=scenes[-1]))
                continue
            scenes.append(self.scene(self.pick()))
        return scenes

    def pick(self, kind: str | None = None) -> int:
        """Choose a picture, of any kind as often as `shares` says, or of one kind."""
        if kind is None:
            kind = list(self.pools)[int(np.searchsorted(np.cumsum(self.shares)[:-1], self.rng.random(), side="right"))]
        at = np.searchsorted(self.weights[kind], self.rng.random())
        return int(self.pools[kind][min(int(at), len(self.pools[kind]) - 1)])

    def noun(self, record: dict) -> str:
        """Choose what a picture is called: by its name, one of its synonyms, now and then by a tag."""
        roll = self.rng.random()
        if record["names"] and roll < 0.4:
            return str(self.rng.choice(record["names"]))
        if record["tags"] and not record["names"] and 0.4 < roll < 0.5:
            return str(self.rng.choice(record["tags"]))
        return record["name"]

    def _plain(self) -> Scene:
        """Plan a background with nothing on it; the wrong caption is of another colour."""
        colour, other = (str(c) for c in self.rng.choice(list(BACKDROPS), 2, replace=False))
        caption = str(self.rng.choice(["a plain {} background", "a {} background", "plain {}", "nothing but {}"]))
        return Scene((), caption.format(colour), caption.format(other), None, colour, True)

    def scene(self, index: int, vary: Scene | None = None) -> Scene:
        """Plan a scene of one picture; `vary`: of the same one as there, in another colour or place."""
        rng, record = self.rng, self.records[index]
        name, old = record["name"], record.get("colour")
        flag, icon = record["kind"] == "flag", record["kind"] == "icon"
        colour = background = None
        if not flag and old in HUES and (rng.random() < 0.25 or (vary and rng.random() < 0.7)):
            colour = str(rng.choice([c for c in HUES if c not in (old, vary and vary.colour)]))
        bare = " ".join(w for w in name.split() if w not in COLOURS) or name
        shown = None if flag else colour or old
        noun, named = (f"{colour} {bare}", True) if colour else (name, name != bare and not flag)
        if colour is None:
            noun = self.noun(record)
            named = not flag and any(word in COLOURS for word in noun.split())
            if shown and not named and not icon and rng.random() < 0.3:
                noun, named = f"{shown} {noun}", True
            elif record["tags"] and rng.random() < 0.1:
                noun = f"{noun}, {rng.choice(record['tags'])}"
        kind = rng.random()
        if kind < 0.7:
            choices = [c for c in BACKDROPS if shown is None or shown not in c]
            background = "white" if kind < 0.2 and shown != "white" else str(rng.choice(choices))
        if not flag and not icon and vary is None and colour is None and rng.random() < self.pair_share:
            return self._pair(index, background)
        templates = ICON_TEMPLATES if icon else ("{}", "{a}") if flag else TEMPLATES
        caption = str(rng.choice(templates)).format(noun, a=noun if flag else article(noun))
        wrong = ""
        if named and shown and shown in noun.split():
            wrong = swap(caption, shown, str(rng.choice([c for c in HUES if c != shown])))
        if (
            background
            and (rng.random() < (0.75 if vary else 0.45))
            and not (background == "white" and rng.random() < 0.6)
        ):
            ground = str(rng.choice(GROUNDS))
            told = ground.format(caption, background)
            if wrong and shown in COLOURS and rng.random() < 0.5:  # bind colour to place: swap the two
                wrong = ground.format(swap(caption, shown, background), shown)
            elif wrong:
                wrong = ground.format(wrong, background)
            else:
                wrong = ground.format(caption, str(rng.choice([c for c in BACKDROPS if c != background])))
            return Scene((index,), told, wrong if wrong != told else "", colour, background, True)
        return Scene((index,), caption, wrong if wrong != caption else "", colour, background)

    def _pair(self, index: int, background: str | None) -> Scene:
        """Plan two things side by side, the first on the left."""
        rng, second = self.rng, self.pick("emoji" if "emoji" in self.pools else None)
        nouns = [self.noun(self.records[i]) for i in (index, second)]
        for k, i in enumerate((index, second)):
            shown = self.records[i].get("colour")
            if shown and rng.random() < 0.3 and not any(w in COLOURS for w in nouns[k].split()):
                nouns[k] = f"{shown} {nouns[k]}"
        words = [article(noun) for noun in nouns]
        template = str(rng.choice(PAIRS))
        caption = template.format(*words)
        wrong = template.format(*words[::-1]) if "left" in template else ""
        told = background is not None and background != "white" and rng.random() < 0.4
        if told:
            caption = f"{caption} on a {background} background"
            wrong = wrong and f"{wrong} on a {background} background"
        return Scene((index, second), caption, wrong, None, background, told)

    def draw(
        self,
        scenes: list[Scene],
        size: int,
        loose: float = 1.0,
        light: float | None = None,
        zoom: tuple[float, float] = (0.62, 1.07),
        fine: bool = True,
    ) -> Tensor:
        """Draw scenes as float32 `[n, 3, size, size]` in 0..1.

        loose: how far place and tilt go astray, and size around the middle of `zoom`, the share of the picture's side
        that an object's canvas takes. light: how far brightness does, by default as `loose`. fine: draw at double size
        from the large pictures and halve that, so that edges are as sharp as a renderer's.
        """
        gen, n, device = self.torch_rng, len(scenes), self.device
        light = loose if light is None else light
        side = 2 * size if fine else size
        source = self.large if side >= 192 else self.small
        image = torch.stack([self._backdrop(scene.background, side) for scene in scenes])
        for layer in range(2):
            rows = [k for k, scene in enumerate(scenes) if len(scene.pictures) > layer]
            if not rows:
                break
            m = len(rows)
            rgba = source[torch.tensor([scenes[k].pictures[layer] for k in rows], device=device)]
            rgba = rgba.permute(0, 3, 1, 2).float() / 255
            if layer == 0:
                for row, scene in enumerate(scenes[k] for k in rows):
                    if scene.colour:
                        old = self.records[scene.pictures[0]]["colour"]
                        rgba[row, :3] = recolour(rgba[row, :3], old, scene.colour)
            rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)  # premultiplied: edges blend right
            pair = torch.tensor([len(scenes[k].pictures) > 1 for k in rows], device=device)
            low, high = zoom
            alone = (low + high) / 2 + (torch.rand(m, generator=gen, device=device) - 0.5) * (high - low) * loose
            scale = torch.where(pair, 0.5, alone)
            angle = torch.randn(m, generator=gen, device=device) * 0.12 * loose
            flip = torch.where(torch.rand(m, generator=gen, device=device) < self._flips(scenes, rows), -1.0, 1.0)
            shift = torch.rand(m, 2, generator=gen, device=device) - 0.5
            shift = shift * (1.15 - scale).abs().clamp(0.08)[:, None] * loose
            shift[:, 0] = torch.where(pair, (-0.48 if layer == 0 else 0.48) + shift[:, 0] * 0.1, shift[:, 0])
            cos, sin = angle.cos() / scale, angle.sin() / scale
            theta = torch.stack([
                torch.stack([cos * flip, sin * flip, -(cos * shift[:, 0] + sin * shift[:, 1]) * flip], 1),
                torch.stack([-sin, cos, sin * shift[:, 0] - cos * shift[:, 1]], 1),
            ], 1)  # fmt: skip
            grid = F.affine_grid(theta, [m, 4, side, side], align_corners=False)
            small = (scale * side / rgba.shape[-1] < 0.62).nonzero().flatten()  # antialias what shrinks much
            if len(small):
                rgba[small] = F.interpolate(F.avg_pool2d(rgba[small], 2), scale_factor=2, mode="bilinear")
            rgba = F.grid_sample(rgba, grid, align_corners=False)
            image[rows] = image[rows] * (1 - rgba[:, 3:]) + rgba[:, :3]
        if fine:
            image = F.avg_pool2d(image, 2)
        dice = torch.rand(2, n, 1, 1, 1, generator=gen, device=device) - 0.5
        return (image * (1 + dice[0] * 0.2 * light) + dice[1] * 0.08 * light).clamp(0, 1)

    def _flips(self, scenes: list[Scene], rows: list[int]) -> Tensor:
        """Return how often each scene's picture is mirrored: never a flag."""
        shares = [0.0 if self.records[scenes[k].pictures[0]]["kind"] == "flag" else 0.35 for k in rows]
        return torch.tensor(shares, device=self.device)

    def _backdrop(self, name: str | None, size: int) -> Tensor:
        rng, gen, device = self.rng, self.torch_rng, self.device
        if name is not None:
            wobble = 0.0 if name == "white" else 0.08
            colour = torch.tensor(WHITE if name == "white" else BACKDROPS[name], dtype=torch.float32, device=device)
            colour = colour + (torch.rand(3, generator=gen, device=device) - 0.5) * wobble
            return colour.clamp(0, 1)[:, None, None].expand(3, size, size)
        low = 2 if rng.random() < 0.6 else int(rng.integers(3, 16))
        field = torch.rand(1, 3, low, low, generator=gen, device=device)
        return F.interpolate(field, (size, size), mode="bilinear", align_corners=True)[0]


def still(pictures: np.ndarray, size: int, background: float = 1.0) -> Tensor:
    """Draw `[n, H, H, 4]` uint8 pictures plainly over one grey, as `[n, 3, size, size]` in 0..1."""
    rgba = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).float() / 255
    image = rgba[:, :3] * rgba[:, 3:] + background * (1 - rgba[:, 3:])
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
