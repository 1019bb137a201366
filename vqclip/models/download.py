"""One file from the first of several mirrors that gives it whole. Loads no torch.

What Hugging Face's own cache has already is taken from there. A download that was cut, by a bad line or by Ctrl-C, goes
on where it stopped, in this process or a later one. What comes is checked: format, size, sha256.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from .. import __version__
from ..errors import IntegrityError, ModelError, OutputError
from ..files.paths import sha256
from .formats.sniff import HEAD, REFUSED, format_of
from .hub import Cut, Refused, cached, linked_sha256, named_sha256, open_stream, resolve, total_size
from .store import writing

TIMEOUT = httpx2.Timeout(30, connect=10)  # seconds without a byte
TRIES, PAUSE = 4, 1.0  # times without progress, and the seconds before the second one, doubled each time
SPARE = 100_000_000  # bytes that stay free
LONGEST_TEXT = 100_000_000  # bytes of a config or a word list
LOOK_EVERY = 2**26  # bytes between two looks at the disk's room
Progress = Callable[[int, int], None]  # (bytes so far, bytes in all or 0)


@dataclass(frozen=True)
class Wanted:
    """A file: where it may be, and what is known of it (0 and "" where nothing is)."""

    name: str
    mirrors: tuple[str, ...]
    size: int = 0
    sha256: str = ""  # or its beginning; a mirror that names its own gives the same model in another file
    text: bool = False  # a config or a word list, and no checkpoint
    room: int = 0  # bytes of disk needed beside the file itself

    def at(self, mirror: str) -> "Wanted":
        """Return what a mirror is to give."""
        return replace(self, sha256=named, size=0) if (named := named_sha256(mirror)) else self


@dataclass(frozen=True)
class Fetched:
    """A file that has come, whole and checked; `path` is the part, or where it lay already."""

    path: Path
    url: str
    size: int
    sha256: str


def download(
    wanted: Wanted, part: Path, progress: Progress, tell: Callable[[str], None], *, offline: bool = False
) -> Fetched:
    """Bring a file to `part`, from the first mirror that gives it whole; go on with what is there of it.

    One that Hugging Face's cache has is left where it is. progress: told the bytes so far; tell: told why a mirror was
    left. Raises ModelError where no mirror gives it or `offline` forbids to ask, IntegrityError where the last word
    was wrong bytes, OutputError for the disk.
    """
    for mirror in wanted.mirrors:
        if found := _from_cache(wanted.at(mirror), mirror, tell):
            return found
    if offline:
        hint = f"copy the file here: vqclip models import FILE --name {wanted.name}"
        raise ModelError(f"{wanted.name} is not installed, and this is offline", hint)
    reasons: list[str] = []
    damaged = False
    with httpx2.Client(timeout=TIMEOUT, headers={"User-Agent": f"vqclip/{__version__}"}) as client:
        for mirror in wanted.mirrors:
            url = resolve(mirror)
            try:
                return _persist(client, wanted.at(mirror), url, part, progress)
            except Refused as refused:
                damaged = refused.damaged
                reasons.append(f"{httpx2.URL(url).host}: {refused}")
                tell(f"{reasons[-1]}{'; trying the next mirror' if mirror != wanted.mirrors[-1] else ''}")
    hint = f"try later, or get the file elsewhere: vqclip models import FILE --name {wanted.name}"
    reason = "; ".join(dict.fromkeys(reasons))
    raise (IntegrityError if damaged else ModelError)(f"{wanted.name} could not be downloaded: {reason}", hint)


def _from_cache(wanted: Wanted, mirror: str, tell: Callable[[str], None]) -> Fetched | None:
    path = cached(mirror)
    if not path or not path.is_file():
        return None
    found, expected = sha256(path), wanted.sha256 or linked_sha256(path)
    size = path.stat().st_size
    if (wanted.size and size != wanted.size) or not found.startswith(expected):
        tell(f"{path} is damaged: not taken")
        return None
    if not wanted.text:
        tell(f"{wanted.name} is in the cache of Hugging Face already: nothing to download")
    return Fetched(path, resolve(mirror), size, found)


def _persist(client: httpx2.Client, wanted: Wanted, url: str, part: Path, progress: Progress) -> Fetched:
    """Try one mirror until it is done, refuses, or makes no progress any more."""
    before = reached = part.stat().st_size if part.exists() else 0
    failures = 0
    while True:
        try:
            return _attempt(client, wanted, url, part, progress)
        except (httpx2.TransportError, Cut) as error:
            size = part.stat().st_size if part.exists() else 0
            failures = 0 if size > reached else failures + 1
            reached = max(reached, size)
            unreachable = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) and reached == before
            if failures >= TRIES or unreachable:
                raise Refused(_short(error)) from None
            time.sleep(PAUSE * 2**failures)
        except httpx2.HTTPError as error:
            raise Refused(_short(error)) from None
        except (httpx2.InvalidURL, ValueError) as error:
            raise Refused(f"not an address: {_short(error)}") from None


def _attempt(client: httpx2.Client, wanted: Wanted, url: str, part: Path, progress: Progress) -> Fetched:
    start = _resumable(wanted, url, part)
    if wanted.size and wanted.sha256 and start == wanted.size:  # done before, but for the check
        return _checked(wanted, url, part, start, wanted.sha256, resumed=True)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with open_stream(client, url, headers) as (response, linked):
        size, told = wanted.size or linked[0], wanted.sha256 or linked[1]
        if start and response.status_code == 416 and total_size(response) == start:  # whole before, but not used
            return _checked(wanted, url, part, size, told, resumed=True)
        start = _agree(response, part, start, hashed=bool(wanted.sha256))
        total = total_size(response)
        if size and total and size != total:
            if not start:
                _check_head(next(response.iter_raw(), b"")[:HEAD], wanted, whole=True)
            raise Refused(f"it has {total:,} bytes where {size:,} are expected")
        with writing(part):
            _note(part, url, response.headers.get("etag", ""))
            _check_room(part, (total or size or 0) - start + wanted.room)
            _write(response, wanted, part, start, total or size, progress)
    got = part.stat().st_size
    if total and got < total:
        raise Cut(f"it ended after {got:,} of {total:,} bytes")
    return _checked(wanted, url, part, size, told, resumed=start > 0)


def _resumable(wanted: Wanted, url: str, part: Path) -> int:
    """Return how many bytes of the part to keep: all if its mirror gives the same, or it came from this address."""
    if not part.is_file():
        return 0
    noted = _noted(part)
    there = str(noted.get("url", ""))
    same = (wanted.sha256 and named_sha256(there) == named_sha256(url)) or (there == url and noted.get("etag"))
    size = part.stat().st_size
    if same and not (wanted.size and size > wanted.size):
        return size
    part.unlink()
    return 0


def _agree(response: httpx2.Response, part: Path, start: int, *, hashed: bool) -> int:
    """Return where the answer's bytes belong: at `start`, or at 0 where the server knows no ranges."""
    status = response.status_code
    if status == 416:  # it has nothing there: the part is of another file
        part.unlink(missing_ok=True)
        raise Cut("it has other bytes than those that came before")
    if status in (401, 403):
        raise Refused(f"it may not be had ({status}); a token goes into HF_TOKEN")
    if status == 429 or status >= 500:
        raise Cut(f"the server says {status} {response.reason_phrase}")
    if status not in (200, 206):
        raise Refused(f"the server says {status} {response.reason_phrase}")
    if "text/html" in response.headers.get("content-type", ""):
        raise Refused("it sent a web page instead")
    if status == 200:
        return 0
    tag, noted = response.headers.get("etag", ""), _noted(part).get("etag", "")
    if tag and noted and tag != noted and not hashed:
        part.unlink(missing_ok=True)
        raise Cut("the file has changed there")
    if not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
        part.unlink(missing_ok=True)
        raise Cut("it sent another range than was asked for")
    return start


