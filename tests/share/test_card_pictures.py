"""Pictures of a card."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from described_bundles import filled_with, full, picture
from PIL import Image

from relume.share.card import Documents
from relume.share.documents import Claims, Example, Examples, Preprocessing, RunFacts
from relume.share.pictures import drawn
from relume.share.predicted import predictions


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def matrix(count: int) -> Documents:
    rows = (np.eye(count, dtype=int) * 7 + np.eye(count, k=1, dtype=int)).tolist()
    return Documents(
        "x",
        preprocessing=Preprocessing(classes=[f"{i} {'long ' * 20}" for i in range(count)]),
        claims=Claims(confusion=rows),
    )


def test_pictures_are_light_and_wide_enough_for_a_card() -> None:
    found = drawn(full())
    assert list(found) == ["curves", "confusion", "examples"]
    for one in found.values():
        shown = pixels(one.png)
        assert shown[0, 0].tolist() == [255, 255, 255] and shown.mean() > 100
    assert pixels(found["curves"].png).shape[1] == 1200 and pixels(found["examples"].png).shape[1] > 600


def test_a_file_holds_pixels_and_no_date_or_version() -> None:
    for one in drawn(full()).values():
        held = Image.open(io.BytesIO(one.png))
        held.load()
        assert set(held.info) <= {"dpi"}


def test_the_user_s_settings_neither_matter_nor_change() -> None:
    import matplotlib

    plain = {what: one.png for what, one in drawn(full()).items()}
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30, "axes.grid": False, "savefig.dpi": 20}):
        before = dict(matplotlib.rcParams)
        assert {what: one.png for what, one in drawn(full()).items()} == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("count", [2, 5, 21, 100])
def test_a_matrix_of_any_size_fits_its_picture(count: int) -> None:
    shown = pixels(drawn(matrix(count))["confusion"].png)
    assert 600 < shown.shape[1] < 1400 and shown.shape[0] < 1300
    edge = np.concatenate(
        [shown[:8].reshape(-1, 3), shown[-8:].reshape(-1, 3), shown[:, :8].reshape(-1, 3), shown[:, -8:].reshape(-1, 3)]
    )
    assert (edge == 255).all(), "nothing is cut off"


@pytest.mark.parametrize("rows", [None, [], [[1]], [[0, 0], [0, 0]], [[1, 2]], [[1, -1], [0, 2]]])
def test_what_is_no_matrix_is_not_drawn(rows: list[list[int]] | None) -> None:
    assert drawn(Documents("x", claims=Claims(confusion=rows))) == {}


def test_thousands_of_classes_are_not_drawn() -> None:
    assert "confusion" not in drawn(matrix(301))


def test_the_packed_checkpoint_is_marked() -> None:
    known = dataclasses.replace(full(), examples=None, claims=full().claims.model_copy(update={"confusion": None}))
    elsewhere = dataclasses.replace(known, run=known.run.model_copy(update={"step": None}))
    assert drawn(known)["curves"].png != drawn(elsewhere)["curves"].png
    assert "The packed checkpoint is that of step 70." in drawn(known)["curves"].text


def test_train_and_val_of_a_metric_share_a_panel_and_others_come_after() -> None:
    said = drawn(full())["curves"].text
    assert said.startswith(
        "Curves of the training. loss: train from 1.333 to 0.3333, val from 1 to 0.3333; accuracy: val from"
    )
    assert "lr" not in said
    known = full()
    curves = {**known.claims.curves, "train/loss_epoch": known.claims.curves["val/loss"]}
    again = dataclasses.replace(known, claims=known.claims.model_copy(update={"curves": curves}))
    assert "loss_epoch" not in drawn(again)["curves"].text


def test_curves_that_are_not_finite_or_have_one_point_are_passed_over() -> None:
    nan, inf = float("nan"), float("inf")
    curves = {"train/loss": [(1, 0, nan), (2, 0, inf)], "val/loss": [(1, 0, 1.0)], "a": [(1, 0, 1.0), (1, 0, 2.0)]}
    assert drawn(Documents("x", claims=Claims(curves=curves))) == {}


def test_long_series_and_those_over_many_magnitudes_are_drawn() -> None:
    noise = np.random.default_rng(0).random(900)
    curves = {
        "train/loss": [(i, i // 90, 10.0 ** (3 - i / 200) * (1 + noise[i])) for i in range(900)],
        "_hidden": [(0, 0, 1.0), (9, 0, 2.0)],
    }
    documents = Documents("x", claims=Claims(curves=curves), run=RunFacts(step=450))
    assert set(drawn(documents)) == {"curves"}


@pytest.mark.parametrize("text", ["$x^2$ $", "_hidden", "猫犬", "\u202e", "<b>", "a" * 9999, "\\frac{", "😀"])
def test_any_name_can_be_drawn(text: str) -> None:
    assert set(drawn(filled_with(text))) == {"curves", "confusion", "examples"}


def test_a_picture_that_is_none_or_a_bomb_is_passed_over() -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    gif = io.BytesIO()
    Image.new("L", (4, 4)).save(gif, "GIF")
    for content in (b"", b"\x89PNG\r\n\x1a\n", picture(3)[:-35], gif.getvalue(), bomb.getvalue()):
        known = dataclasses.replace(full(), raw={"examples/000.png": content}, claims=Claims())
        assert drawn(known) == {}


def test_scores_are_read_as_logits_or_as_probabilities() -> None:
    known = full()
    first = predictions(known)[0]
    assert (first.true, first.predicted, first.is_right) == ("T-shirt/top", "T-shirt/top", True)
    assert first.share == pytest.approx(1 / (1 + 3 * np.exp(-5)))
    assert predictions(known)[2].is_right is False
    even = dataclasses.replace(known, outputs=[[0.25, 0.35, 0.25, 0.15]] * 4)
    assert predictions(even)[1].share == 0.35


def test_outputs_that_are_no_scores_of_the_classes_are_no_prediction() -> None:
    for outputs in ([[1.0]] * 4, [[1.0, 2.0, 3.0]] * 4, [[1.0, 2.0], [1.0]], []):
        assert {one.predicted for one in predictions(dataclasses.replace(full(), outputs=outputs))} == {""}
    nan = dataclasses.replace(full(), outputs=[[float("nan"), 0.0, 0.0, 0.0]] * 4)
    assert {one.predicted for one in predictions(nan)} == {""}


def test_examples_without_a_label_have_no_verdict() -> None:
    given = Examples(call={}, output={}, examples=[Example(raw="examples/000.png")], batch_size=1)
    known = dataclasses.replace(full(), examples=given, outputs=[[1.0, 0.0, 0.0, 0.0]])
    assert predictions(known)[0].is_right is None
    assert drawn(known)["examples"].text == "Examples: taken for T-shirt/top."
