"""Requests to mirrors: https alone, redirects followed by hand, HF_ENDPOINT heeded, HF_TOKEN told to the hub only."""

import contextlib
import os
import re
from collections.abc import Iterator

import httpx2

HUB = "https://huggingface.co"
HUB_FILE = re.compile(r"hf:(?P<repo>[\w.\-]+/[\w.\-]+)@(?P<revision>[\w.\-]+)/(?P<path>.+)")
HASH = re.compile(r"[0-9a-f]{64}")
LOOPBACK_HTTP = False  # the tests' own server speaks no TLS
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


def _hub() -> str:
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


@contextlib.contextmanager
def open_stream(
    client: httpx2.Client, url: str, headers: dict[str, str]
) -> Iterator[tuple[httpx2.Response, tuple[int, str]]]:
    """Follow redirects to the answer; with it comes what the hub says of size and sha256 on the way."""
    linked = (0, "")
    for _ in range(HOPS):
        _check_scheme(url)
        with client.stream("GET", url, headers=headers | _authorization(url), follow_redirects=False) as response:
            if _origin(url) == _origin(_hub()):
                linked = _linked(response)
            if not response.has_redirect_location:
                yield response, linked
                return
            url = str(response.url.join(response.headers["location"]))
    raise Refused("it redirects without end")


def _linked(response: httpx2.Response) -> tuple[int, str]:
    size, tag = response.headers.get("x-linked-size", ""), response.headers.get("x-linked-etag", "").strip('W/"')
    return int(size) if size.isdigit() else 0, tag if HASH.fullmatch(tag) else ""


def _check_scheme(url: str) -> None:
    parsed = httpx2.URL(url)
    loopback = LOOPBACK_HTTP and parsed.scheme == "http" and parsed.host in ("127.0.0.1", "localhost")
    if parsed.scheme != "https" and not loopback:
        raise Refused(f"{parsed.scheme or 'that'} is not https")


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx2.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def _authorization(url: str) -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token and _origin(url) == _origin(_hub()) else {}
