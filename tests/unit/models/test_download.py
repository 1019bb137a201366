"""Downloads from a real server on the loopback: one that cuts, redirects, lies and stalls."""

import errno
import hashlib
import shutil
import threading
import time

import httpx2
import pytest

from tests.support.servers import Server, cutting, failing, good, redirecting, send
from vqclip.errors import IntegrityError, ModelError, OutputError
from vqclip.models import download as module
from vqclip.models.download import RemoteFile, download

DATA = b"PK\x03\x04" + bytes(range(256)) * 4000  # about 1 MB that could be a checkpoint
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Return a function that downloads paths of the server; what is said is kept in `messages`, progress in `seen`."""

    def run(*paths, sha256=SHA, size=len(DATA), offline=False, adopt=lambda fetched: None, **more):
        mirrors = tuple(path if ":" in path else server.url + path for path in paths)
        wanted = RemoteFile("thing", mirrors, size=size, sha256=sha256, **more)
        seen = lambda done, total: run.seen.append((done, total))  # noqa: E731
        return download(wanted, run.part, seen, run.messages.append, adopt=adopt, offline=offline)

    monkeypatch.setattr(module, "TIMEOUT", httpx2.Timeout(2))
    monkeypatch.delenv("HF_ENDPOINT")
    server.files["/a"] = server.files["/b"] = DATA
    run.part, run.messages, run.seen = tmp_path / "thing.part", [], []
    return run


def refused(get, *paths, error=ModelError, **more):
    with pytest.raises(error) as caught:
        get(*paths, **more)
    return caught.value


def test_a_file_comes_whole(get):
    fetched = get("/a")
    assert get.part.read_bytes() == DATA
    assert (fetched.size, fetched.sha256) == (len(DATA), SHA)


def test_progress_ends_at_all_of_it(get):
    get("/a")
    assert get.seen[-1] == (len(DATA), len(DATA))
    assert get.seen == sorted(get.seen)


def test_a_cut_connection_goes_on_at_the_byte_where_it_stopped(get, server):
    server.manners["/a"] = cutting(300_000, 700_000)
    get("/a")
    assert get.part.read_bytes() == DATA
    assert server.ranges("/a") == ["", "bytes=300000-", "bytes=700000-"]


def test_a_part_of_an_earlier_process_is_gone_on_with(get, server):
    get.part.write_bytes(DATA[:500_000])
    get("/a")
    assert get.part.read_bytes() == DATA
    assert server.ranges("/a") == ["bytes=500000-"]


@pytest.mark.parametrize("known", [{}, {"sha256": "", "size": 0}])
def test_a_part_that_is_called_json_is_gone_on_with_too(get, server, known):
    """A Mini DALL-E's parts have their files' own names."""
    get.part = get.part.with_name("vocab.json")
    server.manners["/a"] = cutting(300_000, 700_000)
    get("/a", **known)
    assert get.part.read_bytes() == DATA
    assert server.ranges("/a") == ["", "bytes=300000-", "bytes=700000-"]


ADDRESSES = ["https://example.com:notaport/x", "https://[::1/x", "nothing:", "https://a\nb/x", "https://e.com:99999/x",
             "https://exa mple/x", "https://a..b/x", f"https://{'a' * 300}.com/x", "hf:x", "hf:o/r@main/a\nb", "://",
             "https:"]  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_mirror_that_is_no_address_is_left(get, server, address):
    assert refused(get, address).exit_code == 5
    get(address, "/a")
    assert get.part.read_bytes() == DATA


def test_a_part_that_is_whole_already_asks_nobody(get, server):
    get.part.write_bytes(DATA)
    assert get("/a").sha256 == SHA
    assert server.asked == []


def test_a_part_that_is_whole_is_not_fetched_again_where_nobody_knows_its_hash(get, server):
    get("/a", sha256="", size=0)
    server.asked.clear()
    assert get("/a", sha256="", size=0).sha256 == SHA  # the conversion failed, say, for want of room
    assert server.ranges("/a") == [f"bytes={len(DATA)}-"]


def test_a_config_without_end_is_cut_off(get, server, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_TEXT", 100_000)

    def endless(handler, data):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"{" * 300_000)
        handler.close_connection = True

    server.manners["/a"] = endless
    refused(get, "/a", sha256="", size=0, text=True, error=IntegrityError)
    assert get.part.stat().st_size <= 100_000


def only_headers(handler, data):
    for _ in range(100_000):
        handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def half_a_header(handler, data):
    for letter in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000:
        handler.wfile.write(bytes([letter]))
        time.sleep(0.02)


def by_the_byte(handler, data):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    for byte in data:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.02)


def a_byte_and_a_cut(handler, data):
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    extra = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
    send(handler, 206 if start else 200, data[start : start + 1], length=len(data) - start, ETag='"one"', **extra)
    handler.close_connection = True


@pytest.mark.parametrize(
    "manner", [*(pytest.param(slow, marks=pytest.mark.full) for slow in (only_headers, half_a_header, by_the_byte)),
               a_byte_and_a_cut]
)  # fmt: skip
def test_a_server_that_only_dribbles_is_left_for_the_next(get, server, monkeypatch, manner):
    monkeypatch.setattr(module, "WINDOW", 0.3)
    monkeypatch.setattr(module, "LEAST_RATE", 1000)
    server.manners["/a"] = manner
    began = time.monotonic()
    assert get("/a", "/b").url.endswith("/b")
    assert time.monotonic() - began < 5
    assert "kB a second" in get.messages[0]


def test_a_slow_server_that_reaches_the_least_rate_is_waited_for(get, server, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 0.1)
    monkeypatch.setattr(module, "LEAST_RATE", 1000)

    def slow(handler, data):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for first in range(0, len(data), len(data) // 20):
            handler.wfile.write(data[first : first + len(data) // 20])
            time.sleep(0.02)

    server.manners["/a"] = slow
    assert get("/a").size == len(DATA)


def endless(handler, data):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(DATA)


def boastful(handler, data):
    send(handler, 200, data, length=999 * 10**12)


@pytest.mark.parametrize("manner", [endless, boastful])
@pytest.mark.parametrize("roughly", [0, len(DATA)])
def test_a_size_beyond_reason_is_left_for_the_next(get, server, monkeypatch, manner, roughly):
    monkeypatch.setattr(module, "LONGEST", 3 * len(DATA))
    server.manners["/a"] = manner
    assert get("/a", "/b", sha256="", size=0, roughly=roughly).url.endswith("/b")
    assert get.part.read_bytes() == DATA


def test_what_is_not_adopted_is_another_file_and_the_next_mirror_is_asked(get, server):
    other = b"PK\x03\x04another"
    server.files["/a"] = other

    def adopt(fetched):
        if fetched.path.read_bytes() == other:
            raise ModelError(f"{fetched.path} is another model", "")

    assert get("/a", "/b", sha256="", size=0, adopt=adopt).url.endswith("/b")
    assert get.messages == ["127.0.0.1: what it sent is another model; trying the next mirror"]
    error = refused(get, "/a", sha256="", size=0, adopt=adopt)
    assert "another model" in error.what
    assert not get.part.exists()


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "\u00b2", "1e9"])
def test_a_length_that_is_none_is_not_believed(get, server, length):
    def lying(handler, data):
        handler.send_response(200)
        handler.send_header("X-Linked-Size", length)
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True

    server.manners["/o/r/resolve/main/f"] = lying
    server.files["/o/r/resolve/main/f"] = DATA
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        assert get("hf:o/r@main/f", sha256="", size=0).sha256 == SHA


# Hugging Face's own cache

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Return a function that puts a file where huggingface_hub keeps it: a snapshot that links to a blob."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(data, name=SHA):
        repo = tmp_path / "hub" / "models--o--r"
        for folder in ("blobs", "refs", f"snapshots/{REVISION}/x"):
            (repo / folder).mkdir(parents=True)
        (repo / "refs" / "main").write_text(REVISION)
        (repo / "blobs" / name).write_bytes(data)
        (repo / "snapshots" / REVISION / "x" / "y.ckpt").symlink_to(f"../../../blobs/{name}")
        return repo / "snapshots" / REVISION / "x" / "y.ckpt"

    return put


@pytest.mark.parametrize("revision", ["main", REVISION])
def test_what_the_cache_has_is_not_downloaded(get, server, hub_cache, revision):
    there = hub_cache(DATA)
    fetched = get("/a", f"hf:o/r@{revision}/x/y.ckpt", offline=True)
    assert (fetched.path, fetched.sha256) == (there, SHA)
    assert server.asked == []
    assert not get.part.exists()
    assert there.read_bytes() == DATA


@pytest.mark.parametrize(("data", "known"), [(DATA[:-1], {}), (b"z" * len(DATA), {}),
                                             (b"z" * len(DATA), {"sha256": "", "size": 0})])  # fmt: skip
def test_what_is_damaged_there_is_downloaded(get, hub_cache, data, known):
    hub_cache(data)
    assert get("hf:o/r@main/x/y.ckpt", "/a", **known).path == get.part
    assert "damaged" in get.messages[0]


def test_of_another_revision_nothing_is_taken(get, hub_cache):
    hub_cache(DATA)
    assert get(f"hf:o/r@{'f' * 40}/x/y.ckpt", "/a").path == get.part


def test_offline_and_nowhere_is_told(get, server):
    assert "offline" in refused(get, "/a", offline=True).what
    assert server.asked == []


def test_the_next_mirror_goes_on_where_the_first_gave_up(get, server):
    server.manners["/a"] = lambda handler, data: (
        cutting(400_000)(handler, data) if "Range" not in handler.headers else send(handler, 404)
    )
    assert get("/a", "/b").url.endswith("/b")
    assert server.ranges("/b") == ["bytes=400000-"]


def test_a_server_that_knows_no_ranges_starts_again(get, server):
    get.part.write_bytes(b"x" * 1000)
    server.manners["/a"] = lambda handler, data: send(handler, 200, data)
    get("/a")
    assert get.part.read_bytes() == DATA


def test_a_server_that_knows_no_ranges_and_always_cuts_is_given_up(get, server):
    server.manners["/a"] = lambda handler, data: (
        send(handler, 200, data[:9000], length=len(data)),
        setattr(handler, "close_connection", True),
    )
    refused(get, "/a")
    assert len(server.asked) < 10


def test_a_wrong_range_is_not_believed(get, server):
    get.part.write_bytes(DATA[:500_000])
    server.manners["/a"] = lambda handler, data: (
        send(handler, 206, data[9:], Content_Range=f"bytes 9-{len(data) - 1}/{len(data)}")
        if "Range" in handler.headers
        else good(handler, data)
    )
    get("/a")
    assert get.part.read_bytes() == DATA


def test_a_part_of_other_bytes_is_found_out_and_made_again(get, server):
    get.part.write_bytes(b"z" * 500_000)
    get("/a")
    assert get.part.read_bytes() == DATA
    assert server.ranges("/a") == ["bytes=500000-", ""]


def test_a_part_longer_than_the_file_is_made_again(get, server):
    get.part.write_bytes(b"z" * (len(DATA) + 1))
    get("/a")
    assert get.part.read_bytes() == DATA


def test_without_a_hash_a_changed_file_is_not_patched_together(get, server):
    server.manners["/a"] = cutting(300_000)
    changed = DATA[:4] + DATA[4:][::-1]
    original, asked = server.manners["/a"], []

    def change(handler, data):
        if server.ranges("/a") == [""]:
            original(handler, data)
        else:
            asked.append(handler.headers["If-Range"])
            send(handler, 200, changed, ETag='"two"')  # as the protocol asks of a server whose file has changed

    server.manners["/a"] = change
    get("/a", sha256="", size=0)
    assert get.part.read_bytes() == changed
    assert asked == ['"one"']


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(get, server, status):
    server.manners["/a"] = failing(status, 2)
    get("/a")
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "reason"), [(404, "404"), (410, "410"), (401, "HF_TOKEN"), (403, "HF_TOKEN")])
def test_a_server_that_has_it_not_is_left_at_once(get, server, status, reason):
    server.manners["/a"] = failing(status, 9)
    assert get("/a", "/b").url.endswith("/b")
    assert len(server.asked) == 2
    assert reason in get.messages[0]
    assert "next mirror" in get.messages[0]


def test_a_server_that_stalls_is_left(get, server, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", httpx2.Timeout(0.1))
    monkeypatch.setattr(module, "TRIES", 2)
    free = threading.Event()
    server.manners["/a"] = lambda handler, data: free.wait(5)
    began = time.monotonic()
    assert get("/a", "/b").url.endswith("/b")
    free.set()
    assert time.monotonic() - began < 3
    assert "stalled" in get.messages[0] or "timed out" in get.messages[0]


def test_a_server_that_is_not_there_is_left_at_once(get):
    began = time.monotonic()
    assert get("http://127.0.0.1:9/a", "/b").url.endswith("/b")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("page", "kind"),
    [(b"<!DOCTYPE html><html>", "application/octet-stream"), (b"<html>", "text/html; charset=utf-8"),
     (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "text/plain"), (b"Not today.\n", "text/plain")],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused_by_its_first_bytes(get, server, page, kind):
    server.manners["/a"] = lambda handler, data: send(handler, 200, page, Content_Type=kind)
    error = refused(get, "/a", sha256="", size=0)
    assert error.exit_code == 5
    assert "web page" in error.what or "LFS" in error.what or "text" in error.what


def test_wrong_bytes_are_deleted_and_the_next_mirror_is_tried(get, server):
    server.files["/a"] = DATA[::-1]
    server.files["/a"] = b"PK\x03\x04" + b"q" * (len(DATA) - 4)
    assert get("/a", "/b").url.endswith("/b")
    assert "sha256" in get.messages[0]


def test_wrong_bytes_everywhere_are_an_integrity_error_and_nothing_stays(get, server):
    server.files["/a"] = b"PK\x03\x04" + b"q" * (len(DATA) - 4)
    error = refused(get, "/a", error=IntegrityError)
    assert error.exit_code == 6
    assert not get.part.exists()


def test_an_address_that_names_its_hash_is_held_to_that_one(get, server):
    """The same model in another file, which stands in for the catalogue's: OpenAI's own CLIPs beside the hub's."""
    other = b"PK\x03\x04" + b"q" * 5000
    right, wrong = (f"/clip/models/{sha}/ViT-B-32.pt" for sha in (hashlib.sha256(other).hexdigest(), "0" * 64))
    server.files[right] = server.files[wrong] = other
    server.manners["/a"] = failing(500, 99)
    assert get("/a", wrong, right).url.endswith(right)
    assert "sha256" in get.messages[2]
    assert get.part.read_bytes() == other


