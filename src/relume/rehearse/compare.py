"""Two runs of the same name below two roots: final states, kept checkpoints, journals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relume.checkpoint import Checkpoint, Store
from relume.monitor import runs_in
from relume.rehearse.logged import JournalComparison, compare_journals, value_lines
from relume.rehearse.states import Difference, StateComparison, compare_states


@dataclass(frozen=True)
class RunComparison:
    """Two runs of the same name.

    Attributes:
        state: None when neither has a checkpoint.
        problem: why they could not be compared at all.
        resumes: how often the run with kills carried on from a checkpoint, and trained on.
    """

    name: str
    state: StateComparison | None
    journal: JournalComparison
    resumes: int = 0
    problem: str | None = None

    @property
    def is_same(self) -> bool:
        return self.problem is None and self.journal.first is None and not (self.state and self.state.differences)


def compare_runs(name: str, one: Path, other: Path) -> RunComparison:
    """Compare the newest checkpoints and the journals of the run ``name`` below two roots."""
    problem = None
    state = None
    finals = [Store(root).load_newest(f"{name}/checkpoints") for root in (one, other)]
    if finals[0] is not None and finals[1] is not None:
        state = compare_states(finals[0].state, finals[1].state)
    elif finals[0] is not None or finals[1] is not None:
        problem = f"only the {'first' if finals[0] else 'second'} one has checkpoints"
    journal = compare_journals(one / name, other / name)
    resumes = len({line.segment.number for line in value_lines(other / name) if line.segment.is_resumed})
    return RunComparison(name, state, journal, resumes, problem)


@dataclass(frozen=True)
class FirstState:
    """The first checkpoint whose state differs, and the last one before it that does not.

    Attributes:
        step: of the differing checkpoint; ``same_step`` of the one before it, None where there is none.
        differences: what differs in it.
    """

    step: int
    same_step: int | None
    differences: list[Difference]


def first_different_checkpoint(name: str, one: Path, other: Path) -> FirstState | None:
    """Halve the checkpoints that both runs have until the first one that differs is found. None where none does.

    Rests on a difference staying once it is there.
    """
    stores = Store(one), Store(other)
    checkpoints = [_by_cursor(store, name) for store in stores]
    cursors = sorted(checkpoints[0].keys() & checkpoints[1].keys())
    low, high, found = 0, len(cursors), None
    while low < high:
        middle = (low + high) // 2
        states = [store.load(known[cursors[middle]]) for store, known in zip(stores, checkpoints, strict=True)]
        if differences := compare_states(*states).differences:
            high, found = middle, differences
        else:
            low = middle + 1
    if found is None or low >= len(cursors):
        return None
    return FirstState(cursors[low][0], cursors[low - 1][0] if low else None, found)


def _by_cursor(store: Store, name: str) -> dict[tuple[int, int, int], Checkpoint]:
    """The checkpoints of a run by (step, epoch, batch); the newest where several stand at one place."""
    found = {}
    for checkpoint in store.list(f"{name}/checkpoints"):
        cursor = (store.meta(checkpoint) or {}).get("cursor") or {}
        found[cursor.get("step", 0), cursor.get("epoch", 0), cursor.get("batch", 0)] = checkpoint
    return found


def compare_roots(one: Path, other: Path) -> list[RunComparison]:
    """Compare all runs below two roots, by name."""
    known = [[folder.name for folder in runs_in(root)] for root in (one, other)]
    found = []
    for name in dict.fromkeys((*known[0], *known[1])):
        if name in known[0] and name in known[1]:
            found.append(compare_runs(name, one, other))
        else:
            who = "first" if name in known[0] else "second"
            found.append(RunComparison(name, None, JournalComparison(), problem=f"only the {who} execution made it"))
    return found
