"""--preview: the image in the terminal while it is drawn, below the bar; it takes at most 2% of the time. --open."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..config.layers import read_display
from ..errors import InputError, UsageError
from ..files.images import load_image
from ..runs.progress import Progress
from ..text import brief

if TYPE_CHECKING:
    from PIL import Image

    from ..core.loop import Step
    from ..runs.run_dir import RunDir
    from ..runs.session import Session

SHARE = 0.02  # of the time since the beginning
MOST_ROWS = 24
LEFT_FREE = 4  # lines of the terminal: the bar, and what stands above it


class Preview(Progress):
    """Shows the image below the bar. It is entered before what draws the bar, and the first to hear of anything."""

    def __init__(self, protocol: str) -> None:
        """protocol: a name in PROTOCOLS of terminal_image; "" shows nothing."""
        self._protocol, self._began = protocol, time.monotonic()
        self._spent = self._cost = 0.0  # seconds: in all, for the last one
        self._session: Session | None = None
        self._run: Path | None = None
        self._last: Image.Image | None = None
        self._shown = self._stands = False  # whether an image was shown, and whether it is on the screen

    @classmethod
    def chosen(cls, flag: bool, *, config: Path | None, quiet: bool) -> Self:
        """Return the preview that the option, a file, the environment or the folder asks for.

        Only a terminal gets one. Raises UsageError, InputError.
        """
        said = read_display("preview", config=config, environ=os.environ, folder=Path())
        if not flag and said in ("", "0"):
            return cls("")
        from .terminal_image import PROTOCOLS

        if said not in ("", "0", "1", *PROTOCOLS):
            raise UsageError(f"preview: {brief(said)} is unknown", f"use 1, 0 or {', '.join(PROTOCOLS)}", "preview")
        if quiet or not sys.stderr.isatty():
            return cls("")
        return cls(said if said in PROTOCOLS else _protocol(os.environ))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._shown:
            self._erase()
            if not isinstance(error, Exception):
                if self._run:
                    with contextlib.suppress(InputError):  # none was written
                        self._last = load_image(self._run / "final.png")
                if self._last:
                    self._write(self._last, stay=True)

    def start(self, session: "Session", run: "RunDir | None") -> None:
        """Remember what decodes, and where the result will be."""
        self._session, self._run = session, run.path if run else None

    def started(self, start: object) -> None:
        """Show nothing yet: there is no bar."""

    def note(self, text: str) -> None:
        """Make room for a message; the next image stands below it."""
        self._erase()

    def step(self, step: "Step") -> None:
        """Show a step, if there is time for it."""
        if session := self._session:
            self._show(lambda: session.picture(step.latent, step.step))

    def image(self, image: "Image.Image") -> None:
        """Show an image, if there is time for it; the last of them stays where there is no final one."""
        self._last = image
        self._show(lambda: image)

    def _show(self, make: "Callable[[], Image.Image]") -> None:
        now = time.monotonic()
        if not self._protocol or self._spent + 2 * self._cost > SHARE * (now - self._began):  # this one, and the end's
            return
        self._write(make())
        self._cost = time.monotonic() - now
        self._spent += self._cost

    def _write(self, image: "Image.Image", *, stay: bool = False) -> None:
        """Draw an image below the line of the cursor, which then returns; stay: the cursor goes on below the image."""
        from .terminal_image import PROTOCOLS, fit_cells

        try:
            columns, lines = os.get_terminal_size(sys.stderr.fileno())
        except (OSError, ValueError):
            return
        room, cell = min(MOST_ROWS, lines - LEFT_FREE), _cell()
        if room < 2 or columns < 4:
            return
        columns, rows = fit_cells(image, columns - 1, room, cell)
        drawn = PROTOCOLS[self._protocol](image, columns, rows, cell)
        # Lines for it first, so that nothing scrolls while it is drawn.
        text = "\n" * (rows + 1) + f"\x1b[{rows}A\r\x1b[J\x1b7" + drawn + "\x1b8"
        text = text.removeprefix("\n") if stay else text
        text += f"\x1b[{rows}B\r" if stay else "\x1b[A\r"
        self._put(text)
        self._shown = self._stands = True

    def _erase(self) -> None:
        if self._stands:
            from .terminal_image import forget

            self._put(forget(self._protocol) + "\x1b[J")
            self._stands = False

    def _put(self, text: str) -> None:
        with contextlib.suppress(OSError, UnicodeEncodeError):  # the terminal was closed
            sys.stderr.write(text)
            sys.stderr.flush()


def browser(show: bool) -> contextlib.AbstractContextManager[Progress]:
    """Return a context with what shows a run in the browser (--open), or shows nothing."""
    if not show:
        return contextlib.nullcontext(Progress())
    from ..report.watch import BrowserView

    return BrowserView().closing()


def _protocol(environ: Mapping[str, str]) -> str:
    from .terminal_image import protocol_of

    protocol = protocol_of(environ)
    true_colour = environ.get("COLORTERM", "") in ("truecolor", "24bit") or "WT_SESSION" in environ
    return "blocks-256" if protocol == "blocks" and not true_colour else protocol


def _cell() -> tuple[int, int]:
    """Return the pixels of a character; a usual number where the terminal does not say."""
    from .terminal_image import CELL

    try:
        import fcntl
        import struct
        import termios

        packed = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, bytes(8))
        rows, columns, width, height = struct.unpack("HHHH", packed)
        return (width // columns, height // rows) if width and height and rows and columns else CELL
    except (ImportError, OSError, ValueError):
        return CELL
