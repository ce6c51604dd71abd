"""A kill, a power cut or a failing disk at any boundary of a save or a gc costs nothing that was committed."""

from __future__ import annotations

import errno
import itertools
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

from relume.checkpoint import Store, Writer, files, garbage
from relume.errors import CheckpointError, StoreWriteError

from . import faults
from .faults import ENDS, Faults, installed, run_in_child
from .same import same

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

FROZEN = torch.arange(500.0)


@pytest.fixture(autouse=True)
def _many_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small writes and compaction of small packs: more boundaries, and all kinds of them."""
    monkeypatch.setattr(files, "_GATHER_BYTES", 1000)
    monkeypatch.setattr(garbage, "_COMPACT_BYTES", 0)


def _state(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    weights = {f"w{i}": torch.randn(100 + 50 * i, generator=generator) for i in range(4)}
    return {"model": {"frozen": FROZEN, **weights}, "epoch": seed}


def _save(seed: int) -> Callable[[Store], None]:
    return lambda store: _ignore(store.save(_state(seed), {"seed": seed}, label=f"epoch={seed}"))


def _save_in_background(seed: int) -> Callable[[Store], None]:
    def work(store: Store) -> None:
        with Writer(store) as writer:
            writer.save(_state(seed), {"seed": seed}, label=f"epoch={seed}", constant=[FROZEN])

    return work


def _first_of_another_run(seed: int) -> Callable[[Store], None]:
    return lambda store: _ignore(store.save(_state(seed), folder="other/checkpoints", label="first"))


def _gc(store: Store) -> None:
    store.gc(dry_run=False)


def _delete_and_gc(store: Store) -> None:
    store.delete(1)
    store.gc(dry_run=False)


def _ignore(value: object) -> None:
    pass


def _empty(root: pathlib.Path) -> dict[str, dict[str, Any]]:
    return {}


def _three(root: pathlib.Path) -> dict[str, dict[str, Any]]:
    store = Store(root)
    return {str(store.save(_state(seed), label=f"epoch={seed}")): _state(seed) for seed in (1, 2, 3)}


def _three_of_five(root: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Dead packs, and the first pack of which only the frozen tensor is still needed."""
    store = Store(root)
    for seed in (1, 2, 3, 4, 5):
        store.save(_state(seed), label=f"epoch={seed}")
    store.delete(1)
    store.delete(3)
    return {str(checkpoint): store.load(checkpoint) for checkpoint in store.list()}


SCENARIOS: dict[str, tuple[Callable[[pathlib.Path], dict[str, Any]], Callable[[int], Callable[[Store], None]]]] = {
    "first save": (_empty, _save),
    "save": (_three, _save),
    "background save": (_three, _save_in_background),
    "another run": (_three, _first_of_another_run),
    "gc": (_three_of_five, lambda seed: _gc),
    "delete and gc": (_three, lambda seed: _delete_and_gc),
}


def _check(root: pathlib.Path, committed: dict[str, dict[str, Any]], seed: int, deletes: bool) -> None:
    """All that was committed is there and whole, nothing half-made is listed, and the next save cleans up."""
    store = Store(root)
    listed = {str(checkpoint): checkpoint for checkpoint in store.list()}
    gone = committed.keys() - listed.keys()
    assert not gone or (deletes and gone == {"000001-epoch=1"})
    for name, checkpoint in listed.items():
        expected = committed.get(name, _state(seed))
        assert same(store.load(checkpoint), expected)
    report = store.verify()
    assert report.ok, report.problems
    after = store.save(_state(seed + 1))
    assert same(store.load(after), _state(seed + 1))
    assert not store.layout.leftovers()
    store.gc(dry_run=False)
    assert Store(root).verify().ok
    assert not store.gc().deleted


