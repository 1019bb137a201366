"""A run's losses and images for tools that track experiments: TensorBoard, Weights & Biases. They never end a run."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from ..errors import UsageError
from ..files.metadata import published
from ..files.paths import expand
from ..runs.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

    from ..core.loop import Step
    from ..runs.run_dir import RunDir
    from ..runs.session import Session

IMAGES = 10  # of a run


class Tracker(Protocol):
    """Takes what a run yields."""

    def log(self, step: int, values: dict[str, float], image: "Image.Image | None") -> None:
        """Take the losses of a step, and now and then its image."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Writes event files: `tensorboard --logdir DIR` shows them."""

    def __init__(self, where: str, run: Path, settings: dict[str, Any], *, quiet: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(expand(where) / run.name if where else run / "tensorboard"))
        self._writer.add_text("settings", "\n".join(f"    {name} = {value}" for name, value in settings.items()))

    def log(self, step: int, values: dict[str, float], image: "Image.Image | None") -> None:
        """Take the losses of a step, and now and then its image."""
        import numpy as np

        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if image:
            self._writer.add_image("image", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Wandb:
    """Sends them to Weights & Biases, or keeps them where its own variables say so (WANDB_MODE=offline).

    Not what it collects unasked: the command line, the folders and packages of this machine, what is printed.
    """

    def __init__(self, where: str, run: Path, settings: dict[str, Any], *, quiet: bool) -> None:
        import wandb

        self._wandb = wandb
        sent = wandb.Settings(console="off", silent=quiet, x_disable_meta=True, x_save_requirements=False)
        self._run = wandb.init(project=where or "vqclip", name=run.name, dir=str(run), config=settings, settings=sent)

    def log(self, step: int, values: dict[str, float], image: "Image.Image | None") -> None:
        """Take the losses of a step, and now and then its image."""
        self._run.log(values | ({"image": self._wandb.Image(image)} if image else {}), step=step)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


class Report(Progress):
    """Passes a run on to a tracker. What goes wrong there is said once, and the run goes on without it."""

    def __init__(self, text: str, *, quiet: bool = False) -> None:
        """Read NAME or NAME:WHERE. Raises UsageError for an unknown one, or one that is not installed."""
        self._quiet = quiet
        self.name, _, self._where = text.partition(":")
        if self.name not in TRACKERS:
            raise UsageError(f"report: {self.name!r} is unknown", f"use {', '.join(TRACKERS)}")
        if importlib.util.find_spec(self.name) is None:
            raise UsageError(f"report: {self.name} is not installed", f"pip install 'vqclip[{self.name}]'")
        self._tracker: Tracker | None = None
        self._session: Session | None = None
        self.fault = ""

    def start(self, session: "Session", run: "RunDir | None") -> None:
        """Begin."""
        if run:
            with self._caught():
                record = published({"settings": session.settings.model_dump(mode="json")})  # no paths of files
                self._tracker = TRACKERS[self.name](self._where, run.path, record["settings"], quiet=self._quiet)
        self._session = session

    def step(self, step: "Step") -> None:
        """Pass a step on."""
        if not self._tracker or not self._session:
            return
        with self._caught():
            every = max(1, self._session.settings.steps // IMAGES)
            image = self._session.picture(step.latent, step.step) if step.step % every == 0 else None
            values = {name: float(value.mean()) for name, value in step.losses.items()}
            self._tracker.log(step.step, values | {"changed": step.changed}, image)

    @contextlib.contextmanager
    def closing(self) -> Iterator[Self]:
        """Return a context that ends it."""
        try:
            yield self
        finally:
            with self._caught():
                if self._tracker:
                    self._tracker.close()

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever another's library raises
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.strerror else error
            self.fault, self._tracker = f"nothing more goes to {self.name}: {why}", None


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb}
