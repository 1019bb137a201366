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


@pytest.fixture(autouse=True)
def _empty_store(monkeypatch, tmp_path):
    """Keep the user's own models, catalogue and tokens out of the tests."""
    from vqclip.models import cards

    monkeypatch.setenv("VQCLIP_MODELS", str(tmp_path / "store"))
    monkeypatch.setenv("VQCLIP_CATALOGUE", str(tmp_path / "catalogue.toml"))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "VQCLIP_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    cards.catalogue.cache_clear()
    yield
    cards.catalogue.cache_clear()


@pytest.fixture
def networks(monkeypatch):
    """Let the pipeline load fakes; every known name gives the same two."""
    import vqclip.models.cards
    import vqclip.session

    fakes = Networks()
    monkeypatch.setattr(vqclip.session, "load_vqgan", fakes.load_vqgan)
    monkeypatch.setattr(vqclip.session, "load_clip", fakes.load_clip)
    monkeypatch.setattr(vqclip.models.cards.Card, "sha256", lambda card: "0123456789abcdef" * 4)
    return fakes
