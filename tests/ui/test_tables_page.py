"""The table of runs and their comparison: sorting, groups, columns, picks, changes in place, limits, files."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

from browsing import Visit
from playwright.sync_api import Page, expect

import relume
from relume.ui.server.serving import running

LINES = ".runs-table tbody th[scope=row] a"
HOSTILE = '=cmd|" /C calc"!A0, <img src=x onerror=alert(1)>'


def make_some(root: Path) -> Path:
    """Five runs: with their results in another order than their names, one without, one that failed."""
    for number, (lr, model) in enumerate(
        [(0.1, "wide"), (0.0001, "deep"), (0.01, "wide"), (0.001, "deep"), (1.0, "wide")]
    ):
        config = {"optimizer": {"lr": lr}, "model": model, "same": 1}
        try:
            with relume.Run(f"run-{number}", root=root, config=config, quiet=True, watch=False) as run:
                for step in range(3):
                    if number != 4:
                        run.log({"val/accuracy": 0.5 + 0.1 * number - step * 0.01, "val/loss": 1.0 + number}, step=step)
                if number == 3:
                    raise RuntimeError("<b>the power</b> went out")
        except RuntimeError:
            pass
    return root


def names(page: Page) -> list[str]:
    return [name.removeprefix("run-") for name in page.locator(LINES).all_inner_texts()]


def picked(page: Page) -> str:
    return "".join(sorted(name for name in "01234" if page.get_by_label(f"Pick run-{name}").is_checked()))


def heading(page: Page, text: str) -> object:
    return page.locator(".runs-table thead button").filter(has_text=text).first


def test_a_heading_puts_the_best_on_top_and_what_is_missing_last(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs")
        assert "".join(names(page)) == "43210"  # the newest first
        best = page.locator('.runs-table thead button[data-key="best:val/accuracy"]')
        best.click()
        assert "".join(names(page)) == "32104"
        assert best.locator("xpath=ancestor::th").get_attribute("aria-sort") == "descending"
        best.click()
        assert "".join(names(page)) == "01234"
        page.locator('.runs-table thead button[data-key="best:val/loss"]').click()
        assert "".join(names(page)) == "01234"  # the smallest loss is the best
        page.locator('.runs-table thead button[data-key="config:optimizer.lr"]').click(modifiers=["Shift"])
        assert "".join(names(page)) == "40231"
        page.reload()
        expect(page.locator(LINES)).to_have_text(["run-4", "run-0", "run-2", "run-3", "run-1"])


def test_the_best_of_each_column_is_marked_with_more_than_colour(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs")
        assert page.locator("strong.best").all_inner_texts() == ["★ 0.8\nthe best", "★ 1\nthe best"]
        failed = page.locator("tr", has_text="run-3").locator(".reason")
        assert "<b>the power</b> went out" in failed.inner_text() and "<b>" in str(failed.get_attribute("title"))


def test_groups_tell_their_best_and_fold_and_the_link_keeps_it(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs")
        page.get_by_label("Group by").select_option("config:model")
        heads = page.locator(".runs-table tr.group")
        assert [text.strip("▾▸") for text in heads.all_inner_texts()] == [
            "model = deep 2 runs · best val/accuracy 0.8000", "model = wide 3 runs · best val/accuracy 0.7000",
        ]  # fmt: skip
        heads.first.locator("button").press("Enter")
        assert "".join(names(page)) == "420" and page.evaluate("document.activeElement.ariaExpanded") == "false"
        page.reload()
        page.locator(LINES).first.wait_for()
        assert "".join(names(page)) == "420"


def test_columns_are_chosen_and_ordered_with_keys(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        tab = visit(address.origin)
        page = tab.open("runs")
        heads = page.locator(".runs-table thead button")
        before = heads.evaluate_all("all => all.map((one) => one.dataset.key)")
        page.get_by_role("button", name="Columns").press("Enter")
        page.keyboard.type("accuracy")
        page.get_by_label("last of val/accuracy").press("Space")
        assert not page.get_by_label("optimizer.lr", exact=True).is_visible()
        page.get_by_label("Move val/accuracy (last) to the front").press("Enter")
        page.get_by_label("Hide notes").press("Enter")
        assert not tab.accessibility()
        page.keyboard.press("Escape")
        after = heads.evaluate_all("all => all.map((one) => one.dataset.key)")
        assert after == [*(key for key in before if key != "notes"), "last:val/accuracy"]
        page.reload()
        page.locator(LINES).first.wait_for()
        assert heads.evaluate_all("all => all.map((one) => one.dataset.key)") == after
        page.get_by_role("button", name="Columns").click()
        page.get_by_role("button", name="As at first").click()
        assert heads.evaluate_all("all => all.map((one) => one.dataset.key)") == before


def test_the_way_back_leads_to_the_same_table(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs", columns=["status", "config:model"], sort="name", down=1)
        page.get_by_role("link", name="run-2").click()
        page.wait_for_url("**/#/run/run-2")
        page.get_by_role("link", name="Runs", exact=True).click()
        page.locator(LINES).first.wait_for()
        assert "".join(names(page)) == "43210" and page.locator(".runs-table thead th").count() == 4
        assert "columns=config%3Amodel" in page.url


def test_runs_are_picked_one_by_one_in_ranges_and_all(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs", sort="name")
        page.get_by_label("Pick run-1").check()
        assert page.get_by_role("link", name="Compare").count() == 1  # the one of the navigation: one run is too few
        page.get_by_label("Pick run-3").click(modifiers=["Shift"])
        assert picked(page) == "123" and "3 picked" in page.locator("div.picked").inner_text()
        page.get_by_label("Pick all").check()
        assert picked(page) == "01234"
        page.get_by_role("button", name="Pick none").click()
        assert picked(page) == ""
        page.get_by_label("Pick run-4").check()
        page.get_by_label("Pick run-0").check()
        page.locator("div.picked").get_by_role("link", name="Compare").click()
        page.locator(".view-compare h1").wait_for()
        assert page.url.endswith("#/compare?runs=run-0&runs=run-4")


def test_notes_and_tags_are_changed_in_place_and_kept(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs", sort="name")
        page.get_by_label("Edit the notes of run-1").click()
        page.keyboard.type("<i>looks</i> good")
        page.keyboard.press("Enter")
        note = page.locator("tr", has_text="run-1").locator(".of-notes")
        expect(note).to_contain_text("<i>looks</i> good")
        assert page.evaluate("document.activeElement.ariaLabel") == "Edit the notes of run-1"
        page.get_by_label("Edit the tags of run-2").click()
        page.keyboard.type("a, b, a")
        page.keyboard.press("Enter")
        page.get_by_label("Edit the tags of run-0").click()
        page.keyboard.type("never mind")
        page.keyboard.press("Escape")
        page.get_by_label("Search names").fill("good")
        expect(page.locator(LINES)).to_have_text(["run-1"])
        page.reload()
        expect(note).to_contain_text("<i>looks</i> good")
        page.get_by_label("Search names").fill("")
        assert page.locator(".of-tags .chip").all_inner_texts() == ["a", "b"]


def test_a_run_is_archived_and_brought_back(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs", sort="name")
        page.get_by_label("Archive run-2", exact=True).click()
        expect(page.locator(LINES)).to_have_text(["run-0", "run-1", "run-3", "run-4"])
        page.get_by_label("Archived").check()
        page.get_by_label("Bring back run-2").click()
        page.get_by_label("Archive run-2", exact=True).wait_for()
        page.get_by_label("Archived").uncheck()
        expect(page.locator(LINES)).to_have_count(5)


def test_what_could_not_be_kept_is_taken_back_with_a_sentence(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        tab = visit(address.origin)
        tab.allow("/edit")
        page = tab.open("runs")
        with page.expect_response("**/edit"):
            page.route("**/edit", lambda route: route.fulfill(status=400, json={"error": "the disk is full."}))
            page.get_by_label("Archive run-2", exact=True).click()
        trouble = page.get_by_role("alert").filter(has_text="could not be kept")
        expect(trouble).to_have_text("What was changed of run-2 could not be kept: the disk is full.")
        expect(page.locator(LINES)).to_have_count(5)


def test_a_field_that_one_writes_in_stays_while_runs_change(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("runs")
        page.get_by_label("Edit the notes of run-1").click()
        page.keyboard.type("half a sen")
        with relume.Run("run-5", root=tmp_path, quiet=True, watch=False) as run:
            run.log({"val/loss": 0.1}, step=1)
        page.get_by_label("Pick run-5").wait_for()
        page.keyboard.type("tence")
        page.keyboard.press("Enter")
        expect(page.locator("tr", has_text="run-1").locator(".of-notes")).to_contain_text("half a sentence")


def test_small_curves_come_with_one_question(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        tab = visit(address.origin)
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url) if "api/series" in request.url else None)
        page = tab.open("runs")
        expect(page.locator(".spark path.line")).to_have_count(4)
        assert len(asked) == 1 and asked[0].count("run=") == 4


def test_the_table_as_it_is_shown_is_a_file(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with relume.Run("odd", root=tmp_path, config={"a": HOSTILE, "b": 1e-20}, quiet=True, watch=False) as run:
        run.log({"val/loss": math.nan}, step=0)
    with running(make_some(tmp_path)) as address:
        columns = ["status", "config:a", "config:b", "best:val/loss"]
        page = visit(address.origin).open("runs", columns=columns, sort="name")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download CSV").click()
        with download.value.path().open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["name", "status", "a", "b", "val/loss (best)"]
        assert rows[1] == ["odd", "finished", f"'{HOSTILE}", "1e-20", "NaN"]  # no formula for a spreadsheet to run
        assert rows[5] == ["run-3", "failed", "", "", "4"]


def test_an_empty_root_says_how_to_make_a_first_run(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(tmp_path) as address:
        tab = visit(address.origin)
        page = tab.open("runs")
        assert "relume.Run(" in page.locator(".first-run pre").inner_text() and not tab.accessibility()
        with relume.Run("first", root=tmp_path, quiet=True, watch=False) as run:
            run.log({"train/loss": 0.5}, step=0)
        page.get_by_label("Pick first").wait_for()
        assert page.locator(".first-run").count() == 0


def test_many_runs_come_in_parts_and_all_of_them(visit: Callable[..., Visit], tmp_path: Path) -> None:
    for number in range(130):
        with relume.Run(f"run-{number}", root=tmp_path, config={"n": number}, quiet=True, watch=False):
            pass
    with running(tmp_path) as address:
        page = visit(address.origin).open("runs", sort="name", down=1)
        expect(page.locator(LINES)).to_have_count(130)
        assert [int(name) for name in names(page)] == list(range(129, -1, -1))
        page.get_by_label("Search names").fill("run-12")
        expect(page.locator(LINES)).to_have_count(11)
        page.get_by_label("Search names").fill("")
        expect(page.locator(LINES)).to_have_count(130)
        assert [int(name) for name in names(page)] == list(range(129, -1, -1))


# ------------------------------------------------------------------------------------------------------------- compare


ALL = [f"run-{number}" for number in range(5)]


def test_fewer_than_two_runs_are_asked_for_more(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("compare", runs=["run-1"])
        assert "Only run-1 is picked" in page.locator(".view-compare").inner_text()
        page.get_by_role("link", name="Compare the newest 5").click()
        expect(page.locator("h1")).to_have_text("5 runs compared")


def test_limits_drawn_on_an_axis_choose_runs(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("compare", runs=ALL, axis=["config:optimizer.lr", "best:val/accuracy"])
        expect(page.locator(".run-line")).to_have_count(5)
        grip = page.locator(".parallel .grip").first
        box = grip.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2
        page.mouse.move(middle, box["y"] + box["height"] * 0.4)
        page.mouse.down()
        page.mouse.move(middle, box["y"] + box["height"] * 0.6)
        page.mouse.move(middle, box["y"] + box["height"] * 1.2)
        page.mouse.up()
        expect(page.get_by_text("3 of 5 runs within the limits")).to_be_visible()
        assert page.locator(".run-line.outside").count() == 2 and "limit=" in page.url
        page.reload()
        expect(page.get_by_text("3 of 5 runs within the limits")).to_be_visible()
        page.get_by_role("button", name="Keep only these").click()
        expect(page.locator("h1")).to_have_text("3 runs compared")
        page.go_back()
        expect(page.locator("h1")).to_have_text("5 runs compared")
        page.locator(".parallel .grip").first.click()
        expect(page.locator(".run-line.outside")).to_have_count(0)


def test_limits_are_given_in_fields_too(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        tab = visit(address.origin)
        page = tab.open("compare", runs=ALL)
        page.get_by_text("Limits in fields").click()
        page.get_by_label("val/accuracy (best), from").fill("0.65")
        page.get_by_label("val/accuracy (best), from").press("Tab")
        expect(page.get_by_text("2 of 5 runs within the limits")).to_be_visible()
        page.get_by_label("model, to").select_option("deep")
        expect(page.get_by_text("1 of 5 runs within the limits")).to_be_visible()
        assert not tab.accessibility()
        page.get_by_role("button", name="No limits", exact=True).click()
        expect(page.locator(".run-line.outside")).to_have_count(0)


def test_axes_colour_and_both_sides_of_the_scatter_are_in_the_link(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("compare", runs=ALL)
        page.get_by_label("Colour by").select_option("best:val/loss")
        page.get_by_label("Across", exact=True).select_option("config:optimizer.lr")
        page.get_by_label("Upwards", exact=True).select_option("last:val/loss")
        page.get_by_label("Scale across").select_option("linear")
        page.locator(".picker summary").click()
        page.locator(".picker").get_by_label("seconds").or_(page.locator(".picker").get_by_label("took")).check()
        page.reload()
        assert page.get_by_label("Upwards", exact=True).input_value() == "last:val/loss"
        assert page.get_by_label("Scale across").input_value() == "linear"
        expect(page.locator(".parallel .axis-name").filter(has_text="took")).to_have_count(1)
        expect(page.locator(".scatter .point")).to_have_count(4)
        expect(page.get_by_text("1 run without a place here")).to_be_visible()


def test_a_point_says_which_run_it_is_and_leads_to_it(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("compare", runs=ALL, x="config:optimizer.lr", y="best:val/accuracy")
        point = page.locator('.scatter .point[data-run="run-2"]')
        assert point.get_attribute("aria-label") == "run-2: optimizer.lr 0.01, val/accuracy (best) 0.7"
        point.focus()
        expect(point.locator(".label")).to_have_css("opacity", "1")
        expect(page.locator('.run-line[data-run="run-2"]')).to_have_class("run-line hovered")
        page.keyboard.press("Enter")
        page.wait_for_url("**/#/run/run-2")


def test_the_table_shows_differences_only_until_all_is_asked_for(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("compare", runs=ALL[:3])
        table = page.locator("table.compared")
        row = table.locator("tr", has_text="optimizer.lr")
        assert row.locator("td").all_inner_texts() == ["0.1", "0.0001", "0.01"]
        same = table.locator("tr", has=page.get_by_role("rowheader", name="same", exact=True))
        assert same.count() == 0
        best = table.locator("tr", has_text="val/accuracy").locator("strong.best")
        assert best.all_inner_texts() == ["★ 0.7\nthe best"]
        page.get_by_label("Show all").check()
        expect(same.locator("td")).to_have_text(["1", "1", "1"])
        assert "all=1" in page.url


def test_drawings_and_tables_are_files(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        page = visit(address.origin).open("compare", runs=ALL)

        def file(label: str) -> bytes:
            with page.expect_download() as download:
                page.get_by_role("button", name=label).click()
            return download.value.path().read_bytes()

        for what in ("parallel", "scatter"):
            assert file(f"{what} as PNG").startswith(b"\x89PNG")
            drawing = file(f"{what} as SVG").decode()
            assert (
                drawing.startswith("<svg")
                and "val/accuracy" in drawing
                and "href" not in drawing
                and "var(--" not in drawing
            )
            assert file(f"{what} as CSV").decode().count("run-") == 5
        assert "config,optimizer.lr,0.1,0.0001,0.01,0.001,1\r\n" in file("Differences as CSV").decode()


def test_a_narrow_screen_and_the_dark_lose_nothing(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with running(make_some(tmp_path)) as address:
        tab = visit(address.origin, viewport={"width": 360, "height": 740}, color_scheme="dark")
        for view in ("runs", "compare"):
            page = tab.open(view, runs=ALL, group="config:model")
            page.locator(".run-line, .runs-table tbody tr").first.wait_for()
            assert not tab.overflow() and not tab.accessibility()


def test_names_that_javascript_knows_itself_are_names_like_others(visit: Callable[..., Visit], tmp_path: Path) -> None:
    odd = {"constructor": 1, "": 2, "__proto__": 3, "toString": 4}
    for number, config in enumerate([odd, {}, {name: value + 1 for name, value in odd.items()}]):
        with relume.Run(f"run-{number}", root=tmp_path, config=config, quiet=True, watch=False) as run:
            run.log({"constructor": 0.5 + number, "__proto__": 1.0}, step=0)
    with relume.Run("bare", root=tmp_path, quiet=True, watch=False):
        pass
    with running(tmp_path) as address:
        tab = visit(address.origin)
        page = tab.open("runs", columns=[f"config:{name}" for name in odd], sort="name")
        cells = page.locator("tr", has_text="run-1").locator("td.of-config")
        assert cells.all_inner_texts() == ["", "", "", ""]
        page = tab.open("compare", runs=["run-0", "run-2"])
        expect(page.locator(".parallel .axis")).to_have_count(5)
        page = tab.open("compare", runs=["run-1", "bare"])
        page.locator("table.compared").wait_for()
        assert page.locator(".view-compare > p, .run-line").count() > 0
