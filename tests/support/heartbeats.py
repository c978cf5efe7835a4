"""An HTTP server on 127.0.0.1 that keeps what is sent to it, as a monitor of heartbeats does; it may misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from support.program import wait_until


class Beat(NamedTuple):
    """One request."""

    path: str
    rid: str
    body: str


class Heartbeats:
    """The requests that came so far, and what the server answers."""

    def __init__(self) -> None:
        self.beats: list[Beat] = []
        self.status = 200
        self.hangs = self.closes = self.drips = False
        """Whether it answers nothing, hangs up without an answer, or sends one byte after the other without an end."""
        self.has_ended = threading.Event()
        self.url = ""

    @property
    def paths(self) -> list[str]:
        """The paths of the requests, in the order in which they came."""
        return [each.path for each in self.beats]

    def wait_for(self, count: int) -> list[Beat]:
        """Wait until so many requests have come, and return them."""
        wait_until(lambda: len(self.beats) >= count)
        return self.beats


@contextmanager
def heartbeats() -> Iterator[Heartbeats]:
    """Run the server."""
    found = Heartbeats()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            parts = urlsplit(self.path)
            found.beats.append(Beat(parts.path, parse_qs(parts.query).get("rid", [""])[0], body))
            if found.closes:
                return
            if found.hangs:
                found.has_ended.wait(60)
                return
            if found.drips:
                while not found.has_ended.wait(0.05):
                    self.wfile.write(b"H")
                return
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            found.has_ended.set()
            server.shutdown()
            thread.join()
