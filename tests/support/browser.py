"""A headless Chromium, driven by chromedriver over its own protocol: what the page does, says and asks for."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

MISSING = next((f"{name} is not installed" for name in ("chromium", "chromedriver") if not shutil.which(name)), "")


class Browser:
    """One session."""

    def __init__(self, port):
        self._root = f"http://127.0.0.1:{port}"
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        wanted["goog:loggingPrefs"] = {"browser": "ALL", "performance": "ALL"}
        self._root += (
            "/session/" + self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        )

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def open(self, where):
        """Open a file, or an address."""
        self._ask("POST", "/url", {"url": where if isinstance(where, str) else where.as_uri()})

    def until(self, script, *args, seconds=20):
        """Run a script again and again until it returns something true; return that."""
        limit = time.monotonic() + seconds
        while not (answer := self.run(script, *args)):
            assert time.monotonic() < limit, script
            time.sleep(0.05)
        return answer

    def emulate(self, method, **params):
        """Send a command of Chromium's own protocol, for what WebDriver has not: dark mode, a phone, no scripts."""
        self._ask("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{method}", "params": params})

    def screenshot(self):
        """Return a PNG of what is seen."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def run(self, script, *args):
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(args)})

    def click(self, selector):
        """Click as a person does; the page may then do what it may not by itself."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{next(iter(found.values()))}/click", {})

    def console(self):
        return [line["message"] for line in self._ask("POST", "/se/log", {"type": "browser"})]

    def requests(self):
        """Return the addresses that the page asked for."""
        events = [
            json.loads(line["message"])["message"] for line in self._ask("POST", "/se/log", {"type": "performance"})
        ]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def quit(self):
        self._ask("DELETE", "")


@contextlib.contextmanager
def browser():
    """Start chromedriver and a session, and end both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(["chromedriver", f"--port={port}"], **quiet) as driver:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            found = Browser(port)
            try:
                yield found
            finally:
                found.quit()
        finally:
            driver.terminate()
