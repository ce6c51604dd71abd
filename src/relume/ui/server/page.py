"""The page itself: one HTML file that names the modules, with the policy that a browser holds it to."""

from __future__ import annotations

import html
import json
from functools import lru_cache
from pathlib import Path

from blake3 import blake3

from relume.ui.assets import STATIC, modules, read, styles
from relume.ui.reporting.script import one_script

_EARLY = 'if (!location.hash.startsWith("#/run/")) window.relumeRuns = fetch("api/runs")'
"""What most views show first, asked for before the script is there that shows it."""


def policy(nonce: str) -> str:
    """The content security policy: the page's own modules and styles, its own server, and nothing else."""
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def files() -> dict[str, Path]:
    """The files that the page may ask for, by their addresses below ``static/``."""
    return {path.relative_to(STATIC).as_posix(): path for path in (*modules().values(), *styles())}


def assembled() -> dict[str, bytes]:
    """All modules as one script and all styles as one, by address: a browser asks for two files instead of a hundred."""
    return _assembled(tuple((path, path.stat().st_mtime_ns) for path in (*modules().values(), *styles())))


@lru_cache(2)
def _assembled(_state: tuple[tuple[Path, int], ...]) -> dict[str, bytes]:
    sources = {name: read(path).decode() for name, path in modules().items()}
    try:
        script = one_script(sources, "relume/app.js")
    except ValueError:  # a module in a form that is not known there: the browser takes them one by one
        return {}
    return {"page.js": script.encode(), "page.css": b"\n".join(read(path) for path in styles())}


def digest(content: bytes) -> str:
    """What a file's address ends with: a browser may keep what it once has, and never sees an old one."""
    return blake3(content).hexdigest()[:12]


def page(nonce: str, *, clears_address: bool = False) -> str:
    """The page's HTML; ``nonce`` is a new random text for each answer.

    Args:
        clears_address: the address holds the token, which must not stay in the browser's history.
    """
    head = (
        [f'<script nonce="{nonce}">history.replaceState(null, "", "./" + location.hash)</script>']
        if clears_address
        else []
    )
    head.append(f'<script nonce="{nonce}">{_EARLY}</script>')
    together = {name: f"static/{name}?{digest(content)}" for name, content in assembled().items()}
    if together:
        head.append(f'<link rel="stylesheet" href="{together["page.css"]}">')
        head.append(f'<script type="module" nonce="{nonce}" src="{together["page.js"]}"></script>')
    else:
        head += _one_by_one(nonce)
    whole = read(STATIC / "index.html").decode()
    return whole.replace("<!--HEAD-->", "\n".join(head)).replace("<!--DATA-->\n", "")


def _one_by_one(nonce: str) -> list[str]:
    addresses = {name: _address(path) for name, path in modules().items()}
    imports = json.dumps({"imports": {name: f"./{address}" for name, address in addresses.items()}})
    head = [f'<link rel="stylesheet" href="{html.escape(_address(path))}">' for path in styles()]
    head.append(f'<script type="importmap" nonce="{nonce}">{imports}</script>')
    head += [f'<link rel="modulepreload" href="{html.escape(address)}">' for address in addresses.values()]
    return [*head, f'<script type="module" src="{html.escape(addresses["relume/app.js"])}"></script>']


def refusal(reason: str, *, is_401: bool = False) -> str:
    """A plain page that says why there is no other."""
    # Who comes by a link of another page shows no cookie at first: from here the browser does.
    again = '<p>If this browser was let in before, <a href="">open it again</a>.</p>' if is_401 else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>relume</title><h1>This is not shown</h1><p>{html.escape(reason)}</p>{again}</html>"
    )


def _address(path: Path) -> str:
    return f"static/{path.relative_to(STATIC).as_posix()}?{digest(read(path))}"
