"""The mirror: whole at each instant, catches up after any fault, never in the way; and the way back from it."""

from __future__ import annotations

import errno
import itertools
import os
import pathlib
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from relume.checkpoint import (
    Checkpoint,
    Mirror,
    Store,
    Writer,
    copying,
    files,
    mirror,
    mirrored_run_id,
    restore_from_mirror,
)
from relume.errors import CheckpointError, RelumeWarning, RootError, StorageError

from .faults import ENDS, Faults, installed, run_in_child
from .same import same

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

FOLDER = "fashion/checkpoints"
FROZEN = torch.arange(500.0)
WAIT = 30.0


@pytest.fixture(autouse=True)
def _many_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks: more boundaries. Nothing waits between attempts."""
    monkeypatch.setattr(copying, "CHUNK_BYTES", 1500)
    monkeypatch.setattr(copying, "TAIL_BYTES", 2000)
    monkeypatch.setattr(mirror, "_MAX_PAUSE_SECONDS", 0.001)


def _state(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"model": {"frozen": FROZEN, "w": torch.randn(400, generator=generator)}, "epoch": seed}


def _save(store: Store, seed: int, folder: str = FOLDER, run_id: str = "a1") -> Checkpoint:
    return store.save(_state(seed), {"run_id": run_id, "seed": seed}, folder=folder, label=f"epoch={seed}")


def _assert_whole(target: pathlib.Path, folder: str = FOLDER) -> list[int]:
    """Every manifest on the mirror loads, to the last bit; the epochs."""
    store = Store(target)
    epochs = []
    for checkpoint in store.list(folder):
        meta = store.meta(checkpoint)
        assert same(store.load(checkpoint, verify="hash"), _state(meta["seed"]))
        epochs.append(meta["seed"])
    return epochs


def _packs(root: pathlib.Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (root / "store" / "packs").rglob("*.safetensors")}


def _temporary(root: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in root.rglob("*") if path.name.startswith(".") or path.parent.name == "staging"]


class TargetFaults(Faults):
    """Faults of one drive only, from the n-th call on until they are ended; and a look at it after each call."""

    def __init__(self, target: pathlib.Path, at: int = -1, number: int = 0, short_writes: bool = False) -> None:
        super().__init__(at, None, short_writes)
        self._target = target
        self._number = number
        self.has_ended = number == 0
        self.failures = 0
        self.after: Callable[[], object] = lambda: None

    def _is_target(self, path: pathlib.Path) -> bool:
        return pathlib.Path(path).is_relative_to(self._target)

    def _boundary(self, kind: str) -> None:
        self.count += 1
        if self._at < self.count and not self.has_ended:
            self.failures += 1
            raise OSError(self._number, os.strerror(self._number))

    def open(self, path: pathlib.Path, flags: int, mode: int = 0o777) -> int:
        return super().open(path, flags, mode) if self._is_target(path) else os.open(path, flags, mode)

    def write(self, fd: int, data: files.Buffer) -> int:
        if fd not in self._open:
            return os.write(fd, data)
        written = super().write(fd, data)
        self.after()
        return written

    def fsync(self, fd: int) -> None:
        if fd in self._open:
            super().fsync(fd)
        else:
            os.fsync(fd)

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        os.close(fd)

    def replace(self, source: pathlib.Path, target: pathlib.Path) -> None:
        if not self._is_target(target):
            os.replace(source, target)  # noqa: PTH105
            return
        super().replace(source, target)
        self.after()

    def unlink(self, path: pathlib.Path) -> None:
        if not self._is_target(path):
            os.unlink(path)  # noqa: PTH108
            return
        super().unlink(path)
        self.after()

    def mkdir(self, path: pathlib.Path) -> None:
        if self._is_target(path):
            super().mkdir(path)
        else:
            os.mkdir(path)  # noqa: PTH102


def _run_files(root: pathlib.Path) -> list[pathlib.Path]:
    run = root / "fashion"
    (run / "journal").mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text('{"id": "a1"}\n')
    (run / "journal" / "0001.jsonl").write_bytes(b'{"step":1}\n' * 300 + b'{"half')
    return [pathlib.Path("fashion/run.json"), run / "journal" / "0001.jsonl"]


def _three_with_history(root: pathlib.Path, target: pathlib.Path) -> Store:
    """Two checkpoints that are mirrored; then they are deleted and three new ones are there."""
    store = Store(root)
    for seed in (1, 2):
        _save(store, seed)
    mirrored = Mirror(store, target, FOLDER)
    assert mirrored.wait(WAIT)
    mirrored.close()
    for seed in (3, 4, 5):
        _save(store, seed)
    store.delete(1, folder=FOLDER)
    store.delete(2, folder=FOLDER)
    store.gc(dry_run=False)
    return store


# ------------------------------------------------------------------------------------------------------------- following


def test_the_mirror_is_a_store_with_the_same_checkpoints_and_files(tmp_path: pathlib.Path) -> None:
    root, target = tmp_path / "runs", tmp_path / "drive"
    store, small = Store(root), _run_files(root)
    with Writer(store) as writer:
        follower = Mirror(store, target, FOLDER, extra=lambda: small)
        for seed in range(4):
            meta = {"run_id": "a1", "seed": seed}
            writer.save(_state(seed), meta, folder=FOLDER, label=f"epoch={seed}").result()
            follower.notify()
    assert follower.wait(WAIT)
    assert _assert_whole(target) == [0, 1, 2, 3]
    assert follower.status.checkpoints_behind == 0
    assert follower.status.bytes_copied > sum(path.stat().st_size for path in target.rglob("*.safetensors"))
    with small[1].open("ab") as journal:
        journal.write(b'":1}\n{"event":"end"}\n')
    follower.close()
    follower.close()
    assert (target / "fashion/journal/0001.jsonl").read_bytes() == small[1].read_bytes()
    assert (target / "fashion/run.json").read_bytes() == (root / "fashion/run.json").read_bytes()
    assert Store(target).verify().ok
    assert not _temporary(target)
    assert mirrored_run_id(target, FOLDER) == "a1"


def test_what_was_deleted_goes_when_newer_ones_are_there_and_its_packs_at_the_end(tmp_path: pathlib.Path) -> None:
    root, target = tmp_path / "runs", tmp_path / "drive"
    store = _three_with_history(root, target)
    before = _packs(target)
    follower = Mirror(store, target, FOLDER)
    assert follower.wait(WAIT)
    assert _assert_whole(target) == [3, 4, 5]
    assert before.keys() < _packs(target).keys(), "packs wait for the end"
    follower.close()
    assert _assert_whole(target) == [3, 4, 5]
    assert len(before.keys() - _packs(target).keys()) == 1, "the second one; the first holds the frozen tensor"
    assert not _temporary(target)
    assert Store(target).verify().ok
    for seed in (3, 4, 5):
        store.delete(seed, folder=FOLDER)
    follower = Mirror(store, target, FOLDER)
    follower.close()
    assert _assert_whole(target) == [3, 4, 5], "nothing newer is there"


def test_packs_and_checkpoints_of_others_stay(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "drive"
    other = Store(tmp_path / "other")
    _save(other, 1, "other/checkpoints", "b2")
    Mirror(other, target, "other/checkpoints").close()
    others = _packs(target)
    store = Store(tmp_path / "runs")
    _save(store, 1)  # the same tensors: the same pack
    assert _packs(store.root).keys() == others.keys()
    follower = Mirror(store, target, FOLDER)
    assert follower.wait(WAIT)
    _save(store, 2)
    store.delete(1, folder=FOLDER)
    follower.close()
    assert _assert_whole(target) == [2]
    assert _assert_whole(target, "other/checkpoints") == [1]
    assert others.items() <= _packs(target).items()


def test_a_pack_that_gc_compacted_meanwhile_is_found_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relume.checkpoint.garbage._COMPACT_BYTES", 0)
    monkeypatch.setattr("relume.checkpoint.garbage.COMPACT_BELOW", 0.9)
    store = Store(tmp_path / "runs")
    for seed in (1, 2):
        _save(store, seed)
    store.delete(1, folder=FOLDER)
    assert store.gc(dry_run=False).compacted
    follower = Mirror(store, tmp_path / "drive", FOLDER)
    assert follower.wait(WAIT)
    follower.close()
    assert _assert_whole(tmp_path / "drive") == [2]


def test_a_long_journal_is_continued_and_one_that_differs_is_copied_anew(tmp_path: pathlib.Path) -> None:
    store, target = Store(tmp_path / "runs"), tmp_path / "drive"
    small = _run_files(store.root)
    here, there = small[1], target / "fashion/journal/0001.jsonl"
    _save(store, 1)
    follower = Mirror(store, target, FOLDER, extra=lambda: small)
    assert follower.wait(WAIT)
    assert there.read_bytes() == here.read_bytes().removesuffix(b'{"half')
    inode, copied = there.stat().st_ino, follower.status.bytes_copied
    with here.open("ab") as journal:
        journal.write(b'":1}\n')
    follower.close()
    assert (there.read_bytes(), there.stat().st_ino) == (here.read_bytes(), inode)
    assert follower.status.bytes_copied - copied == len(b'{"half":1}\n')
    there.write_bytes(b"X" + there.read_bytes()[1:])
    Mirror(store, target, FOLDER, extra=lambda: small).close()
    assert there.read_bytes() == here.read_bytes()


# ------------------------------------------------------------------------------------------------------------ bad targets


def _with_faults(tmp_path: pathlib.Path, at: int, number: int, name: str) -> int:
    """Mirror through a drive that fails from a call on, and later works again; the number of failed calls."""
    root, target = tmp_path / name / "runs", tmp_path / name / "drive"
    root.parent.mkdir()
    store = _three_with_history(root, target)
    small = _run_files(root)
    said: list[str] = []
    layer = TargetFaults(target, at, number)

    def sleep(seconds: float) -> None:
        _assert_whole(target)
        layer.has_ended = follower.status.retries >= 2

    with installed(layer):  # type: ignore[arg-type]
        follower = Mirror(store, target, FOLDER, extra=lambda: small, log=said.append, sleep=sleep)
        assert follower.wait(WAIT)
        assert _assert_whole(target) == [3, 4, 5]
        follower.close()
    assert _assert_whole(target) == [3, 4, 5]
    assert Store(target).verify().ok
    assert not _temporary(target)
    assert (target / "fashion/journal/0001.jsonl").read_bytes() == small[1].read_bytes().removesuffix(b'{"half')
    if layer.failures and number != errno.EIO:
        assert any("fails" in text for text in said)
    assert len(said) <= 4, "said once an outage"
    shutil.rmtree(root.parent)
    return layer.failures


@pytest.mark.parametrize(
    ("number", "step"),
    [
        *[(number, 7) for number in (errno.ENOSPC, errno.EIO, errno.EACCES)],
        *[pytest.param(n, 1, marks=pytest.mark.long) for n in (errno.ENOSPC, errno.EIO, errno.EACCES, errno.ENOENT)],
    ],
)
def test_a_drive_that_fails_from_any_call_on_stays_whole_and_catches_up(
    number: int, step: int, tmp_path: pathlib.Path
) -> None:
    tried = 0
    for at in itertools.count(number % step, step):
        failures = _with_faults(tmp_path, at, number, f"{at}")
        tried += 1
        if not failures:
            break
    print(f"{errno.errorcode[number]}: from {tried} calls on")
    assert tried > 60 / step


def test_every_manifest_is_whole_after_each_single_call(tmp_path: pathlib.Path) -> None:
    root, target = tmp_path / "runs", tmp_path / "drive"
    store = _three_with_history(root, target)
    layer = TargetFaults(target, short_writes=True)
    seen: list[list[int]] = []
    layer.after = lambda: seen.append(_assert_whole(target))
    with installed(layer):  # type: ignore[arg-type]
        follower = Mirror(store, target, FOLDER)
        assert follower.wait(WAIT), follower.status
        follower.close()
    assert follower.status.last_error is None
    changes = [epochs for epochs, _ in itertools.groupby(seen)]
    assert changes == [[1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5], [3, 4, 5]], "in commit order"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_drive_without_fsync_will_do(number: int, tmp_path: pathlib.Path) -> None:
    class NoFsync(TargetFaults):
        def fsync(self, fd: int) -> None:
            if fd in self._open:
                raise OSError(number, os.strerror(number))
            os.fsync(fd)

    store, target = Store(tmp_path / "runs"), tmp_path / "drive"
    _save(store, 1)
    with installed(NoFsync(target)):  # type: ignore[arg-type]
        follower = Mirror(store, target, FOLDER)
        assert follower.wait(WAIT)
        follower.close()
    assert (_assert_whole(target), follower.status.retries) == ([1], 0)


def test_a_drive_that_writes_other_bytes_gets_no_name_for_them(tmp_path: pathlib.Path) -> None:
    class Liar(TargetFaults):
        def write(self, fd: int, data: files.Buffer) -> int:
            is_lie = fd in self._open and not self.has_ended and len(data) == 1500
            return super().write(fd, bytes(len(data)) if is_lie else data)

    store, target = Store(tmp_path / "runs"), tmp_path / "drive"
    _save(store, 1)
    layer = Liar(target, at=10**9, number=1)

    def sleep(seconds: float) -> None:
        assert _assert_whole(target) == []
        assert not _packs(target)
        layer.has_ended = True

    with installed(layer):  # type: ignore[arg-type]
        follower = Mirror(store, target, FOLDER, sleep=sleep)
        assert follower.wait(WAIT)
        follower.close()
    assert (_assert_whole(target), follower.status.retries) == ([1], 1)


def test_a_drive_that_vanishes_is_not_made_anew_and_is_followed_when_it_is_back(tmp_path: pathlib.Path) -> None:
    store, target, away = Store(tmp_path / "runs"), tmp_path / "drive", tmp_path / "away"
    said: list[str] = []
    paused = threading.Event()
    _save(store, 1)
    follower = Mirror(store, target, FOLDER, log=said.append, sleep=lambda seconds: paused.set())
    assert follower.wait(WAIT)
    target.rename(away)
    _save(store, 2)
    follower.notify()
    assert paused.wait(WAIT)
    assert not follower.wait(0.0)
    assert "is the drive mounted?" in (follower.status.last_error or "")
    assert follower.status.checkpoints_behind == 1
    assert not target.exists()
    away.rename(target)
    assert follower.wait(WAIT)
    follower.close()
    assert _assert_whole(target) == [1, 2]
    assert [text.split(":")[0].split()[-1] for text in said] == ["fails", "again."]


def test_pauses_double_up_to_five_minutes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_MAX_PAUSE_SECONDS", 300.0)
    store = Store(tmp_path / "runs")
    _save(store, 1)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 11:
            (tmp_path / "mount").mkdir()

    follower = Mirror(store, tmp_path / "mount" / "drive", FOLDER, sleep=sleep, log=lambda text: None)
    assert follower.wait(WAIT)
    follower.close()
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_what_is_missing_at_the_end_is_one_warning(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path / "runs")
    for seed in (1, 2):
        _save(store, seed)
    follower = Mirror(store, tmp_path / "nowhere" / "drive", FOLDER, log=lambda text: None)
    with pytest.warns(RelumeWarning, match=r"not complete: 2 of 2 checkpoints are missing.*is the drive mounted\?"):
        follower.close()
    follower.close()
    assert not (tmp_path / "nowhere").exists()


def test_a_log_or_an_extra_that_raises_does_not_end_the_mirror(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path / "runs")
    _save(store, 1)
    answers: Iterator[Any] = iter([RuntimeError("no list today")])

    def extra() -> list[pathlib.Path]:
        for error in answers:
            raise error
        return []

    def log(text: str) -> None:
        raise ValueError(text)

    follower = Mirror(store, tmp_path / "drive", FOLDER, extra=extra, log=log)
    assert follower.wait(WAIT)
    follower.close()
    assert follower.status.retries == 1


@pytest.mark.filterwarnings("ignore:the mirror:relume.errors.RelumeWarning")
def test_a_slow_drive_blocks_neither_notify_nor_saves_nor_close(tmp_path: pathlib.Path) -> None:
    gate = threading.Event()

    class Slow(TargetFaults):
        def write(self, fd: int, data: files.Buffer) -> int:
            if fd in self._open:
                assert gate.wait(WAIT)
            return super().write(fd, data)

    store, target = Store(tmp_path / "runs"), tmp_path / "drive"
    _save(store, 1)
    with installed(Slow(target)):  # type: ignore[arg-type]
        follower = Mirror(store, target, FOLDER)
        for seed in range(2, 8):  # all of this happens while one chunk is being written
            _save(store, seed)
            follower.notify()
            store.delete(store.list(FOLDER)[0])
        store.gc(dry_run=False)
        assert follower.status.bytes_copied == 0
        assert not follower.wait(0.01)
        gate.set()
        assert follower.wait(WAIT)
        follower.close()
        assert _assert_whole(target) == [7]
        gate.clear()
        _save(store, 8)
        hanging = Mirror(store, target, FOLDER)
        hanging.close(timeout_seconds=0.05)
        assert hanging.status.checkpoints_behind > 0
        gate.set()
        hanging._thread.join(WAIT)
        assert not hanging._thread.is_alive()
    assert _assert_whole(target) == [7]


# ------------------------------------------------------------------------------------------------------------------ kills


def _killed(tmp_path: pathlib.Path, boundary: int, end: str) -> bool:
    root, target = tmp_path / "runs", tmp_path / "drive"
    store = _three_with_history(root, target)
    small = _run_files(root)

    def work() -> None:
        follower = Mirror(Store(root), target, FOLDER, extra=lambda: small)
        assert follower.wait(WAIT)
        follower.close()

    finished = run_in_child(work, boundary, ENDS[end])
    if end == "kill":
        _assert_whole(target)
    before = _packs(target)
    follower = Mirror(store, target, FOLDER, extra=lambda: small)
    assert follower.wait(WAIT)
    after = _packs(target)
    follower.close()
    assert _assert_whole(target) == [3, 4, 5]
    assert Store(target).verify().ok
    assert not _temporary(target)
    assert len(_packs(target)) == 4
    if end == "kill":
        assert {name: after[name] for name in before.keys() & after.keys()}.items() <= before.items(), "not again"
        assert not finished or follower.status.bytes_copied == 0
    for folder in (root, target):
        shutil.rmtree(folder)
    return not finished


@pytest.mark.parametrize(
    ("end", "step"), [("kill", 9), *[pytest.param(end, 1, marks=pytest.mark.long) for end in ENDS]]
)
def test_a_kill_at_any_boundary_is_resumed_without_copying_again(end: str, step: int, tmp_path: pathlib.Path) -> None:
    boundary = 0
    while _killed(tmp_path, boundary, end):
        boundary += step
    print(f"{end}: {boundary // step} times")
    assert boundary > 60


def test_a_half_copied_pack_is_continued(tmp_path: pathlib.Path) -> None:
    root, target = tmp_path / "runs", tmp_path / "drive"
    store = Store(root)
    _save(store, 1)
    Mirror(store, target, FOLDER).close()
    [pack] = target.rglob("*.safetensors")
    total = pack.stat().st_size
    [ledger] = (root / "fashion").glob("mirror-*.json")
    owner = mirror.Ledger.load(ledger).owner
    half = pack.read_bytes()[: total // 2]
    pack.unlink()
    (target / "store/staging" / f"{pack.stem}.{owner}").write_bytes(half)
    follower = Mirror(store, target, FOLDER)
    follower.close()
    assert follower.status.bytes_copied == total - len(half)
    pack.unlink()
    (target / "store/staging" / f"{pack.stem}.{owner}").write_bytes(b"X" + half[1:])
    follower = Mirror(store, target, FOLDER)
    follower.close()
    assert follower.status.bytes_copied == total - len(half) + total, "it had begun badly"
    assert _assert_whole(target) == [1]


# ---------------------------------------------------------------------------------------------------------------- several


def test_two_runs_and_two_machines_mirror_into_one_folder_at_once(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "drive"
    stores = [Store(tmp_path / "one"), Store(tmp_path / "one"), Store(tmp_path / "two")]
    followers = []
    for number, store in enumerate(stores):
        _save(store, 0, f"run{number}/checkpoints", f"id{number}")
        followers.append(Mirror(store, target, f"run{number}/checkpoints"))
    for seed in range(1, 12):
        for number, store in enumerate(stores):
            folder = f"run{number}/checkpoints"
            _save(store, seed + number, folder, f"id{number}")  # the same packs come and go in all of them
            followers[number].notify()
            for old in store.list(folder)[:-2]:
                store.delete(old)
    for follower in followers:
        assert follower.wait(WAIT)
    for follower in followers:
        follower.close()
    for number in range(3):
        assert _assert_whole(target, f"run{number}/checkpoints") == [number + 10, number + 11]
    assert Store(target).verify().ok
    assert not _temporary(target)


def test_another_run_of_the_same_name_is_left_alone(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "drive"
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    _save(one, 1)
    Mirror(one, target, FOLDER).close()
    _save(two, 2, run_id="b2")
    follower = Mirror(two, target, FOLDER, log=lambda text: None)
    with pytest.warns(RelumeWarning, match="holds the checkpoints of another run .id a1, this one is b2"):
        follower.close()
    assert _assert_whole(target) == [1]


def test_another_checkpoint_of_the_same_name_is_left_alone(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "drive"
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    _save(one, 1)
    Mirror(one, target, FOLDER).close()
    two.save({"epoch": "other"}, {"run_id": "a1"}, folder=FOLDER, label="epoch=1")
    follower = Mirror(two, target, FOLDER, log=lambda text: None)
    assert not follower.wait(WAIT)
    with pytest.warns(RelumeWarning, match="is another checkpoint of that name: does the run go on twice"):
        follower.close()
    assert _assert_whole(target) == [1]


def test_a_damaged_checkpoint_here_does_not_hold_up_the_others(tmp_path: pathlib.Path) -> None:
    store, target = Store(tmp_path / "runs"), tmp_path / "drive"
    _save(store, 1)
    [pack] = store.root.rglob("*.safetensors")
    pack.write_bytes(pack.read_bytes()[:-1] + b"X")
    store.save({"epoch": 2, "w": torch.ones(3)}, {"run_id": "a1"}, folder=FOLDER)
    said: list[str] = []
    follower = Mirror(store, target, FOLDER, log=said.append)
    assert not follower.wait(WAIT)
    with pytest.warns(RelumeWarning, match="1 of 2 checkpoints are missing there .no whole pack in"):
        follower.close()
    assert [str(checkpoint) for checkpoint in Store(target).list(FOLDER)] == ["000002"]
    assert Store(target).verify().ok
    assert len(said) == 1
    assert "checkpoint 000001-epoch=1 cannot be mirrored: no whole pack" in said[0]


def test_a_pack_that_was_damaged_on_the_mirror_is_copied_anew_before_it_is_built_on(tmp_path: pathlib.Path) -> None:
    store, target = Store(tmp_path / "runs"), tmp_path / "drive"
    _save(store, 1)
    Mirror(store, target, FOLDER).close()
    [pack] = target.rglob("*.safetensors")
    pack.write_bytes(pack.read_bytes()[:-1] + b"X")
    _save(store, 2)
    Mirror(store, target, FOLDER).close()
    assert _assert_whole(target) == [1, 2]


def test_the_root_itself_and_a_strange_folder_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RootError, match="is the root of the runs itself"):
        Mirror(Store(tmp_path), tmp_path, FOLDER)
    with pytest.raises(StorageError, match="is neither 'checkpoints' nor"):
        Mirror(Store(tmp_path), tmp_path / "drive", "fashion")


# ---------------------------------------------------------------------------------------------------------- the way back


def _mirrored(tmp_path: pathlib.Path, seeds: tuple[int, ...] = (1, 2, 3)) -> tuple[Store, pathlib.Path]:
    store, target = Store(tmp_path / "runs"), tmp_path / "drive"
    small = _run_files(store.root)
    for seed in seeds:
        _save(store, seed)
    Mirror(store, target, FOLDER, extra=lambda: small).close()
    return store, target


def test_a_new_machine_goes_on_from_the_mirror(tmp_path: pathlib.Path) -> None:
    store, target = _mirrored(tmp_path)
    shutil.rmtree(store.root)
    new = Store(store.root)
    brought = restore_from_mirror(target, new, FOLDER)
    assert brought == new.list(FOLDER)[-1]
    loaded = new.load_newest(FOLDER)
    assert loaded is not None
    assert same(loaded.state, _state(3))
    assert not loaded.skipped
    assert _assert_whole(new.root) == [1, 2, 3]
    assert new.verify().ok
    assert not _temporary(new.root)
    for name in ("fashion/run.json", "fashion/journal/0001.jsonl"):
        assert (new.root / name).read_bytes() == (target / name).read_bytes()
    _save(new, 4)
    for old in new.list(FOLDER)[:2]:
        new.delete(old)
    Mirror(new, target, FOLDER).close()
    assert _assert_whole(target) == [3, 4], "retention goes on as if the run had always been here"
    assert restore_from_mirror(target, new, FOLDER) is None


def test_only_the_newest_can_be_brought(tmp_path: pathlib.Path) -> None:
    _, target = _mirrored(tmp_path)
    new = Store(tmp_path / "new")
    restore_from_mirror(target, new, FOLDER, older=False)
    assert _assert_whole(new.root) == [3]
    assert len(_packs(new.root)) == 2
    _save(new, 4)
    Mirror(new, target, FOLDER).close()
    assert _assert_whole(target) == [1, 2, 3, 4], "what was never here is not deleted there"


def test_a_machine_that_is_behind_catches_up(tmp_path: pathlib.Path) -> None:
    store, target = _mirrored(tmp_path, (1, 2))
    new = Store(tmp_path / "new")
    restore_from_mirror(target, new, FOLDER)
    journal = store.root / "fashion/journal/0001.jsonl"
    with journal.open("ab") as file:
        file.write(b'":1}\n')
    _save(store, 3)
    store.delete(1, folder=FOLDER)
    Mirror(store, target, FOLDER, extra=lambda: [journal]).close()
    brought = restore_from_mirror(target, new, FOLDER)
    assert str(brought) == "000003-epoch=3"
    assert _assert_whole(new.root) == [1, 2, 3]
    assert (new.root / "fashion/journal/0001.jsonl").read_bytes() == journal.read_bytes()


def test_work_that_was_done_here_wins(tmp_path: pathlib.Path) -> None:
    store, target = _mirrored(tmp_path, (1, 2))
    new, said = Store(tmp_path / "new"), []
    restore_from_mirror(target, new, FOLDER)
    _save(new, 33)
    (new.root / "fashion/run.json").write_text("mine")
    for seed in (3, 4):
        _save(store, seed)
    Mirror(store, target, FOLDER).close()
    assert restore_from_mirror(target, new, FOLDER, log=said.append) is None
    assert "checkpoint 000003-epoch=33 was made here and never was on the mirror" in said[0]
    assert _assert_whole(new.root) == [1, 2, 33]
    assert (new.root / "fashion/run.json").read_text() == "mine"
    other = Store(tmp_path / "another")
    _save(other, 1, run_id="b2")
    with pytest.warns(RelumeWarning, match="it is another run .id b2. than the one on the mirror .id a1"):
        assert restore_from_mirror(target, other, FOLDER) is None


def test_a_corrupted_pack_on_the_mirror_falls_back_and_says_so(tmp_path: pathlib.Path) -> None:
    store, target = _mirrored(tmp_path)
    newest = store.manifest(3, folder=FOLDER).packs
    [own] = set(newest) - set(store.manifest(1, folder=FOLDER).packs)
    path = target / "store/packs" / own[:2] / f"{own}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    new = Store(tmp_path / "new")
    with pytest.warns(RelumeWarning, match=r"000003-epoch=3 on the mirror .* cannot be used: .*An older one is tried"):
        brought = restore_from_mirror(target, new, FOLDER)
    assert str(brought) == "000002-epoch=2"
    assert _assert_whole(new.root) == [1, 2]
    for pack in target.rglob("*.safetensors"):
        pack.write_bytes(b"")
    empty = Store(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints in .* can be used"):
        restore_from_mirror(target, empty, FOLDER, log=lambda text: None)
    assert not empty.list(FOLDER)


def test_a_mirror_that_is_empty_or_not_there_brings_nothing(tmp_path: pathlib.Path) -> None:
    new = Store(tmp_path / "new")
    with pytest.warns(RelumeWarning, match="is not there: is the drive mounted"):
        assert restore_from_mirror(tmp_path / "drive", new, FOLDER) is None
    (tmp_path / "drive").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restore_from_mirror(tmp_path / "drive", new, FOLDER) is None
    assert mirrored_run_id(tmp_path / "drive", FOLDER) is None


def test_a_disk_that_is_full_while_bringing_is_an_error_and_goes_on_later(tmp_path: pathlib.Path) -> None:
    _, target = _mirrored(tmp_path)
    boundary = 0
    while True:
        new = Store(tmp_path / "new")
        layer = TargetFaults(new.root, boundary, errno.ENOSPC)
        try:
            with installed(layer):  # type: ignore[arg-type]
                restore_from_mirror(target, new, FOLDER, log=pytest.fail)
        except CheckpointError as error:
            assert "No space left on device" in str(error)
        _assert_whole(new.root)
        if not layer.failures:
            break
        if not new.list(FOLDER):
            restore_from_mirror(target, new, FOLDER)
            assert _assert_whole(new.root) == [1, 2, 3]
        shutil.rmtree(new.root)
        boundary += 11
    assert boundary > 40
