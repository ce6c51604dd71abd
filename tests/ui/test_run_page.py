"""The page of one run: each part on real runs, by pointer and by keyboard, live and changed in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browsing import Visit
from odd_runs import HOSTILE_NAME
from playwright.sync_api import Locator, Page, expect

import relume
from relume.ui.server.serving import running

MEDIA_PARTS = ["images", "confusion", "pr", "histograms", "text", "meshes", "graph", "tables", "figures"]
PARTS = {
    "overview": "resumed",
    "config": "resumed",
    "checkpoints": "resumed",
    "freeze": "frozen-phases",
    "order": "resumed",
    "system": "media",
    "console": "resumed",
    **dict.fromkeys(MEDIA_PARTS, "media"),
}


def part(tab: Visit, name: str, **query: Any) -> Page:
    """Open a part of the run that shows it, and wait until it is drawn."""
    page = tab.open(f"run/{PARTS[name]}", **({} if name == "overview" else {"part": name}), **query)
    page.wait_for_selector(f"#run-panel[data-shown='{name}']")
    if name in MEDIA_PARTS:
        page.wait_for_selector(".media-content[data-shown]")
    return page


def download(page: Page, control: Locator) -> Path:
    with page.expect_download() as found:
        control.click()
    return Path(found.value.path())


# --------------------------------------------------------------------------------------------------- for all, everywhere


@pytest.mark.long  # test_page_views.py looks at each part too
@pytest.mark.parametrize("name", PARTS)
def test_each_part_is_shown_without_complaint_and_for_everybody(tab: Visit, name: str) -> None:
    page = part(tab, name)
    expect(page.get_by_role("tab", selected=True)).to_have_attribute("data-part", name)
    assert page.locator("#run-panel").inner_text().strip()
    assert not page.locator(".problem").count()
    assert not tab.accessibility()


@pytest.mark.long  # test_page_views.py looks at each part too
@pytest.mark.parametrize("name", PARTS)
def test_each_part_fits_a_phone_in_the_dark(visit: Callable[..., Visit], served: str, name: str) -> None:
    tab = visit(served, viewport={"width": 360, "height": 740}, has_touch=True, color_scheme="dark")
    part(tab, name)
    assert not tab.overflow()
    assert not tab.accessibility()


@pytest.mark.parametrize("name", ["overview", "config", "console", "text", "tables"])
def test_what_others_have_written_is_text_in_each_part(tab: Visit, name: str) -> None:
    page = tab.open(f"run/{HOSTILE_NAME}", part=name)
    page.wait_for_selector(f"#run-panel[data-shown='{name}']")
    assert not tab.foreign_elements()
    assert not tab.overflow()


def test_tabs_are_walked_with_the_arrow_keys_and_stand_in_the_link(tab: Visit) -> None:
    page = tab.open("run/resumed")
    page.get_by_role("tab", name="Overview").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Config & code")).to_be_focused()
    assert "part=config" in page.url
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Console")).to_have_attribute("aria-selected", "true")


def test_parts_without_data_are_left_out(tab: Visit) -> None:
    page = tab.open("run/resumed")
    names = page.get_by_role("tab").all_inner_texts()
    assert "Checkpoints" in names
    assert not {"Images", "3D", "Graph", "System", "Freezing"} & set(names)


# ---------------------------------------------------------------------------------------------------------------- head


def test_the_head_says_how_the_run_stands_and_copies_commands(visit: Callable[..., Visit], served: str) -> None:
    tab = visit(served, permissions=["clipboard-read", "clipboard-write"])
    page = tab.open("run/resumed")
    head = page.locator(".run-head")
    expect(head.locator(".status")).to_have_text("finished")
    expect(head.locator(".tile").first).to_contain_text("val/loss")
    expect(head.locator(".tile").first).to_contain_text("best")
    head.get_by_role("button", name="pack", exact=True).click()
    expect(head.locator(".command")).to_contain_text("relume pack resumed@best")
    assert "relume pack resumed@best" in page.evaluate("navigator.clipboard.readText()")


def test_notes_and_tags_are_changed_in_place(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with relume.Run("mine", root=tmp_path, quiet=True) as run:
        run.log({"loss": 1.0}, step=1)
    with running(tmp_path) as server:
        page = visit(server.origin).open("run/mine")
        page.get_by_role("button", name="Add tags and notes").click()
        page.get_by_label("Tags").fill("good, kept")
        page.get_by_label("Notes").fill("<b>bold</b> is text")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".tags li")).to_have_text(["good", "kept"])
        expect(page.locator(".notes-text")).to_have_text("<b>bold</b> is text")
        page.get_by_role("button", name="Archive").click()
        expect(page.locator(".run-status")).to_contain_text("archived")


def test_head_and_open_part_follow_a_run_that_goes_on(visit: Callable[..., Visit], tmp_path: Path) -> None:
    with relume.Run("live", root=tmp_path, quiet=True) as run, running(tmp_path) as server:
        run.log({"val/loss": 1.0}, step=1)
        run.log({"said": "first words"}, step=1)
        page = visit(server.origin).open("run/live", part="text")
        expect(page.locator(".logged-text")).to_have_text("first words")
        run.log({"val/loss": 0.25}, step=2)
        run.log({"said": "last words"}, step=2)
        expect(page.locator(".run-line")).to_contain_text("step 2")
        expect(page.locator(".logged-text")).to_have_text("last words")
        page.get_by_role("button", name="Earlier step").click()
        expect(page.locator(".logged-text")).to_have_text("first words")
        run.log({"said": "more words"}, step=3)
        expect(page.locator(".stepper-where")).to_contain_text("1 of 3")
        expect(page.locator(".logged-text")).to_have_text("first words")


# --------------------------------------------------------------------------------------------------------------- parts


def test_settings_are_searched_and_set_against_another_run(tab: Visit) -> None:
    page = part(tab, "config")
    page.get_by_label("Search the settings").fill("drop")
    expect(page.locator(".settings tr")).to_have_count(1)
    page.get_by_label("Compare with").select_option("sweep-07-adam-0.1")
    rows = page.locator(".pairs").first.locator("tbody tr")
    expect(rows.filter(has_text="lr").first).to_contain_text("0.1")
    count = rows.count()
    page.get_by_role("button", name="All", exact=True).click()
    assert page.locator(".pairs").first.locator("tbody tr").count() > count
    assert "with=sweep-07-adam-0.1" in page.url


def test_checkpoints_say_which_is_best_what_they_take_and_where_they_come_from(tab: Visit) -> None:
    page = part(tab, "checkpoints")
    best = page.locator("tr", has=page.locator(".chip.best"))
    expect(best).to_have_count(1)
    expect(best).to_contain_text("the best by")
    expect(page.locator(".lineage .resume").first).to_be_attached()
    expect(page.locator(".lineage .branch").first).to_be_attached()
    page.get_by_role("button", name="val/loss").click()
    expect(page.locator("th", has_text="val/loss")).to_have_attribute("aria-sort", "descending")
    saved = download(page, page.get_by_role("button", name="Save as CSV")).read_text()
    assert "stored_bytes" in saved.splitlines()[0]


def test_the_freeze_timeline_says_which_block_trained_when(tab: Visit) -> None:
    page = part(tab, "freeze", axis="time")  # as charts have it; here there are steps and epochs
    bar = page.locator(".freeze .block").first
    bar.focus()
    expect(page.locator(".readout")).to_contain_text("trained from step")
    expect(page.locator(".readout")).to_contain_text("learning rate")
    page.get_by_text("As a table").click()
    expect(page.locator(".as-table tbody")).to_contain_text("frozen")
    page.get_by_role("button", name="Epochs").click()
    expect(page.locator(".freeze .ticks")).to_contain_text("epoch")
    drawn = download(page, page.get_by_role("button", name="Save as SVG")).read_text()
    assert drawn.startswith("<svg") and "class=" not in drawn


def test_lines_of_the_console_are_searched(tab: Visit) -> None:
    page = part(tab, "console")
    whole = page.locator(".console-line").count()
    page.get_by_label("Search the lines").fill("resumes from")
    expect(page.get_by_text(f"of {whole} lines")).to_be_visible()
    assert 0 < page.locator(".console-line").count() < whole


# ---------------------------------------------------------------------------------------------------------------- media


def test_images_are_shown_worst_first_and_one_by_one(tab: Visit) -> None:
    page = part(tab, "images", of="predictions")
    page.get_by_role("slider", name="Step").fill("0")
    expect(page.locator(".tile-image.wrong").first).to_be_visible()
    page.get_by_role("button", name="Only wrong").click()
    expect(page.locator(".tile-image:not(.wrong)")).to_have_count(0)
    page.locator(".tile-image").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 of")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("3 of")
    assert dialog.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert not tab.accessibility()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


@pytest.mark.parametrize("shape", ["Ridges", "Overlaid", "Heatmap"])
def test_histograms_over_time_say_their_values(tab: Visit, shape: str) -> None:
    page = part(tab, "histograms")
    page.get_by_role("button", name=shape).click()
    page.locator(".histogram").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".readout")).to_contain_text("values from")
    page.locator(".histogram").hover(position={"x": 300, "y": 200})
    expect(page.locator(".readout")).to_contain_text("step")


def test_a_mesh_is_turned_with_keys_and_pointer(tab: Visit) -> None:
    page = part(tab, "meshes")
    canvas = page.locator("canvas.mesh")
    before = canvas.get_attribute("data-drawn")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    expect(canvas).not_to_have_attribute("data-drawn", before or "")
    turned = canvas.get_attribute("data-drawn")
    canvas.hover()
    page.mouse.down()
    page.mouse.move(500, 600, steps=4)
    page.mouse.up()
    expect(canvas).not_to_have_attribute("data-drawn", turned or "")
    colours = canvas.evaluate("""canvas => {
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(Array.from({length: data.length / 4}, (_, at) => data[4 * at] + 256 * data[4 * at + 1])).size;
    }""")
    assert colours > 100


def test_modules_of_the_graph_open_and_nodes_are_found(tab: Visit) -> None:
    page = part(tab, "graph")
    group = page.locator(".graph .node.group").first
    expect(group).to_have_attribute("aria-expanded", "false")
    count = page.locator(".graph .node").count()
    group.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".graph .node.group").first).to_have_attribute("aria-expanded", "true")
    assert page.locator(".graph .node").count() > count
    page.get_by_label("Find a node").fill("layer2/conv2")
    page.keyboard.press("Enter")
    expect(page.locator(".graph-details")).to_contain_text("layer2/conv2")
    expect(page.locator(".graph-details")).to_contain_text("× ")


def test_the_confusion_matrix_is_read_by_keyboard(tab: Visit) -> None:
    page = part(tab, "confusion")
    page.locator("svg.confusion").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".readout")).to_contain_text("taken for")
    page.get_by_role("button", name="Counts").click()
    expect(page.get_by_role("heading", name="Class by class")).to_be_visible()
    assert "predicted" in download(page, page.get_by_role("button", name="Save as CSV")).read_text().splitlines()[0]
    assert download(page, page.get_by_role("button", name="Save as PNG")).read_bytes().startswith(b"\x89PNG")


def test_a_damaged_run_says_what_is_wrong(visit: Callable[..., Visit], made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "media", tmp_path / "broken", symlinks=True)
    (tmp_path / "broken" / "metrics.db").write_bytes(b"garbage" * 1000)
    shutil.rmtree(tmp_path / "broken" / "media")
    with running(tmp_path) as server:
        tab = visit(server.origin)
        tab.allow("/media/")
        tab.allow("Failed to load resource")
        page = tab.open("run/broken", part="images")
        expect(page.get_by_text("This picture is gone or damaged.").first).to_be_visible()
