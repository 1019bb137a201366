"""Output on stderr: messages and progress bars."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..files.atomic import refused
from ..runs.progress import Progress
from ..text import pasted, plural, without_secrets
from .signals import LOADING, WIPE, Stoppable

if TYPE_CHECKING:
    from ..core.loop import Step
    from ..runs.run_dir import RunDir
    from ..runs.session import Session, Start

PLAIN_EVERY_S = 10.0
MOMENT_S = 2.0
UNSEEN = 0.01  # of a distance: shifts of ten images by a pixel or two changed it by 0.0023 in the mean, 0.0114 at most
_loading: set[str] = set()  # what stands on the terminal's last line, and must be wiped


def say(text: str, to: str = "stderr") -> None:
    """Print one line to stderr (or stdout), without control characters; on stderr without secrets."""
    text = without_secrets(text) if to == "stderr" else text
    put("".join(c for c in text if c.isprintable()), to)


def put(text: str, to: str = "stdout") -> None:
    """Print text unchanged. If the reader has gone (`| head`) or the terminal was closed, the run goes on."""
    stream = getattr(sys, to)
    wipe()
    try:
        with _beside_bars():
            try:
                print(text, file=stream, flush=True)
            except UnicodeEncodeError:  # a terminal with a smaller character set
                print(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding), file=stream, flush=True)
    except OSError as error:
        if to == "stdout" and not isinstance(error, BrokenPipeError):
            raise refused(Path("stdout"), error) from error
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _beside_bars() -> contextlib.AbstractContextManager[None]:
    """Return a context in which no bar stands on the terminal's last line."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode() if tqdm else contextlib.nullcontext()


def typed(path: Path | None) -> str:
    """Return a path as one can paste it into a shell, whatever its name: never an option, nothing unprintable."""
    text = str(path)
    return pasted(f"./{text}" if text.startswith("-") else text)


def say_all(texts: Iterable[str], *, quiet: bool) -> None:
    """Print lines to stderr, unless quiet."""
    for text in () if quiet else texts:
        say(text)


def loading(*, quiet: bool) -> None:
    """Show on a terminal that libraries and models are being loaded; it is wiped before anything else is shown."""
    if not quiet and sys.stderr.isatty():
        _show_now(f"{LOADING} ...\r")
        _loading.add(LOADING)


def wipe() -> None:
    """Take away that something is being loaded, if that is what the terminal shows."""
    if _loading:
        _loading.clear()
        _show_now(WIPE)


