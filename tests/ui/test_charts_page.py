"""The charts, looked at as a person does: what is drawn, what a zoom brings, what stands beside the cursor, what can be taken along."""

from __future__ import annotations

import csv
import io
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browsing import Visit
from live_run import training
from odd_runs import EMOJI, HOSTILE_NAME
from playwright.sync_api import Locator, Page, expect

import relume
from relume.ui.server.serving import running

LONG = {"runs": "long"}


def figure(page: Page, metric: str) -> Locator:
    return page.locator("figure.chart").and_(page.locator(f"[data-metric={metric!r}]"))


def drawn(page: Page, metric: str, lines: int | None = None) -> Locator:
    """The chart of a metric, once it is drawn with so many lines."""
    chart = figure(page, metric)
    expect(chart).to_have_attribute("data-drawn", re.compile(r"[1-9]\d*" if lines is None else rf"^{lines}$"))
    return chart


def drag(page: Page, chart: Locator, start: float, end: float) -> None:
    """Choose a part of a chart, from one share of its width to another."""
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * start, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end, box["y"] + 45, steps=4)
    page.mouse.up()


def zoomed(chart: Locator) -> tuple[float, float]:
    """The range of the numbers that are drawn, once they have come."""
    expect(chart).to_have_attribute("data-zoomed", re.compile(","))
    low, high = map(float, str(chart.get_attribute("data-zoomed")).split(","))
    return low, high


def saved(page: Page, chart: Locator, kind: str) -> tuple[str, bytes]:
    """A file out of a chart's menu: its name, and what is in it."""
    chart.locator("summary").click()
    with page.expect_download() as coming:
        chart.get_by_role("button", name=f"Save as {kind}").click()
    return coming.value.suggested_filename, Path(coming.value.path()).read_bytes()


