"""What holds for every tracker: all that counts is there once and in order, whatever happened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.trackers.kits import KITS, Kit, fresh
from tests.trackers.recording import begin, deliver, end, log, segment

each_tracker = pytest.mark.parametrize(
    "kit", [pytest.param(kit, marks=pytest.mark.timeout(300)) for kit in KITS], ids=[kit.name for kit in KITS]
)  # a server is slow to start


@pytest.fixture(autouse=True)
def _fresh() -> None:
    fresh()


def same(kit: Kit, found: Sequence[tuple[int, float]], expected: Sequence[tuple[int, float]]) -> bool:
    """Whether these are the numbers, as exactly as this tracker keeps them."""
    if [step for step, _ in found] != [step for step, _ in expected]:
        return False
    tolerance = 0.0 if kit.is_exact else 1e-6
    return all(
        a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=tolerance)
        for (_, a), (_, b) in zip(found, expected, strict=True)
    )


def losses(steps: range, scale: float = 1.0) -> list[tuple[int, float]]:
    return [(step, scale / (step + 1)) for step in steps]


@each_tracker
def test_each_line_is_given_once_and_in_order(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", is_alive=True, config={"lr": 0.1})
    with segment(folder) as journal:
        log(journal, range(40))
        first = deliver(folder, kit.make())
        log(journal, range(40, 90))
        end(journal, step=90)
    second = deliver(folder, kit.make())
    assert (first.stage, first.delivered, second.stage, second.delivered) == ("left", 40, "done", 91)
    assert same(kit, kit.numbers(folder)["loss"], losses(range(90)))


@each_tracker
def test_a_delivery_that_is_complete_is_not_made_again(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(5))
        end(journal)
    for _ in range(3):
        state = deliver(folder, kit.make())
    assert state.stage == "done" and state.delivered == 6
    assert same(kit, kit.numbers(folder)["loss"], losses(range(5)))


@each_tracker
@pytest.mark.parametrize("status", ["finished", "failed", "killed"])
def test_the_tracker_is_closed_with_the_status_of_the_run(kit: Kit, status: str, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", config={"lr": 0.1})
    with segment(folder) as journal:
        log(journal, range(5))
        if status != "killed":
            end(journal, status)
    assert deliver(folder, kit.make()).ended == status
    assert kit.ended(folder) == kit.endings.get(status, "")


@each_tracker
def test_a_resume_takes_the_dead_branch_away(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(11))
        position = journal.position_bytes  # the checkpoint of step 10
        log(journal, range(11, 30))
    deliver(folder, kit.make())
    with segment(folder, resumed=(1, position, 10)) as journal:
        log(journal, range(11, 40))
        end(journal)
    deliver(folder, kit.make())
    assert same(kit, kit.numbers(folder)["loss"], losses(range(40)))


@each_tracker
def test_what_was_logged_at_the_checkpoints_own_step_is_there_once(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(11))
        position = journal.position_bytes
        journal.values(10, 1, {"val/loss": 5.0}, None)  # behind the checkpoint, at its step
    deliver(folder, kit.make())
    with segment(folder, resumed=(1, position, 10)) as journal:
        journal.values(10, 1, {"val/loss": 5.0}, None)
        log(journal, range(11, 15))
        end(journal)
    deliver(folder, kit.make())
    numbers = kit.numbers(folder)
    assert same(kit, numbers["loss"], losses(range(15)))
    assert same(kit, numbers["val/loss"], [(10, 5.0)])


@each_tracker
def test_a_finished_run_that_is_extended_goes_on(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", config={"lr": 0.1})
    with segment(folder) as journal:
        log(journal, range(10))
        position = journal.position_bytes
        end(journal)
    assert deliver(folder, kit.make()).stage == "done"
    with segment(folder, resumed=(1, position, 9)) as journal:
        log(journal, range(10, 20))
        end(journal, "failed")
    assert deliver(folder, kit.make()).stage == "done"
    assert same(kit, kit.numbers(folder)["loss"], losses(range(20)))
    assert kit.ended(folder) == kit.endings.get("failed", "")


@each_tracker
def test_steps_that_go_backwards_survive_a_resume(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        for step in (5, 3, 8, 1):
            log(journal, range(step, step + 1))
        position = journal.position_bytes
        for step in (2, 7):  # never logged again
            log(journal, range(step, step + 1), scale=-1.0)
    deliver(folder, kit.make())
    with segment(folder, resumed=(1, position, 8)) as journal:
        log(journal, range(9, 12))
        end(journal)
    deliver(folder, kit.make())
    expected = sorted((step, 1 / (step + 1)) for step in (5, 3, 8, 1, 9, 10, 11))
    found = sorted(kit.numbers(folder)["loss"])
    assert same(kit, [(step, value) for step, value in found if step not in (2, 7)], expected)
    if kit.make().forgets:
        assert same(kit, found, expected)


@each_tracker
def test_many_resumes_leave_each_step_once(kit: Kit, tmp_path: Path) -> None:
    """Segments that each go back a little, two of them to a checkpoint of a branch that is dead itself."""
    folder = begin(tmp_path / "run")
    positions: dict[int, dict[int, int]] = {}
    goes_on_from: tuple[int, int, int] | None = None
    for number, (until, back_to) in enumerate(
        [(20, (1, 12)), (30, (1, 16)), (34, (3, 30)), (50, (4, 45)), (60, None)], 1
    ):
        with segment(folder, resumed=goes_on_from) as journal:
            places = positions.setdefault(number, {})
            for step in range(goes_on_from[2] + 1 if goes_on_from else 0, until):
                log(journal, range(step, step + 1))
                places[step] = journal.position_bytes
        deliver(folder, kit.make())
        if back_to is not None:
            goes_on_from = (back_to[0], positions[back_to[0]][back_to[1]], back_to[1])
    assert same(kit, kit.numbers(folder)["loss"], losses(range(60)))


@each_tracker
def test_a_tracker_that_comes_late_is_given_everything_that_counts(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(8))
        position = journal.position_bytes
        log(journal, range(8, 12), scale=-1.0)
    with segment(folder, resumed=(1, position, 7)) as journal:
        log(journal, range(8, 20))
        end(journal)
    deliver(folder, kit.make())
    assert same(kit, kit.numbers(folder)["loss"], losses(range(20)))


@each_tracker
def test_numbers_that_are_none_and_odd_names_arrive(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    names = {"a b/c:d,e": 1.0, "größe/π→∞": 2.0, "x" * 200: 3.0, "../../etc": 4.0, "<script>": 5.0, "\x1b[31m": 6.0}
    with segment(folder) as journal:
        journal.values(0, 1, {"nan": math.nan, "up": math.inf, "down": -math.inf}, None)
        journal.values(1, 1, dict(names), None)
        end(journal)
    state = deliver(folder, kit.make())
    numbers = kit.numbers(folder)
    assert state.left_out == 0
    assert same(
        kit, [*numbers["nan"], *numbers["up"], *numbers["down"]], [(0, math.nan), (0, math.inf), (0, -math.inf)]
    )
    shown = sorted(
        value for name, series in numbers.items() if name not in ("nan", "up", "down") for _, value in series
    )
    assert shown == sorted(names.values())


@each_tracker
def test_a_damaged_line_costs_only_itself(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(3))
        for damage in (
            b'{"step":9,"val\n',
            b"\x00\xff\xfe\n",
            b"[1]\n",
            b'{"step":"x","values":{"loss":1}}\n',
            b'{"values":7}\n',
        ):
            journal._append(damage)
        log(journal, range(3, 6))
        end(journal)
    assert deliver(folder, kit.make()).stage == "done"
    assert same(kit, kit.numbers(folder)["loss"], losses(range(6)))


@each_tracker
def test_an_empty_run_and_a_folder_that_goes_away_harm_nothing(kit: Kit, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        end(journal)
    assert deliver(folder, kit.make()).stage == "done"
    assert kit.numbers(folder).get("loss", []) == []
