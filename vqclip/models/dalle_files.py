"""Mini DALL-Es as files: into the store, and weighed; loads no torch before there is one to install."""

import json
import math
from pathlib import Path
from typing import Any

from . import store
from .catalogue import Card, card


def pull(wanted: Card, talk: Any) -> None:
    """Download one of the catalogue; `talk` is install.Talk. Raises ModelError, IntegrityError, OutputError."""
    from .dalle import install as adopt

    adopt.pull(wanted, talk.fetch)


def import_folder(target: Card, folder: Path) -> Card:
    """Install a Mini DALL-E from a folder. Raises ModelError, IntegrityError, OutputError."""
    from .dalle import install as adopt

    with store.lock(target.kind, target.name):
        adopt.install(target, folder)
    return card(target.kind, target.name)


def weigh(found: Card, lanes: int) -> tuple[int, int]:
    """Return the bytes that loading a Mini DALL-E takes at its peak, and that drawing `lanes` candidates then takes.

    From the shapes in its file's header. Nothing where they can't be read, of which loading says more.
    """
    try:
        with found.weights.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 10_000_000)))
        shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        floats = 4 * sum(math.prod(shape) for shape in shapes.values())
        places, width = shapes["decoder.embed_positions.weight"]
        words, _ = shapes["encoder.embed_positions.weight"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0, 0
    layers = len({name.split(".")[2] for name in shapes if name.startswith("decoder.layers.")})
    kept = 4 * 2 * layers * width * (2 * lanes * places + 2 * words)  # keys and values, with and without the text
    return floats + found.weights.stat().st_size, floats + kept
