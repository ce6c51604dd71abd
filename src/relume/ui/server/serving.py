"""The server as a process, or as a thread: where it listens, and how it ends without waiting for open pages."""

from __future__ import annotations

import errno
import ipaddress
import os
import platform
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn

from relume.errors import ConfigurationError, RelumeError, RootError
from relume.ui.server.app import application
from relume.ui.server.guard import hosts_of

PORT = 6060
_TRIED_PORTS = 100
_LATER = 10
"""How much later than others the server has its turn on a processor: a training beside it goes first."""


@dataclass(frozen=True)
class Address:
    """Where a server is to be found."""

    host: str
    port: int
    token: str | None = None

    @property
    def origin(self) -> str:
        """As a browser calls it: ``http://127.0.0.1:6060``."""
        host = platform.node() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address of the page, with the token that lets one in."""
        return f"{self.origin}/" + ("?" + urlencode({"token": self.token}) if self.token else "")


def serve(
    root: str | Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    token: str | None = None,
    ready: Callable[[Address], None] = lambda address: None,
) -> None:
    """Serve the page of the runs below ``root`` until Ctrl-C or SIGTERM.

    The process makes itself less urgent (``nice 10``), so that a training on the same processors has its turn first.

    Args:
        host: which address to listen on. Any but this machine's loopback gets a token, if none is given.
        port: by default 6060, or the next free one; 0 is any free one.
        token: what a browser must show; see `new_token`.
        ready: is told where the page is, when it can be opened.

    Raises:
        RootError: ``root`` is a file, or may not be read.
        ConfigurationError: nothing can listen there: the port is taken or not allowed, the host is not this machine.
    """
    _check_root(Path(root))
    listening = _listening(host, port)
    with suppress(OSError, AttributeError):
        os.nice(_LATER)
    is_here = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    place, number, *_ = listening.getsockname()
    if is_here and host != "localhost":
        host = place  # any other name for this machine is one that others could own, and is refused
    address = Address(host, number, token or (None if is_here else new_token()))
    app = application(Path(root).absolute(), hosts=() if is_here else hosts_of(host), token=address.token)
    with listening, suppress(KeyboardInterrupt):  # raised again when all is done
        ready(address)
        _Server(app).run([listening])


@contextmanager
def running(root: str | Path, *, token: str | None = None) -> Iterator[Address]:
    """The page of the runs below ``root``, served by a thread on a free port of this machine for as long as the block runs.

    Example:
        >>> import tempfile, urllib.request
        >>> with running(tempfile.mkdtemp()) as address:
        ...     with urllib.request.urlopen(address.url) as answer:
        ...         answer.status
        200
    """
    with _listening("127.0.0.1", 0) as listening:
        server = _Server(application(Path(root).absolute(), token=token))
        thread = threading.Thread(target=server.run, args=([listening],), name="relume-ui", daemon=True)
        thread.start()
        try:
            yield Address("127.0.0.1", listening.getsockname()[1], token)
        finally:
            server.should_exit = True
            thread.join()


def new_token() -> str:
    """What lets a browser in: ``RELUME_UI_TOKEN`` where that is set, else a new one that nobody can guess.

    Raises:
        ConfigurationError: the variable holds what can be guessed, or what no address can hold.
    """
    token = os.environ.get("RELUME_UI_TOKEN")
    if not token:
        return secrets.token_urlsafe(24)
    if not re.fullmatch(r"[\w-]{16,200}", token, re.ASCII):
        raise ConfigurationError("RELUME_UI_TOKEN must be 16 to 200 letters, digits, - or _: it stands in an address.")
    return token


class _Server(uvicorn.Server):
    """Ends at once: pages that listen for changes would else keep it for as long as they are open."""

    def __init__(self, app: Any) -> None:
        self._live = app.state.live
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",  # answers that fail are told by the application
                access_log=False,
                server_header=False,
                limit_concurrency=500,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=3,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._live.close()
        await super().shutdown(sockets)


def _check_root(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise RootError(f"{root} is a file: --root is the folder that holds the runs.")
    if root.exists() and not os.access(root, os.R_OK | os.X_OK):
        raise RootError(f"{root} may not be read: change its rights, or choose another folder with --root.")


def _listening(host: str, port: int | None) -> socket.socket:
    family, place = _resolved(host)
    ports = range(PORT, PORT + _TRIED_PORTS) if port is None else [port]
    for wanted in ports:
        try:
            return socket.create_server((place, wanted), family=family, backlog=128)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise _unusable(host, wanted, error) from None
    raise ConfigurationError(f"the ports {ports[0]} to {ports[-1]} are all taken: choose another with --port.")


def _resolved(host: str) -> tuple[int, str]:
    """The family and the address in digits of a host."""
    try:
        family, *_, place = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigurationError(
            f"--host {host}: there is no such address. This machine only: 127.0.0.1; all: 0.0.0.0"
        ) from None
    return family, str(place[0])


def _unusable(host: str, port: int, error: OSError) -> RelumeError:
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"port {port} is taken, maybe by another relume ui. Choose another with --port; without it the next free one is used."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigurationError(f"port {port} may not be used by this user: choose one above 1023 with --port.")
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigurationError(f"{host} is no address of this machine: --host 0.0.0.0 listens on all that it has.")
    return ConfigurationError(f"nothing can listen on {host}, port {port}: {error.strerror or error}.")
