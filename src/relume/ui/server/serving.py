"""The server as a process, or as a thread: it listens, answers, and ends without waiting for open pages."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from relume.ui.server.app import application


@dataclass(frozen=True)
class Address:
    """Where a server is to be found."""

    host: str
    port: int
    token: str | None = None

    @property
    def origin(self) -> str:
        """As a browser calls it: ``http://127.0.0.1:6060``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address of the page, with the token that lets one in."""
        return f"{self.origin}/" + (f"?token={self.token}" if self.token else "")


@contextmanager
def running(root: str | Path) -> Iterator[Address]:
    """The page of the runs below ``root``, served by a thread on a free port of this machine for as long as the block runs.

    Example:
        >>> import tempfile, urllib.request
        >>> with running(tempfile.mkdtemp()) as address:
        ...     with urllib.request.urlopen(address.url) as answer:
        ...         answer.status
        200
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = _Server(application(Path(root).absolute()))
        thread = threading.Thread(target=server.run, args=([listening],), name="relume-ui", daemon=True)
        thread.start()
        try:
            yield Address("127.0.0.1", listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    def __init__(self, app: Any) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            app, loop="asyncio", http="h11", ws="none", log_config=None, access_log=False, server_header=False
        )
        super().__init__(config)
