"""Small curves: what is drawn is what was logged, and no spike is lost."""

from __future__ import annotations

import re
import xml.dom.minidom
from pathlib import Path

import pytest

from relume import Run
from relume.monitor.curves import Curve, blocks, curve_of, drawing


def logged(folder: Path, values: list[float], name: str = "train/loss") -> Path:
    with Run("run", root=folder, quiet=True) as run:
        for step, value in enumerate(values):
            run.log({name: value}, step=step)
    return run.folder


def test_a_spike_among_many_values_is_kept(tmp_path: Path) -> None:
    curve = curve_of(logged(tmp_path, [1.0] * 5000 + [99.0] + [1.0] * 4999), "train/loss", 50)
    assert len(curve.means) == 50 and max(curve.highs) == 99.0 and min(curve.lows) == 1.0
    assert sum(high == 99.0 for high in curve.highs) == 1 and "<polygon" in drawing(curve, "train/loss").html


def test_what_is_not_finite_has_no_place(tmp_path: Path) -> None:
    values = [1.0, float("nan"), 3.0, float("inf"), 2.0]
    assert curve_of(logged(tmp_path, values), "train/loss").means == [1.0, 3.0, 2.0]
    nothing = curve_of(logged(tmp_path, [float("nan")] * 3), "train/loss")
    assert nothing.means == [] and drawing(nothing, "x").text.text == "–"


@pytest.mark.parametrize(
    "values", [[0.0], [1e308, -1e308], [5e-324, 0.0], [1.0, 1.0], [float(2**62), 1.0], [1.7e308] * 3, list(range(300))]
)
def test_any_finite_values_can_be_drawn(values: list[float], tmp_path: Path) -> None:
    shown = drawing(Curve.of(values), "val/loss")
    svg = xml.dom.minidom.parseString(shown.html).documentElement
    points = svg.getElementsByTagName("polyline")[0].getAttribute("points").split()
    width, height = float(svg.getAttribute("width")), float(svg.getAttribute("height"))
    for point in points:
        x, y = map(float, point.split(","))
        assert 0 <= x <= width and 0 <= y <= height
    assert 1 <= len(blocks(values)) <= 12


def test_the_best_value_is_marked_where_the_name_says_which_it_is() -> None:
    def height(name: str, values: list[float]) -> list[str]:
        return re.findall(r'cy="([\d.]+)"', drawing(Curve.of(values), name).html)

    top, bottom = height("val/accuracy", [0.0, 1.0, 0.5]), height("val/loss", [0.5, 1.0, 0.0])
    assert float(top[0]) < 5 and float(bottom[0]) > 20 and height("lr", [1.0, 0.5]) == []


def test_a_name_is_only_text_in_a_drawing() -> None:
    page = drawing(Curve.of([1.0, 2.0]), '"><script>alert(1)</script>\x1b[31m').html
    assert "<script" not in page and '"">' not in page and "\x1b" not in page
    xml.dom.minidom.parseString(page)
