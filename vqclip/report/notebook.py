"""In a notebook: a bar, and below it the image as it grows. `vqclip.generate("an owl", progress=Show())`."""

import warnings
from typing import TYPE_CHECKING, Any

from ..runs.progress import Progress

if TYPE_CHECKING:
    from ..core.loop import Step
    from ..runs.run_dir import RunDir
    from ..runs.session import Session, Start


class Show(Progress):
    """Shows a run, or the candidates of a sample, in the cell that makes it: each thing once, in its own place.

    every: steps between two images; an image takes about as long as a tenth of a step.
    """

    def __init__(self, every: int = 5) -> None:
        self._every = max(1, every)
        self._session: Session | None = None
        self._bar: Any = None  # of tqdm
        self._image: Any = None  # a DisplayHandle

    def start(self, session: "Session", run: "RunDir | None") -> None:
        """Print what vqclip has to say of the settings."""
        self._close()
        self._session, self._image = session, None
        for note in session.notes:
            print(note)  # noqa: T201

    def candidates(self, done: int, total: int) -> None:
        """Show how many codes of the candidates are drawn."""
        self._at(done, total, "candidates", "code")

    def started(self, start: "Start") -> None:
        """Begin the bar of the steps. What is said of the start is left out: it stands in the run's record."""
        self._close()

    def step(self, step: "Step") -> None:
        """Show a step."""
        assert self._session is not None
        total = self._session.settings.steps
        self._at(step.step, total, "steps", "step", **{"prompt loss": f"{float(step.losses['prompt'].mean()):.3f}"})
        if step.step % self._every == 0 or step.step == total:
            self._show(self._session.picture(step.latent, step.step))

    def _at(self, done: int, total: int, what: str, unit: str, **shown: str) -> None:
        if self._bar is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that widgets are missing: the bar is text then
                from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc=what, unit=unit, initial=done, leave=False)
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close()

    def _show(self, image: Any) -> None:
        from IPython.display import display

        if self._image is None:
            self._image = display(image, display_id=True)
        else:
            self._image.update(image)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
