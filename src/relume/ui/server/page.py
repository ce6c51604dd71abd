"""The page itself: one HTML file that names the modules, with the policy that a browser holds it to."""

from __future__ import annotations

import html
import json
from functools import cache
from pathlib import Path

from blake3 import blake3

from relume.ui.assets import STATIC, modules, read, styles


def policy(nonce: str) -> str:
    """The content security policy: the page's own modules and styles, its own server, and nothing else."""
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@cache
def _addresses() -> dict[str, str]:
    """The address of each module, with a digest: a browser may keep what it once has, and never sees an old one."""
    return {name: f"{_address(path)}" for name, path in modules().items()}


def _address(path: Path) -> str:
    return f"static/{path.relative_to(STATIC).as_posix()}?{blake3(read(path)).hexdigest()[:12]}"


def page(nonce: str) -> str:
    """The page's HTML; ``nonce`` is a new random text for each answer."""
    addresses = _addresses()
    imports = json.dumps({"imports": {name: f"./{address}" for name, address in addresses.items()}})
    head = [f'<link rel="stylesheet" href="{html.escape(_address(path))}">' for path in styles()]
    head.append(f'<script type="importmap" nonce="{nonce}">{imports}</script>')
    head += [f'<link rel="modulepreload" href="{html.escape(address)}">' for address in addresses.values()]
    head.append(f'<script type="module" src="{html.escape(addresses["relume/app.js"])}"></script>')
    whole = read(STATIC / "index.html").decode()
    return whole.replace("<!--HEAD-->", "\n".join(head)).replace("<!--DATA-->\n", "")
