"""Each view on real runs: shown by its link, for everybody, on every screen, and only text where others have written."""

from __future__ import annotations

from typing import Any

import pytest
from browsing import Visit
from odd_runs import FOREIGN_NAME, HOSTILE_NAME

SWEEP = ["sweep-01-adam-0.003", "sweep-02-adam-0.001", "sweep-08-sgd-0.1"]
VIEWS: dict[str, tuple[str, dict[str, Any]]] = {
    "runs": ("runs", {}),
    "charts": ("charts", {"runs": SWEEP}),
    "compare": ("compare", {"runs": SWEEP}),
    "run": ("run/sweep-02-adam-0.001", {}),
    "checkpoints": ("run/resumed", {"part": "checkpoints"}),
    "config": ("run/resumed", {"part": "config"}),
    "freeze": ("run/frozen-phases", {"part": "freeze"}),
    "order": ("run/resumed", {"part": "order"}),
    "console": ("run/resumed", {"part": "console"}),
    "system": ("run/media", {"part": "system"}),
    "images": ("run/media", {"part": "images", "of": "predictions"}),
    "confusion": ("run/media", {"part": "confusion"}),
    "pr": ("run/media", {"part": "pr"}),
    "histograms": ("run/media", {"part": "histograms"}),
    "text": ("run/media", {"part": "text"}),
    "meshes": ("run/media", {"part": "meshes", "of": "ring"}),
    "graph": ("run/media", {"part": "graph"}),
    "tables": ("run/media", {"part": "tables"}),
    "figures": ("run/media", {"part": "figures"}),
}
BAD = {
    "runs": ("runs", {}),
    "charts": ("charts", {"runs": [HOSTILE_NAME, FOREIGN_NAME]}),
    "compare": ("compare", {"runs": [HOSTILE_NAME, FOREIGN_NAME]}),
    "run": (f"run/{HOSTILE_NAME}", {}),
    "run-config": (f"run/{HOSTILE_NAME}", {"part": "config"}),
    "run-console": (f"run/{HOSTILE_NAME}", {"part": "console"}),
    "run-images": (f"run/{HOSTILE_NAME}", {"part": "images"}),
    "run-confusion": (f"run/{HOSTILE_NAME}", {"part": "confusion"}),
    "run-text": (f"run/{HOSTILE_NAME}", {"part": "text", "of": "text 1"}),
    "run-tables": (f"run/{HOSTILE_NAME}", {"part": "tables"}),
    "run-foreign": (f"run/{FOREIGN_NAME}", {}),
}
PHONE = {"width": 360, "height": 740}


def shown(tab: Visit, view: str, query: dict[str, Any]) -> None:
    """Open a view, and the part of it that is asked for."""
    page = tab.open(view, **query)
    if view == "charts":
        page.wait_for_selector("[data-drawn]")
    if "part" in query:
        page.wait_for_selector(f"#run-panel[data-shown={query['part']}]")


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_can_be_used_by_all_in_light_and_dark_and_on_a_phone(tab: Visit, name: str) -> None:
    shown(tab, *VIEWS[name])
    assert not tab.accessibility()
    tab.page.emulate_media(color_scheme="dark")
    assert not tab.accessibility(), "dark"
    tab.page.set_viewport_size(PHONE)
    assert not tab.overflow()


@pytest.mark.parametrize("name", BAD)
def test_what_others_have_written_is_text(tab: Visit, name: str) -> None:
    shown(tab, *BAD[name])
    assert not tab.foreign_elements()
    assert not tab.overflow()
    tab.page.set_viewport_size(PHONE)
    assert not tab.overflow()


@pytest.mark.parametrize("name", ["damaged", "damaged-record", "damaged-empty", "killed", "failed", "long"])
def test_a_run_of_any_fate_has_a_page(tab: Visit, name: str) -> None:
    page = tab.open(f"run/{name}")
    assert name in page.inner_text("main h1")


def test_a_run_that_is_not_there_is_said(tab: Visit) -> None:
    tab.allow("404")
    page = tab.open("run/<b onclick=alert(1)>")
    assert "there is no run" in page.inner_text("[role=alert]:visible")
    page.goto(f"{tab.origin}/#/constructor")  # no view, though an object has something of this name
    page.wait_for_selector("main .view-runs[data-mounted]")
    assert not tab.foreign_elements()
