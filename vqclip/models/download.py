"""One file from the first of several mirrors that gives it whole. Loads no torch.

A mirror is an https address, or "hf:owner/repo@revision/path", a file of the Hugging Face hub (or of HF_ENDPOINT). A
file that Hugging Face's own cache has is taken from there. A download that was cut, by a bad connection or by Ctrl-C,
goes on where it stopped, in this process or in a later one. What arrives is checked: format, size, sha256.

`huggingface_hub.hf_hub_download` is not used: as of 2.4 it deletes what has arrived when it is interrupted, compares
the size but not the hash, and cannot go on from a second mirror.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from .. import __version__
from ..errors import InputError, IntegrityError, ModelError, OutputError
from ..files.archives import HEAD
from ..files.paths import sha256
from ..files.reading import read_json
from .formats.sniff import REFUSED, format_of
from .store import writing

HUB = "https://huggingface.co"
HUB_FILE = re.compile(r"hf:(?P<repo>(?:[\w.\-]+/)?[\w.\-]+)@(?P<revision>[\w.\-]+)/(?P<path>.+)")
HASH = re.compile(r"[0-9a-f]{64}")
# OpenAI's addresses hold their file's sha256 as a folder; open_clip's releases end with the first 8 digits of it.
NAMED_HASH = re.compile(
    r".*/clip/(?:models/)?([0-9a-f]{64})/[^/]+|https://github\.com/mlfoundations/.*-([0-9a-f]{8})\.pth?"
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
REDIRECTS = 8
TIMEOUT = httpx2.Timeout(30, connect=10)  # seconds without a byte
TRIES = 4  # in a row without progress
PAUSE = 1.0  # seconds before the second try, doubled each time
SPARE = 100_000_000  # bytes of the disk that stay free
LONGEST_TEXT = 100_000_000  # bytes of a config or a vocabulary
LONGEST = 20_000_000_000  # bytes of a checkpoint of which no size is known; the largest of the catalogue has 4.3 GB
OTHERWISE = 4  # times as large as is known roughly: checkpoints of the same model, with an optimizer or without
WINDOW = 60.0  # seconds in which the least rate must be reached, headers, pauses and all
LEAST_RATE = 10_000  # bytes a second
TOKEN = re.compile("[!-~]+")  # what an HTTP header can hold
Progress = Callable[[int, int], None]  # (bytes so far, bytes in all or 0)


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: its mirrors, and what is known of it (0 and "" for what is not)."""

    name: str  # the model's, for messages
    mirrors: tuple[str, ...]
    file: str = ""  # its own name, if the model is a folder of several files
    size: int = 0
    sha256: str = ""  # or its beginning
    roughly: int = 0  # the size, where it is not known exactly
    text: bool = False  # a config or a vocabulary, not a checkpoint
    room: int = 0  # bytes of disk that are needed besides the file itself

    def at(self, mirror: str) -> "RemoteFile":
        """Return what a mirror gives: one that names its own hash gives the same model in another file."""
        named = named_sha256(mirror)
        return replace(self, sha256=named, size=0, roughly=self.size or self.roughly) if named else self

    @property
    def most(self) -> int:
        """Bytes that it may have, if neither we nor the hub know its size."""
        return LONGEST_TEXT if self.text else OTHERWISE * self.roughly or LONGEST

    @property
    def title(self) -> str:
        """What messages call it: the model, and which of its files."""
        return f"{self.file} of {self.name}" if self.file else self.name

    @property
    def import_command(self) -> str:
        """The command that installs its model from this machine."""
        return f"vqclip models import {'FOLDER' if self.file else 'FILE'} --name {self.name}"


@dataclass(frozen=True)
class Fetched:
    """A file that is here, whole and checked; `path` is the part file, or where it was already."""

    path: Path
    url: str
    size: int
    sha256: str


