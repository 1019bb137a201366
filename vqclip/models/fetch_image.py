"""One image from an address that somebody typed: https alone, of limited size, from public machines alone.

A redirect is checked as the address itself is. The connection is made to the very address that was checked, so that a
name can't stand for a public machine first and for a private one afterwards.
"""

import hashlib
import ipaddress
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from .. import __version__
from ..errors import InputError
from ..files.atomic import part_beside, put_in_place, refused, writing
from ..files.images import load_image, opened
from .download import REDIRECTS, TIMEOUT, Interrupted, Refused, Watch, reason_of

MOST = 50_000_000  # bytes
SCHEMES = ("https",)
ENDINGS = {"JPEG": "jpg", "TIFF": "tif"}  # of formats that have another than their name
NAT64 = ipaddress.ip_network("64:ff9b::/96")
HINT = "download it first, and give the file"


def fetch_image(url: str, folder: Path) -> Path:
    """Return the image at an address as a new file in a folder. Raises InputError, OutputError."""
    try:
        data = _download(url)
    except (Refused, Interrupted, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise InputError(f"{url[:200]} could not be fetched: {reason_of(error)}", HINT) from None
    name = re.sub(r"[^\w]+", "-", Path(urlsplit(url).path).stem).strip("-")[:40] or "image"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    part = part_beside(folder / name)
    try:
        part.write_bytes(data)
        load_image(part)
        with opened(part) as image:
            kind = image.format or ""
        path = folder / f"{name}-{_key(url)}.{ENDINGS.get(kind, kind.lower())}"
        put_in_place(part, path)
    except InputError as error:
        raise InputError(error.what.replace(str(part), url[:200]), HINT) from None
    except OSError as error:
        raise refused(folder, error) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def fetched_before(url: str, folder: Path) -> Path | None:
    """Return the file in a folder that `fetch_image` once made of an address."""
    return min(folder.glob(f"*-{_key(url)}.*"), default=None)


def _key(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _download(url: str) -> bytes:
    """Return what is at an address, over at most REDIRECTS others. Raises Refused, Interrupted and httpx2's errors."""
    headers = {"User-Agent": f"vqclip/{__version__}", "Accept-Encoding": "identity", "Accept": "image/*"}
    with Watch() as watch, httpx2.Client(timeout=TIMEOUT, headers=headers) as client:
        for _ in range(REDIRECTS + 1):
            parsed = httpx2.URL(url)
            if parsed.scheme not in SCHEMES:
                raise Refused(f"{parsed.scheme or 'that'} is not https")
            if parsed.userinfo:
                raise Refused("it names a user")
            checked = parsed.copy_with(host=public_address(parsed.host, parsed.port or 443))
            facts = {"sni_hostname": parsed.host, "trace": watch.trace}
            request = client.build_request("GET", checked, headers={"Host": parsed.netloc.decode()}, extensions=facts)
            response = client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    return _read(response, watch)
                url = str(parsed.join(response.headers["location"]))
            finally:
                response.close()
        raise Refused("it sends on without end")


def _read(response: httpx2.Response, watch: Watch) -> bytes:
    if response.status_code != 200:
        raise Refused(f"the server says {response.status_code} {response.reason_phrase}")
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        watch.received += len(chunk)
        if len(data) > MOST:
            raise Refused(f"it is over {MOST // 10**6} MB")
    watch.busy = True
    return bytes(data)


def public_address(host: str, port: int) -> str:
    """Return an address of a host all of whose addresses are public. Raises Refused."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refused(f"there is no machine {host[:80]!r}") from None
    addresses = [str(address[4][0]) for address in found]
    if not addresses or not all(map(is_public, addresses)):
        raise Refused(f"{host[:80]} is no public machine")
    return addresses[0]


def is_public(address: str) -> bool:
    """Say whether anybody on the internet may reach an address: it is of no private network, nor of this machine."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        within = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if within:
            return is_public(str(within))
        if ip in NAT64:
            return False
    return ip.is_global and not ip.is_multicast
