"""A page on the loopback interface that shows runs while they grow. It reads, and serves nothing but their images."""

import contextlib
import hashlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote_to_bytes

from ..batch.manifest import Entry, read_manifest
from ..errors import InputError, UsageError
from ..files.paths import is_within, open_regular
from ..runs.progress import Progress
from ..runs.records import BATCH
from .page import RECORDS, Card, PageRun, find_runs, key_of, make_card, render

if TYPE_CHECKING:
    from ..runs.run_dir import RunDir
    from ..runs.session import Session

LOOPBACK = "127.0.0.1"
IMAGE = re.compile(r"(final|latest|grid|\d{2,}-candidate-\d{2,}|frames/\d{1,9})\.png")  # what is served of a run
# What changes as a run grows.
WATCHED = (*RECORDS, "metrics.jsonl", "frames", "latest.png", "final.png", "grid.png", "")
MAX_IMAGE = 200_000_000  # bytes
MAX_RUNS = 300  # that the page shows, the newest
CLIENT_S = 10.0  # for a request to come in
LINGER_S = 4.0  # for a browser to fetch the end of a run
PNG = b"\x89PNG\r\n\x1a\n"
POLICY = "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; "
HEADERS = {
    "Content-Security-Policy": f"{POLICY}script-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Watched:
    """The runs of a folder as they are now; what has not changed since it was last asked for is not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._cards: dict[Path, tuple[Any, Card]] = {}  # with the state of the files that it was made from
        self._order: dict[Path, int] = {}  # when a run was first seen
        self._rows: tuple[Any, dict[str, Entry]] = (), {}  # of a batch, with the state of its file
        self._lock = threading.Lock()

    def runs(self) -> list[PageRun]:
        """Return the runs, the newest first; none of a folder that has none yet, nor such as links lead out to."""
        try:
            runs = find_runs(self.folder, self._read_rows)
        except InputError:
            return []
        new = [run for run in runs if run.path not in self._order]
        for run in sorted(new, key=lambda run: (-run.entry.index if run.entry else 0, _changed(run.path))):
            self._order[run.path] = len(self._order)
        newest = sorted(runs, key=lambda run: -self._order[run.path])[:MAX_RUNS]
        return [run for run in newest if self._is_inside(run.path)]

    def _read_rows(self, folder: Path) -> dict[str, Entry]:
        state = _stamp(folder / BATCH)
        if self._rows[0] != state:
            self._rows = state, read_manifest(folder)
        return self._rows[1]

    def _is_inside(self, run: Path) -> bool:
        linked = run.is_symlink() or run.parent.is_symlink()
        return not linked or is_within(self.folder, run)

    def page(self) -> bytes:
        """Return the page."""
        return render(self.folder.name, list(self._shown().values()), live=True).encode("utf-8", "replace")

    def statuses(self) -> dict[Path, str]:
        """Return each run's status: "running", "done", "stopped", "failed", and of a batch's rows "pending"."""
        return {path: card.status for path, card in self._shown().items()}

    def _shown(self) -> dict[Path, Card]:
        with self._lock:
            runs = self.runs()
            return {run.path: self._card(run, len(runs)) for run in runs}

    def _card(self, run: PageRun, of: int) -> Card:
        state = (run.entry, of == 1, *(_stamp(run.path / name) for name in WATCHED))
        if run.path not in self._cards or self._cards[run.path][0] != state:
            number = -self._order[run.path]  # the newest has the least
            self._cards[run.path] = state, make_card(number, run, link, of=of, live=True)
        return self._cards[run.path][1]

    def image(self, key: str, name: str) -> bytes | None:
        """Return an image of a run that the page links to, else None. key: the folder's name as the link has it."""
        with self._lock:
            run = next((path for path in self._cards if key_of(path) == key), None)
        if run is None or not IMAGE.fullmatch(name) or not is_within(run, run / name):
            return None
        try:
            with open_regular(run / name) as file:
                data = file.read(MAX_IMAGE + 1)
        except (OSError, ValueError):
            return None
        return data if data.startswith(PNG) and len(data) <= MAX_IMAGE else None


def link(run: Path, path: Path, side: int) -> str:
    """Return the link to an image of a run, another one when the file changes; "" where there is none to be served."""
    name = path.relative_to(run).as_posix()
    stamp = _stamp(path)
    return f"{key_of(run)}/{name}?{stamp[0]:x}" if stamp and IMAGE.fullmatch(name) and is_within(run, path) else ""


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written; () of none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _changed(run: Path) -> int:
    return max((stamp[0] for name in RECORDS if (stamp := _stamp(run / name))), default=0)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    server_version, sys_version = "vqclip", ""
    timeout = CLIENT_S

    def do_GET(self) -> None:
        """Answer with the page or an image."""
        if self.headers.get("Host", "") not in self.server.hosts:  # a name that somebody lets point to this machine
            return self._answer(421, b"this is not the host that you asked for\n", "text/plain")
        path = self.path.partition("?")[0].lstrip("/")
        if not path:
            page = self.server.watched.page()
            version = f'"{hashlib.sha256(page).hexdigest()[:32]}"'
            self.server.last_served = time.monotonic()
            if self.headers.get("If-None-Match") == version:
                return self._answer(304, b"", "", ETag=version)
            return self._answer(200, page, "text/html; charset=utf-8", ETag=version, Cache_Control="no-store")
        key, _, name = path.partition("/")
        image = self.server.watched.image(key, unquote_to_bytes(name).decode("utf-8", "replace"))
        if image is None:
            return self._answer(404, b"there is no such image\n", "text/plain")
        return self._answer(200, image, "image/png", Cache_Control="private, max-age=86400, immutable")

    do_HEAD = do_GET

    def _answer(self, code: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(code)
        sent = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        if kind:
            sent |= {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in sent.items():
            self.send_header(name, value)
        with contextlib.suppress(OSError):  # the browser has gone
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, watched: Watched, port: int) -> None:
        self.watched = watched
        super().__init__((LOOPBACK, port), _Handler)
        number = self.server_address[1]
        self.hosts = {f"{name}:{number}" for name in (LOOPBACK, "localhost")}
        self.last_served = 0.0  # when a browser last had the page

    def handle_error(self, request: object, address: object) -> None:
        """Say nothing of a browser that has gone."""


class WatchServer:
    """Serves the page of a folder's runs until it is left, in threads of its own."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Take a port of the loopback interface, any free one for 0. Raises UsageError."""
        self.watched = Watched(folder)
        try:
            self._server = _Server(self.watched, port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "there is no such port"
            raise UsageError(f"port {port} can't be used: {reason}", "give another --port, or none") from None
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def linger(self) -> None:
        """Wait until a browser that looks on has fetched the page as it is now, with its images."""
        began = time.monotonic()
        if not self._server.last_served:
            return
        while self._server.last_served < began and time.monotonic() - began < LINGER_S:
            time.sleep(0.05)
        time.sleep(0.5)  # for the images


def open_browser(url: str) -> None:
    """Show an address in the user's browser, which is started apart: it writes nothing here, and no Ctrl-C ends it."""
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.suppress(OSError):
        subprocess.Popen([sys.executable, "-m", "webbrowser", url], start_new_session=True, **nothing)  # type: ignore[call-overload]


class BrowserView(Progress):
    """Shows a run, a sample or an animation in the browser while it is made."""

    def __init__(self) -> None:
        self._server: WatchServer | None = None

    def start(self, session: "Session", run: "RunDir | None") -> None:
        """Serve the run's page, and open it."""
        if run:
            self.opened(run.path)

    def opened(self, folder: Path) -> None:
        """Serve the page of a folder, and open it."""
        self._server = WatchServer(folder).__enter__()
        open_browser(self._server.url)

    @contextlib.contextmanager
    def closing(self) -> Iterator[Self]:
        """Return a context at whose end the browser may fetch the result."""
        try:
            yield self
        finally:
            if self._server:
                self._server.linger()
                self._server.__exit__(None, None, None)