def _write(response: httpx2.Response, wanted: Wanted, part: Path, start: int, total: int, progress: Progress) -> None:
    done, looked, head = start, start, b""
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        for chunk in response.iter_raw():
            done += len(chunk)
            if not start and len(head) < HEAD:
                head += chunk[: HEAD - len(head)]
                _check_head(head, wanted, whole=len(head) == HEAD)
            if done > (total or (LONGEST_TEXT if wanted.text else done)):
                raise Refused("it sent more bytes than it has said" if total else "it sends no end", damaged=True)
            if done - looked > LOOK_EVERY:
                looked = done
                _check_room(part, wanted.room)
            file.write(chunk)
            progress(done, total)
    _check_head(head, wanted, whole=not start)


def _check_head(head: bytes, wanted: Wanted, *, whole: bool) -> None:
    """Refuse, by its first bytes, what is no checkpoint: before all of it is here."""
    found = format_of(head) if whole and not wanted.text else ""
    if found in REFUSED:
        raise Refused(f"what it sent {REFUSED[found][0].partition(':')[0]}")


def _checked(wanted: Wanted, url: str, part: Path, size: int, told: str, *, resumed: bool) -> Fetched:
    """Compare size and hash; what is wrong is deleted, and tried once more from the start if it came in pieces."""
    got, found = part.stat().st_size, sha256(part)
    if (size and got != size) or not found.startswith(told):
        part.unlink()
        if resumed:
            raise Cut("its pieces do not fit together")
        what = f"it has {got:,} bytes where {size:,} are expected" if size and got != size else "its sha256 is wrong"
        raise Refused(what, damaged=True)
    return Fetched(part, url, got, found)


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + SPARE:
        raise OutputError(
            f"there is too little room in {part.parent}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
            "free some space, or set VQCLIP_MODELS to another folder",
        )


def _note(part: Path, url: str, etag: str) -> None:
    part.with_suffix(".json").write_text(json.dumps({"url": url, "etag": etag}), encoding="utf-8")


def _noted(part: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(part.with_suffix(".json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _short(error: Exception) -> str:
    name = type(error).__name__
    silent = {"ReadTimeout": "it stalled", "ConnectTimeout": "it does not answer"}
    return " ".join(str(error).split())[:160] or silent.get(name, name)
