from __future__ import annotations

import errno
import os
import pathlib
import stat
from typing import Any

import portalocker
import pytest
import torch
from safetensors import safe_open

from relume.checkpoint import Store, garbage
from relume.checkpoint.lock import FileLock
from relume.errors import (
    ManifestError,
    StorageError,
    StoreLockedError,
    StoreWriteError,
    UnknownCheckpointError,
    UnstorableError,
)

from .faults import Faults, failing, installed
from .same import same


def _packs(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted((root / "store" / "packs").rglob("*.safetensors"))


def test_a_save_writes_one_pack_and_one_manifest(tmp_path: pathlib.Path) -> None:
    Store(tmp_path).save({"a": torch.ones(3), "b": torch.zeros(3)}, label="epoch=3-step=2814-val_loss=0.4321")
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert len(_packs(tmp_path)) == 1
    assert written == [
        "checkpoints/000001-epoch=3-step=2814-val_loss=0.4321.json",
        "store/commit.lock",
        "store/lock",
        str(_packs(tmp_path)[0].relative_to(tmp_path)),
    ]


def test_what_the_store_has_is_not_written_again(tmp_path: pathlib.Path) -> None:
    frozen, head = torch.randn(10_000), torch.randn(10)
    Store(tmp_path).save({"frozen": frozen, "head": head})
    store = Store(tmp_path)  # another process: nothing is known from memory
    again = store.save({"frozen": frozen, "head": head}, folder="other/checkpoints")
    assert store.manifest(again).stored_bytes == 0
    assert len(_packs(tmp_path)) == 1
    changed = store.save({"frozen": frozen, "head": head + 1})
    assert store.manifest(changed).stored_bytes < 600
    assert store.manifest(changed).total_bytes == 40_040
    assert same(store.load(changed), {"frozen": frozen, "head": head + 1})


def test_other_readers_of_safetensors_can_open_a_pack(tmp_path: pathlib.Path) -> None:
    tensors = [torch.randn(3, 4), torch.ones(5, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.complex128)]
    Store(tmp_path).save(tensors)
    with safe_open(_packs(tmp_path)[0], framework="pt") as pack:
        found = {tuple(pack.get_tensor(name).shape): pack.get_tensor(name) for name in pack.keys()}  # noqa: SIM118
    assert torch.equal(found[3, 4], tensors[0])
    assert torch.equal(found[(5,)], tensors[1])
    assert found[(48,)].dtype == torch.uint8


def test_training_in_place_never_reaches_the_store(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save({"weight": torch.zeros(100_000)})
    store.load(checkpoint)["weight"].add_(1)
    assert store.load(checkpoint)["weight"].sum() == 0
    assert store.verify().ok


def test_loaded_tensors_outlive_the_pack(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    loaded = store.load(store.save({"weight": torch.ones(100_000)}))
    store.delete(1)
    assert store.gc(dry_run=False).deleted
    assert loaded["weight"].sum() == 100_000


@pytest.mark.parametrize("mmap", [True, False])
def test_tensors_are_aligned(mmap: bool, tmp_path: pathlib.Path) -> None:
    state = {f"{size} {dtype}": torch.ones(size, dtype=dtype) for size in (1, 3, 7, 64) for dtype in
             (torch.uint8, torch.float16, torch.float32, torch.complex128)}  # fmt: skip
    store = Store(tmp_path)
    loaded = store.load(store.save(state), mmap=mmap)
    assert same(loaded, state)
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in loaded.values())


def test_a_part_is_loaded_alone(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    store.save({"model": {"w": torch.ones(2)}, "list": [1, (2, torch.zeros(1))], 3: "three"})
    assert same(store.load(1, part=("model",)), {"w": torch.ones(2)})
    assert store.load(1, part=("model", "w")).tolist() == [1, 1]
    assert store.load(1, part=("list", 1, 0)) == 2
    with pytest.raises(ManifestError, match=r"has no 'model\.x'. There are: w"):
        store.load(1, part=("model", "x"))


def test_a_part_of_a_dict_with_other_keys_than_text(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    store.save({"state": {0: {"step": torch.ones(1)}, 1: "one"}, "$": 2})
    assert store.load(1, part=("state", 1)) == "one"
    assert store.load(1, part=("state", 0, "step")).tolist() == [1]
    assert store.load(1, part=("$",)) == 2


def test_pieces_of_one_tensor_are_put_together(tmp_path: pathlib.Path) -> None:
    """A sharded tensor: the manifest lists more than one piece."""
    store = Store(tmp_path)
    whole = torch.arange(10.0)
    checkpoint = store.save({"whole": whole[:6], "rest": whole[6:]})
    manifest = store.manifest(checkpoint)
    first, second = (entry.pieces[0] for entry in manifest.entries)
    entry = manifest.entries[0].model_copy(
        update={"shape": [10], "pieces": [first, second.model_copy(update={"offset": first.size_bytes})]}
    )
    from relume.checkpoint.manifest import to_bytes

    checkpoint.path.write_bytes(to_bytes(manifest.model_copy(update={"entries": [entry, manifest.entries[1]]})))
    assert torch.equal(store.load(checkpoint)["whole"], whole)


def test_meta_is_read_without_tensors(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    meta = {"metrics": {"val/loss": float("nan"), "n": (1, 2)}, "$": None}
    checkpoint = store.save({"w": torch.ones(2)}, meta)
    _packs(tmp_path)[0].unlink()
    assert same(store.meta(checkpoint), meta)
    with pytest.raises(UnstorableError, match=r"meta\.w is data for the state"):
        store.save({}, {"w": torch.ones(2)})


def test_an_unknown_checkpoint_lists_those_there_are(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    store.save({}, label="epoch=1")
    store.save({}, label="epoch=2")
    assert store.find(2) == store.find("2") == store.find("000002") == store.find("000002-epoch=2.json")
    with pytest.raises(UnknownCheckpointError, match=r"no checkpoint '000007'.*000001-epoch=1, 000002-epoch=2"):
        store.load("000007")
    with pytest.raises(UnknownCheckpointError, match="There are: none"):
        store.load(1, folder="other/checkpoints")


@pytest.mark.parametrize(
    "folder", ["elsewhere", "../checkpoints", "/checkpoints", "a/b/checkpoints", "store/checkpoints", ""]
)
def test_a_folder_that_gc_would_not_find_is_refused(folder: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(StorageError, match="Only there does gc find"):
        Store(tmp_path).save({}, folder=folder)


@pytest.mark.parametrize("label", ["a/b", "..\\x", "é", "a" * 181, "line\n"])
def test_a_label_that_is_no_file_name_is_refused_before_anything_is_written(label: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(StorageError, match="cannot be part of a file name"):
        Store(tmp_path).save({"w": torch.ones(3)}, label=label)
    assert not list(tmp_path.iterdir())


def test_a_read_only_store_loads_and_says_why_it_cannot_save(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    store = Store(tmp_path)
    checkpoint = store.save({"w": torch.ones(3)})
    folders = [path for path in [tmp_path, *tmp_path.rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if os.geteuid() == 0:
            pytest.skip("root writes everywhere")
        assert store.load(checkpoint)["w"].sum() == 3
        with pytest.raises(StoreWriteError, match="cannot be written to"):
            store.save({"w": torch.zeros(3)})
    finally:
        for folder in folders:
            folder.chmod(stat.S_IRWXU)


def test_a_read_only_disk_says_so(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    message = r"Read-only file system\. The folder cannot be written to"
    with installed(Faults(0, failing(errno.EROFS))), pytest.raises(StoreWriteError, match=message):
        store.save({"w": torch.zeros(3)})


def test_a_drive_without_locks_loads_and_says_why_it_cannot_save(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    store = Store(tmp_path)
    checkpoint = store.save({"w": torch.ones(3)})

    def no_locks(*arguments: object) -> None:
        raise portalocker.LockException(OSError(errno.ENOLCK, "No locks available"))

    monkeypatch.setattr(portalocker, "lock", no_locks)
    assert store.load(checkpoint)["w"].sum() == 3
    with pytest.raises(StoreLockedError, match=r"cannot be locked: .*Put the root on a local disk"):
        store.save({"w": torch.zeros(3)})


def test_gc_shows_before_it_frees(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    for seed in (1, 2, 3):
        store.save({"w": torch.full((1000,), float(seed))}, folder=f"run{seed}/checkpoints")
    store.delete(1, folder="run2/checkpoints")
    planned = store.gc()
    assert len(planned.deleted) == 1
    assert len(_packs(tmp_path)) == 3
    assert store.gc(dry_run=False) == planned
    assert len(_packs(tmp_path)) == 2
    assert planned.freed_bytes > 4000
    assert store.load(1, folder="run1/checkpoints")["w"][0] == 1
    assert not store.gc().deleted


def test_gc_writes_the_little_that_is_needed_of_a_pack_anew(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(garbage, "_COMPACT_BYTES", 1000)
    store = Store(tmp_path)
    mask = torch.ones(10)
    store.save({"mask": mask, "w": torch.randn(10_000)})
    second = store.save({"mask": mask, "w": torch.randn(5)})
    store.delete(1)
    report = store.gc(dry_run=False)
    assert len(report.compacted) == 1
    assert report.freed_bytes > 39_000
    assert sum(path.stat().st_size for path in _packs(tmp_path)) < 2000
    assert Store(tmp_path).load(second)["mask"].tolist() == mask.tolist()
    assert store.verify().ok
    assert not store.gc().compacted


def test_gc_deletes_nothing_while_a_manifest_cannot_be_read(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    first, second = store.save({"w": torch.ones(3)}), store.save({"w": torch.zeros(3)})
    store.delete(first)
    second.path.write_bytes(second.path.read_bytes()[:-3])
    report = store.gc(dry_run=False)
    assert [path for path, _ in report.unreadable] == [second.path]
    assert not report.deleted
    assert len(_packs(tmp_path)) == 2


def test_gc_waits_for_those_who_save_and_says_so(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path, lock_timeout_seconds=0.02)
    store.save({"w": torch.ones(3)})
    with FileLock(store.layout.lock).shared():
        store.save({"w": torch.ones(4)})
        with pytest.raises(StoreLockedError, match=r"locked by another process, still after 0\.02 s"):
            store.gc(dry_run=False)
    with FileLock(store.layout.lock).exclusive():
        with pytest.raises(StoreLockedError):
            store.save({"w": torch.ones(5)})
        with pytest.raises(StoreLockedError):  # and not an older one
            store.load_newest()
    assert len(store.list()) == 2


def test_a_lock_is_released_though_a_forked_worker_holds_a_copy(tmp_path: pathlib.Path) -> None:
    lock = FileLock(tmp_path / "lock", timeout_seconds=0)
    read_end, write_end = os.pipe()
    with lock.shared():
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            os.read(read_end, 1)
            os._exit(0)
    with lock.exclusive():
        pass
    os.close(write_end)
    os.close(read_end)
    os.waitpid(pid, 0)


def test_verify_names_what_is_damaged(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save({"w": torch.ones(3)})
    assert store.verify().ok
    pack = _packs(tmp_path)[0]
    pack.write_bytes(pack.read_bytes()[:-1] + b"\xff")
    report = store.verify()
    assert [(problem.path, problem.checkpoints) for problem in report.problems] == [(pack, [checkpoint])]
    assert report.checkpoints == report.packs == report.tensors == 1
    assert report.good == {"checkpoints": None}


def test_a_manifest_that_was_renamed_is_refused(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    path = store.save({}, label="val_loss=0.5").path
    path.rename(path.with_name("000001-val_loss=0.1.json"))
    with pytest.raises(ManifestError, match=r"holds checkpoint 000001-val_loss=0\.5\.json: it was renamed"):
        store.load(1)