def test_a_part_of_the_catalogues_file_is_no_beginning_of_the_other_one(get, server):
    other = b"PK\x03\x04" + b"q" * 5000
    path = f"/clip/models/{hashlib.sha256(other).hexdigest()}/ViT-B-32.pt"
    server.files[path] = other
    server.manners["/a"] = cutting(*[3000] * 9)
    assert get("/a", path).size == len(other)
    assert server.ranges(path) == [""]


@pytest.mark.parametrize(
    ("address", "named"),
    [
        (f"https://openaipublic.azureedge.net/clip/models/{SHA}/RN50.pt", SHA),
        (f"hf:o/r@main/clip/{SHA}/RN50.pt", SHA),
        (
            "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/rn50-cc12m-f000538c.pt",
            "f000538c",
        ),
        ("https://example.com/model-20240101.pt", ""),
        (f"https://example.com/ipfs/{SHA}/model.ckpt", ""),  # of another kind of hash, for all we know
        ("hf:o/r@a6f597a30f7b82c51704746581f9a4e41421e878/open_clip_model.safetensors", ""),
    ],
)
def test_which_addresses_name_a_hash(address, named):
    assert module.named_sha256(address) == named


def test_the_first_digits_of_a_hash_are_compared(get, server):
    server.files["/a"] = DATA
    assert get("/a", sha256=SHA[:8], size=0).sha256 == SHA
    assert "sha256" in refused(get, "/b", sha256="00000000", size=0, error=IntegrityError).what


