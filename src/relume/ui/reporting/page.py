"""The report's HTML: everything in one file, and a policy under which nothing else can run or be asked for."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from functools import cache

from relume.text import printable
from relume.ui.assets import STATIC, modules, read, styles
from relume.ui.reporting.script import one_script

MARK = '<meta name="generator" content="relume report">'
"""How a report is known again."""


def page(title: str, parts: dict[str, bytes], plain: str) -> bytes:
    """A report.

    Args:
        parts: what the page's script reads, by the id of its element: it is packed.
        plain: HTML for where scripts are switched off.
    """
    script, style = _script(), _style()
    head = [
        MARK,
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script, style)}">',
        f"<style>{style}</style>",
    ]
    data = [f'<script type="text/plain" id="{name}">{_packed(content)}</script>' for name, content in parts.items()]
    data.append(f'<script type="module">{script}</script>')
    whole = read(STATIC / "index.html").decode()
    start, end = whole.index("<noscript>"), whole.index("</noscript>")
    whole = f"{whole[:start]}<noscript>{plain}{whole[end:]}"
    whole = whole.replace("<title>relume</title>", f"<title>{html.escape(printable(title, 300))}</title>", 1)
    before, behind = whole.split("<!--HEAD-->", 1)
    middle, after = behind.rsplit("<!--DATA-->", 1)
    text = "".join([before, "\n".join(head), middle, "\n".join(data), after])
    return text.encode("utf-8", "backslashreplace")


def own_bytes() -> int:
    """What a report takes that holds nothing."""
    return len(_script().encode()) + len(_style().encode())


def _policy(script: str, style: str) -> str:
    """Only this script and this style; pictures that are in the file; no address of any kind."""
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _packed(content: bytes) -> str:
    # Neither a time nor a level that depends on anything: the same content gives the same text.
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


@cache
def _script() -> str:
    sources = {name: read(path).decode() for name, path in modules().items()}
    return f"\n{one_script(sources, 'relume/app.js')}"


@cache
def _style() -> str:
    # What would end the element cannot stand in it.
    return "\n".join(read(path).decode() for path in styles()).replace("</style", "<\\/style")