def _show_now(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal was closed
        sys.stderr.write(text)
        sys.stderr.flush()


def used(session: "Session") -> str:
    """Return the line that says what a run computes with, and how to change it."""
    settings = session.settings
    models = f"VQGAN {settings.vqgan}, CLIP {' + '.join(settings.clips)} in {settings.precision} on {session.device}"
    return f"{models} (--preset, --vqgan, --clip, --precision, --device change that)"


class Bar:
    """Shows how far some work is: a bar on a terminal, a plain line now and then elsewhere, nothing if quiet.

    If the terminal is closed, the work goes on. unit: what is counted. delay: seconds before anything is shown. line:
    what a plain line says of (done, total), total being 0 if it is unknown. options: more of tqdm's.
    """

    def __init__(
        self,
        unit: str,
        *,
        quiet: bool = False,
        delay: float = 0.0,
        line: Callable[[float, float], str] | None = None,
        **options: Any,
    ) -> None:
        self._unit, self._quiet, self._line, self._options = unit, quiet, line or self._count, options
        self._bar: Any = None  # of tqdm
        self._spoke = time.monotonic()
        self._silent_until = self._spoke + delay

    def at(self, done: float, total: float, **shown: str) -> None:
        """Show that so much is done of a total, 0 if that is unknown, and what else is known.

        A smaller `done` or another total than before begins a new bar.
        """
        now = time.monotonic()
        if self._quiet or now < self._silent_until:
            return
        if sys.stderr.isatty():
            with contextlib.suppress(OSError):  # the terminal was closed
                self._update(done, total or None, shown)
        elif done and now - self._spoke > PLAIN_EVERY_S:
            self._spoke = now
            say(self._line(done, total) + "".join(f", {name} {value}" for name, value in shown.items()))

    def _update(self, done: float, total: float | None, shown: dict[str, str]) -> None:
        done = round(done, 2)
        if self._bar is not None and (done < self._bar.n or self._bar.total not in (None, total)):
            self.close()
        if self._bar is None:
            wipe()
            from tqdm import tqdm  # not loaded for commands that show no bar

            self._bar = tqdm(
                total=total, unit=self._unit, initial=done, dynamic_ncols=True, file=sys.stderr, **self._options
            )
        self._bar.total = total
        if shown:
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def _count(self, done: float, total: float) -> str:
        return f"{self._unit} {done} of {total}" if total else f"{self._unit} {done}"

    def leave_out(self, done: float, *, time_too: bool = False) -> None:
        """Exclude what was done before from the rate. time_too: also the time until now."""
        if self._bar is not None:
            self._bar.initial = done
            if time_too:
                self._bar.unpause()

    def close(self) -> None:
        """End the bar; the next one begins on a line of its own."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
        self._bar = None


@contextlib.contextmanager
def progress_bar(unit: str, *, quiet: bool = False, delay: float | None = None, **options: Any) -> Iterator[Bar]:
    """Return a context with a bar for work that takes longer than a moment, and that a signal ends at once."""
    bar = Bar(unit, quiet=quiet, delay=MOMENT_S if delay is None else delay, **options)
    with Stoppable(quiet=quiet), contextlib.closing(bar):
        yield bar


class Reporter(Stoppable, Progress):
    """Shows how far a run, or the candidates of a sample, are; a signal stops it in good order."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet, at_hand=LOADING)
        self.steps = 0  # made by this process
        self._session: Session | None = None
        self._run: Path | None = None
        self._codes: Bar | None = None  # while candidates are drawn
        self._begun: Start | None = None
        self._said: list[str] = []  # of earlier images of the same call
        self._steps = Bar("step", quiet=quiet)

    def __enter__(self) -> Self:
        loading(quiet=self.quiet)
        return super().__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._steps.close()
        if self._codes:
            self._codes.close()
            if isinstance(error, SystemExit | KeyboardInterrupt):
                self.say_how_to_go_on()
        super().__exit__(kind, error, trace)

    def start(self, session: "Session", run: "RunDir | None") -> None:
        """Say what the run computes with."""
        self._session, self._run = session, run.path if run else None
        settings = session.settings
        width, height = settings.size
        steps = plural(settings.steps, "step")
        size, factor = f"{width}x{height}", settings.upscale
        size += f", enlarged to {width * factor}x{height * factor} in the end" if factor else ""
        lines = [used(session), *session.notes]
        for line in (*(line for line in lines if line not in self._said), f"{size}, {steps}, seed {settings.seed}"):
            self.note(line)
        self._said += lines

    def candidates(self, done: int, total: int) -> None:
        """Show how many codes of the candidates are drawn."""
        self.at_hand = "this code of the candidates"
        line = "candidates: code {:.0f} of {:.0f}".format
        self._codes = self._codes or Bar("code", quiet=self.quiet, delay=MOMENT_S, line=line, desc="candidates")
        self._codes.at(done, total)
        if done == total:
            self._codes.close()
            self._codes = None

    def compared(self, distance: float) -> str:
        """Return the line that compares the final image with the start, seen alike; "" without a step.

        A drawn candidate is near from the start: a difference that nobody sees would read as harm.
        """
        if self._session is None or self._begun is None or not self.steps:
            return ""
        from ..runs.candidates import distance_of

        first = distance_of(self._session, self._session.picture(self._begun.z, 0))
        near = self._session.settings.starts_from_candidates() and abs(first - distance) < UNSEEN
        now = f"{distance:.3f}" if near else f"{first:.3f} at the start, {distance:.3f} now"
        return f"distance of the whole image to the prompt: {now}"

    def say_how_to_go_on(self) -> None:
        """Say how to resume a run that ended before its first step."""
        if self._run and self._session:
            kept = "candidates that are whole are kept; " if self._session.settings.starts_from_candidates() else ""
            self.note(f"{kept}go on with: vqclip resume {typed(self._run)}")
        elif not self._run:
            self.note("nothing was begun; the same command begins again")

    def started(self, start: "Start") -> None:
        """Begin the bar of the steps."""
        super().started(start)
        self._begun = start
        self.at_hand = "this step"
        if self._session:
            self._steps.at(0, self._session.settings.steps)

    def note(self, text: str) -> None:
        """Print a message."""
        if not self.quiet:
            say(text)

    def step(self, step: "Step") -> None:
        """Show one step."""
        assert self._session is not None
        settings = self._session.settings
        self.steps += 1
        if self.steps == 1:
            self._steps.leave_out(step.step - 1)
        weights = settings.at((step.step - 1) / settings.steps).loss_weights()
        loss = sum(weights.get(name, 0.0) * float(value.mean()) for name, value in step.losses.items())
        prompts = float(step.losses["prompt"].mean())  # of this step's cutouts
        self._steps.at(step.step, settings.steps, **{"loss": f"{loss:.3f}", "prompt loss": f"{prompts:.3f}"})
