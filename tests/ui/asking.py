"""The server asked over a bare socket: nothing between cleans up what is sent."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relume.ui.server import Address

TOKEN = "a-token-that-nobody-guesses"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(address: Address, target: str, method: str = "GET", body: bytes | None = None, **headers: str | None) -> Answer:
    """One request; ``headers`` with underscores for hyphens, None leaves one out."""
    sent = {"host": f"127.0.0.1:{address.port}", "connection": "close", **headers}
    if body is not None:
        sent = {"content-length": str(len(body)), **sent}
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in sent.items() if value is not None]
    return send(address, "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))


def send(address: Address, data: bytes) -> Answer:
    """What comes back for these bytes, until the server closes; status 0 where it closed before it had read all of them."""
    whole = b""
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                whole += piece
        except ConnectionError:
            return Answer(0, {}, b"")
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split(" ")[1]), headers, body)


def post(address: Address, target: str, content: Any, **headers: str | None) -> Answer:
    """As the page does it."""
    own = {
        "origin": f"http://127.0.0.1:{address.port}",
        "content_type": "application/json",
        "sec_fetch_site": "same-origin",
    }
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ask(address, target, "POST", body, **(own | headers))
