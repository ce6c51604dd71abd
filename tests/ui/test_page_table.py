"""The table of runs, from end to end: conditions, keys alone, and a training of another process that it shows as it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from browsing import Visit
from live_run import training
from odd_runs import make_foreign, tear

import relume
from relume.ui.server.serving import running


def names(tab: Visit) -> list[str]:
    return tab.page.locator(".runs-table tbody th[scope=row] a").all_inner_texts()


def make_few(root: Path) -> Path:
    for number, lr in enumerate((0.1, 0.01, 0.001)):
        with relume.Run(f"few-{number}", root=root, config={"lr": lr}, quiet=True, watch=False) as run:
            for step in range(10):
                run.log({"val/accuracy": 0.5 + number / 10 + step / 100, "train/loss": 1 / (step + 1)}, step=step)
    return root


def test_conditions_choose_and_the_link_keeps_them(tab: Visit) -> None:
    page = tab.open("runs")
    page.get_by_label("Conditions").fill("lr <= 0.001 and val/accuracy > 0.5 and optimizer == 'AdamW'")
    page.wait_for_function("() => document.querySelectorAll('.runs-table tbody th[scope=row]').length === 3")
    assert sorted(names(tab)) == ["early-stopped", "sweep-12-adamw-0.001", "sweep-14-adamw-0.0003"]
    page.reload()
    page.wait_for_function("() => document.querySelectorAll('.runs-table tbody th[scope=row]').length === 3")


def test_a_condition_that_is_none_is_said_and_the_table_stays(tab: Visit) -> None:
    tab.allow("400")
    page = tab.open("runs")
    before = names(tab)
    page.get_by_label("Conditions").fill("lr <")
    error = page.locator(".where-error")
    error.wait_for()
    assert error.inner_text() and names(tab) == before


def test_two_runs_are_chosen_and_compared_with_keys_alone(tab: Visit) -> None:
    page = tab.open("runs", find="sweep-0")
    focused = "() => document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
    seen: list[str] = []

    def walk(to: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(focused))
            if seen[-1].startswith(to):
                return
        raise AssertionError(f"no key leads to {to!r}: {seen}")

    walk("Pick sweep-")
    page.keyboard.press("Space")
    walk("Pick sweep-")
    page.keyboard.press("Space")
    assert page.locator(".runs-table tbody input:checked").count() == 2
    for _ in range(80):
        page.keyboard.press("Shift+Tab")
        if page.evaluate(focused).startswith("Compare") and page.evaluate(
            "() => document.activeElement.closest('main') !== null"
        ):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("main .view-compare[data-mounted]")
    assert page.url.count("runs=sweep-") == 2


def test_a_training_of_another_process_is_followed(visit: Callable[..., Visit], tmp_path: Path) -> None:
    make_few(tmp_path)
    with running(tmp_path) as address:
        tab = visit(address.origin)
        page = tab.open("runs")
        with training(tmp_path, "live") as live:
            page.locator("tr", has_text="live").locator(".status-running").wait_for()
            live.step(5)
            page.locator("tr", has_text="live").get_by_text("0.8333").wait_for()
            page.get_by_label("Pick few-1").focus()
            live.step(5)
            page.locator("tr", has_text="live").get_by_text("0.9091").wait_for()
            assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "Pick few-1"
        page.locator("tr", has_text="live").locator(".status-finished").wait_for()


def test_a_training_that_is_killed_is_said_to_be(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(tmp_path) as address:
        page = visit(address.origin).open("runs")
        with training(tmp_path, "live") as live:
            live.step()
            page.locator(".status-running").wait_for()
            live.kill()
        page.locator(".status-killed").wait_for()


def test_what_breaks_and_goes_while_the_page_is_open_breaks_nothing_else(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    make_few(tmp_path)
    with running(tmp_path) as address:
        tab = visit(address.origin)
        page = tab.open("runs")
        assert len(names(tab)) == 3
        (tmp_path / "few-0" / "metrics.db").unlink()
        tear(tmp_path / "few-1")
        shutil.rmtree(tmp_path / "few-2")
        make_foreign(tmp_path)
        page.locator("tr", has_text="it's <b").wait_for()
        page.wait_for_function("() => !document.body.innerText.includes('few-2')")
        assert page.locator("tr", has_text="few-0").get_by_text("0.59").count() >= 1
