"""Sharded weights: read and written as Hugging Face does, and replaced as a whole."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from same_weights import DTYPES, assert_same, bits, filled
from torch import nn

from checkpoint import faults
from checkpoint.faults import ENDS, Faults, installed, run_in_child
from relume.checkpoint import files
from relume.errors import ConfigurationError, ModelFileError, StoreWriteError
from relume.models.files import open_model_file, read_state, save_weights


def _state(seed: int = 0) -> dict[str, torch.Tensor]:
    state = {f"layer{number}.weight": filled(torch.float32, (50, number + 1), seed + number) for number in range(6)}
    state["head.weight"] = state["layer0.weight"]
    return state | {"odd": filled(torch.complex128, (3,), seed)}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_sharded_save_comes_back_to_the_bit(tmp_path: Path) -> None:
    state = _state() | {str(dtype): filled(dtype, (2, 2)) for dtype in DTYPES}
    index = save_weights(state, tmp_path / "model.safetensors", max_shard_bytes=1000, metadata={"author": "me"})
    assert index == tmp_path / "model.safetensors.index.json"
    shards = sorted(tmp_path.glob("model-*-of-*.safetensors"))
    assert len(shards) > 3 and shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    for found in (open_model_file(index), open_model_file(tmp_path), open_model_file(index, verify=True)):
        assert found.format == "sharded safetensors"
        assert_same(found.state, state)
        assert found.state["head.weight"] is found.state["layer0.weight"]
        assert found.metadata == {"format": "pt", "author": "me"}
        assert found.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_no_shard_is_larger_than_asked_for_unless_one_tensor_is(tmp_path: Path) -> None:
    index = save_weights(_state(), tmp_path / "model.safetensors", max_shard_bytes=1000)
    document = json.loads(index.read_text())
    assert document["metadata"]["total_size"] == sum(v.nbytes for v in _state().values()) - 200
    for shard in set(document["weight_map"].values()):
        tensors = safetensors.torch.load_file(tmp_path / shard)
        assert sum(value.nbytes for value in tensors.values()) <= 1000 or len(tensors) == 1


def test_hugging_face_reads_the_shards(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    model = nn.Sequential(nn.Embedding(30, 10), nn.Linear(10, 10), nn.Linear(10, 30, bias=False))
    model[2].weight = model[0].weight
    save_weights(model, tmp_path / "model.safetensors", max_shard_bytes=900)
    fresh = nn.Sequential(nn.Embedding(30, 10), nn.Linear(10, 10), nn.Linear(10, 30, bias=False))
    fresh[2].weight = fresh[0].weight
    hub.load_torch_model(fresh, tmp_path, strict=False)
    assert_same(fresh.state_dict(), model.state_dict())


def test_shards_of_hugging_face_are_read(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    model = nn.Sequential(nn.Embedding(30, 10), nn.Linear(10, 10), nn.Linear(10, 30, bias=False))
    model[2].weight = model[0].weight
    hub.save_torch_model(model, tmp_path, max_shard_size=900)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = read_state(tmp_path)
    assert_same(found, model.state_dict(), ordered=False)
    assert found["2.weight"] is found["0.weight"]


def test_an_empty_state_in_shards(tmp_path: Path) -> None:
    assert read_state(save_weights({}, tmp_path / "model.safetensors", max_shard_bytes=10)) == {}


def test_a_new_save_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    (tmp_path / "model-00001-of-00009.safetensors").write_bytes(b"somebody else's")
    save_weights(_state(0), target)
    save_weights(_state(10), target, max_shard_bytes=1000)
    assert not target.exists()
    first = read_state(tmp_path)
    assert_same(first, _state(10))
    for seed, size in ((20, 1000), (30, 1000), (40, 500)):
        index = save_weights(_state(seed), target, max_shard_bytes=size)
        assert_same(read_state(tmp_path), _state(seed))
        listed = set(json.loads(index.read_text())["weight_map"].values())
        assert set(_names(tmp_path)) == listed | {index.name, "model-00001-of-00009.safetensors"}
    assert_same(first, _state(10))


def test_the_old_index_does_not_say_what_is_deleted(tmp_path: Path) -> None:
    save_weights(_state(), tmp_path / "precious.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "precious.safetensors"}}')
    save_weights(_state(), tmp_path / "model.safetensors", max_shard_bytes=1000)
    assert (tmp_path / "precious.safetensors").exists()


def test_shards_of_two_saves_are_not_mixed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, seed in ((one, 0), (two, 10)):
        folder.mkdir()
        save_weights(_state(seed), folder / "model.safetensors", max_shard_bytes=1000)
    shard = next(one.glob("model-00002-*"))
    (two / shard.name).replace(shard)
    with pytest.raises(ModelFileError, match=r"'model-00002-of-\d+\.safetensors' is of another save than the index"):
        read_state(one)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "5GB"])
def test_the_size_of_shards_is_a_number(value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"max_shard_bytes=.*it is a number of bytes"):
        save_weights(_state(), tmp_path / "model.safetensors", max_shard_bytes=value)  # type: ignore[arg-type]
    assert _names(tmp_path) == []


# ------------------------------------------------------------------------------------------------------- kills and full disks


WRITERS = {
    "safetensors": ("model.safetensors", None), "pt": ("model.pt", None), "sharded": ("model.safetensors", 1000),
}  # fmt: skip


@pytest.fixture
def _many_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_GATHER_BYTES", 1500)


def _save(folder: Path, kind: str, seed: int) -> Path:
    name, size = WRITERS[kind]
    return save_weights(_state(seed), folder / name, max_shard_bytes=size)


def _read(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    if kind == "pt":
        found: dict[str, torch.Tensor] = torch.load(folder / "model.pt", weights_only=True)
        return found
    return read_state(folder, verify=True)


@pytest.mark.usefixtures("_many_boundaries")
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_what_was_there(kind: str, number: int, tmp_path: Path) -> None:
    _save(tmp_path, kind, 0)
    before = _names(tmp_path)
    boundary, has_ended, tried_all = 0, False, 0
    while not has_ended:
        with installed(Faults(boundary, faults.failing(number))) as layer:
            try:
                _save(tmp_path, kind, 100 + boundary)
                has_ended = layer.count <= boundary
            except StoreWriteError as error:
                assert error.errno == number
                tried_all += 1
        found = _read(tmp_path, kind)
        is_new = bits(found["odd"]) == bits(_state(100 + boundary)["odd"])
        assert_same(found, _state(100 + boundary) if is_new else _state(0))
        if is_new:  # the failure came after the commit: only names that are not synced, or old files that stay
            _save(tmp_path, kind, 0)
        else:
            assert len(_names(tmp_path)) == len(before)
        boundary += 1
    assert tried_all >= 4


@pytest.mark.usefixtures("_many_boundaries")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("end", ["kill", "power cut, content lost"])
def test_a_killed_writer_leaves_the_old_or_the_new_file_whole(kind: str, end: str, tmp_path: Path) -> None:
    seen = set()
    boundary, has_ended = 0, False
    while not has_ended:
        folder = tmp_path / str(boundary)
        folder.mkdir()
        _save(folder, kind, 0)
        has_ended = run_in_child(lambda folder=folder: _save(folder, kind, 100), boundary, ENDS[end])  # type: ignore[misc]
        found = _read(folder, kind)
        is_new = bits(found["odd"]) == bits(_state(100)["odd"])
        assert_same(found, _state(100 if is_new else 0))
        assert is_new or not has_ended
        seen.add(is_new)
        _save(folder, kind, 200)
        assert_same(_read(folder, kind), _state(200))
        boundary += 1
    assert seen == {False, True} and boundary >= 5
