"""The page that grows: what it serves and to whom, and what a browser shows of a run that is going on."""

import contextlib
import http.client
import json
import os
import re
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
import pytest
from PIL import Image

import vqclip.cli.watch
import vqclip.report.page
import vqclip.report.watch
from tests.support.browser import MISSING, browser
from vqclip.batch.manifest import Entry
from vqclip.config.resolve import resolve
from vqclip.report.watch import BrowserView, WatchServer
from vqclip.runs.api import generate

SMALL = {"size": "32x32", "cutouts": 2, "seed": 7, "frames_every": 1, "preset": "tiny"}


class RunGoingOn:
    """A run in a thread that makes a step when it is let."""

    def __init__(self, folder, prompt="an owl", steps=4):
        self._steps, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(
            target=generate, args=(prompt,),
            kwargs=SMALL | {"runs": folder, "steps": steps, "on_step": self._wait, "on_start": self._begun},
        )  # fmt: skip
        self.path = None
        self._thread.start()

    def _begun(self, session, run):
        self.path = run.path
        self._done.release()
        self._steps.acquire()

    def _wait(self, step):
        self._done.release()
        self._steps.acquire()

    def wait(self):
        """Wait until it has come so far that it must be let on."""
        assert self._done.acquire(timeout=30)

    def go(self):
        """Let it make another step."""
        self._steps.release()

    def end(self):
        self._steps.release(100)
        self._thread.join(30)


@pytest.fixture
def going(networks, tmp_path):
    """Return a run that stands before its first step."""
    run = RunGoingOn(tmp_path / "runs")
    run.wait()
    yield run
    run.end()


@pytest.fixture
def done(networks, tmp_path):
    """Return the folder of a run that is done."""
    return generate("an owl", runs=tmp_path / "runs", steps=3, **SMALL).run


def ask(url, path="/", method="GET", **headers):
    where = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(where.hostname, where.port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)


def images_of(page):
    return [path.decode() for path in re.findall(rb'<img src="([^"]+)"', page)]


def test_it_serves_the_page_and_the_images_that_it_links_to(done):
    with WatchServer(done.parent) as server:
        status, page, headers = ask(server.url)
        assert status == 200
        assert b"an owl" in page
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        (link,) = images_of(page)
        status, image, headers = ask(server.url, f"/{link}")
        assert (status, image, headers["Content-Type"]) == (200, (done / "final.png").read_bytes(), "image/png")
        version = ask(server.url)[2]["ETag"]
        assert ask(server.url, If_None_Match=version)[0] == 200
        assert ask(server.url, **{"If-None-Match": version})[:2] == (304, b"")
        assert ask(server.url, method="HEAD")[:2] == (200, b"")


