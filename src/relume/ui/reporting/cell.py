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
    frame = (
        f'<iframe title="{html.escape(title)}" srcdoc="{html.escape(content.decode())}" '
        'sandbox="allow-scripts allow-downloads" '
        f'style="width: 100%; height: {height}px; border: 1px solid #8885; border-radius: 8px"></iframe>'
    )
    show = importlib.import_module("IPython.display").display
    show({"text/html": frame, "text/plain": f"{title} (a report, which a notebook shows)"}, raw=True)
