"""An image by its address: only over https, only from public machines, of limited size, redirects as the first."""

import io
import json
import socket
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import QUICK
from tests.support.servers import failing, redirecting, send
from vqclip.errors import InputError
from vqclip.models import fetch_image as fetching
from vqclip.models.fetch_image import fetch_image, fetched_before, is_public, public_address


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def near(server, monkeypatch):
    """Let the server on the loopback count as one that is public and speaks https."""
    monkeypatch.setattr(fetching, "SCHEMES", ("https", "http"))
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    server.files["/a/red%20fox.png"] = png()
    return server


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.9", "169.254.169.254", "0.0.0.0",
                                     "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0",
                                     "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::",
                                     "64:ff9b::7f00:1", "64:ff9b::a00:1"])  # fmt: skip
def test_a_private_address_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_a_public_address_is(address):
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]".strip("[]"), "no.invalid"])
def test_a_name_of_this_machine_is_refused(host):
    with pytest.raises(fetching.Refused):
        public_address(host, 443)


def test_a_name_that_stands_for_a_private_machine_too_is_refused(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("1.1.1.1", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: found)
    with pytest.raises(fetching.Refused):
        public_address("both.example", 443)
    del found[1]
    assert public_address("both.example", 443) == "1.1.1.1"


@pytest.mark.parametrize("url", ["http://1.1.1.1/a.png", "ftp://1.1.1.1/a", "https://127.0.0.1/a.png", "https:///a",
                                 "https://a:b@1.1.1.1/a.png",
                                 "https://localhost:1/a.png", "https://[::1]/a"])  # fmt: skip
def test_what_may_not_be_asked_is_not_asked(url, tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("it was asked"))
    with pytest.raises(InputError):
        fetch_image(url, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_an_image_is_fetched_once(near, tmp_path):
    url = f"{near.url}/a/red%20fox.png"
    path = fetch_image(url, tmp_path / "d")
    assert (path.read_bytes(), path.suffix, path.name[:3]) == (png(), ".png", "red")
    assert fetched_before(url, tmp_path / "d") == path
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [path.name]
    assert near.asked[0][1]["Host"] == near.url.removeprefix("http://")


def test_two_processes_that_fetch_one_address_do_not_disturb_each_other(near, tmp_path, monkeypatch):
    url, load, others = f"{near.url}/a/red%20fox.png", fetching.load_image, []

    def load_while_another_fetches(path):
        if not others:
            others.append(path)
            others.append(fetch_image(url, tmp_path))
        return load(path)

    monkeypatch.setattr(fetching, "load_image", load_while_another_fetches)
    path = fetch_image(url, tmp_path)
    assert (path, path.read_bytes()) == (others[1], png())
    assert list(tmp_path.iterdir()) == [path]


def test_a_redirect_is_followed_to_what_is_public(near, tmp_path):
    near.manners["/b"] = redirecting("/a/red%20fox.png")
    assert fetch_image(f"{near.url}/b", tmp_path).read_bytes() == png()


@pytest.mark.parametrize(
    "to", ["https://10.0.0.1/a.png", "file:///etc/passwd", "ftp://1.1.1.1/", "https://[::1]/", "/b"]
)
def test_a_redirect_to_what_may_not_be_asked_is_refused(near, tmp_path, to):
    near.manners["/b"] = redirecting(to)
    with pytest.raises(InputError):
        fetch_image(f"{near.url}/b", tmp_path / "d")
    assert {path for path, _ in near.asked} == {"/b"}
    assert len(near.asked) <= fetching.REDIRECTS + 1


def test_more_bytes_than_an_image_has_are_refused(near, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MOST", 50)
    with pytest.raises(InputError, match="MB"):
        fetch_image(f"{near.url}/a/red%20fox.png", tmp_path / "d")


@pytest.mark.parametrize("data", [b"<html>", b"", png()[:40]])
def test_what_is_no_image_is_refused_and_not_kept(near, tmp_path, data):
    near.files["/x"] = data
    with pytest.raises(InputError, match=r"/x"):
        fetch_image(f"{near.url}/x", tmp_path / "d")
    assert not list((tmp_path / "d").iterdir())


def test_a_server_that_refuses_or_says_no_more_is_named(near, tmp_path, monkeypatch):
    near.manners["/x"] = failing(403, 1)
    with pytest.raises(InputError, match="403"):
        fetch_image(f"{near.url}/x", tmp_path / "d")
    near.manners["/y"] = lambda handler, data: send(handler, 200, b"x", length=10) or handler.close_connection
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    with pytest.raises(InputError, match="/y"):
        fetch_image(f"{near.url}/y", tmp_path / "d")


@pytest.mark.parametrize("option", ["--init-image", "-i", "--mask"])
def test_an_address_must_be_allowed(vq, near, networks, option):
    done = vq("generate", "a fox", *QUICK, option, f"{near.url}/a/red%20fox.png")
    assert (done.code, len(done.lines)) == (4, 2)
    assert near.url in done.err
    assert "--allow-url" in done.err
    assert not near.asked
    assert not networks.loaded


def test_an_address_that_is_allowed_is_drawn_from(vq, near):
    url = f"{near.url}/a/red%20fox.png"
    done = vq("generate", "a fox", *QUICK, "--init-image", url, "--size", "auto", "--allow-url")
    assert done.code == 0
    (kept,) = Path("runs/downloads").iterdir()
    Path("here.png").write_bytes(kept.read_bytes())
    same = vq("generate", "a fox", *QUICK, "--init-image", "here.png", "--size", "auto", "--runs", "b", "--no-metadata")
    first, second = (Image.open(each.out.strip()).convert("RGB").tobytes() for each in (done, same))
    assert first == second
    assert vq("resume", Path(done.out.strip()).parent, "--steps", "5").code == 0


@pytest.mark.parametrize(("option", "given"), [("-i", "{}:0.5"), ("--region", "a tree:2@{}")])
def test_what_stands_beside_an_address_stays_there(vq, near, option, given):
    done = vq("generate", "a fox", *QUICK, option, given.format(f"{near.url}/a/red%20fox.png"), "--allow-url")
    assert done.code == 0, done.err
    settings = json.loads((Path(done.out.strip()).parent / "run.json").read_text())["settings"]
    (kept,) = Path("runs/downloads").iterdir()
    assert settings.get("image_prompt_weights", [0.5]) == [0.5]
    assert kept.name in str(settings)


def test_a_batchs_rows_fetch_theirs(vq, near):
    Path("p.csv").write_text(f"prompt,init_image\na fox,{near.url}/a/red%20fox.png\nan owl,\n")
    refused = vq("batch", "p.csv", "-o", "out", *QUICK)
    assert refused.code == 4
    assert "p.csv:2" in refused.err
    assert "--allow-url" in refused.err
    assert vq("batch", "p.csv", "-o", "out", *QUICK, "--allow-url").code == 0
    assert len(near.asked) == 1
    again = vq("batch", "p.csv", "-o", "out", *QUICK, "--allow-url")
    assert (again.code, len(near.asked)) == (0, 1)
    assert "2 of them done already" in again.err


@pytest.mark.parametrize(("environ", "words"), [({"VQCLIP_OFFLINE": "1"}, []), ({}, ["--dry-run"])])
def test_offline_and_in_a_dry_run_nothing_is_fetched_but_taken_again(vq, near, monkeypatch, environ, words):
    words = ["generate", "a fox", *QUICK, "-i", f"{near.url}/a/red%20fox.png", "--allow-url", *words]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert vq(*words).code == 4
    assert not near.asked
    assert not Path("runs").exists()
    fetch_image(f"{near.url}/a/red%20fox.png", Path("runs/downloads"))
    assert vq(*words).code == 0
    assert len(near.asked) == 1
