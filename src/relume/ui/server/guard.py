"""What stands before every answer: who may ask, for what, and what a browser may do with it.

A page of runs is a target for the other pages that are open in the same browser. They can send requests to this machine, and with
a name that they own pointed at it (DNS rebinding) they could read the answers. So a request must name a host that nobody else can
own, what changes something must come from the page itself, and nothing here may be embedded, framed or sniffed elsewhere.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from blake3 import blake3
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relume.ui.server.page import refusal

_PATH_LIMIT, _QUERY_LIMIT = 4096, 60_000  # a comparison names hundreds of runs
_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Refusal:
    """Why a request gets no answer."""

    status: int
    reason: str


class Guard:
    """Refuses what must not be answered, and puts the headers that protect on every answer.

    Args:
        hosts: names besides those of this machine's loopback under which the server may be asked.
        token: what every request must show: in the address of the first page, which then gets a cookie, or as
            ``Authorization: Bearer``. None lets everybody in who reaches the server.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = (), token: str | None = None) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._token = token
        self._cookie = (
            None if token is None else f"relume-{blake3(token.encode()).hexdigest()[:12]}"
        )  # each server has its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        answer = _protected(send, self._new_cookie(scope))
        why = self._refusal(scope)
        if why is None:
            return await self._app(scope, receive, answer)
        return await _refused(scope, why)(scope, receive, answer)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        return (
            self._wrong_host(headers)
            or _wrong_address(scope)
            or _from_elsewhere(scope, headers)
            or self._without_token(scope, headers)
        )

    def _wrong_host(self, headers: Headers) -> Refusal | None:
        """Any port: ``ssh -L 8080:localhost:6060`` changes it, and no other site can own these names."""
        host = _name_of(headers.get("host", ""))
        if host is not None and (host == "localhost" or host in self._hosts or self._is_address(host)):
            return None
        return Refusal(421, "This server does not answer under this name. Use the address that `relume ui` printed.")

    def _is_address(self, host: str) -> bool:
        """Nobody can point an address in digits at another machine; beyond loopback it counts where the server was opened."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or bool(self._hosts)

    def _without_token(self, scope: Scope, headers: Headers) -> Refusal | None:
        if self._token is None or self._is_right(_shown(headers, self._cookie)) or self._is_first(scope):
            return None
        return Refusal(
            401, "The token is missing or wrong. Open the whole address that `relume ui` printed: the token is its end."
        )

    def _is_first(self, scope: Scope) -> bool:
        """Whether it is the page with the right token in its address."""
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return scope["path"] == "/" and len(asked) == 1 and self._is_right(asked[0])

    def _is_right(self, shown: str | None) -> bool:
        return bool(shown and self._token and hmac.compare_digest(shown.encode(), self._token.encode()))

    def _new_cookie(self, scope: Scope) -> str | None:
        if self._token is None or not self._is_first(scope):
            return None
        return f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"


def hosts_of(host: str) -> list[str]:
    """The names under which a server that was opened at ``host`` may be asked."""
    own = platform.node().lower()
    return [host.lower(), own, own.partition(".")[0], f"{own.partition('.')[0]}.local"]


def _name_of(host: str) -> str | None:
    """The name or address in a Host header, without port and brackets."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([\w.-]{1,253}))(?::\d{1,5})?", host, re.ASCII)
    return (found[1] or found[2]).lower() if found else None


def _wrong_address(scope: Scope) -> Refusal | None:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope["method"] not in ("GET", "HEAD", "POST"):
        return Refusal(405, "Only GET, HEAD and POST are understood.")
    if len(raw) > _PATH_LIMIT or len(scope["query_string"]) > _QUERY_LIMIT:
        return Refusal(414, "The address is too long.")
    decoded = unquote_to_bytes(raw)
    is_odd = b"%2f" in raw.lower() or re.search(rb"[\x00-\x1f\x7f\\]", decoded) is not None
    if is_odd or not raw.startswith(b"/") or any(part in (b".", b"..") for part in decoded.split(b"/")):
        return Refusal(400, "There is no such address here.")
    return None


def _from_elsewhere(scope: Scope, headers: Headers) -> Refusal | None:
    """Whether another site asks. Browsers say so, and pages cannot make them say something else."""
    site = headers.get("sec-fetch-site", "none")
    if scope["path"] != "/" and site not in ("same-origin", "none"):
        return Refusal(403, "Only relume's own page may ask for this.")
    if scope["method"] != "POST":
        return None
    origin = urlsplit(headers.get("origin", ""))
    if origin.scheme not in ("http", "https") or origin.netloc.lower() != headers.get("host", "").lower():
        return Refusal(403, "Only relume's own page may change something: the request names another origin, or none.")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return Refusal(415, "What is sent must be application/json.")
    return None


def _shown(headers: Headers, cookie: str | None) -> str | None:
    """The token that a request carries in its headers."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(cookie or "")
    except CookieError:
        return None
    return None if found is None else found.value


def _refused(scope: Scope, why: Refusal) -> Response:
    headers = {"connection": "close"} | ({"www-authenticate": "Bearer"} if why.status == 401 else {})
    if why.status == 401:  # a link out of a sandbox would show no cookie
        headers["content-security-policy"] = "default-src 'none'; frame-ancestors 'none'"
    if scope["path"].startswith("/api/"):
        return Response(json.dumps({"error": why.reason}), why.status, headers, "application/json")
    return Response(refusal(why.reason, is_401=why.status == 401), why.status, headers, "text/html")


def _protected(send: Send, cookie: str | None) -> Send:
    """``send``, with the headers of `_HEADERS` where the answer has none of its own."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if cookie is not None:
                headers.append("set-cookie", cookie)
        await send(message)

    return sending
