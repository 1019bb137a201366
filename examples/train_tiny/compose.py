"""Compose captioned scenes from cut-out pictures: object, colour, place and background vary.

A scene is one picture (now and then two, or none) over a flat, graded or noisy background. The caption
names what is there, sometimes with its colour, a tag, or the background, so that a model
trained on scenes learns objects, colours and simple compositions apart from each other.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from colours import COLOURS, HUES, SHADES, recolour
from torch import Tensor

TEMPLATES = ("{}", "{}", "{a}", "{a}", "{a}", "{a}", "a picture of {a}", "a drawing of {a}", "an icon of {a}",
             "clip art of {a}", "a cartoon {}", "an illustration of {a}")  # fmt: skip
BACKDROPS = COLOURS | SHADES


@dataclass(frozen=True)
class Scene:
    """What one composed picture shows: indices into the data set, and the words for it."""

    pictures: tuple[int, ...]
    caption: str
    wrong: str  # a caption with one attribute changed: a hard negative, or ""
    colour: str | None  # the colour to repaint the object with, if any
    background: str | None  # a colour name, or None for a graded or noisy one


def article(noun: str) -> str:
    """Put "a" or "an" before a noun, unless it looks like a plural or a phrase with its own."""
    if (noun.endswith("s") and not noun.endswith("ss")) or noun.split()[0] in {"a", "an", "the"}:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


class Scenes:
    """Draw random scenes from `DATA` as written by build_data.py; all randomness from one seed."""

    def __init__(
        self,
        data: Path,
        *,
        seed: int,
        emoji_share: float = 0.75,
        skip: float = 0.0,
        split: int = 0,
        plain_share: float = 0.0,
    ) -> None:
        """Read the data set. `skip` leaves out that share of pictures; `split` decides which.

        plain_share: of scenes that are a background and nothing else. Without them a flat blue picture is, to
        the model, a good "orange on a blue background".
        """
        self.plain_share = plain_share
        self.rng = np.random.default_rng(seed)
        self.torch_rng = torch.Generator().manual_seed(seed)
        self.pictures = np.load(data / "pictures.npy", mmap_mode="r")
        self.records = json.loads((data / "captions.json").read_text())
        dice = np.random.default_rng(split).random(len(self.records))
        kept = [i for i, r in enumerate(self.records) if not r["held_out"] and dice[i] >= skip]
        self.emoji = np.array([i for i in kept if self.records[i]["source"] != "openclipart"])
        self.clipart = np.array([i for i in kept if self.records[i]["source"] == "openclipart"])
        if not len(self.emoji) or not len(self.clipart):
            self.emoji = self.clipart = np.array(kept)
        self.emoji_share = emoji_share

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
            pool = self.emoji if rng.random() < self.emoji_share else self.clipart
            scenes.append(self.scene(int(rng.choice(pool))))
        return scenes

    def _plain(self) -> Scene:
        """Plan a background with nothing on it; the wrong caption is of another colour."""
        colour, other = (str(c) for c in self.rng.choice(list(BACKDROPS), 2, replace=False))
        caption = str(self.rng.choice(["a plain {} background", "a {} background", "plain {}", "nothing but {}"]))
        return Scene((), caption.format(colour), caption.format(other), None, colour)

    def scene(self, index: int, vary: Scene | None = None) -> Scene:
        """Plan a scene of one picture; `vary`: of the same one as there, in another colour or place."""
        rng, record = self.rng, self.records[index]
        name, old = record["name"], record.get("colour")
        colour = background = None
        if old in HUES and (rng.random() < 0.25 or (vary and rng.random() < 0.7)):
            colour = str(rng.choice([c for c in HUES if c not in (old, vary and vary.colour)]))
        bare = " ".join(w for w in name.split() if w not in COLOURS) or name
        shown = colour or old
        noun, named = (f"{colour} {bare}", True) if colour else (name, name != bare)
        if colour is None:
            roll = rng.random()
            if shown and not named and roll < 0.3:
                noun, named = f"{shown} {name}", True
            elif record["tags"] and roll < 0.42:
                noun, named = str(rng.choice(record["tags"])), True
            elif record["tags"] and roll < 0.55:
                noun = f"{name}, {rng.choice(record['tags'])}"
        kind = rng.random()
        if kind < 0.7:
            choices = [c for c in BACKDROPS if shown is None or shown not in c]
            background = "white" if kind < 0.2 and shown != "white" else str(rng.choice(choices))
        other = ()
        if rng.random() < 0.06 and vary is None and colour is None:
            second = int(rng.choice(self.emoji))
            other, noun = (second,), f"{article(name)} and {article(self.records[second]['name'])}"
        caption = str(rng.choice(TEMPLATES)).format(noun, a=article(noun)) if not other else noun
        wrong = ""
        if named and shown and shown in noun.split():
            wrong = caption.replace(shown, str(rng.choice([c for c in HUES if c != shown])), 1)
        if (
            background
            and (rng.random() < (0.75 if vary else 0.45))
            and not (background == "white" and rng.random() < 0.6)
        ):
            caption += f" on a {background} background"
            if wrong and shown in COLOURS and rng.random() < 0.5:  # bind colour to place: swap the two
                wrong = caption.replace(shown, "\0", 1).replace(background, shown, 1).replace("\0", background)
            elif wrong:
                wrong += f" on a {background} background"
            else:
                wrong = caption.replace(background, str(rng.choice([c for c in BACKDROPS if c != background])))
        return Scene((index, *other), caption, wrong if wrong != caption else "", colour, background)

    def draw(self, scenes: list[Scene], size: int, loose: float = 1.0) -> Tensor:
        """Draw scenes as float32 `[n, 3, size, size]` in 0..1; `loose`: how far size, place and light go astray."""
        gen, n = self.torch_rng, len(scenes)
        image = torch.stack([self._backdrop(scene.background, size) for scene in scenes])
        for layer in range(2):
            rows = [k for k, scene in enumerate(scenes) if len(scene.pictures) > layer]
            if not rows:
                break
            rgba = np.stack([self._cutout(scenes[k], layer) for k in rows])
            rgba = torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 255
            rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)  # premultiplied: edges blend right
            m = len(rows)
            pair = torch.tensor([len(scenes[k].pictures) > 1 for k in rows])
            scale = torch.where(pair, 0.5, 0.845 + (torch.rand(m, generator=gen) - 0.5) * 0.45 * loose)
            angle = torch.randn(m, generator=gen) * 0.12 * loose
            flip = torch.where(torch.rand(m, generator=gen) < 0.35, -1.0, 1.0)
            shift = (torch.rand(m, 2, generator=gen) - 0.5) * (1.15 - scale).clamp(0.08)[:, None] * loose
            shift[:, 0] = torch.where(pair, (-0.48 if layer == 0 else 0.48) + shift[:, 0] * 0.1, shift[:, 0])
            cos, sin = angle.cos() / scale, angle.sin() / scale
            theta = torch.stack([
                torch.stack([cos * flip, sin * flip, -(cos * shift[:, 0] + sin * shift[:, 1]) * flip], 1),
                torch.stack([-sin, cos, sin * shift[:, 0] - cos * shift[:, 1]], 1),
            ], 1)  # fmt: skip
            grid = F.affine_grid(theta, [m, 4, size, size], align_corners=False)
            small = (scale * size / rgba.shape[-1] < 0.62)[:, None, None, None]  # antialias what shrinks much
            rgba = torch.where(small, F.interpolate(F.avg_pool2d(rgba, 2), scale_factor=2, mode="bilinear"), rgba)
            rgba = F.grid_sample(rgba, grid, align_corners=False)
            image[rows] = image[rows] * (1 - rgba[:, 3:]) + rgba[:, :3]
        gain = 1 + (torch.rand(n, 1, 1, 1, generator=gen) - 0.5) * 0.2 * loose
        return (image * gain + (torch.rand(n, 1, 1, 1, generator=gen) - 0.5) * 0.08 * loose).clamp(0, 1)

    def _cutout(self, scene: Scene, layer: int) -> np.ndarray:
        rgba = np.asarray(self.pictures[scene.pictures[layer]])
        if layer == 0 and scene.colour:
            rgba = recolour(rgba, self.records[scene.pictures[0]]["colour"], scene.colour)
        return rgba

    def _backdrop(self, name: str | None, size: int) -> Tensor:
        rng, gen = self.rng, self.torch_rng
        if name is not None:
            colour = torch.tensor(BACKDROPS[name], dtype=torch.float32)
            wobble = 0.0 if name == "white" else 0.08
            return (
                (colour + (torch.rand(3, generator=gen) - 0.5) * wobble)
                .clamp(0, 1)[:, None, None]
                .expand(3, size, size)
            )
        low = 2 if rng.random() < 0.6 else int(rng.integers(3, 16))
        field = torch.rand(1, 3, low, low, generator=gen)
        return F.interpolate(field, (size, size), mode="bilinear", align_corners=True)[0]


def still(pictures: np.ndarray, size: int, background: float = 1.0) -> Tensor:
    """Draw `[n, 128, 128, 4]` uint8 pictures plainly over one grey, as `[n, 3, size, size]` in 0..1."""
    rgba = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).float() / 255
    image = rgba[:, :3] * rgba[:, 3:] + background * (1 - rgba[:, 3:])
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