class Refused(Exception):
    """A mirror can't give the file; `damaged` if it gave wrong bytes."""

    def __init__(self, reason: str, *, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


class Interrupted(Exception):
    """The connection broke, or what came must come again; the same mirror may be tried once more."""


def download(
    remote: RemoteFile,
    part: Path,
    progress: Progress,
    say: Callable[[str], None],
    *,
    adopt: Callable[[Fetched], None] = lambda fetched: None,
    offline: bool = False,
) -> Fetched:
    """Download a file to `part` from the first mirror that gives it whole, continuing what is there of it.

    A file in Hugging Face's cache stays there. say: gets the reason when a mirror is left. adopt: is given the file;
    what it refuses, by a ModelError or an IntegrityError, is another file, and the next mirror is tried. Raises
    ModelError if no mirror gives the file or `offline` forbids to ask, IntegrityError if the last mirror gave wrong
    bytes, OutputError for the disk.
    """
    for mirror in remote.mirrors:
        if cached := _from_cache(remote.at(mirror), mirror, say):
            try:
                _adopt(cached, adopt, "it")
                return cached
            except Refused as refused:
                say(f"{cached.path} is not used: {refused}")
    if offline:
        hint = f"copy the model to this machine: {remote.import_command}"
        raise ModelError(f"{remote.title} is not installed, and this is offline", hint)
    reasons: list[str] = []
    damaged = False
    for mirror in remote.mirrors:
        transfer = _Transfer(remote.at(mirror), mirror, part, progress, say)
        try:
            fetched = transfer.run()
            try:
                _adopt(fetched, adopt, "what it sent")
            except Refused:
                transfer.discard()
                raise
            return fetched
        except Refused as refused:
            damaged = refused.damaged
            reasons.append(f"{transfer.title}: {refused}")
            say(f"{reasons[-1]}{'; trying the next mirror' if mirror != remote.mirrors[-1] else ''}")
    hint = f"try later, or get the model elsewhere: {remote.import_command}"
    reason = "; ".join(dict.fromkeys(reasons))
    raise (IntegrityError if damaged else ModelError)(f"{remote.title} could not be downloaded: {reason}", hint)


def _adopt(fetched: Fetched, adopt: Callable[[Fetched], None], title: str) -> None:
    """Hand a file on. Raises Refused for one that is not what was asked for."""
    try:
        adopt(fetched)
    except (ModelError, IntegrityError) as error:
        reason = error.what.replace(str(fetched.path), title)
        raise Refused(reason, damaged=isinstance(error, IntegrityError)) from None


def note_of(part: Path) -> Path:
    """Return the file that says where a part comes from. The part's whole name is in it: parts may be called .json."""
    return part.with_name(f"{part.name}.note")


def resolve(mirror: str) -> str:
    """Return a mirror's address; that of a hub file begins with HF_ENDPOINT."""
    match = HUB_FILE.fullmatch(mirror)
    return f"{_hub()}/{match['repo']}/resolve/{match['revision']}/{match['path']}" if match else mirror


def named_sha256(mirror: str) -> str:
    """Return the sha256 that an address names, or its first 8 digits; "" if it names none."""
    match = NAMED_HASH.fullmatch(mirror)
    return (match[1] or match[2]) if match else ""


def _from_cache(remote: RemoteFile, mirror: str, say: Callable[[str], None]) -> Fetched | None:
    """Return a hub file that another program has downloaded into Hugging Face's cache, if it is sound."""
    match = HUB_FILE.fullmatch(mirror)
    if not match:
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(match["repo"], match["path"], revision=match["revision"])
    except (OSError, ValueError):  # a cache that can't be read, an impossible name
        return None
    if not isinstance(cached, str) or not (path := Path(cached)).is_file():
        return None
    blob = path.resolve().name  # a large file's blob is named by the hash that the hub has of it
    expected = remote.sha256 or (blob if HASH.fullmatch(blob) else "")
    size, digest = path.stat().st_size, sha256(path)
    if (remote.size and size != remote.size) or not digest.startswith(expected):
        say(f"{path} is damaged and not used")
        return None
    if not remote.text:
        say(f"{remote.title} is in Hugging Face's cache already: nothing to download")
    return Fetched(path, resolve(mirror), size, digest)


class _Transfer:
    """The download of one file from one mirror."""

    def __init__(
        self, remote: RemoteFile, mirror: str, part: Path, progress: Progress, say: Callable[[str], None]
    ) -> None:
        self.remote, self.mirror, self.url, self.part = remote, mirror, resolve(mirror), part
        self.progress, self.say = progress, say
        self.note = note_of(part)
        self.watch = Watch()

    def discard(self) -> None:
        """Delete what has arrived, and where it comes from."""
        with writing(self.part):
            self.part.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)

    @property
    def title(self) -> str:
        """The mirror's host for messages, and the repository of the hub; of what is no address, its beginning."""
        match = HUB_FILE.fullmatch(self.mirror)
        return f"{self.host} {match['repo']}" if match else self.host

    @property
    def host(self) -> str:
        """The mirror's host; of what is no address, its beginning."""
        try:
            return httpx2.URL(self.url).host
        except (httpx2.InvalidURL, ValueError):
            return self.url[:80]

    def run(self) -> Fetched:
        """Try until the file is whole. Raises Refused if the mirror refuses, or there is no progress any more."""
        before = reached = self._part_size()
        failures = 0
        with self.watch, self._client() as client:
            while True:
                try:
                    return self._attempt(client)
                except (httpx2.TransportError, Interrupted) as error:
                    if self.watch.slow:
                        raise Refused(f"it sends less than {LEAST_RATE / 1000:g} kB a second") from None
                    size = self._part_size()
                    failures = 0 if size > reached else failures + 1
                    reached = max(reached, size)
                    unreachable = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) and reached == before
                    if failures >= TRIES or unreachable:
                        raise Refused(reason_of(error)) from None
                    if failures == 1:
                        self.say(f"{self.title}: {reason_of(error)}; trying again")
                    time.sleep(PAUSE * 2**failures)
                except httpx2.HTTPError as error:
                    raise Refused(reason_of(error)) from None
                except (httpx2.InvalidURL, ValueError, OverflowError) as error:
                    raise Refused(f"not an address: {reason_of(error)}") from None

    def _client(self) -> httpx2.Client:
        """Return a client that speaks https only; plain http with this machine, if the mirror is on it."""
        local = self.host in LOOPBACK

        def check_scheme(request: httpx2.Request) -> None:  # of every redirect too
            scheme = request.url.scheme
            if scheme != "https" and not (scheme == "http" and local and request.url.host in LOOPBACK):
                raise Refused(f"{scheme or 'that'} is not https")

        return httpx2.Client(
            timeout=TIMEOUT,
            headers={"User-Agent": f"vqclip/{__version__}", "Accept-Encoding": "identity"},
            follow_redirects=True,  # which drops the token at the border of a host
            max_redirects=REDIRECTS,
            event_hooks={"request": [check_scheme]},
        )

    def _attempt(self, client: httpx2.Client) -> Fetched:
        remote, start = self.remote, self._bytes_to_keep()
        if remote.size and remote.sha256 and start == remote.size:  # whole, but not checked yet
            return self._checked(start, remote.sha256, resumed=True)
        traced = {"trace": self.watch.trace}
        with client.stream("GET", self.url, headers=self._headers(start), extensions=traced) as response:
            linked_size, linked_sha256 = _linked(response)
            size, digest = remote.size or linked_size, remote.sha256 or linked_sha256
            total = _total_size(response)
            if start and response.status_code == 416 and total == start:  # whole, but its size was not known
                return self._checked(size, digest, resumed=True)
            start = self._position(response, start)
            if size and total and size != total:
                raise Refused(f"it has {total:,} bytes where {size:,} are expected")
            if total > (size or remote.most):
                raise Refused(f"it has {total:,} bytes, more than such a file can have")
            with writing(self.part):
                note = {"url": self.url, "etag": response.headers.get("etag", "")}
                self.note.write_text(json.dumps(note), encoding="utf-8")
                _check_room(self.part.parent, (total or size) - start + remote.room)
                self._write(response, start, total or size)
            self.watch.busy = True
        if total and self._part_size() < total:
            raise Interrupted(f"it ended after {self._part_size():,} of {total:,} bytes")
        return self._checked(size, digest, resumed=start > 0)

    def _headers(self, start: int) -> dict[str, str]:
        """Return the headers of a request for the bytes from `start` on, if they are still of the same file."""
        headers, token = {}, os.environ.get("HF_TOKEN", "").strip()
        if token and _origin(self.url) == _origin(_hub()):  # for the hub alone
            if not TOKEN.fullmatch(token):
                raise Refused("HF_TOKEN can't be a token: it has spaces, line breaks or letters that are not ASCII")
            headers["Authorization"] = f"Bearer {token}"
        if start:
            headers["Range"] = f"bytes={start}-"
            etag = self._read_note().get("etag")
            if etag and not self.remote.sha256:
                headers["If-Range"] = str(etag)
        return headers

    def _part_size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _bytes_to_keep(self) -> int:
        """Return how much of the part to keep: all of it, if it is of the same file."""
        size = self._part_size()
        if not size:
            return 0
        note = self._read_note()
        url = str(note.get("url", ""))
        same_hash = self.remote.sha256 and named_sha256(url) == named_sha256(self.url)
        if (same_hash or (url == self.url and note.get("etag"))) and not 0 < self.remote.size < size:
            return size
        self.part.unlink()
        return 0

    def _read_note(self) -> dict[str, Any]:
        try:
            note = read_json(self.note, LONGEST_TEXT)
        except InputError:
            return {}
        return note if isinstance(note, dict) else {}

    def _position(self, response: httpx2.Response, start: int) -> int:
        """Return where the answer's bytes belong: at `start`, or at 0 if the server knows no ranges."""
        status = response.status_code
        if status in (401, 403):
            raise Refused(f"access is denied ({status}); a token goes into HF_TOKEN")
        if status == 429 or status >= 500:
            raise Interrupted(f"the server says {status} {response.reason_phrase}")
        if status not in (200, 206, 416):
            raise Refused(f"the server says {status} {response.reason_phrase}")
        if "text/html" in response.headers.get("content-type", ""):
            raise Refused("it sent a web page instead")
        if status == 200:
            return 0
        if response.headers.get("content-range", "").startswith(f"bytes {start}-"):
            return start
        self.part.unlink(missing_ok=True)
        raise Interrupted("it has not the bytes that were asked for")

    def _write(self, response: httpx2.Response, start: int, total: int) -> None:
        limit = total or min(self.remote.most, shutil.disk_usage(self.part.parent).free + start - SPARE)
        done = start
        with self.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.iter_raw():
                done += len(chunk)
                self.watch.received += len(chunk)
                if done > limit:
                    raise Refused("it sent more bytes than it said" if total else "it sends no end", damaged=True)
                file.write(chunk)
                self.progress(done, total)

    def _checked(self, size: int, expected: str, *, resumed: bool) -> Fetched:
        """Check size, hash and format. A wrong part is deleted, and one that came in pieces is tried once more."""
        actual, digest = self._part_size(), sha256(self.part)
        with self.part.open("rb") as file:
            kind = format_of(file.read(HEAD))
        if size not in (0, actual):
            refused = Refused(f"it has {actual:,} bytes where {size:,} are expected", damaged=True)
        elif not digest.startswith(expected):
            refused = Refused("its sha256 is wrong", damaged=True)
        elif kind in REFUSED and not self.remote.text:
            refused = Refused(f"what it sent {REFUSED[kind][0].partition(':')[0]}")
        else:
            return Fetched(self.part, self.url, actual, digest)
        self.part.unlink()
        if resumed:
            raise Interrupted("its pieces do not fit together")
        raise refused


