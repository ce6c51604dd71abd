"""The page in a real browser, over real runs that the workers of one test session share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import portalocker
import pytest
from browsing import Chromium, Visit
from made_runs import make_all

import relume
from relume.ui.server.serving import running

_chromium = Chromium()
_servers = ExitStack()
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests makes the runs and starts the browser: on a busy machine that takes its time."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


def pytest_runtest_logfinish() -> None:
    _chromium.hide()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """When the tests of this folder are done, nothing of them is left that others could trip over."""
    try:
        return (yield)
    finally:
        if nextitem is None or _HERE not in nextitem.path.parents:
            _chromium.close()
            _servers.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the runs of `made_runs`. Not to be changed: others look at it, too."""
    shared = tmp_path_factory.getbasetemp()
    root = (shared.parent if shared.name.startswith("popen-") else shared) / "runs-of-the-page"
    with portalocker.Lock(root.with_suffix(".lock"), timeout=600):
        done = root.with_suffix(".done")
        if not done.exists():
            make_all(root)
            done.touch()
    return root


_addresses: dict[Path, str] = {}


@pytest.fixture
def served(made: Path) -> str:
    """The origin of a server over `made`."""
    if made not in _addresses:
        _addresses[made] = _servers.enter_context(running(made)).origin
        _servers.callback(_addresses.clear)
    return _addresses[made]


@pytest.fixture
def visit() -> Iterator[Callable[..., Visit]]:
    """``visit(origin, **how)`` opens a tab of a browser that knows nothing yet; the test fails when the page complains."""
    browser = _chromium.show()
    visits: list[Visit] = []

    def begin(origin: str, **how: Any) -> Visit:
        how = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | how
        visits.append(Visit(browser.new_context(**how), origin))
        return visits[-1]

    try:
        yield begin
        for one in visits:
            assert not one.complaints, "\n".join(one.complaints)
    finally:
        for one in visits:
            one.page.context.close()
        _chromium.hide()


@pytest.fixture
def tab(visit: Callable[..., Visit], served: str) -> Visit:
    """A tab on the runs of `made`."""
    return visit(served)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of runs with one, ``fashion``; who needs other runs has a ``root`` of their own."""
    with relume.Run("fashion", root=tmp_path / "runs", quiet=True) as run:
        run.log({"train/loss": 0.5}, step=1)
    return tmp_path / "runs"
