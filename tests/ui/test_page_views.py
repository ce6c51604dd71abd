"""Each view on real runs: shown, by its link, for everybody, and only text where others have written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browsing import Visit
from odd_runs import FOREIGN_NAME, HOSTILE_NAME

SWEEP = ["sweep-01-adam-0.003", "sweep-02-adam-0.001", "sweep-08-sgd-0.1"]
VIEWS = {
    "runs": ("runs", {}),
    "charts": ("charts", {"runs": SWEEP}),
    "compare": ("compare", {"runs": SWEEP}),
    "run": ("run/sweep-02-adam-0.001", {}),
}


def ready(tab: Visit, name: str) -> None:
    """Open a view and wait for what shows that its data is there."""
    view, query = VIEWS[name]
    page = tab.open(view, **query)
    page.wait_for_load_state("networkidle") if name != "charts" else page.wait_for_selector("[data-drawn]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_can_be_used_by_all(visit: Callable[..., Visit], served: str, name: str, scheme: str) -> None:
    tab = visit(served, color_scheme=scheme)
    ready(tab, name)
    assert not tab.accessibility()