class Watch:
    """Hangs up on a server that sends less than LEAST_RATE over WINDOW, whatever it does instead.

    It may dribble, cut again and again, or send headers without end, which no timeout for a single read ends.
    """

    def __init__(self) -> None:
        self.received = 0  # bytes of the file
        self.busy = True  # not waiting for the server
        self.slow = False
        self._socket: socket.socket | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def trace(self, event: str, facts: dict[str, Any]) -> None:
        """Keep the socket of a connection that was made: httpx2 calls this with all that it does."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = facts["return_value"].get_extra_info("socket")
        if event.endswith("request_headers.started"):
            self.busy = False
        if self.slow:
            self._hang_up()

    def _run(self) -> None:
        before = self.received
        while not self._stop.wait(WINDOW):
            if self.received - before < LEAST_RATE * WINDOW and not self.busy:
                self.slow = True
                self._hang_up()
                return
            before = self.received

    def _hang_up(self) -> None:
        """End the connection beneath TLS, so that whoever waits for it hears of it."""
        if self._socket:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._socket.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise OutputError(
            f"there is too little room in {folder}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
            "free some space, or set VQCLIP_MODELS to another folder",
        )


def _hub() -> str:
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _origin(url: str | httpx2.URL) -> tuple[str, str, int | None]:
    parsed = httpx2.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def _linked(response: httpx2.Response) -> tuple[int, str]:
    """Return size and sha256 as the hub says them on the way to the file; 0 and "" if it does not."""
    for hop in (*response.history, response):
        if _origin(hop.url) == _origin(_hub()) and "x-linked-etag" in hop.headers:
            etag = hop.headers["x-linked-etag"].strip('W/"')
            return _number(hop.headers.get("x-linked-size", "")), etag if HASH.fullmatch(etag) else ""
    return 0, ""


def _total_size(response: httpx2.Response) -> int:
    """Return the size of the whole file according to an answer, or 0."""
    if response.status_code in (206, 416):
        return _number(response.headers.get("content-range", "").rpartition("/")[2])
    return 0 if "content-encoding" in response.headers else _number(response.headers.get("content-length", ""))


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else 0


def reason_of(error: Exception) -> str:
    """Return in a few words why a download failed."""
    name = type(error).__name__
    silent = {"ReadTimeout": "it stalled", "ConnectTimeout": "it does not answer"}
    return " ".join(str(error).split())[:160] or silent.get(name, name)
