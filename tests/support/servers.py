"""A real HTTP server on the loopback, which serves files and misbehaves as told."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves `files` (path -> bytes); `manners` (path -> function of the handler and the data) replace the good ones.

    Every request is kept in `asked` as (path, headers).
    """

    def __init__(self):
        self.files, self.manners, self.asked = {}, {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.asked.append((self.path, dict(self.headers)))
                data = outer.files.get(self.path)
                outer.manners.get(self.path, good)(self, data)

            def log_message(self, *args):
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request, address):
                """Say nothing of clients that hang up."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def ranges(self, path):
        """Return the Range headers asked of a path, "" where there was none."""
        return [headers.get("Range", "") for asked, headers in self.asked if asked == path]


def send(handler, status, data=b"", length=None, **headers):
    """Answer; `length` may lie."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def good(handler, data, **more):
    """Serve a file, with ranges, as it should be."""
    if data is None:
        return send(handler, 404, b"no")
    wanted = handler.headers.get("Range")
    if not wanted:
        return send(handler, 200, data, ETag='"one"', **more)
    start = int(wanted.removeprefix("bytes=").rstrip("-"))
    if start >= len(data):
        return send(handler, 416, Content_Range=f"bytes */{len(data)}")
    return send(
        handler, 206, data[start:], ETag='"one"', Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}", **more
    )


def cutting(*places):
    """Return manners that close the connection at these bytes, one request after the other, then serve well."""
    left = list(places)

    def serve(handler, data):
        if not left:
            return good(handler, data)
        wanted = handler.headers.get("Range", "bytes=0-")
        start, end = int(wanted.removeprefix("bytes=").rstrip("-")), left.pop(0)
        extra = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if "Range" in handler.headers else {}
        send(handler, 206 if extra else 200, data[start:end], length=len(data) - start, ETag='"one"', **extra)
        handler.close_connection = True

    return serve


def failing(status, times):
    """Return manners that answer with a status some times, then serve well."""
    left = [status] * times
    return lambda handler, data: send(handler, left.pop(), b"sorry") if left else good(handler, data)


def redirecting(url):
    """Return manners that send everybody elsewhere."""
    return lambda handler, data: send(handler, 302, Location=url)
