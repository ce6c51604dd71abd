"""Which address gives which answer."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relume.errors import ConfigurationError, RelumeError, UnknownNameError
from relume.monitor.edits import edit
from relume.monitor.record import jsonable
from relume.ui import assets
from relume.ui.answers import frames, media
from relume.ui.answers.comparing import compared
from relume.ui.answers.console import console
from relume.ui.answers.marks import marks
from relume.ui.answers.run import run
from relume.ui.answers.runs import chosen, listing
from relume.ui.answers.series import BUCKETS, series
from relume.ui.server.asked import BODY_LIMIT_BYTES, Asked
from relume.ui.server.guard import Guard
from relume.ui.server.live import Events, Live
from relume.ui.server.page import assembled, digest, files, page, policy

_THREADS = 8
_MOST_BUCKETS = 20_000
_PICTURE_SECONDS = 600
"""What was logged stays as it is; but a run may be deleted, and another have its name."""
_UNREADABLE = (RelumeError, OSError, sqlite3.Error)
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_one_chart = threading.Lock()
"""Charts that are asked for together are answered one after the other: so the first is there sooner."""
_log = logging.getLogger(__name__)

Answer = Callable[[Asked], Response]


def application(root: Path, *, hosts: Iterable[str] = (), token: str | None = None) -> Starlette:
    """The server's program, over the runs below ``root``; ``hosts`` and ``token`` as `Guard` takes them."""
    live = Live(root)

    async def events(request: Request) -> Response:
        return Events(live)

    def get(path: str, answer: Answer) -> Route:
        return Route(path, _answered(root, answer), methods=["GET"])

    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/static/{path:path}", _file),
            Route("/api/events", events),
            get("/api/runs", _runs),
            get("/api/choose", _choose),
            get("/api/marks", _marks),
            get("/api/compare", _compare),
            get("/api/series", _series),
            get("/api/run/{run}", _run),
            get("/api/run/{run}/console", _console),
            get("/api/run/{run}/items", _items),
            get("/api/run/{run}/media", _media),
            get("/api/run/{run}/media/{id}", _item),
            get("/api/run/{run}/media/{id}/{file}", _picture),
            Route("/api/run/{run}/edit", _answered(root, _edit), methods=["POST"]),
        ],
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
        exception_handlers={HTTPException: _not_here, Exception: _failed},
        lifespan=_with_few_threads,
    )
    app.state.live, app.state.root = live, root
    return app


# ------------------------------------------------------------------------------------------------------------- answers


def _runs(asked: Asked) -> Response:
    return Response(listing(asked.root).encoded(), media_type="application/json")


def _choose(asked: Asked) -> Response:
    rows, descending = listing(asked.root).rows(), asked.flag("descending")
    return _json({"names": chosen(rows, asked.text("where"), asked.text("sort"), descending=descending)})


def _marks(asked: Asked) -> Response:
    return _json(marks(asked.runs()))


def _compare(asked: Asked) -> Response:
    return _json(compared(asked.runs()))


def _series(asked: Asked) -> Response:
    metrics = asked.all("metric")
    since: list[int | None] = [*asked.steps("since")] or [None] * len(metrics)
    if not metrics or len(since) != len(metrics):
        raise ConfigurationError("metric= is missing in the address, or since= does not stand beside each.")
    options: dict[str, Any] = {
        "axis": asked.one_of("axis", ("step", "epoch", "time")),
        "buckets": asked.whole("buckets", 1, _MOST_BUCKETS) or BUCKETS,
        "low": asked.number("low"),
        "high": asked.number("high"),
        "branches": asked.flag("branches"),
        "relative": asked.flag("relative"),
    }
    with _one_chart:
        shown = [
            one
            for folder in asked.runs()
            for metric, step in zip(metrics, since, strict=True)
            for one in _series_of(folder, metric, {**options, "since": step})
        ]
    return Response(frames.encode(shown), media_type="application/octet-stream")


