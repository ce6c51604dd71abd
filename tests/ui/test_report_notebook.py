"""A report in the cell of a notebook, from a real kernel."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

from browsing import Visit

from kernels import execute

CELLS = [
    """
import relume
with relume.Run("shown", watch=False, quiet=True) as run:
    for step in range(20):
        run.log({"train/loss": 1 / (step + 1)}, step=step)
""",
    "run.report(height=500)",
    "run.report('kept.html')",
    "relume.runs().report(title='All of them')",
]


def test_a_cell_shows_the_report_and_a_path_writes_it(visit: Callable[..., Visit], tmp_path: Path) -> None:
    _, shown, kept, of_all = execute(CELLS, tmp_path)
    assert not shown.error and not kept.error and not of_all.error, shown.error + kept.error + of_all.error
    assert kept.text.endswith("PosixPath('kept.html')") and (tmp_path / "kept.html").is_file()
    assert 'sandbox="allow-scripts allow-downloads"' in shown.html and "height: 500px" in shown.html
    assert "All of them" in html.unescape(of_all.html)
    held = re.search(r'srcdoc="([^"]*)"', shown.html)
    assert held is not None and html.unescape(held[1]) == (tmp_path / "kept.html").read_text("utf-8")
    page = tmp_path / "cell.html"
    page.write_text(f"<!doctype html><title>cell</title>{shown.html}", "utf-8")
    tab = visit(tmp_path.as_uri(), offline=True)
    tab.page.goto(page.as_uri())
    frame = tab.page.frame_locator("iframe")
    frame.locator("main .view-run[data-mounted]").wait_for()
    assert "shown" in frame.locator("h1").inner_text()
