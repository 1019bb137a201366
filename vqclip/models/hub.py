"""Requests to mirrors: https alone, redirects followed by hand, HF_ENDPOINT heeded, HF_TOKEN told to the hub only.

Plain http is spoken with this machine alone (localhost), and no redirect leads there from elsewhere.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2

HUB = "https://huggingface.co"
HUB_FILE = re.compile(r"hf:(?P<repo>(?:[\w.\-]+/)?[\w.\-]+)@(?P<revision>[\w.\-]+)/(?P<path>.+)")
HASH = re.compile(r"[0-9a-f]{64}")
# OpenAI's addresses hold their file's sha256 as a folder; open_clip's releases end with the first 8 digits of it.
NAMED_HASH = re.compile(
    r".*/clip/(?:models/)?([0-9a-f]{64})/[^/]+|https://github\.com/mlfoundations/.*-([0-9a-f]{8})\.pth?"
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
HOPS = 8


class Refused(Exception):
    """A mirror won't do; `damaged` if it gave the wrong bytes."""

    def __init__(self, reason: str, *, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


class Cut(Exception):
    """A line was cut; the same mirror may go on."""


def resolve(mirror: str) -> str:
    """Return a mirror's address; that of a hub file begins with HF_ENDPOINT."""
    found = HUB_FILE.fullmatch(mirror)
    return f"{_hub()}/{found['repo']}/resolve/{found['revision']}/{found['path']}" if found else mirror


def cached(mirror: str) -> Path | None:
    """Return a hub file that some program has brought to this machine before, into Hugging Face's own cache."""
    found = HUB_FILE.fullmatch(mirror)
    if not found:
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        path = try_to_load_from_cache(found["repo"], found["path"], revision=found["revision"])
        return Path(path) if isinstance(path, str) else None
    except (OSError, ValueError):  # a cache that can't be read, a name that is none
        return None


def named_sha256(mirror: str) -> str:
    """Return the sha256 that an address names, or its first 8 digits; nothing of one that names none."""
    found = NAMED_HASH.fullmatch(mirror)
    return (found[1] or found[2]) if found else ""


def linked_sha256(path: Path) -> str:
    """Return the sha256 that the hub gave a large file in its cache: the name of the blob that it links to."""
    name = path.resolve().name
    return name if HASH.fullmatch(name) else ""


def _hub() -> str:
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


@contextlib.contextmanager
def open_stream(
    client: httpx2.Client, url: str, headers: dict[str, str]
) -> Iterator[tuple[httpx2.Response, tuple[int, str]]]:
    """Follow redirects to the answer; with it comes what the hub says of size and sha256 on the way."""
    linked = (0, "")
    local = True  # so far
    for _ in range(HOPS):
        local = local and httpx2.URL(url).host in LOOPBACK
        _check_scheme(url, local=local)
        with client.stream("GET", url, headers=headers | _authorization(url), follow_redirects=False) as response:
            if _origin(url) == _origin(_hub()):
                linked = _linked(response)
            if not response.has_redirect_location:
                yield response, linked
                return
            url = str(response.url.join(response.headers["location"]))
    raise Refused("it redirects without end")


def total_size(response: httpx2.Response) -> int:
    """Return the whole file's size by an answer, to a question for a range too; 0 where it doesn't say."""
    if response.status_code in (206, 416):
        return _number(response.headers.get("content-range", "").rpartition("/")[2])
    return 0 if "content-encoding" in response.headers else _number(response.headers.get("content-length", ""))


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else 0


def _linked(response: httpx2.Response) -> tuple[int, str]:
    size, tag = response.headers.get("x-linked-size", ""), response.headers.get("x-linked-etag", "").strip('W/"')
    return _number(size), tag if HASH.fullmatch(tag) else ""


def _check_scheme(url: str, *, local: bool) -> None:
    scheme = httpx2.URL(url).scheme
    if scheme != "https" and not (scheme == "http" and local):
        raise Refused(f"{scheme or 'that'} is not https")


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx2.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def _authorization(url: str) -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token and _origin(url) == _origin(_hub()) else {}
