from __future__ import annotations

import pathlib

import pytest
import torch

from relume.checkpoint import Snapshotter, Store, Writer
from relume.errors import ConstantChangedError, UnstorableError

from .same import same


def test_what_is_saved_is_what_was_there_at_the_call(tmp_path: pathlib.Path) -> None:
    weight, moments = torch.ones(1000, 100), {"momentum": torch.ones(50, 3).t()}
    with Writer(Store(tmp_path)) as writer:
        writer.save({"weight": weight, **moments})
        weight.zero_()
        moments["momentum"].zero_()
    loaded = Store(tmp_path).load(1)
    assert loaded["weight"].sum() == 100_000
    assert loaded["momentum"].sum() == 150


def test_memory_is_used_again(tmp_path: pathlib.Path) -> None:
    snapshotter = Snapshotter()
    first = snapshotter.take({"a": torch.ones(1000), "b": torch.ones(5)})
    address = first.leaves[0].bytes().data_ptr()
    second = snapshotter.take({"a": torch.zeros(900), "b": torch.zeros(5)})
    assert second.leaves[0].bytes().data_ptr() == address


def test_constant_tensors_are_neither_copied_nor_read_again(tmp_path: pathlib.Path) -> None:
    frozen, head = torch.ones(1000), torch.ones(10)
    snapshotter, store = Snapshotter(), Store(tmp_path)
    for step in range(3):
        head.add_(1)
        snapshot = snapshotter.take({"frozen": frozen, "head": head}, constant=[frozen])
        leaf = snapshot.leaves[0]
        assert leaf.copy is None
        assert bool(leaf.hash) == (step > 0)
        checkpoint = store.commit(snapshot)
        snapshotter.remember(snapshot)
        assert same(store.load(checkpoint), {"frozen": frozen, "head": head})


def test_a_constant_that_was_changed_openly_is_saved_as_it_is(tmp_path: pathlib.Path) -> None:
    frozen = torch.ones(1000)
    with Writer(Store(tmp_path)) as writer:
        writer.save({"frozen": frozen}, constant=[frozen])
        writer.wait()
        frozen.mul_(2)  # the version counter says so
        writer.save({"frozen": frozen}, constant=[frozen])
    assert [Store(tmp_path).load(number)["frozen"][0].item() for number in (1, 2)] == [1, 2]


def test_a_constant_that_was_replaced_is_saved_as_it_is(tmp_path: pathlib.Path) -> None:
    layer = torch.nn.Linear(100, 100)
    writer = Writer(Store(tmp_path))
    for value in range(1, 6):
        layer.load_state_dict({"weight": torch.full((100, 100), float(value)), "bias": torch.zeros(100)}, assign=True)
        writer.save(layer.state_dict(), constant=list(layer.parameters()))
        writer.wait()
    writer.close()
    assert [Store(tmp_path).load(number)["weight"][0, 0].item() for number in range(1, 6)] == [1, 2, 3, 4, 5]


def test_a_constant_that_was_changed_behind_our_back_is_named(tmp_path: pathlib.Path) -> None:
    frozen = torch.nn.Parameter(torch.ones(1000), requires_grad=False)
    state = {"model": {"backbone.weight": frozen}}
    writer = Writer(Store(tmp_path))
    writer.save(state, constant=[frozen])
    writer.wait()
    frozen.data.numpy()[3] = 7  # no version counter sees this
    writer.save(state, constant=[frozen], verify_constant=True)
    with pytest.raises(ConstantChangedError, match=r"state\.model\.backbone\.weight was said to be constant"):
        writer.wait()
    assert len(Store(tmp_path).list()) == 1
    writer.save(state, constant=[frozen], verify_constant=True)
    writer.close()
    assert Store(tmp_path).load(2)["model"]["backbone.weight"][3] == 7


def test_a_constant_that_changes_while_it_is_saved_is_not_committed(tmp_path: pathlib.Path) -> None:
    frozen = torch.ones(10)
    snapshot = Snapshotter().take({"frozen": frozen}, constant=[frozen])
    frozen.add_(1)
    with pytest.raises(ConstantChangedError, match="was changed while it was being saved"):
        Store(tmp_path).commit(snapshot)
    assert not Store(tmp_path).list()


def test_a_constant_whose_pack_is_gone_is_written_again(tmp_path: pathlib.Path) -> None:
    frozen = torch.ones(1000)
    store = Store(tmp_path)
    with Writer(store) as writer:
        writer.save({"frozen": frozen}, constant=[frozen])
        writer.wait()
        store.delete(1)
        assert Store(tmp_path).gc(dry_run=False).deleted
        writer.save({"frozen": frozen}, constant=[frozen])
    assert Store(tmp_path).load(1)["frozen"].sum() == 1000


def test_inference_tensors_are_copied(tmp_path: pathlib.Path) -> None:
    with torch.inference_mode():
        tensor = torch.ones(3)
    leaf = Snapshotter().take([tensor], constant=[tensor]).leaves[0]
    assert leaf.copy is not None


def test_an_unstorable_object_is_found_at_the_call(tmp_path: pathlib.Path) -> None:
    with Writer(Store(tmp_path)) as writer, pytest.raises(UnstorableError, match=r"state\.hook"):
        writer.save({"hook": print})


def test_meta_is_that_of_the_call(tmp_path: pathlib.Path) -> None:
    metrics = {"loss": 1.0}
    with Writer(Store(tmp_path)) as writer:
        writer.save({}, {"metrics": metrics})
        metrics["loss"] = 2.0
    assert Store(tmp_path).meta(1) == {"metrics": {"loss": 1.0}}


def test_what_the_manifest_refers_to_is_made_safe_before_it(tmp_path: pathlib.Path) -> None:
    seen = []
    with Writer(Store(tmp_path)) as writer:

        def before_commit() -> None:
            seen.append((len(list(tmp_path.rglob("*.safetensors"))), len(writer.store.list())))

        writer.save({"w": torch.ones(3)}, before_commit=before_commit)
    assert seen == [(1, 0)]


def test_a_failure_before_the_commit_commits_nothing(tmp_path: pathlib.Path) -> None:
    def before_commit() -> None:
        raise RuntimeError("the journal is not safe")

    writer = Writer(Store(tmp_path))
    writer.save({"w": torch.ones(3)}, before_commit=before_commit)
    with pytest.raises(RuntimeError, match="the journal is not safe"):
        writer.close()
    assert not Store(tmp_path).list()


@pytest.mark.cuda
def test_a_snapshot_of_a_device_is_that_of_its_moment(tmp_path: pathlib.Path) -> None:
    weight = torch.ones(4096, 4096, device="cuda")
    frozen = torch.full((1000,), 3.0, device="cuda")
    with Writer(Store(tmp_path)) as writer:
        for _ in range(5):
            writer.save({"weight": weight, "frozen": frozen, "t": weight[:3].t()}, constant=[frozen])
            weight.add_(1)
    store = Store(tmp_path)
    for step in range(5):
        loaded = store.load(step + 1, device="cuda")
        assert loaded["weight"].is_cuda
        assert loaded["weight"].eq(step + 1).all()
        assert loaded["t"].eq(step + 1).all()
        assert loaded["frozen"].eq(3).all()
