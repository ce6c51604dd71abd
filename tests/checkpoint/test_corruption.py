"""Every flipped bit and every cut is found at load, and only relume's own errors come out."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.checkpoint import Checkpoint, Store, hashing, manifest
from relume.checkpoint.reader import Verify
from relume.errors import CheckpointError, CorruptionError, FutureFormatError, ManifestError, PackError, RelumeWarning

from .same import same


def _state(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "model": {"a": torch.randn(600, generator=generator), "b": torch.randn(3, 5, generator=generator)},
        "rng": bytes(range(256)) * 8,
        "epoch": seed,
        "lr": 0.1,
    }


def _pack(root: pathlib.Path) -> pathlib.Path:
    return max((root / "store" / "packs").rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)


def _flip(path: pathlib.Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


def _must_be_found(store: Store, checkpoint: Checkpoint, verify: Verify) -> None:
    with pytest.raises(CheckpointError):
        Store(store.root).load(checkpoint, verify=verify)


def _flips(root: pathlib.Path, pick: Callable[[int], range], verify: Verify) -> int:
    store = Store(root)
    checkpoint = store.save(_state())
    count = 0
    for path in (checkpoint.path, _pack(root)):
        whole = path.read_bytes()
        for bit in pick(8 * len(whole)):
            _flip(path, bit)
            _must_be_found(store, checkpoint, verify)
            path.write_bytes(whole)
            count += 1
    assert same(store.load(checkpoint), _state())
    return count


@pytest.mark.parametrize("verify", [True, "hash"])
def test_flipped_bits_are_found(verify: Verify, tmp_path: pathlib.Path) -> None:
    count = _flips(tmp_path, lambda bits: range(random.Random(str(verify)).randrange(60), bits, 61), verify)
    print(f"verify={verify}: {count} flipped bits, all found")
    assert count > 500


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_flipped_bit_is_found(tmp_path: pathlib.Path) -> None:
    count = _flips(tmp_path, range, True)
    print(f"{count} flipped bits, all found")
    assert count > 30_000


def test_flipped_bits_in_long_tensors_are_found(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save({"long": torch.randn(700_001), "longer": torch.randn(1_300_000)})
    path = _pack(tmp_path)
    bits = 8 * path.stat().st_size
    for _ in range(100):
        bit = random.Random(_).randrange(8 * 4096, bits)
        with path.open("r+b") as file:
            file.seek(bit // 8)
            byte = file.read(1)[0]
            file.seek(bit // 8)
            file.write(bytes([byte ^ (1 << bit % 8)]))
            file.flush()
            with pytest.raises(CorruptionError, match=r"long(er)? is damaged: its bytes in .* are not those"):
                Store(tmp_path).load(checkpoint)
            file.seek(bit // 8)
            file.write(bytes([byte]))
    Store(tmp_path).load(checkpoint)


@pytest.mark.parametrize("verify", [True, False])
def test_every_cut_is_found(verify: Verify, tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save(_state())
    count = 0
    for path in (checkpoint.path, _pack(tmp_path)):
        whole = path.read_bytes()
        for length in [*range(0, len(whole), 37), len(whole) - 1]:
            path.write_bytes(whole[:length])
            _must_be_found(store, checkpoint, verify)
            count += 1
        path.write_bytes(whole + b" ")
        _must_be_found(store, checkpoint, verify)
        path.write_bytes(whole)
    print(f"verify={verify}: {count} cuts, all found")


def test_misplaced_zeroed_and_lost_blocks_change_a_checksum() -> None:
    data = bytearray(random.Random(0).randbytes(3 << 20))
    whole = hashing.checksum(data)
    block, page = hashing.BLOCK_BYTES, 4096
    exchanged = data[block : 2 * block] + data[:block] + data[2 * block :]
    doubled = data[: 5 * page] + data[4 * page : 5 * page] + data[6 * page :]
    zeroed = data[: 7 * page] + bytes(512) + data[7 * page + 512 :]
    assert len({whole, *map(hashing.checksum, (exchanged, doubled, zeroed, data[:-1], data + b"\0"))}) == 6


def test_the_newest_good_checkpoint_is_loaded_and_the_skipped_are_named(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    first, second, third = (store.save(_state(seed)) for seed in range(3))
    _flip(third.path, 4000)
    pack = store.manifest(second).packs[0]
    _flip(tmp_path / "store" / "packs" / pack[:2] / f"{pack}.safetensors", 8 * 1500)
    loaded = Store(tmp_path).load_newest()
    assert loaded is not None
    assert loaded.checkpoint == first
    assert same(loaded.state, _state(0))
    assert [(checkpoint, type(error)) for checkpoint, error in loaded.skipped] == [
        (third, ManifestError),
        (second, CorruptionError),
    ]
    assert Store(tmp_path).newest_good()[0] == first


def test_where_no_checkpoint_is_whole_the_error_says_so(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    assert store.load_newest() is None
    _flip(store.save(_state()).path, 4000)
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints .* does not match its own digest"):
        store.load_newest()
    assert store.newest_good()[0] is None


def test_a_damaged_pack_is_not_built_on_and_heals_older_checkpoints(tmp_path: pathlib.Path) -> None:
    first = Store(tmp_path).save(_state())
    _flip(_pack(tmp_path), 8 * 1500)
    assert not Store(tmp_path).verify().ok
    second = Store(tmp_path).save(_state())
    assert same(Store(tmp_path).load(second), _state())
    assert same(Store(tmp_path).load(first), _state())


def test_a_lost_pack_names_the_tensor(tmp_path: pathlib.Path) -> None:
    checkpoint = Store(tmp_path).save(_state())
    _pack(tmp_path).unlink()
    with pytest.raises(PackError, match=r"model\.a is lost: no pack in .* holds it"):
        Store(tmp_path).load(checkpoint)


def _rewrite(path: pathlib.Path, document: object) -> None:
    """Put any JSON into a manifest, under a right digest."""
    text = document if isinstance(document, str) else json.dumps(document)
    body = '",\n' + text.strip().removeprefix("{")
    path.write_bytes(b'{"blake3":"' + blake3(body.encode()).hexdigest().encode() + body.encode())


def _document(path: pathlib.Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    del document["blake3"]
    return document


def test_a_manifest_of_the_future_is_refused(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save(_state())
    _rewrite(checkpoint.path, _document(checkpoint.path) | {"version": 99})
    with pytest.raises(FutureFormatError, match=r"format version 99, .* reads up to 1.*pip install -U relume"):
        store.load(checkpoint)
    assert store.gc(dry_run=False).unreadable
    with pytest.raises(FutureFormatError):  # and not an older one, which would lose work
        store.load_newest()


def test_unknown_fields_are_named_on_read_and_kept_out_on_write(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save(_state())
    document = _document(checkpoint.path) | {"colour": "red"}
    document["entries"][0]["taste"] = 1
    _rewrite(checkpoint.path, document)
    with pytest.warns(RelumeWarning, match=r"does not know and leaves alone: colour, entries\.taste"):
        read = store.manifest(checkpoint)
    assert b"colour" not in manifest.to_bytes(read)
    assert b"taste" not in manifest.to_bytes(read)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with its digest"),
        (b"\x80\x04K\x01.", "does not begin with its digest"),
        (b"{}", "does not begin with its digest"),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes, message: str, tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save(_state())
    checkpoint.path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        store.load(checkpoint)


@pytest.mark.parametrize(
    "text", ['"a": NaN}', '"a": 1', "[" * 100_000, '"a": ' + "[" * 100_000, '"a": ' + "1" * 5000 + "}"]
)
def test_what_is_no_json_is_refused(text: str, tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save(_state())
    _rewrite(checkpoint.path, text)
    with pytest.raises(ManifestError):
        store.load(checkpoint)


def test_a_pack_id_that_leads_outside_is_refused(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path / "root")
    checkpoint = store.save(_state())
    for pack in ("../../../../etc/passwd", "/etc/passwd", "..", "0" * 31, "0" * 33, "A" * 32, "0" * 31 + "\n"):
        _rewrite(checkpoint.path, _document(checkpoint.path) | {"packs": [pack]})
        with pytest.raises(ManifestError, match=r"packs\.0 is"):
            store.load(checkpoint)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "../../x", "/etc/passwd", "0" * 32, "0" * 64, "float32", "numpy:<f8", "numpy:|O", "bytes"])
    | st.sampled_from([2**63, 10**30, -1, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def _paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, item in items for found in _paths(item, (*path, key)))]


def _replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = _replaced(node[path[0]], path[1:], value)
    return copy


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_any_manifest_is_loaded_or_refused_with_our_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    store = Store(root)
    known = store.list()
    checkpoint = known[0] if known else store.save(_state())
    keep = root / "document.json"
    if not keep.exists():
        keep.write_text(json.dumps(_document(checkpoint.path)))
    document = json.loads(keep.read_text())
    path = data.draw(st.sampled_from(_paths(document)[1:]))
    _rewrite(checkpoint.path, _replaced(document, path, data.draw(values)))
    with contextlib.suppress(CheckpointError), warnings.catch_warnings(action="ignore", category=RelumeWarning):
        store.load(checkpoint)


@settings(max_examples=300, deadline=None)
@given(header=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_pack_header_is_refused_with_our_error(header: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    from relume.checkpoint.pack import pack_path, read_pack

    content = len(header).to_bytes(8, "little") + header
    packs = tmp_path_factory.getbasetemp() / "packs"
    path = pack_path(packs, blake3(content).hexdigest(16))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(PackError):
        read_pack(packs, path.stem)
    path.unlink()


def test_a_header_longer_than_the_file_is_not_read(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    checkpoint = store.save(_state())
    path = _pack(tmp_path)
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(CorruptionError, match="cannot hold its header of 4611686018427387904 bytes"):
        Store(tmp_path).load(checkpoint)
