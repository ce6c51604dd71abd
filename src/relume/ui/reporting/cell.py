"""A report in the cell of a notebook: a frame that holds it whole, so that no server is needed to see it."""

from __future__ import annotations

import html
import importlib
import sys
from typing import Any


def is_notebook() -> bool:
    """Whether what is displayed here is seen as HTML."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and (hasattr(shell, "kernel") or "google.colab" in sys.modules)


def display(content: bytes, title: str, height: int) -> None:
    """Show a report below the cell. What it holds can reach neither the notebook nor the network."""
    show = importlib.import_module("IPython.display").display
    plain = f"{title} (a report, which a notebook shows)"
    show({"text/html": framed(content, title, height), "text/plain": plain}, raw=True)


def framed(content: bytes, title: str, height: int) -> str:
    """A frame with a whole report in it, as HTML."""
    return (
        f'<iframe title="{html.escape(title)}" srcdoc="{html.escape(content.decode())}" '
        'sandbox="allow-scripts allow-downloads" '
        f'style="width: 100%; height: {height}px; border: 1px solid #8885; border-radius: 8px"></iframe>'
    )
