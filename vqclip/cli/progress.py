"""Talk on stderr: a bar on a terminal, a plain line now and then elsewhere; Ctrl-C ends a run in good order."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..files.atomic import refused
from ..runs.progress import Progress
from ..text import pasted

if TYPE_CHECKING:
    from ..core.loop import Step
    from ..runs.run_dir import RunDir
    from ..runs.session import Session, Start

PLAIN_EVERY_S = 10.0
SAME_KEY_S = 0.05  # a key that bounces, or a signal to the group and to the process, counts once
MOMENT_S = 2.0


def say(text: str, to: str = "stderr") -> None:
    """Print one line to stderr (or stdout), without what a terminal would obey."""
    put("".join(c for c in text if c.isprintable()), to)


def put(text: str, to: str = "stdout") -> None:
    """Print text as it is. A reader that has gone, as in `| head`, or a terminal that was closed ends no run."""
    stream = getattr(sys, to)
    try:
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:  # a terminal that knows fewer letters
            print(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding), file=stream, flush=True)
    except OSError as error:
        if to == "stdout" and not isinstance(error, BrokenPipeError):
            raise refused(Path("stdout"), error) from error
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def typed(path: Path | None) -> str:
    """Return a path as one can paste it into a shell, whatever its name: never an option, nothing unprintable."""
    text = str(path)
    return pasted(f"./{text}" if text.startswith("-") else text)


def open_bar(unit: str, total: int | None, **options: Any) -> Any:
    """Return a bar on stderr, as wide as the terminal; total: None if unknown."""
    from tqdm import tqdm  # not loaded for commands that show none

    return tqdm(total=total, unit=unit, dynamic_ncols=True, file=sys.stderr, **options)


def beside_bars() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a line can be printed without tearing the bars on stderr."""
    from tqdm import tqdm

    return tqdm.external_write_mode(file=sys.stderr)


def loading(*, quiet: bool) -> None:
    """Say on a terminal that libraries and models are being loaded; what is said next takes the line's place."""
    if not quiet and sys.stderr.isatty():
        with contextlib.suppress(OSError):
            sys.stderr.write("loading ...\r")
            sys.stderr.flush()


def used(session: "Session") -> str:
    """Return the line that says what a run computes with, and how to change it."""
    settings = session.settings
    models = f"VQGAN {settings.vqgan}, CLIP {' + '.join(settings.clips)} in {settings.precision} on {session.device}"
    return f"{models} (--preset, --vqgan, --clip, --precision, --device change that)"


class Stoppable:
    """Ends work in good order: the first Ctrl-C, SIGTERM or SIGHUP after the work at hand, a second one at once."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.at_hand = "loading"  # what is not interrupted by the first signal
        self.stopped_by = 0
        self._stopped_at = 0.0
        self._bar: Any = None
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        loading(quiet=self.quiet)
        for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._old[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.stopped_by and now - self._stopped_at < SAME_KEY_S:
            return
        if self.stopped_by:
            sys.exit(128 + number)
        self.stopped_by, self._stopped_at = number, now
        if not self.quiet:  # not by print: it may be a print that the signal interrupts
            below = b"\n" * os.isatty(2)  # a bar, and the terminal's ^C
            with contextlib.suppress(OSError):
                os.write(2, below + f"stopping after {self.at_hand}; once more to stop at once\n".encode())


class Reporter(Stoppable, Progress):
    """Shows how far a run, or the candidates of a sample, are; a signal stops it in good order."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.steps = 0  # made by this process
        self._session: Session | None = None
        self._run: Path | None = None
        self._spoke = time.monotonic()
        self._codes: Counting | None = None  # while candidates are drawn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._codes:
            self._codes.close()
            if isinstance(error, SystemExit | KeyboardInterrupt):
                self.say_how_to_go_on()
        super().__exit__(kind, error, trace)

    @property
    def stopped(self) -> bool:
        """Whether a signal has come."""
        return bool(self.stopped_by)

    def start(self, session: "Session", run: "RunDir | None") -> None:
        """Say what the run computes with."""
        self._session, self._run = session, run.path if run else None
        settings = session.settings
        width, height = settings.size
        steps = f"{settings.steps} step{'s' * (settings.steps != 1)}"
        for line in (used(session), *session.notes, f"{width}x{height}, {steps}, seed {settings.seed}"):
            self.note(line)

    def candidates(self, done: int, total: int) -> None:
        """Show how many codes of the candidates are drawn."""
        self.at_hand = "this code of the candidates"
        self._codes = self._codes or Counting("code", quiet=self.quiet)
        self._codes.at(done, total)
        if done == total:
            self._codes.close()
            self._codes = None

    def say_how_to_go_on(self) -> None:
        """Say how a run goes on that ended before its first step."""
        if self._run and self._session:
            kept = "candidates that are whole are kept; " if self._session.settings.drawn() else ""
            self.note(f"{kept}go on with: vqclip resume {typed(self._run)}")

    def started(self, start: "Start") -> None:
        """Begin the bar of the steps."""
        super().started(start)
        self.at_hand = "this step"
        if sys.stderr.isatty() and not self.quiet and self._session:
            total = self._session.settings.steps
            self._bar = open_bar("step", total)

    def note(self, text: str) -> None:
        """Say it."""
        if not self.quiet:
            say(text)

    def step(self, step: "Step") -> None:
        """Show one step."""
        assert self._session is not None
        settings = self._session.settings
        self.steps += 1
        distance = float(step.losses["prompt"].mean())
        if self._bar is not None:
            weights = settings.loss_weights()
            loss = sum(weights.get(name, 1.0) * float(value.mean()) for name, value in step.losses.items())
            with contextlib.suppress(OSError):  # the terminal was closed
                self._bar.update(step.step - self._bar.n)
                self._bar.set_postfix(loss=f"{loss:.3f}", distance=f"{distance:.3f}")
        elif not self.quiet and time.monotonic() - self._spoke > PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            say(f"step {step.step} of {settings.steps}, distance {distance:.3f}")


class Counting:
    """Shows how far some work is, once it takes longer than a moment; a signal ends it in good order.

    SIGTERM and SIGHUP become an exit that passes through the code, as Ctrl-C does, so that nothing half is left.
    """

    def __init__(self, unit: str, *, quiet: bool = False) -> None:
        self.unit, self.quiet = unit, quiet
        self._bar: Any = None
        self._began = self._spoke = time.monotonic()
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Counting":
        for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, lambda number, frame: sys.exit(128 + number))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            with contextlib.suppress(OSError):  # the terminal was closed
                self._bar.close()

    def at(self, done: int, total: int) -> None:
        """Update the bar. total: 0 if it is unknown. A smaller `done` than before starts a new bar."""
        now = time.monotonic()
        if self.quiet or now - self._began < MOMENT_S:
            return
        if sys.stderr.isatty():
            if self._bar is not None and done < self._bar.n:
                self.close()
                self._bar = None
            if self._bar is None:  # a bar of unknown length has no truth
                self._bar = open_bar(self.unit, total or None, initial=done)
            elif total and self._bar.total != total:
                self._bar.total = total
            with contextlib.suppress(OSError):  # the terminal was closed
                self._bar.update(done - self._bar.n)
        elif now - self._spoke > PLAIN_EVERY_S:
            self._spoke = now
            say(f"{self.unit} {done} of {total}" if total else f"{self.unit} {done}")
