"""Which address gives which answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from relume.errors import RelumeError, UnknownNameError
from relume.monitor.record import is_run
from relume.ui.answers import frames
from relume.ui.answers.runs import all_runs
from relume.ui.answers.series import BUCKETS, series
from relume.ui.assets import STATIC
from relume.ui.server.page import page, policy


def application(root: Path) -> Starlette:
    """The server's program, over the runs below ``root``."""

    def found(request: Request, name: str | None = None) -> Path:
        """The folder of the run that is asked for: a folder right below the root, and nothing else."""
        name = request.path_params["run"] if name is None else name
        folder = root / name
        if name in ("", ".", "..") or folder.name != name or folder.parent != root or not is_run(folder):
            raise UnknownNameError(f"there is no run {name!r} here.")
        return folder

    def runs(request: Request) -> Response:
        return _json(all_runs(root))

    def numbers(request: Request) -> Response:
        query = request.query_params
        bounds = {name: float(query[name]) for name in ("low", "high") if name in query}
        since = int(query["since"]) if "since" in query else None
        axis: Any = query.get("axis", "step")
        count = int(query.get("buckets", BUCKETS))
        shown = [
            one
            for name in query.getlist("run")
            for one in series(
                found(request, name),
                query["metric"],
                axis=axis,
                buckets=count,
                since=since,
                branches=bool(query.get("branches")),
                **bounds,
            )
        ]
        return Response(frames.encode(shown), media_type="application/octet-stream")

    return Starlette(
        routes=[
            Route("/", _page),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/api/runs", _answered(runs)),
            Route("/api/series", _answered(numbers)),
        ]
    )


async def _page(request: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    headers = {"content-security-policy": policy(nonce), "cache-control": "no-store"}
    return Response(page(nonce), media_type="text/html", headers=headers)


def _answered(answer: Callable[[Request], Response]) -> Any:
    """The answer, worked out in a thread; what went wrong as a sentence."""

    async def endpoint(request: Request) -> Response:
        try:
            return await run_in_threadpool(answer, request)
        except UnknownNameError as error:
            return _json({"error": str(error)}, 404)
        except (RelumeError, ValueError, KeyError) as error:
            return _json({"error": str(error)}, 400)

    return endpoint


def _json(content: Any, status: int = 200) -> Response:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return Response(text, status, media_type="application/json")
