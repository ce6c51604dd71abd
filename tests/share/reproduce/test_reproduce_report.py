"""The report: the same for the same finding, and nothing in a bundle's names is obeyed."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest
import torch

from relume.errors import ConfigurationError, StoreWriteError
from relume.share.documents import Environment
from relume.share.reproduce import Reproduction, Row, Stage, Verdict
from relume.share.reproduce.numbers import MOST_STATED, compare, compare_value, metric_tolerance
from relume.share.reproduce.verdicts import exit_status, first_difference

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> | `x` [a](javascript:x) \x1b[31m\u202e ![i](http://e.org/x.png)\n# H"


def made(verdict: Verdict = Verdict.DIFFERENT, text: str = "x") -> Reproduction:
    row = Row(claim=text, claimed=text, found=text, why=text, verdict=verdict, difference=0.5)
    stages = [Stage(name="metrics", rows=[row], tolerance=text)]
    return Reproduction(
        bundle=text, digest=text, time=text, stages=stages, reasons=[text], advice=[text], author=Environment(cpu=text),
        first_difference=first_difference(stages), exit_status=exit_status(stages),
    )  # fmt: skip


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_nothing_in_a_name_is_obeyed() -> None:
    found = made(text=EVIL)
    tags = Tags()
    tags.feed(found.to_html())
    assert not tags.open and not {"script", "img", "a", "iframe"} & tags.seen
    text = found.to_markdown()
    assert not re.search(r"(?<!\\)<|(?<!\\)\[a|(?<!\\)!\[", text) and "\x1b" not in text + found.to_html()
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| metrics")}) == 1
    assert json.loads(found.to_json())["stages"][0]["rows"][0]["claim"] == EVIL


def test_the_json_is_read_again_as_it_was() -> None:
    found = made()
    assert Reproduction.model_validate_json(found.to_json()) == found
    assert found.to_json() == made().to_json() and found.to_html() == made().to_html()


def test_reports_are_written_by_their_ending(tmp_path: Path) -> None:
    for ending in (".md", ".HTML", ".json"):
        assert made().save(tmp_path / f"r{ending}").stat().st_size > 300
    with pytest.raises(ConfigurationError, match=r"a report is written as \.md, \.html or \.json"):
        made().save(tmp_path / "r.pdf")
    with pytest.raises(StoreWriteError, match=r"the report cannot be written to .*No such file"):
        made().save(tmp_path / "no" / "r.md")


@pytest.mark.parametrize(
    ("verdicts", "status", "first"),
    [
        ({"outputs": Verdict.EXACT}, 0, ""),
        ({"metrics": Verdict.WITHIN}, 0, ""),
        ({"outputs": Verdict.UNCHECKED, "training": Verdict.EXACT}, 0, ""),
        ({"digests": Verdict.EXACT, "weights": Verdict.EXACT}, 3, ""),
        ({"outputs": Verdict.UNCHECKED, "metrics": Verdict.UNCHECKED}, 3, ""),
        ({"environment": Verdict.DIFFERENT, "outputs": Verdict.EXACT}, 0, ""),
        ({"outputs": Verdict.EXACT, "metrics": Verdict.DIFFERENT, "training": Verdict.DIFFERENT}, 1, "metrics"),
    ],
)
def test_the_exit_status_and_the_first_difference(verdicts: dict[str, Verdict], status: int, first: str) -> None:
    stages = [Stage(name=name, rows=[Row(claim="x", verdict=verdict, why="y")]) for name, verdict in verdicts.items()]
    assert (exit_status(stages), first_difference(stages)) == (status, first)


# ------------------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("claimed", "found", "verdict"),
    [
        (torch.ones(3), torch.ones(3), Verdict.EXACT),
        (torch.tensor([0.0]), torch.tensor([-0.0]), Verdict.WITHIN),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), Verdict.EXACT),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), Verdict.UNCHECKED),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("inf")]), Verdict.DIFFERENT),
        (torch.ones(3), torch.ones(3, dtype=torch.float64), Verdict.DIFFERENT),
        (torch.ones(3), torch.ones(4), Verdict.DIFFERENT),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), Verdict.DIFFERENT),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16) * 1.01, Verdict.WITHIN),
        ({"a": torch.ones(1)}, {"b": torch.ones(1)}, Verdict.DIFFERENT),
        ([torch.ones(1), 3], [torch.ones(1), 4], Verdict.DIFFERENT),
        ([], [], Verdict.UNCHECKED),
        (torch.zeros(0), torch.zeros(0), Verdict.UNCHECKED),
        ([torch.zeros(0), torch.ones(1)], [torch.zeros(0), torch.ones(1)], Verdict.EXACT),
    ],
)
def test_tensors_are_compared_bit_by_bit_first(claimed: object, found: object, verdict: Verdict) -> None:
    row = compare("x", claimed, found)
    assert row.verdict is verdict and (row.why or verdict is Verdict.EXACT)


def test_tolerances_are_not_wider_than_they_say() -> None:
    claimed = torch.tensor([100.0, 1.0])
    assert compare("x", claimed, claimed + torch.tensor([0.0, 0.0099])).verdict is Verdict.WITHIN
    assert compare("x", claimed, claimed + torch.tensor([0.0, 0.0101])).verdict is Verdict.DIFFERENT
    assert metric_tolerance("accuracy", 0.9, 0.0) == 0.0 == metric_tolerance("top-5", 0.9, float("nan"))
    assert metric_tolerance("cross entropy", 2.0, -1.0) == 2e-5 and metric_tolerance("accuracy", 0.9, 1e-3) == 1e-3


def test_a_claim_cannot_state_that_anything_is_near_enough() -> None:
    assert metric_tolerance("accuracy", 0.9, 1.0) == MOST_STATED == metric_tolerance("mse", 0.9, 1e9)
    assert metric_tolerance("perplexity", 200.0, 1e9) == 200 * MOST_STATED


def test_a_share_averaged_over_batches_is_compared_by_its_count() -> None:
    row = compare_value("accuracy", 0.8461999952793121, 0.8462, 1e-5, answers=10_000)
    assert row.verdict is Verdict.EXACT and row.why.startswith("8,462 of 10,000 answers")
    assert compare_value("accuracy", 0.8461999952793121, 0.8463, 0.0, answers=10_000).verdict is Verdict.DIFFERENT
    assert compare_value("accuracy", 0.84621, 0.8462, 1e-4, answers=10_000).verdict is Verdict.WITHIN
    assert compare_value("accuracy", 0.50000001, 0.5, 1e-5, answers=50_000_000).verdict is Verdict.WITHIN


def test_a_number_recorded_in_float32_is_compared_in_float32() -> None:
    row = compare_value("accuracy", 0.6766666769981384, 203 / 300, 0.0)
    assert row.verdict is Verdict.EXACT and "the same number in float32" in row.why
    assert compare_value("accuracy", 0.6766666769981384, 204 / 300, 0.0).verdict is Verdict.DIFFERENT
    assert compare_value("accuracy", 0.6766666769981385, 203 / 300, 0.0).verdict is Verdict.DIFFERENT