def rows(content: bytes) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A run whose numbers have no place on a plain scale."""
    values = [1.0, 0.5, math.nan, 0.25, math.inf, -math.inf, 0.0, -1.0, 0.125, 0.0625]
    with relume.Run("odd", root=tmp_path, quiet=True, watch=False) as run:
        for step, value in enumerate(values):
            run.log({"loss": value, "val/acc": step / 10}, step=step)
    return tmp_path


def test_each_metric_is_a_chart_and_is_drawn_when_it_is_scrolled_to(
    tmp_path: Path, visit: Callable[..., Visit]
) -> None:
    with relume.Run("wide", root=tmp_path, quiet=True, watch=False) as run:
        for step in range(5):
            run.log({f"part{number}/loss": step + number for number in range(60)}, step=step)
    with running(tmp_path) as server:
        page = visit(server.origin).open("charts")
        expect(page.locator("figure.chart")).to_have_count(60)
        drawn(page, "part0/loss", 1)
        last = figure(page, "part59/loss")
        assert last.get_attribute("data-drawn") is None
        last.scroll_into_view_if_needed()
        drawn(page, "part59/loss", 1)
        expect(figure(page, "part0/loss")).not_to_have_attribute("data-drawn", re.compile("."))
        assert page.locator("figure canvas").count() < 40


def test_long_groups_are_closed_until_they_are_opened_and_the_search_opens_them(tab: Visit) -> None:
    page = tab.open("charts", runs="sweep-01-adam-0.003")
    drawn(page, "val/accuracy")
    page.get_by_role("button", name=re.compile("^val"), expanded=True).click()
    expect(figure(page, "val/accuracy")).to_have_count(0)
    assert "fold=val" in page.url
    page.get_by_role("button", name=re.compile("^val"), expanded=False).click()
    drawn(page, "val/accuracy")
    page.get_by_label("Search metrics").fill("acc")
    expect(page.locator("figure.chart")).to_have_count(1)
    page.reload()
    expect(page.locator("figure.chart")).to_have_count(1)


def test_no_spike_hides_and_a_zoom_asks_for_what_lies_there(tab: Visit) -> None:
    page = tab.open("charts", **LONG)
    chart = drawn(page, "train/loss")
    whole = rows(saved(page, chart, "CSV")[1])
    assert len(whole) < 4000 and sum(int(row["count"]) for row in whole) == 200_000
    spike = max(whole, key=lambda row: float(row["max"]))
    assert float(spike["max"]) == 42 and float(spike["value"]) < 42
    expect(chart.locator(".chart-note")).to_contain_text("200,000 points in")

    low, high, seen = 0.0, 200_000.0, "none"
    for _ in range(3):
        middle = (123_457 - low) / (high - low)
        drag(page, chart, middle - 0.04, middle + 0.05)
        expect(chart).not_to_have_attribute("data-zoomed", seen)
        low, high = zoomed(chart)
        seen = str(chart.get_attribute("data-zoomed"))
    assert 123_457 - 300 < low < 123_457 < high < 123_457 + 300
    near = rows(saved(page, chart, "CSV")[1])
    assert [row["value"] for row in near if row["step"] == "123457"] == ["42"]

    page.reload()
    assert zoomed(drawn(page, "train/loss")) == (low, high)
    chart.locator(".u-over").dblclick()
    expect(chart).not_to_have_attribute("data-zoomed", re.compile("."))
    assert "zoom=" not in page.url


def test_charts_are_zoomed_together_unless_told_otherwise(tab: Visit) -> None:
    page = tab.open("charts", runs="sweep-01-adam-0.003")
    first, other = drawn(page, "train/loss"), drawn(page, "val/loss")
    drag(page, first, 0.3, 0.6)
    assert zoomed(other) == zoomed(first)
    page.get_by_role("button", name="Show the whole").click()
    expect(other).not_to_have_attribute("data-zoomed", re.compile("."))
    page.get_by_text("Marks and more").click()
    page.get_by_label("Zoom together").uncheck()
    page.keyboard.press("Escape")
    drag(page, first, 0.3, 0.6)
    zoomed(first)
    assert other.get_attribute("data-zoomed") is None and "zoom=" not in page.url


@pytest.mark.parametrize("axis", ["epoch", "time"])
def test_the_other_axes_zoom_too(tab: Visit, axis: str) -> None:
    page = tab.open("charts", runs=["sweep-01-adam-0.003", "sweep-02-adam-0.001"], axis=axis)
    chart = drawn(page, "val/loss", 2)
    before = len(rows(saved(page, chart, "CSV")[1]))
    drag(page, chart, 0.4, 0.8)
    low, high = zoomed(chart)
    inside = [float(row[axis]) for row in rows(saved(page, drawn(page, "val/loss", 2), "CSV")[1])]
    assert 0 < len(inside) < before and all(low - 0.001 <= x <= high + 0.001 for x in inside)


def test_a_chart_is_used_with_keys_alone_and_says_what_it_shows(tab: Visit) -> None:
    page = tab.open("charts", runs="sweep-01-adam-0.003")
    chart = drawn(page, "val/accuracy", 1)
    body = chart.get_by_role("application")
    assert re.match(
        r"val/accuracy by step: sweep-01-adam-0.003 last 0\.\d+, best 0\.\d+", str(body.get_attribute("aria-label"))
    )
    body.focus()
    said = page.locator("p.announcement")
    page.keyboard.press("Home")
    expect(said).to_have_text(re.compile(r"^step 24: sweep-01-adam-0.003 0\.\d+"))
    page.keyboard.press("ArrowRight")
    expect(said).to_have_text(re.compile(r"^step 48: "))
    page.keyboard.press("+")
    low, high = zoomed(chart)
    assert high - low < 150
    page.keyboard.press("Shift+ArrowRight")
    expect(chart).not_to_have_attribute("data-zoomed", f"{low:.10g},{high:.10g}")
    page.keyboard.press("-")
    page.keyboard.press("0")
    expect(chart).not_to_have_attribute("data-zoomed", re.compile("."))
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="← All charts")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("sweep-01"))).to_be_visible()


def test_the_cursor_tells_the_nearest_values_and_stands_in_all_charts(tab: Visit) -> None:
    page = tab.open("charts", runs=["sweep-01-adam-0.003", "sweep-08-sgd-0.1"])
    chart = drawn(page, "val/accuracy", 2)
    drawn(page, "val/loss", 2)
    chart.locator(".u-over").hover(position={"x": 120, "y": 20})
    tip = chart.locator(".tip")
    expect(tip).to_contain_text("step")
    expect(tip.locator(".tip-row")).to_have_count(2)
    expect(tip).to_contain_text("sweep-08-sgd-0.1")
    expect(figure(page, "val/loss").locator(".u-cursor-x")).not_to_have_class(re.compile("u-off"))
    expect(figure(page, "val/loss").locator(".tip")).to_be_hidden()


def test_the_link_says_how_the_charts_are_drawn(tab: Visit) -> None:
    page = tab.open("charts", runs="sweep-01-adam-0.003")
    drawn(page, "val/loss")
    page.get_by_role("button", name="Time").click()
    page.get_by_label("Log scale").check()
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_text("Marks and more").click()
    page.get_by_label("Checkpoints").uncheck()
    page.reload()
    drawn(page, "val/loss")
    expect(page.get_by_role("button", name="Time")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Log scale")).to_be_checked()
    expect(page.get_by_label("Smoothing")).to_have_value("0.5")
    expect(page.get_by_label("Checkpoints")).not_to_be_checked()
    figure(page, "val/loss").get_by_role("button", name="Enlarge val/loss").click()
    drawn(page, "val/loss")
    expect(page.locator("figure.chart")).to_have_count(1)
    page.go_back()
    drawn(page, "val/accuracy")


def test_what_has_no_place_on_the_scale_is_said(odd: Path, visit: Callable[..., Visit]) -> None:
    with running(odd) as server:
        page = visit(server.origin).open("charts", log=1)
        note = drawn(page, "loss", 1).locator(".chart-note")
        expect(note).to_contain_text("1 × NaN")
        expect(note).to_contain_text("3 values ≤ 0 not shown on a log scale")
        page.get_by_label("Log scale").uncheck()
        expect(note).not_to_contain_text("log scale")
        svg = saved(page, figure(page, "loss"), "SVG")[1].decode()
        assert all(sign in svg for sign in "×▲▼")


def test_dead_branches_are_drawn_until_they_are_switched_off(tab: Visit) -> None:
    page = tab.open("charts", runs="resumed")
    drawn(page, "train/loss", 2)
    page.get_by_text("Marks and more").click()
    page.get_by_label("Dead branches").uncheck()
    drawn(page, "train/loss", 1)


def test_what_happened_is_marked_described_and_can_be_switched_off(tab: Visit) -> None:
    page = tab.open("charts", runs="frozen-phases", search="val/loss")
    chart = drawn(page, "val/loss", 1)
    expect(chart).to_have_attribute("data-marks", re.compile("[1-9]"))
    marks = int(str(chart.get_attribute("data-marks")))
    svg = saved(page, chart, "SVG")[1].decode()
    assert "2 block2, head" in svg and "the best by" in svg
    plot = chart.locator(".u-over")
    box = plot.bounding_box()
    assert box is not None
    plot.hover(position={"x": box["width"] * 0.99 - 2, "y": 60})  # where the run ended
    expect(chart.locator(".tip")).to_contain_text("finished")
    page.get_by_text("Marks and more").click()
    page.get_by_label("Freeze phases").uncheck()
    expect(chart).to_have_attribute("data-marks", str(marks - 3))


def test_a_chart_is_taken_along_as_png_svg_and_csv(tab: Visit) -> None:
    page = tab.open("charts", runs=["sweep-01-adam-0.003", "sweep-08-sgd-0.1"], smooth=0.6)
    chart = drawn(page, "val/accuracy", 2)
    name, content = saved(page, chart, "SVG")
    root = ElementTree.fromstring(content)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert name == "val-accuracy.svg" and {"val/accuracy", "sweep-01-adam-0.003", "sweep-08-sgd-0.1", "step"} <= set(
        texts
    )
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) >= 4
    name, content = saved(page, chart, "PNG")
    assert name == "val-accuracy.png" and struct.unpack(">II", content[16:24]) == (1800, 960)
    name, content = saved(page, chart, "CSV")
    assert {row["run"] for row in rows(content)} == {"sweep-01-adam-0.003", "sweep-08-sgd-0.1"}
    assert {row["min"] == row["value"] == row["max"] for row in rows(content)} == {True}


def test_the_values_are_a_table_too(tab: Visit) -> None:
    page = tab.open("charts", runs="sweep-01-adam-0.003")
    chart = drawn(page, "val/accuracy")
    chart.locator("summary").click()
    chart.get_by_role("button", name="Values as a table").click()
    expect(chart.get_by_role("columnheader")).to_have_text(
        ["Run", "Last", "Best", "Best in epoch", "Smallest", "Largest", "Points"]
    )
    expect(chart.get_by_role("rowheader")).to_have_text("sweep-01-adam-0.003")


def test_a_training_of_another_process_goes_on_in_its_charts(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    with training(tmp_path, "going-on") as going, running(tmp_path) as server:
        going.step(3)
        page = visit(server.origin).open("charts")
        chart = drawn(page, "train/loss", 1)
        expect(chart).to_have_attribute("data-points", "3")
        for count in (4, 5, 6):
            going.step()
            expect(chart).to_have_attribute("data-points", str(count))
        page.evaluate("window.kept = document.querySelector('figure.chart')")
        page.locator("figure.chart").get_by_role("button").first.focus()
        with relume.Run("second", root=tmp_path, quiet=True, watch=False) as run:
            run.log({"train/loss": 1.0, "val/new": 1.0}, step=0)
        drawn(page, "train/loss", 2)
        drawn(page, "val/new", 1)
        # The charts that were there are still the same, and so is the focus.
        assert page.evaluate("window.kept.isConnected && window.kept.contains(document.activeElement)")


LOOK = """visibility => {
  Object.defineProperty(document, "visibilityState", { configurable: true, value: visibility });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_what_was_logged_while_nobody_looked_is_there_when_somebody_does(
    tmp_path: Path, visit: Callable[..., Visit]
) -> None:
    with running(tmp_path) as server:
        with relume.Run("a", root=tmp_path, quiet=True, watch=False) as run:
            run.log({"loss": 1.0}, step=0)
            with (tab := visit(server.origin)).page.expect_response("**/api/events"):
                chart = drawn(tab.open("charts"), "loss", 1)
            tab.page.evaluate(LOOK, "hidden")
            run.log({"loss": 0.5}, step=1)
        tab.page.evaluate(LOOK, "visible")
        expect(chart).to_have_attribute("data-points", "2")


def test_hostile_names_are_text_in_charts_and_in_what_is_saved(tab: Visit) -> None:
    page = tab.open("charts", runs=HOSTILE_NAME)
    charts = page.locator("figure[data-drawn]")
    charts.first.wait_for()
    assert tab.foreign_elements() == []
    for place in range(min(4, charts.count())):
        ElementTree.fromstring(saved(page, charts.nth(place), "SVG")[1])
        name, content = saved(page, charts.nth(place), "CSV")
        assert "/" not in name and {row["run"] for row in rows(content)} == {HOSTILE_NAME}
    page.set_viewport_size({"width": 360, "height": 740})
    assert tab.overflow() == [] and tab.foreign_elements() == []
    page = tab.open("charts", runs=HOSTILE_NAME, metric=EMOJI)  # with a sign that no XML can hold
    charts.first.wait_for()
    ElementTree.fromstring(saved(page, charts.first, "SVG")[1])


@pytest.mark.long  # test_page_views.py looks at charts too
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_charts_fit_and_are_accessible(visit: Callable[..., Visit], served: str, scheme: str, width: int) -> None:
    tab = visit(served, color_scheme=scheme, viewport={"width": width, "height": 900})
    page = tab.open("charts", runs=["sweep-01-adam-0.003", "resumed", "frozen-phases"])
    chart = drawn(page, "val/loss")
    assert tab.overflow() == [] and tab.accessibility() == []
    chart.locator("summary").click()
    assert tab.accessibility() == []
    page.keyboard.press("Escape")
    page.get_by_text("Marks and more").click()
    assert tab.overflow() == [] and tab.accessibility() == []
