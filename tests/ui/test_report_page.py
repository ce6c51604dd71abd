"""A report in a real browser: a file, no network, every view, and a policy under which nothing else runs."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from browsing import Visit
from odd_runs import FOREIGN_NAME, HOSTILE_NAME

from relume.monitor.record import runs_in
from relume.ui.report import make
from relume.ui.reporting.cell import framed

SWEEP = "runs=sweep-01-adam-0.003&runs=sweep-02-adam-0.001&runs=sweep-08-sgd-0.1"
VIEWS = {
    "runs": "runs",
    "charts": f"charts?{SWEEP}",
    "long by time": "charts?runs=long&axis=time",
    "compare": f"compare?{SWEEP}",
    "one run": "run/sweep-02-adam-0.001",
    "resumed": "run/resumed",
    "frozen": "run/frozen-phases",
    "damaged": "run/damaged-record",
    "hostile": f"run/{quote(HOSTILE_NAME, safe='')}",
    "foreign": f"run/{quote(FOREIGN_NAME, safe='')}",
}


@pytest.fixture(scope="session")
def report(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all of `made`."""
    out = tmp_path_factory.mktemp("report") / "all.html"
    out.write_bytes(make(runs_in(made)).content)
    return out


@pytest.fixture
def opened(visit: Callable[..., Visit], report: Path) -> Callable[..., Visit]:
    """``opened("charts?runs=a")`` is a tab without a network on this view of the report."""

    def begin(link: str, **how: object) -> Visit:
        tab = visit(report.parent.as_uri(), offline=True, **how)
        tab.page.goto(f"{report.as_uri()}#/{link}")
        tab.page.wait_for_selector("main .view[data-mounted]")
        return tab

    return begin


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_report_needs_no_network_and_shows_only_text(opened: Callable[..., Visit], view: str) -> None:
    tab = opened(VIEWS[view])
    assert not tab.page.locator(".problem").count()
    strange = [
        one
        for one in tab.foreign_elements()
        if not one.startswith(('<script type="text/plain"', '<script type="module"'))
    ]
    assert not strange
    assert not tab.overflow()


@pytest.mark.parametrize("view", ["runs", "charts", "compare", "one run"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_can_be_used_by_all(opened: Callable[..., Visit], view: str, scheme: str) -> None:
    # axe is brought in by the test, which the report's own policy forbids
    assert not opened(VIEWS[view], color_scheme=scheme, bypass_csp=True).accessibility()


@pytest.mark.long  # the views are those of the server
@pytest.mark.parametrize("view", VIEWS)
def test_a_report_is_no_wider_than_a_phone(opened: Callable[..., Visit], view: str) -> None:
    assert not opened(VIEWS[view], viewport={"width": 360, "height": 740}, has_touch=True).overflow()


@pytest.mark.parametrize("run", ["media", "resumed", "frozen-phases", "long", HOSTILE_NAME])
def test_each_part_of_a_run_is_in_the_report(opened: Callable[..., Visit], run: str) -> None:
    tab = opened(f"run/{quote(run, safe='')}")
    names = tab.page.locator("[role=tab]").all_inner_texts()
    assert {"Overview", "Console"} <= set(names)
    for place in range(len(names)):
        tab.page.locator("[role=tab]").nth(place).click()
        tab.page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
        shown = tab.page.inner_text("main")
        assert "This is not in the report" not in shown and "cannot be shown" not in shown, names[place]


def test_pictures_of_a_run_are_in_the_file(opened: Callable[..., Visit]) -> None:
    tab = opened("run/media")
    tab.page.get_by_role("tab", name="Images").click()
    picture = tab.page.locator(".images img").first
    picture.wait_for()
    assert (picture.get_attribute("src") or "").startswith("data:image/png;base64,")
    tab.page.wait_for_function("() => document.querySelector('.images img').naturalWidth > 0")


def test_the_policy_runs_nothing_but_the_page_itself(opened: Callable[..., Visit]) -> None:
    tab = opened("runs")
    for expected in ("console: ", "evil.invalid"):  # refused by the browser, and complained of
        tab.allow(expected)
    tab.page.evaluate("""() => {
      for (const fill of [(one) => { one.textContent = "window.alerted = 1"; }, (one) => { one.src = "data:text/javascript,window.alerted=2"; }]) {
        const script = document.createElement("script");
        fill(script);
        document.body.append(script);
      }
      const picture = document.createElement("img");
      picture.setAttribute("onerror", "window.alerted = 3");
      picture.src = "http://evil.invalid/a.png";
      document.body.append(picture);
    }""")
    tab.page.wait_for_timeout(200)
    assert tab.page.evaluate("window.alerted") is None
    with pytest.raises(Exception, match="Failed to fetch"):
        tab.page.evaluate("fetch('http://evil.invalid/')")


def test_a_spike_among_many_points_is_seen_and_the_buckets_are_said(opened: Callable[..., Visit]) -> None:
    tab = opened("charts?runs=long")
    tab.page.get_by_text(re.compile(r"200,000 points in [\d,]+ buckets")).first.wait_for()
    assert "200,000 points stand behind the longest" in tab.page.inner_text("footer.about")
    assert " UTC" in tab.page.inner_text("footer.about")


def test_a_report_of_one_run_begins_with_it(visit: Callable[..., Visit], made: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.html"
    out.write_bytes(make([made / "resumed"]).content)
    tab = visit(tmp_path.as_uri(), offline=True)
    tab.page.goto(out.as_uri())
    tab.page.wait_for_selector("main .view-run[data-mounted]")
    assert "resumed" in tab.page.inner_text("h1")
    tab.page.get_by_role("link", name="Runs").click()
    tab.page.wait_for_selector("main .view-runs[data-mounted]")


def test_without_scripts_the_numbers_are_there_as_tables(visit: Callable[..., Visit], report: Path) -> None:
    tab = visit(report.parent.as_uri(), offline=True, java_script_enabled=False)
    tab.page.goto(report.as_uri())
    shown = tab.page.inner_text("body")
    assert "sweep-02-adam-0.001" in shown and "val/accuracy" in shown and "batch_size" in shown


def test_in_the_frame_of_a_notebook_links_stay_in_the_frame(
    visit: Callable[..., Visit], made: Path, tmp_path: Path
) -> None:
    content = make([made / "resumed", made / "media"]).content
    book = tmp_path / "notebook.html"
    book.write_text(f"<!doctype html><title>book</title><h1>book</h1>{framed(content, '<b>two</b>', 700)}", "utf-8")
    tab = visit(tmp_path.as_uri(), offline=True)
    tab.page.goto(book.as_uri())
    frame = tab.page.frame_locator("iframe")
    frame.locator("main .view-runs[data-mounted]").wait_for()
    frame.get_by_role("link", name="resumed").first.click()
    frame.locator("main .view-run[data-mounted]").wait_for()
    frame.get_by_role("tab", name="Console").click()
    frame.get_by_role("link", name="Charts").first.click()
    frame.locator("main .view-charts[data-mounted]").wait_for()
    frame.get_by_role("button", name="Epoch", exact=True).click()
    frame.locator("main .view-charts[data-mounted]").wait_for()
    assert tab.page.url == book.as_uri()
    assert html.escape("<b>two</b>") in book.read_text("utf-8")