def _crashes(tmp_path: pathlib.Path, scenario: str, end: str, pick: Callable[[int], bool], seed: int) -> int:
    prepare, make_work = SCENARIOS[scenario]
    original = tmp_path / f"{scenario} {end} {seed}"
    original.mkdir()
    committed = prepare(original)
    crashes = 0
    for boundary in itertools.count():
        if not pick(boundary):
            continue
        root = tmp_path / "copy"
        shutil.copytree(original, root)
        finished = run_in_child(lambda: make_work(seed)(Store(root)), boundary, ENDS[end])  # noqa: B023
        if finished and scenario.endswith("save"):
            assert len(Store(root).list()) == len(committed) + 1, "a save that returned is there for good"
        _check(root, committed, seed, deletes=scenario.startswith("delete"))
        shutil.rmtree(root)
        if finished:
            return crashes
        crashes += 1
    raise AssertionError("unreachable")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_at_a_sample_of_boundaries_loses_nothing(scenario: str, end: str, tmp_path: pathlib.Path) -> None:
    start = random.Random(scenario + end).randrange(3)
    crashes = _crashes(tmp_path, scenario, end, lambda boundary: boundary % 3 == start or boundary > 60, seed=10)
    print(f"{scenario}, {end}: {crashes} crashes, nothing lost")
    assert crashes >= 2


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_thousand_kills_lose_nothing(tmp_path: pathlib.Path) -> None:
    crashes = dict.fromkeys(ENDS, 0)
    for seed in itertools.count(100):
        for end, scenario in itertools.product(ENDS, SCENARIOS):
            crashes[end] += _crashes(tmp_path, scenario, end, lambda boundary: True, seed)
        if crashes["kill"] >= 1000:
            break
    print(f"{crashes}: nothing lost")


def _failures(tmp_path: pathlib.Path, scenario: str, number: int) -> tuple[int, int]:
    prepare, make_work = SCENARIOS[scenario]
    original = tmp_path / scenario
    original.mkdir()
    committed = prepare(original)
    failed = 0
    for boundary in itertools.count():
        root = tmp_path / "copy"
        shutil.copytree(original, root)
        store = Store(root)
        with installed(Faults(boundary, faults.failing(number))) as layer:
            try:
                make_work(10)(store)
            except StoreWriteError as error:
                failed += 1
                assert error.errno == number
                if "save" in scenario:
                    assert {str(checkpoint) for checkpoint in store.list()} == committed.keys()
        _check(root, committed, 10, deletes=scenario.startswith("delete"))
        shutil.rmtree(root)
        if layer.count <= boundary:
            return failed, boundary
    raise AssertionError("unreachable")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_disk_that_fails_once_is_an_error_and_the_next_save_works(
    scenario: str, number: int, tmp_path: pathlib.Path
) -> None:
    failed, boundaries = _failures(tmp_path, scenario, number)
    print(f"{scenario}, {errno.errorcode[number]}: {boundaries} boundaries, {failed} errors, nothing lost")
    assert failed == boundaries


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_short_writes_are_continued(scenario: str, tmp_path: pathlib.Path) -> None:
    prepare, make_work = SCENARIOS[scenario]
    committed = prepare(tmp_path)
    with installed(Faults(short_writes=True)):
        make_work(10)(Store(tmp_path))
    _check(tmp_path, committed, 10, deletes=scenario.startswith("delete"))


def test_a_full_disk_says_how_much_is_free_and_training_goes_on(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    writer = Writer(store)
    with installed(Faults(8, faults.failing(errno.ENOSPC))):
        writer.save(_state(1))
        with pytest.raises(StoreWriteError, match=r"No space left on device\. \d+ MB are free"):
            writer.save(_state(2))
    writer.save(_state(3))
    writer.close()
    assert [store.load(checkpoint)["epoch"] for checkpoint in store.list()] == [3]


def test_a_failed_save_is_raised_at_close(tmp_path: pathlib.Path) -> None:
    writer = Writer(Store(tmp_path))
    with installed(Faults(8, faults.failing(errno.EIO))):
        writer.save(_state(1))
        with pytest.raises(CheckpointError, match="Input/output error"):
            writer.close()
