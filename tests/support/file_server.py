"""A server of one file on this machine, which breaks off, stalls and lies as it is told; and a download from it."""

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from era_support_packages.system.download import begin
from era_support_packages.system.download_attempt import Patience

CONTENT, OTHER = (np.random.default_rng(seed).bytes(300_000) for seed in range(2))
# A machine that is busy stands still for a second now and then: only who asks for it takes silence or slowness for a fault.
CALM = Patience(answer=60, silence=60, slow_window=600, pause=0.01)
SILENT = Patience(answer=60, silence=1.5, slow_window=600, pause=0.01)
SLOW = Patience(answer=60, silence=60, slow_rate=30_000, slow_window=0.3, pause=0.01)


@dataclass
class FileServer:
    """What it serves, and what it was asked. Each request takes the first of `answers`; without one it is answered well.

    An answer is a dict of: `status`; `location` of a redirect; `send` only so many bytes, then close; `stall` for so many
    seconds after those; `length`, the header Content-Length, None for none; `chunk` bytes at a time with `every` seconds between;
    `late` by so many bytes beyond the range that was asked for; `etag`.
    """

    content: bytes = b""
    etag: str | None = '"1"'
    ranges: bool = True
    checks_if_range: bool = True
    answers: list[dict] = field(default_factory=list)
    always: dict = field(default_factory=dict)  # what every answer has
    seen: list[SimpleNamespace] = field(default_factory=list)  # method, path, range, if_range, sent bytes
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/archive.tar.gz"

    @property
    def ranges_asked(self) -> list[str | None]:
        return [request.range for request in self.seen]

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        how = self.always | (self.answers.pop(0) if self.answers else {})
        asked, if_range = handler.headers.get("Range"), handler.headers.get("If-Range")
        request = SimpleNamespace(method=handler.command, path=handler.path, range=asked, if_range=if_range, sent=0)
        self.seen.append(request)
        status, start, total = how.get("status", 200), 0, len(self.content)
        changed = self.checks_if_range and if_range not in (None, self.etag)
        if status == 200 and asked and self.ranges and not changed:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) + how.get("late", 0)
            status = 206 if start < total else 416
        handler.send_response(status)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if etag := how.get("etag", self.etag):
            handler.send_header("ETag", etag)
        if "location" in how:
            handler.send_header("Location", how["location"])
        body = self.content[start:] if status in (200, 206) else b""
        if (length := how.get("length", len(body))) is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        body = body[: how.get("send", len(body))]
        size = how.get("chunk", max(len(body), 1))
        for at in range(0, len(body), size):
            handler.wfile.write(body[at : at + size])
            request.sent += len(body[at : at + size])
            if self.closing.wait(how.get("every", 0)):
                return
        self.closing.wait(how.get("stall", 0))


@contextmanager
def serving(content: bytes = b"", **options: object) -> Iterator[FileServer]:
    """A server while it lasts."""
    server = FileServer(content, **options)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                server.answer(self)
            except ConnectionError:  # the other side has hung up
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        server.port = httpd.server_port
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.closing.set()
        httpd.shutdown()


def wait_until(condition: object, seconds: float = 10.0) -> None:
    """Return as soon as `condition()` holds; fail where it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def fetch(file: Path, *servers: FileServer | str, md5: str | None = None, patience: Patience = CALM) -> str | None:
    """The problem of a download of CONTENT, or of what has that md5."""
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return begin(file, urls, md5 or hashlib.md5(CONTENT).hexdigest(), patience).wait()


def left(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir()) if file.parent.exists() else []


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/archive.tar.gz"
