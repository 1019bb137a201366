"""Progress of a run: the interface that the command line's bar, live video and the profile implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from ..core.loop import Step
    from .run_dir import RunDir
    from .session import Session, Start


class Progress:
    """Is told how far a run is. This class shows nothing; subclasses override what they show.

    Once `stopped` is true, the run ends in good order after the current step, or code of a candidate.
    """

    @property
    def stopped(self) -> bool:
        """Whether the run should end."""
        return False

    def start(self, session: Session, run: RunDir | None) -> None:
        """Show that models are loaded and the run directory exists; `session.notes` has remarks for the user."""

    def opened(self, folder: Path) -> None:
        """Show that a sample has a folder, which begins to fill."""

    def candidates(self, done: int, total: int) -> None:
        """Show how many codes of the candidates are drawn, of how many."""

    def image(self, image: Image.Image) -> None:
        """Show an image that is there in any case: a sample's candidates so far, a frame of an animation."""

    def started(self, start: Start) -> None:
        """Show that the start is chosen and that the first step comes next."""
        for note in start.notes:
            self.note(note)

    def note(self, text: str) -> None:
        """Show a remark: on the start, or that vqclip did something else than requested."""

    def step(self, step: Step) -> None:
        """Show a step, after it was recorded."""


class Callbacks(Progress):
    """Calls functions. on_step and on_code may return True, which ends the run there."""

    def __init__(
        self,
        on_step: Callable[[Step], bool | None] | None = None,
        on_start: Callable[[Session, RunDir | None], None] | None = None,
        on_code: Callable[[int, int], bool | None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self._on_step, self._on_start, self._on_code, self._on_note = on_step, on_start, on_code, on_note
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether a function has returned True."""
        return self._stopped

    def start(self, session: Session, run: RunDir | None) -> None:
        """Call on_start."""
        if self._on_start:
            self._on_start(session, run)

    def note(self, text: str) -> None:
        """Call on_note."""
        if self._on_note:
            self._on_note(text)

    def candidates(self, done: int, total: int) -> None:
        """Call on_code."""
        if self._on_code and self._on_code(done, total):
            self._stopped = True

    def step(self, step: Step) -> None:
        """Call on_step."""
        if self._on_step and self._on_step(step):
            self._stopped = True


def _passed_on(name: str) -> Any:
    """Return a method of Observers that calls that of each part."""

    def call(self: Observers, *given: Any) -> None:
        for part in self.parts:
            getattr(part, name)(*given)

    return call


class Observers(Progress):
    """Passes everything on to several others, in their order."""

    def __init__(self, *parts: Progress) -> None:
        self.parts = parts

    @property
    def stopped(self) -> bool:
        """Whether any of them is stopped."""
        return any(part.stopped for part in self.parts)

    start, opened, candidates, image, started, note, step = map(
        _passed_on, ("start", "opened", "candidates", "image", "started", "note", "step")
    )