def _series_of(folder: Path, metric: str, options: Mapping[str, Any]) -> list[frames.Series]:
    try:
        return series(folder, metric, **options)
    except _UNREADABLE as error:  # its row says what is wrong with it; the others are drawn
        _log.warning("%s: %s", folder.name, error)
        return []


def _run(asked: Asked) -> Response:
    folder = asked.run()
    return _json(run(folder, asked.root, row=listing(asked.root).row(folder.name)))


def _console(asked: Asked) -> Response:
    return _json(console(asked.run()))


def _media(asked: Asked) -> Response:
    return _json(media.names(asked.run()))


def _items(asked: Asked) -> Response:
    most = asked.whole("most", 1, media.ITEMS) or media.ITEMS
    return _json(media.items(asked.run(), asked.needed("name"), asked.text("kind"), most))


def _item(asked: Asked) -> Response:
    return _json(media.item(asked.run(), asked.word("id")))


def _picture(asked: Asked) -> Response:
    data, kind = media.file(asked.run(), asked.word("id"), asked.word("file"))
    return Response(data, media_type=kind, headers={"cache-control": f"private, max-age={_PICTURE_SECONDS}"})


def _edit(asked: Asked) -> Response:
    folder = asked.run()
    edit(folder, **asked.sent())
    return _json(listing(asked.root).row(folder.name))


# ------------------------------------------------------------------------------------------------------------ the page


async def _page(request: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = await run_in_threadpool(page, nonce, clears_address="token" in request.query_params)
    return Response(text, media_type="text/html", headers={"content-security-policy": policy(nonce)})


async def _file(request: Request) -> Response:
    name = request.path_params["path"]
    content, path = assembled().get(name), files().get(name)
    if content is None and path is not None:
        content = assets.read(path)
    if content is None:
        raise HTTPException(404)
    is_named = request.url.query == digest(content)  # an address that no other content will ever have
    lasting = "private, max-age=31536000, immutable" if is_named else "no-cache"
    return Response(content, media_type=_TYPES[PurePath(name).suffix], headers={"cache-control": lasting})


# ------------------------------------------------------------------------------------------------------------ together


def _answered(root: Path, answer: Answer) -> Callable[[Request], Any]:
    """The answer, worked out in a thread; what went wrong as a sentence."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request)
            return await run_in_threadpool(answer, Asked(root, request, body))
        except UnknownNameError as error:
            return _json({"error": str(error)}, 404)
        except RelumeError as error:
            return _json({"error": str(error)}, 400)
        except _UNREADABLE as error:
            return _json({"error": f"files of the run cannot be read: {error}"}, 400)
        except HTTPException:
            raise
        except Exception as error:  # one answer that fails must not end the others
            return await _failed(request, error)

    return endpoint


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT_BYTES:
            raise HTTPException(413, f"What is sent may have at most {BODY_LIMIT_BYTES:,} bytes.")
    return body


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "There is no such address here.", 405: "This address does not take this method."}
    return _json({"error": said.get(error.status_code, error.detail)}, error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("%s: %s: %s", request.url.path, type(error).__name__, error)
    return _json({"error": f"this could not be read ({type(error).__name__}: {error})"}, 500)


def _json(content: Any, status: int = 200) -> Response:
    try:
        text = to_json(content, inf_nan_mode="strings")
    except ValueError:  # half of a surrogate pair, or what no JSON can hold
        text = to_json(jsonable(content), inf_nan_mode="strings")
    return Response(text, status, media_type="application/json")


@asynccontextmanager
async def _with_few_threads(app: Starlette) -> AsyncIterator[None]:
    """Answers wait for each other, so that a training has the machine."""
    current_default_thread_limiter().total_tokens = _THREADS
    # The first page need not wait until all runs were read.
    threading.Thread(target=listing(app.state.root).rows, daemon=True).start()
    yield
    app.state.live.close()