def test_a_wrong_size_is_refused_before_it_is_downloaded(get, server):
    server.files["/a"] = DATA[:-1]
    assert f"{len(DATA):,}" in refused(get, "/a").what
    assert get.seen == []


def test_a_server_that_sends_more_than_it_said_is_cut_short(get, server):
    def endless(handler, data):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data + b"more" * 100)
        handler.close_connection = True

    server.manners["/a"] = endless
    refused(get, "/a", error=IntegrityError)
    assert not get.part.exists() or get.part.stat().st_size <= len(DATA)


def test_when_all_mirrors_fail_each_is_named_with_its_reason(get, server):
    server.manners["/a"] = failing(404, 9)
    server.manners["/b"] = failing(403, 9)
    error = refused(get, "/a", "/b")
    assert "404" in error.what
    assert "403" in error.what
    assert "models import" in error.hint
    assert "\n" not in error.what


# redirects, tokens, addresses


def test_what_a_host_says_of_several_mirrors_is_said_once(get):
    assert refused(get, "/one", "/two").what.count("404") == 1


def test_redirects_are_followed_and_keep_the_range(get, server):
    server.manners["/a"] = redirecting("/b")
    get.part.write_bytes(DATA[:500_000])
    get("/a")
    assert server.ranges("/b") == ["bytes=500000-"]


