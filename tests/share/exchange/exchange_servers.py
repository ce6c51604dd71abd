"""Real servers on loopback, which count what they send and can be made to misbehave."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

PIECE = 64 << 10


class Static(ThreadingHTTPServer):
    """A static web server.

    Attributes:
        sent: body bytes by path; ``requests`` how many.
        fault: is given each request, and may answer it itself (then it returns True).
        stop_at: bytes after which it says nothing more until ``go_on`` is set.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, root: Path, ranges: bool = True, tags: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.ranges, self.tags = root, ranges, tags
        self.sent: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.fault: Callable[[_Handler], bool] = lambda handler: False
        self.stop_at: int | None = None
        self.era = 0  # what is sent to a client that was killed counts no more
        self.stopped, self.go_on = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def reset(self) -> None:
        with self.lock:
            self.era += 1
        self.sent.clear()
        self.requests.clear()
        self.headers.clear()
        self.stop_at = None
        self.go_on.set()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: Static

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, path = self.server, unquote(urlsplit(self.path).path).lstrip("/")
        with server.lock:
            server.requests[path] += 1
            server.headers.append(dict(self.headers))
        if server.fault(self):
            return
        file = server.root / path
        if not file.is_file():
            self.answer(404, b"<html>not found</html>")
            return
        content = file.read_bytes()
        tag = f'"{file.stat().st_mtime_ns}"'
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if server.ranges and match and (condition is None or condition == tag):
            start = int(match[1])
            if start >= len(content):
                self.answer(416, b"")
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            start = 0
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.tags:
            self.send_header("ETag", tag)
        self.end_headers()
        self.body(path, content[start:])

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def body(self, path: str, content: bytes) -> None:
        server, era = self.server, self.server.era
        for at in range(0, len(content), PIECE):
            piece = content[at : at + PIECE]
            if server.stop_at is not None and server.total >= server.stop_at:
                server.stopped.set()
                server.go_on.wait(60)
            if server.era != era:
                return
            self.wfile.write(piece)
            self.wfile.flush()
            with server.lock:
                server.sent[path] += len(piece)


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        if isinstance(server, Static):
            server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Wire:
    """A plain TCP relay to a server: counts the bytes of both ways, and holds them back after so many.

    Attributes:
        up, down: bytes to and from the server.
        hold_up: bytes to the server after which no more pass until ``go_on`` is set.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.up = self.down = 0
        self.hold_up: int | None = None
        self.hold_down: int | None = None
        self.stopped, self.go_on = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def reset(self) -> None:
        self.hold_up = self.hold_down = None
        self.go_on.set()
        self.up = self.down = 0

    def close(self) -> None:
        self.go_on.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self._open += [near, far]
            for source, sink, is_up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._relay, args=(source, sink, is_up), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                with self._lock:
                    count, limit = (self.up, self.hold_up) if is_up else (self.down, self.hold_down)
                if limit is not None and count >= limit:
                    self.stopped.set()
                    self.go_on.wait(60)
                with self._lock:
                    if is_up:
                        self.up += len(piece)
                    else:
                        self.down += len(piece)
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
