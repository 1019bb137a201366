"""What a run leaves behind: frames and metrics as it goes, the final picture and its record at the end."""

import errno
import secrets
import time
from pathlib import Path

from .errors import OutputError, OutputExists
from .optimize import Step
from .outputs import published, to_png, writer_for
from .paths import expand
from .rundir import RunDir, refused, slugify, write_atomic
from .session import Session


class Recording:
    """Writes one run's files; a run without a folder and without a target leaves nothing."""

    def __init__(
        self,
        session: Session,
        *,
        runs: Path | None,
        target: Path | None,
        overwrite: bool,
        metadata: bool,
        frames_every: int,
    ) -> None:
        """Make the run directory below `runs` and write its run.json. Raises OutputError."""
        self.session, self.target, self.overwrite = session, target, overwrite
        self.metadata, self.frames_every = metadata, frames_every
        self.record = session.record()
        self.run = RunDir.create(runs, f"{slugify(session.title())}-{session.settings.seed}") if runs else None
        self.last = Step(0, session.z, {}, 0.0)
        self.final: Path | None = None
        self._began = self._then = time.monotonic()
        if self.run:
            self.run.write_json(self.record | {"status": "running", "steps_done": 0})

    def start(self) -> None:
        """Write the first frame, and begin to count the seconds."""
        if self.run and self.frames_every:
            self.run.write_frame(0, self._png(self.last))
        self._began = self._then = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the first step began."""
        return self._then - self._began

    def step(self, step: Step) -> None:
        """Take in one step: a line of metrics, and a frame when its turn has come."""
        now = time.monotonic()
        self.last = step
        if self.run:
            losses = {name: round(float(value.mean()), 6) for name, value in step.losses.items()}
            took = round(now - self._then, 4)
            self.run.add_metrics({"step": step.step, **losses, "changed": round(step.changed, 6), "seconds": took})
            if self.frames_every and step.step % self.frames_every == 0:
                self.run.write_frame(step.step, self._png(step))
        self._then = now

    def finish(self, status: str) -> None:
        """Write the picture of the last step and close the record.

        Of a failed run the picture so far stays in its folder, if a step was made; `-o` is left alone.
        """
        try:
            if status != "failed" or self.last.step:
                self._write_final(with_target=status != "failed")
        except BaseException:
            status = "failed"
            raise
        finally:
            if self.run:
                self.run.close()
                done = {"status": status, "steps_done": self.last.step, "seconds": round(self.seconds, 2)}
                self.run.write_json(self.record | done)

    def _write_final(self, *, with_target: bool) -> None:
        picture, about = self.session.picture(self.last.latent), self._about(self.last)
        if self.run:
            png = to_png(picture, about)
            if self.frames_every and self.last.step % self.frames_every:
                self.run.write_frame(self.last.step, png)
            self.final = self.run.write_final(png)
        if self.target and with_target:
            write_atomic(self.target, writer_for(self.target)(picture, about), replace=self.overwrite)

    def _png(self, step: Step) -> bytes:
        return to_png(self.session.picture(step.latent), self._about(step))

    def _about(self, step: Step) -> dict | None:
        return published(self.record) | {"step": step.step} if self.metadata else None


def check_runs(runs: Path) -> None:
    """Refuse a place for run directories that can't be written, before any work is done. Raises OutputError."""
    place = runs
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        probe = place / f".{secrets.token_hex(4)}.part"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise refused(runs, error) from error


def check_target(out: str | Path | None, overwrite: bool) -> Path | None:
    """Refuse an output file that can't be written, before any work is done.

    Raises UsageError (unknown ending), OutputExists, OutputError.
    """
    if out is None:
        return None
    path = expand(out)
    writer_for(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder", "give a file name, e.g. -o picture.png")
        if path.exists() and not overwrite:
            raise OutputExists(f"{path} exists already", "give another name, or --overwrite")
        probe = path.parent / f".{secrets.token_hex(4)}.part"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise OutputError(f"the folder {path.parent} does not exist", "make it first") from None
        raise refused(path, error) from error
    return path
