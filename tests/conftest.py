"""Fixtures that more than one test file uses."""

import pytest


class Networks:
    """The fakes that stand in for the networks, and the names that were asked for."""

    def __init__(self) -> None:
        from .fakes import FakeClip, FakeVqgan  # heavy: only the tests that use this load torch

        self.vqgan, self.clip = FakeVqgan(), FakeClip()
        self.loaded: list[str] = []

    def load_vqgan(self, name, device):
        self.loaded.append(name)
        return self.vqgan

    def load_clip(self, name, device):
        self.loaded.append(name)
        return self.clip


def stand_in(patch):
    """Let the pipeline load fakes; every known name gives the same two."""
    import vqclip.models.cards
    import vqclip.session

    fakes = Networks()
    patch.setattr(vqclip.session, "load_vqgan", fakes.load_vqgan)
    patch.setattr(vqclip.session, "load_clip", fakes.load_clip)
    patch.setattr(vqclip.models.cards.Card, "sha256", lambda card: "0123456789abcdef" * 4)
    return fakes


@pytest.fixture
def networks(monkeypatch):
    """Let the pipeline load fakes."""
    return stand_in(monkeypatch)