def test_redirects_in_a_circle_end(get, server):
    server.manners["/a"] = redirecting("/a")
    assert "redirect" in refused(get, "/a").what


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/a", "file:///etc/passwd", "http://example.org/a", "nonsense", ""])
def test_only_https_is_spoken(get, server, address):
    server.manners["/a"] = redirecting(address) if address else failing(404, 1)
    assert refused(get, "/a" if address else "ftp://x/a").exit_code == 5


def test_plain_http_is_spoken_with_this_machine_alone_and_not_by_way_of_another(get, server, monkeypatch):
    monkeypatch.setattr(module, "LOOPBACK", ("localhost",))  # so that 127.0.0.1 is somewhere else
    assert "not https" in refused(get, "/a").what
    assert server.asked == []
    local = server.url.replace("127.0.0.1", "localhost")
    server.manners["/a"] = redirecting(f"{server.url}/b")
    assert "not https" in refused(get, f"{local}/a").what


def test_a_mirror_elsewhere_may_not_send_us_to_this_machine(get, server, monkeypatch):
    elsewhere = httpx2.MockTransport(lambda request: httpx2.Response(302, headers={"Location": f"{server.url}/a"}))
    client = httpx2.Client
    monkeypatch.setattr(httpx2, "Client", lambda **options: client(transport=elsewhere, **options))
    assert "not https" in refused(get, "https://models.example/a").what
    assert server.asked == []


