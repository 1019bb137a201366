"""Progress of an animation: the interface that the command line implements."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from ..runs.run_dir import RunDir
    from ..runs.session import Session


class AnimationProgress:
    """Is told how far an animation is. This class shows nothing; subclasses override what they show."""

    def start(self, session: Session, run: RunDir, frames_done: int) -> None:
        """Show that models are loaded, and that so many frames of the run exist already."""

    def step(self, done: int, total: int) -> None:
        """Show how many steps are done, of the steps of all frames."""

    def image(self, image: Image.Image) -> None:
        """Show a frame that was drawn."""

    def frame(self, done: int, total: int) -> None:
        """Show how many frames are in the video."""
