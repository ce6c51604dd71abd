"""The page and its server from end to end: the command, a server that goes and comes back, colours that are chosen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from browsing import Visit

import relume

GONE = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")


def make_run(root: Path, name: str) -> None:
    with relume.Run(name, root=root, quiet=True, watch=False) as run:
        for step in range(5):
            run.log({"val/accuracy": step / 10}, step=step)


@contextmanager
def command(root: Path, port: int) -> Iterator[str]:
    """``relume ui`` as a person starts it, ended as by Ctrl-C."""
    environment = os.environ | {"PYTHONPATH": str(Path(relume.__file__).parents[1])}
    words = [sys.executable, "-m", "relume", "ui", "--root", str(root), "--port", str(port), "--no-open"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        origin = f"http://127.0.0.1:{port}"
        said = []
        for line in process.stdout:  # until it has said where it is
            said.append(line)
            if origin in line:
                break
        assert origin in "".join(said), said
        try:
            yield origin
        finally:
            process.terminate()
            process.communicate()


def test_a_server_that_goes_is_said_and_the_page_goes_on_when_it_is_back(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    make_run(tmp_path, "first")
    with command(tmp_path, port) as origin:
        tab = visit(origin)
        for text in GONE:
            tab.allow(text)
        page = tab.open("runs")
        assert page.locator(".lost").is_hidden()
    page.locator(".lost").wait_for()
    assert "first" in page.inner_text("main")
    make_run(tmp_path, "second")
    with command(tmp_path, port):
        page.get_by_role("link", name="second").wait_for()
        page.locator(".lost").wait_for(state="hidden")


def test_colours_are_chosen_and_remembered(tab: Visit) -> None:
    page = tab.open("charts", runs=["sweep-01-adam-0.003"])
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Colours").click()
    dark = page.evaluate(paper)
    assert light != dark
    page.reload()
    page.wait_for_selector("main .view-charts[data-mounted]")
    assert page.evaluate(paper) == dark


def test_views_are_left_and_come_back_with_what_they_showed(tab: Visit) -> None:
    page = tab.open("runs", find="sweep-0")
    page.get_by_label("Pick sweep-01").check()
    page.get_by_label("Pick sweep-08").check()
    page.locator("main").get_by_text("Charts", exact=True).first.click()
    page.wait_for_selector("main .view-charts[data-mounted]")
    assert page.url.count("runs=sweep-") == 2
    page.go_back()
    page.wait_for_selector("main .view-runs[data-mounted]")
    assert page.get_by_label("Pick sweep-08").is_checked()
