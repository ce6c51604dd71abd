"""Several processes on one store."""

from __future__ import annotations

import os
import pathlib
import time
import traceback
from collections.abc import Callable

import pytest
import torch

from relume.checkpoint import Store

from .same import same

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

SHARED = torch.arange(3000.0)


def _state(run: int, step: int) -> dict[str, torch.Tensor]:
    return {"frozen": SHARED, "both": torch.full((200,), float(step)), "own": torch.full((100,), run + step / 1000)}


def _train(root: pathlib.Path, run: int, steps: int) -> None:
    folder = f"run{run}/checkpoints"
    store = Store(root)
    for step in range(steps):
        checkpoint = store.save(_state(run, step), folder=folder)
        assert same(Store(root).load(checkpoint), _state(run, step))
        for old in store.list(folder)[:-2]:
            store.delete(old)


def _collect(root: pathlib.Path, stop: pathlib.Path) -> None:
    store, deleted = Store(root), 0
    while not stop.exists():
        deleted += len(store.gc(dry_run=False).deleted)
        time.sleep(0.001)  # the lock is not fair: without a pause the savers would starve
    (root / "deleted").write_text(str(deleted))


def _start(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def _ended_well(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("steps", [25, pytest.param(400, marks=pytest.mark.long)])
def test_two_runs_save_while_a_third_process_collects_garbage(steps: int, tmp_path: pathlib.Path) -> None:
    root, stop = tmp_path / "root", tmp_path / "stop"
    Store(root).save({"frozen": SHARED})
    runs = [_start(lambda run=run: _train(root, run, steps)) for run in (1, 2)]  # type: ignore[misc]
    collector = _start(lambda: _collect(root, stop))
    assert all([_ended_well(pid) for pid in runs])  # noqa: C419 - wait for both
    stop.touch()
    assert _ended_well(collector)
    store = Store(root)
    for run in (1, 2):
        kept = store.list(f"run{run}/checkpoints")
        assert [checkpoint.sequence for checkpoint in kept] == [steps - 1, steps]
        for checkpoint in kept:
            assert same(store.load(checkpoint), _state(run, checkpoint.sequence - 1))
    assert store.verify().ok
    store.gc(dry_run=False)
    print(f"2 runs of {steps} saves, {(root / 'deleted').read_text()} packs collected meanwhile, nothing lost")


def test_two_processes_that_save_into_one_folder_number_their_checkpoints_apart(tmp_path: pathlib.Path) -> None:
    def work(run: int) -> None:
        for step in range(15):
            Store(tmp_path).save(_state(run, step), label=f"run={run}")

    pids = [_start(lambda run=run: work(run)) for run in (1, 2)]  # type: ignore[misc]
    assert all([_ended_well(pid) for pid in pids])  # noqa: C419
    assert [checkpoint.sequence for checkpoint in Store(tmp_path).list()] == list(range(1, 31))
    assert Store(tmp_path).verify().ok