@pytest.mark.full
@pytest.mark.parametrize(
    "path",
    ["/{run}/run.json", "/{run}/state.safetensors", "/{run}/../{run}/final.png", "/{run}/%2e%2e/secret.png",
     "/secret.png", "/{run}/frames/..%2f..%2f..%2fsecret.png", "/..%2f{run}/final.png", "//etc/passwd",
     "/{run}/final.png/x", "/{run}/final.png%00", "/%2fetc/passwd", "/{run}/frames/000009.png",
     "/{run}/frames", "/{run}/%e9.png", "HTTP://["],
)  # fmt: skip
def test_it_serves_nothing_else(done, tmp_path, path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    Image.new("RGB", (8, 8)).save(done.parent / "secret.png")
    with WatchServer(done.parent) as server:
        ask(server.url)
        assert ask(server.url, path.format(run=done.name))[0] == 404


def test_it_follows_no_link_out_of_a_run_or_of_the_folder(done, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    with WatchServer(done.parent) as server:
        ask(server.url)
        for name in ("final.png", "frames/000001.png"):
            (done / name).unlink()
            (done / name).symlink_to(secret)
            assert ask(server.url, f"/{done.name}/{name}")[0] == 404
    elsewhere = tmp_path / "elsewhere"
    done.rename(elsewhere)
    done.symlink_to(elsewhere)
    with WatchServer(done.parent) as server:
        assert b"an owl" not in ask(server.url)[1]


def test_a_file_that_is_no_png_is_not_served(done):
    (done / "frames/000001.png").write_bytes(b"<script>")
    with WatchServer(done) as server:
        ask(server.url)
        assert ask(server.url, f"/{done.name}/frames/000001.png")[0] == 404


def test_it_answers_to_this_machines_names_and_changes_nothing(done):
    with WatchServer(done) as server:
        port = urlsplit(server.url).port
        for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
            assert ask(server.url, Host=host)[0] == 200
        for host in (f"evil.example:{port}", "localhost", f"localhost:{port}.evil.example", ""):
            assert ask(server.url, Host=host)[0] == 421
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert ask(server.url, method=method)[0] == 501


def test_new_runs_come_first_and_only_what_changed_is_read_again(done, networks, monkeypatch):
    made = []
    make_card = vqclip.report.watch.make_card
    monkeypatch.setattr(vqclip.report.watch, "make_card", lambda *a, **k: made.append(a[1].path) or make_card(*a, **k))
    with WatchServer(done.parent) as server:
        ask(server.url)
        second = generate("a frog", runs=done.parent, steps=3, **SMALL).run
        page = ask(server.url)[1]
        assert page.index(b"a frog") < page.index(b"an owl")
        made.clear()
        ask(server.url)
        assert made == []
        os.utime(second / "metrics.jsonl")
        ask(server.url)
        assert made == [second]
        third = generate("a bee", runs=done.parent, steps=3, **SMALL).run
        ask(server.url)
        assert made == [second, third]


def test_a_batchs_rows_are_read_again_when_its_file_changes_and_nothing_is_compiled_twice(done, monkeypatch):
    count = Counter()

    def counted(owner, name):
        whole = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: count.update([name]) or whole(*a, **k))

    batch = done.parent.parent
    entry = Entry(name=done.name, index=1, source=0, location="p:1", key="k", settings=resolve("an owl", "tiny", 7))
    write_rows(batch, entry)
    with WatchServer(batch) as server:
        ask(server.url)
        counted(vqclip.report.watch, "read_manifest")
        counted(vqclip.report.page, "curve_points")
        counted(jinja2.Environment, "compile")
        assert ask(server.url)[1].count(b"<article") == 1
        assert count == {}
        write_rows(batch, entry.model_copy(update={"status": "failed", "error": "no such luck"}))
        assert b"no such luck" in ask(server.url)[1]
        assert count.keys() == {"read_manifest", "curve_points"}
        later = entry.model_copy(update={"name": "later", "index": 2, "key": "l"})
        write_rows(batch, entry, later)
        numbers = dict(re.findall(rb'<article id="([^"]+)".*data-number="([-\d]+)"', ask(server.url)[1]))
        assert list(numbers) == [b"later", done.name.encode()]
        assert int(numbers[b"later"]) < int(numbers[done.name.encode()])  # as a page sorts them
        (batch / "batch.json").write_text("{")  # by a disk that is full
        assert b"<article" not in ask(server.url)[1]


def write_rows(folder, *entries):
    rows = [entry.model_dump(mode="json", by_alias=True) for entry in entries]
    (folder / "batch.json").write_text(json.dumps({"schema": "vqclip-batch/1", "rows": rows}))


def test_an_empty_folder_waits_for_its_runs(tmp_path, networks):
    (tmp_path / "runs").mkdir()
    with WatchServer(tmp_path / "runs") as server:
        assert b"<article" not in ask(server.url)[1]
        generate("an owl", runs=tmp_path / "runs", steps=3, **SMALL)
        assert b"<article" in ask(server.url)[1]


@pytest.mark.full
@pytest.mark.skipif(bool(MISSING), reason=MISSING or "all there")
def test_a_browser_shows_a_run_while_it_grows(going, tmp_path):
    at = "return [document.querySelector('progress')?.value ?? null, document.querySelector('article').dataset.status]"
    source = "return document.querySelector('img')?.src"
    with WatchServer(tmp_path / "runs") as server, browser() as page:
        page.open(server.url)
        going.go()
        going.wait()
        page.until("return document.querySelector('progress')?.value === 1")
        assert page.run("return document.querySelector('details').open")  # of a run alone
        page.click("summary")
        first = page.until(source)
        going.go()
        going.wait()
        page.until("return document.querySelector('progress')?.value === 2")
        assert page.until(source) != first
        assert not page.run("return document.querySelector('details').open")
        assert page.run("return document.querySelector('main').className") == "single"
        other = RunGoingOn(tmp_path / "runs", "a frog", 2)
        other.wait()
        page.until("return document.querySelectorAll('article').length === 2")
        assert page.run("return document.querySelector('h2').textContent") == "a frog"
        other.end()
        going.end()
        page.until("return [...document.querySelectorAll('article')].every(a => a.dataset.status === 'done')")
        assert page.run(at)[0] is None
        assert page.run("return [...document.images].every(i => i.naturalWidth > 0)")
        assert page.console() == []
        for url in page.requests():
            assert url.startswith((server.url, "data:")), url
    assert (going.path / "final.png").exists()


@pytest.mark.full
@pytest.mark.skipif(bool(MISSING), reason=MISSING or "all there")
def test_the_page_fits_a_phone_is_dark_where_that_is_liked_and_needs_no_script(going, tmp_path):
    with WatchServer(tmp_path / "runs") as server, browser() as page:
        page.emulate("setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page.emulate("setScriptExecutionDisabled", value=True)
        page.open(server.url)
        going.go()
        going.wait()
        # What the test runs is no script of the page.
        page.until("return document.querySelector('progress')?.value === 1")
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        dark = page.run("return getComputedStyle(document.documentElement).backgroundColor")
        assert max(map(int, re.findall(r"\d+", dark))) < 60


def test_the_command_says_where_and_rings_when_a_run_ends(going, run_here, monkeypatch, tmp_path):
    opened, asleep = [], iter([going.go, going.end])

    def sleep(seconds):
        if act := next(asleep, None):
            act()
            return
        raise KeyboardInterrupt

    monkeypatch.setattr("vqclip.report.watch.open_browser", opened.append)
    monkeypatch.setattr(vqclip.cli.watch, "time", type("", (), {"sleep": staticmethod(sleep)}))
    done = run_here("watch", tmp_path / "runs", "--open", "--bell")
    assert done.code == 0, done.err
    assert [f"{url}\n" for url in opened] == [done.out]
    assert any(going.path.name in line and "done" in line for line in done.lines)
    assert "\a" not in done.err  # which is no terminal


@pytest.mark.parametrize(("words", "code"), [(("nope",), 4), (("file",), 4), ((".", "--port", "99999"), 2)])
def test_the_command_refuses(run_here, words, code):
    Path("file").touch()
    assert run_here("watch", *words).code == code


def test_a_port_that_is_taken_is_an_error_that_says_so(run_here, tmp_path):
    with WatchServer(tmp_path) as server:
        refused = run_here("watch", tmp_path, "--port", urlsplit(server.url).port)
    assert (refused.code, "--port" in refused.err) == (2, True)


@pytest.mark.full
@pytest.mark.parametrize("words", [("generate", "--steps", "3"), ("story", "--frames", "3", "--frame-steps", "1")])
def test_a_command_opens_its_own_page_and_waits_for_the_browser(vq, monkeypatch, words):
    pages = []

    def look_on(url):
        def fetch():
            with contextlib.suppress(OSError):
                while True:
                    pages.append(ask(url)[1])

        threading.Thread(target=fetch, daemon=True).start()

    monkeypatch.setattr("vqclip.report.watch.open_browser", look_on)
    done = vq(words[0], "an owl", *words[1:], "--size", "32x32", "--set", "cutouts=2", "--open")
    assert done.code == 0, done.err
    assert b'data-status="done"' in pages[-1]


def test_a_run_without_a_folder_has_no_page(networks):
    with BrowserView().closing() as view:
        generate("an owl", steps=2, progress=view, **SMALL)
