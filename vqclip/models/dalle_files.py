"""Mini DALL-Es into the store; loads no torch before there is one to install."""

from pathlib import Path
from typing import Any

from . import store
from .cards import Card, card


def pull(wanted: Card, talk: Any) -> None:
    """Download one of the catalogue; `talk` is install.Talk. Raises ModelError, IntegrityError, OutputError."""
    from .dalle import adopt

    adopt.pull(wanted, talk.fetch)


def import_folder(target: Card, folder: Path) -> Card:
    """Install a Mini DALL-E from a folder. Raises ModelError, IntegrityError, OutputError."""
    from .dalle import adopt

    with store.lock(target.kind, target.name):
        adopt.install(target, folder)
    return card(target.kind, target.name)