def test_a_file_of_the_hub_is_asked_of_hf_endpoint(get, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    server.files["/owner/repo/resolve/main/x/y.ckpt"] = DATA
    assert get("hf:owner/repo@main/x/y.ckpt").url == f"{server.url}/owner/repo/resolve/main/x/y.ckpt"


def test_the_hubs_address_without_hf_endpoint(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert module.resolve("hf:a/b@0f/c/d.bin") == "https://huggingface.co/a/b/resolve/0f/c/d.bin"
    assert module.resolve("https://x.org/y") == "https://x.org/y"


def test_the_token_goes_to_the_hub(get, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.files["/o/r/resolve/main/f"] = DATA
    get("hf:o/r@main/f")
    assert server.asked[0][1]["Authorization"] == "Bearer hf_secret"


def test_the_token_does_not_go_with_a_redirect_to_another_host(get, server, monkeypatch):
    other = Server()
    other.files["/cdn"] = DATA
    server.manners["/o/r/resolve/main/f"] = redirecting(f"{other.url}/cdn")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get("hf:o/r@main/f")
    other.close()
    assert "Authorization" in server.asked[0][1]
    assert [headers.get("Authorization") for _, headers in other.asked] == [None]


def test_the_token_does_not_go_to_other_mirrors(get, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get("/a")
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize(
    "token", ["hf_secret", "hf_secret\nX: y", "hf_secret\u00e9", "hf_secret\0", "Bearer hf_secret"]
)
def test_the_token_is_in_no_message(get, server, monkeypatch, token):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(module.os, "environ", {**module.os.environ, "HF_TOKEN": token})
    error = refused(get, "hf:o/r@main/f")
    assert "hf_secret" not in error.what + error.hint + "".join(get.messages)


def test_the_hubs_own_hash_is_checked_where_none_is_known(get, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    other = Server()
    other.files["/cdn"] = DATA[:4] + b"q" * (len(DATA) - 4)
    server.manners["/o/r/resolve/main/f"] = lambda handler, data: send(
        handler, 302, Location=f"{other.url}/cdn", X_Linked_Etag=f'"{SHA}"', X_Linked_Size=str(len(DATA))
    )
    error = refused(get, "hf:o/r@main/f", error=IntegrityError, sha256="", size=0)
    other.close()
    assert "sha256" in error.what


def test_a_proxy_of_the_environment_is_used(get, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(module, "LOOPBACK", ("models.example",))
    server.files["http://models.example/a"] = DATA
    get("http://models.example/a")
    assert server.asked[0][0] == "http://models.example/a"


# the disk


def test_too_little_room_is_said_before_anything_is_written(get, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    error = refused(get, "/a", error=OutputError)
    assert error.exit_code == 8
    assert "too little room" in error.what
    assert get.seen == []


def test_a_disk_that_fills_up_on_the_way_is_told(get, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module._Transfer, "_write", full)
    error = refused(get, "/a", error=OutputError)
    assert "No space left" in error.what


def test_ctrl_c_keeps_the_part(get, server):
    def interrupt(done, total):
        if done > 300_000:
            raise KeyboardInterrupt

    wanted = RemoteFile("thing", (server.url + "/a",), size=len(DATA), sha256=SHA)
    with pytest.raises(KeyboardInterrupt):
        download(wanted, get.part, interrupt, print)
    kept = get.part.stat().st_size
    assert 0 < kept < len(DATA)
    get("/a")
    assert server.ranges("/a") == ["", f"bytes={kept}-"]
