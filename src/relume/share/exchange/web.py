"""A web server as a place to pull from. A plain one is enough; one with ranges can go on in the middle of a file."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

from relume.checkpoint.files import Buffer
from relume.errors import ConfigurationError, ExchangeError
from relume.provenance.secrets import without_credentials
from relume.share.exchange.remote import Opened, PassingError
from relume.version import __version__

_PIECE_BYTES = 256 << 10
_TIMEOUT_SECONDS = 30.0
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_MAX_REDIRECTS = 5


class Web:
    """Files below a web address. Its query, such as a signature, goes along with every request and is never shown.

    ``http_proxy``, ``https_proxy`` and ``no_proxy`` count. A user and a password in the address go to that server only.
    """

    is_writable = False

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self._base = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        self._query = f"?{parts.query}" if parts.query else ""
        self.name = without_credentials(self._base)
        self._authorization = ""
        if parts.username:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler,
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPDefaultErrorHandler,
            urllib.request.HTTPErrorProcessor,
            _Redirects,
        ):
            self._opener.add_handler(handler())

    def size(self, path: str) -> int | None:
        opened = self.open(path)
        if opened is not None:
            opened.close()
        return None if opened is None else opened.total

    def open(self, path: str, start: int = 0, tag: str = "") -> Opened | None:
        response = self._answer(path, start, tag)
        if response is None:
            return None
        headers = response.headers
        found = _tag(headers)
        length = headers.get("Content-Length", "")
        total = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
        if headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise ExchangeError(f"{self.name}: the server sends {path} in another encoding than it was asked for.")
        begin = 0
        if response.status == 206:
            match = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if match is None or int(match[1]) != start or (tag and found and found != tag):
                response.close()
                return self.open(path) if start else self._lied(path)
            begin = start
            total = int(match[3]) if match[3] != "*" else None
        return Opened(begin, total, found, self._pieces(response, path), response.close)

    def write(self, path: str, content: Buffer) -> None:
        raise ConfigurationError(f"{self.name}: http is for pulling only.")

    def names(self) -> list[str] | None:
        return None

    def _lied(self, path: str) -> Opened:
        raise ExchangeError(f"{self.name}: the server answers with a part of {path} that nobody asked for.")

    def _answer(self, path: str, start: int, tag: str) -> Any:
        url = f"{self._base}/{urllib.parse.quote(path)}" if path else self._base
        request = urllib.request.Request(url + self._query)
        request.add_header("User-Agent", f"relume/{__version__}")
        request.add_header("Accept-Encoding", "identity")
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        if start:
            request.add_header("Range", f"bytes={start}-")
            if tag:
                request.add_header("If-Range", tag)
        try:
            return self._opener.open(request, timeout=_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                return None
            if error.code == 416 and start:  # it has become shorter
                return self._answer(path, 0, "")
            raise self._refused(path, error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(path, error) from None

    def _pieces(self, response: Any, path: str) -> Iterator[bytes]:
        while True:
            try:
                piece = response.read1(_PIECE_BYTES)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._failed(path, error) from None
            if not piece:
                return
            yield piece

    def _refused(self, path: str, code: int) -> ExchangeError:
        reason = f"{code} {http.client.responses.get(code, '')}".strip()
        said = f"{self.name}: the server answers {reason} to {path or 'the address'}."
        if code in _PASSING:
            return PassingError(said)
        if code in (401, 403):
            return ForbiddenError(
                f"{said} Does it want a user and a password (https://USER:PASSWORD@host/…), or has a signed address expired?"
            )
        return ExchangeError(said)

    def _failed(self, path: str, error: BaseException) -> ExchangeError:
        reason: Any = getattr(error, "reason", error)
        if isinstance(reason, _RedirectError):
            return ExchangeError(f"{self.name}: {reason}")
        if isinstance(reason, socket.gaierror):
            return ExchangeError(
                f"{self.name}: there is no such host, or no network ({reason.strerror}). Check the address."
            )
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ExchangeError(f"{self.name}: the server's certificate is not trusted ({reason.verify_message}).")
        if isinstance(reason, ValueError):
            return ExchangeError(f"{self.name}: no address to open: {type(reason).__name__}.")
        words = str(getattr(reason, "strerror", None) or reason or type(reason).__name__).rstrip(".")
        return PassingError(f"{self.name}: the connection failed while reading {path or 'the file'}: {words:.120}.")


class ForbiddenError(ExchangeError):
    """The server knows who may read it, and this is somebody else."""


class _RedirectError(Exception):
    pass


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https"):
            raise urllib.error.URLError(
                _RedirectError(f"the server leads on to a {scheme or 'strange'}: address; that is refused.")
            )
        if scheme == "http" and req.type == "https":
            raise urllib.error.URLError(_RedirectError("the server leads on from https to http; that is refused."))
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and made.host == req.host and made.type == req.type:
            for name, value in req.unredirected_hdrs.items():
                if name == "Authorization":
                    made.add_unredirected_header(name, value)
        return made

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage) -> Any:
        target = headers.get("location") or headers.get("uri") or ""
        scheme = urllib.parse.urlsplit(target).scheme.lower()
        if scheme not in ("", "http", "https"):  # the library's own refusal would name the address
            raise urllib.error.URLError(_RedirectError(f"the server leads on to a {scheme}: address; that is refused."))
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _tag(headers: http.client.HTTPMessage) -> str:
    """What If-Range may say: a strong ETag, or the time of the last change."""
    tag = headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag[:300]
    return headers.get("Last-Modified", "")[:300]
