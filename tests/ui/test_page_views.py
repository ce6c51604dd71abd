"""Each view on real runs: shown by its link, for everybody, on every screen, and only text where others have written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from browsing import Visit
from odd_runs import FOREIGN_NAME, HOSTILE_NAME, SCRIPT

SWEEP = ["sweep-01-adam-0.003", "sweep-02-adam-0.001", "sweep-08-sgd-0.1"]
VIEWS: dict[str, tuple[str, dict[str, Any]]] = {
    "runs": ("runs", {}),
    "charts": ("charts", {"runs": SWEEP}),
    "compare": ("compare", {"runs": SWEEP}),
    "run": ("run/sweep-02-adam-0.001", {}),
    "run-resumed": ("run/resumed", {}),
    "run-media": ("run/media", {}),
}
BAD = {
    "runs": ("runs", {}),
    "charts": ("charts", {"runs": [HOSTILE_NAME, FOREIGN_NAME]}),
    "compare": ("compare", {"runs": [HOSTILE_NAME, FOREIGN_NAME]}),
    "run": (f"run/{HOSTILE_NAME}", {}),
    "run-foreign": (f"run/{FOREIGN_NAME}", {}),
}
PHONE = {"width": 360, "height": 740}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_can_be_used_by_all(visit: Callable[..., Visit], served: str, name: str, scheme: str) -> None:
    tab = visit(served, color_scheme=scheme)
    view, query = VIEWS[name]
    tab.open(view, **query)
    assert not tab.accessibility()


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_no_wider_than_a_phone(visit: Callable[..., Visit], served: str, name: str) -> None:
    tab = visit(served, viewport=PHONE, has_touch=True)
    view, query = VIEWS[name]
    tab.open(view, **query)
    assert not tab.overflow()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", BAD)
def test_what_others_have_written_is_text(visit: Callable[..., Visit], served: str, name: str, width: int) -> None:
    tab = visit(served, viewport={"width": width, "height": 900})
    view, query = BAD[name]
    tab.open(view, **query)
    assert not tab.foreign_elements()
    assert not tab.overflow()


@pytest.mark.parametrize(
    "name", ["damaged", "damaged-record", "damaged-empty", "killed", "failed", "long", "frozen-phases"]
)
def test_a_run_of_any_fate_has_a_page(tab: Visit, name: str) -> None:
    page = tab.open(f"run/{name}")
    assert name in page.inner_text("main")


def test_a_run_that_is_not_there_is_said(tab: Visit) -> None:
    tab.allow("404")
    page = tab.open(f"run/{SCRIPT}")
    assert "there is no run" in page.inner_text("[role=alert]:visible")
    assert not tab.foreign_elements()
