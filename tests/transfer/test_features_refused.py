"""Where features cannot be had, training goes on without them, and the reason is said; asked for, it is an error."""

from __future__ import annotations

import importlib
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import relume
from relume import Trainer
from relume.data.memory import NotEligible
from relume.errors import ConfigurationError, FeatureCacheError, NoMatchError
from relume.train.heads import fit_heads
from relume.transfer.features import build, cache_features, collect_features
from relume.transfer.features.cost import Estimate
from relume.transfer.features.kept import FeatureFolder
from relume.transfer.features.key import NoFingerprint, fingerprint_of


@pytest.fixture(autouse=True)
def _no_open_tables() -> None:
    build.open_tables.clear()


def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    relume.freeze(made, "0")
    return made


def samples(count: int = 20) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator))


class Augmented(Dataset[Any]):
    """Shifts each sample at random, by torch, random or its own generator."""

    def __init__(self, by: str = "torch") -> None:
        self.inner, self.by, self.own = samples(), by, random.Random(0)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        x, y = self.inner[index]
        if self.by == "torch":
            return x + torch.rand(1), y
        return x + (random.random() if self.by == "random" else self.own.random()), y


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(samples())


def trainer(made: nn.Module, cache: Any, **more: Any) -> Trainer:
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.1)
    settings: dict[str, Any] = {"loss": nn.CrossEntropyLoss(), "device": "cpu", "quiet": True, "seed": 1}
    return Trainer(made, optimizer=optimizer, cache_features=cache, **settings | more)


def own_step(trainer: Trainer, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(trainer.model(batch[0]), batch[1])


def collate(batch: list[Any]) -> Any:
    return torch.utils.data.default_collate(batch)


@pytest.mark.parametrize(
    ("loader", "more", "message"),
    [
        (lambda: DataLoader(Augmented(), 5), {}, "fetching a sample draws random numbers from torch"),
        (lambda: DataLoader(Augmented("random"), 5), {}, "fetching a sample draws random numbers from random"),
        (lambda: DataLoader(Augmented("own"), 5), {}, "sample 0 differs from one fetch to the next"),
        (lambda: DataLoader(samples(), 5, collate_fn=collate), {}, "collate_fn of its own"),
        (lambda: DataLoader(Endless(), 5), {}, "not a DataLoader over samples with numbers"),
        (lambda: DataLoader(samples(), None), {}, "does no batching"),
        (lambda: list(DataLoader(samples(), 5)), {}, r"its loader \(list\) is not a DataLoader"),
        (lambda: DataLoader(samples(), 5), {"step": own_step}, "step= function of its own"),
    ],
)
def test_the_reason_is_said_and_training_goes_on(
    loader: Any, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FeatureCacheError, match=rf"cache_features=True was asked for, but (.*){message}"):
        trainer(model(), True, **more).fit(loader(), epochs=2, run="a", root=tmp_path)
    if "list" not in message and "batching" not in message:
        assert trainer(model(), "auto", **more).fit(loader(), epochs=2, run="b", root=tmp_path).steps == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache": "yes"}, "cache_features='yes': it is 'auto', True or False"),
        ({"cache": 1.5}, "cache_features=1.5"),
        ({"cache": True, "cache_dtype": torch.int8}, "cache_dtype=torch.int8"),
        ({"cache": True, "cache_views": 0}, "cache_views=0"),
        ({"cache": True, "cache_views": True}, "cache_views=True"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trainer(model(), arguments.pop("cache"), **arguments)


def test_a_model_with_nothing_frozen_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = nn.Linear(4, 3)
    trainer(made, "auto", quiet=False).fit(DataLoader(samples(), 5), epochs=2, run="a", root=tmp_path)
    assert "features" not in capsys.readouterr().out
    with pytest.raises(FeatureCacheError, match="nothing is constant: weight is trained"):
        trainer(nn.Linear(4, 3), True).fit(DataLoader(samples(), 5), epochs=2, run="b", root=tmp_path)


def test_what_saves_too_little_is_not_cached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(model(), "auto", quiet=False).fit(DataLoader(samples(), 5), epochs=2, run="a", root=tmp_path)
    assert "features: train: not cached: it would save 0.0 s" in capsys.readouterr().out
    estimate = Estimate(epochs=5, samples=1000)
    estimate.learn(0.01, 1000, is_kept=False)
    estimate.require_gain()
    assert estimate.saved_seconds == pytest.approx(40)
    estimate.learn(0.01, 10**12, is_kept=True)
    with pytest.raises(NotEligible, match="a pass through the frozen part takes 10 s, 5 epochs are left"):
        estimate.require_gain()


def test_views_are_seeded_and_read_in_turn(tmp_path: Path) -> None:
    loader = DataLoader(Augmented(), 20)
    one = cache_features(model(), loader, views=3, seed=4)
    two = cache_features(model(), DataLoader(Augmented(), 20), views=3, seed=4)
    found = []
    for epoch in range(4):
        one.use_view(epoch), two.use_view(epoch)
        first, second = next(iter(one.loader))[0], next(iter(two.loader))[0]
        assert torch.equal(first, second)
        found.append(first)
    assert torch.equal(found[0], found[3]) and not torch.equal(found[0], found[1])
    assert "3 views of each" in one.report
    result = trainer(model(), True, cache_views=2).fit(loader, epochs=3, run="a", root=tmp_path)
    assert result.steps == 3


def test_half_precision_is_stored_and_said(tmp_path: Path) -> None:
    cached = cache_features(model(), DataLoader(samples(), 5), dtype=torch.float16, root=tmp_path)
    features, _ = next(iter(cached.loader))
    assert features.dtype == torch.float32 and "stored in float16" in cached.report
    assert cached.cache.table.rows[0].dtype == torch.float16
    assert torch.allclose(features, model()[:2](samples()[:5][0]), atol=1e-2)


def test_by_hand(tmp_path: Path) -> None:
    made = model()
    loader = DataLoader(samples(), 6, shuffle=True, drop_last=True)
    cached = cache_features(made, loader, root=tmp_path)
    torch.manual_seed(3)
    plain = [(x, y) for x, y in loader]
    torch.manual_seed(3)
    for (x, y), (features, target) in zip(plain, cached.loader, strict=True):
        assert torch.equal(y, target)
        assert torch.allclose(cached.head(features), made(x), rtol=1e-5, atol=1e-6)
    assert cached.is_exact and cached.loader.batch_size == 6
    named = cache_features(made, loader, cut="0")
    assert named.lower(samples()[:2][0])[0].min() < 0, "before the ReLU"
    with pytest.raises(NoMatchError, match="cut='3' is no module of Sequential"):
        cache_features(made, loader, cut="3")
    with pytest.raises(FeatureCacheError, match="no features of Sequential: what comes up to 2 is not constant"):
        cache_features(made, loader, cut="2")
    with pytest.raises(FeatureCacheError, match="wrapped in DataParallel"):
        cache_features(nn.DataParallel(made), loader)
    with pytest.raises(FeatureCacheError, match="no target"):
        cache_features(made, DataLoader(TensorDataset(torch.ones(6, 4)), 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [({"views": 0}, "views=0: it is a whole"), ({"dtype": "half"}, "dtype='half': it is a floating")],
)
def test_by_hand_arguments_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        cache_features(model(), DataLoader(samples(), 5), **given)


def test_dict_batches(tmp_path: Path) -> None:
    class Named(Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Any:
            x, y = samples()[index]
            return {"input": x, "labels": y}

    last = []
    for cache in (False, True):
        result = trainer(model(), cache).fit(DataLoader(Named(), 5), epochs=2, run=str(cache), root=tmp_path)
        last.append(result.last)
    assert last[0] == last[1]


# ---------------------------------------------------------------------------------------------------------- on the disk


def one_table(root: Path) -> Path:
    cache_features(model(), DataLoader(samples(), 5), root=root)
    build.open_tables.clear()
    (folder,) = (root / "store" / "features").iterdir()
    return folder


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "no manifest", "lost", "other format"])
def test_damage_is_never_taken_for_features(damage: str, tmp_path: Path) -> None:
    folder = one_table(tmp_path)
    assert FeatureFolder(tmp_path).find(folder.name) is not None
    rows = sorted(folder.glob("*-0.rows"))[0]
    manifest = folder / "manifest.json"
    if damage == "flip":
        data = bytearray(rows.read_bytes())
        data[7] ^= 1
        rows.write_bytes(data)
    elif damage == "cut":
        rows.write_bytes(rows.read_bytes()[:-1])
    elif damage == "manifest":
        manifest.write_text(manifest.read_text().replace('"count": 20', '"count": 10'))
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "lost":
        rows.unlink()
    else:
        manifest.write_text('{"format": 99}')
    assert FeatureFolder(tmp_path).find(folder.name) is None
    whole = cache_features(model(), DataLoader(samples(), 5), root=tmp_path)
    assert "computed in" in whole.report
    build.open_tables.clear()
    assert "found on the disk" in cache_features(model(), DataLoader(samples(), 5), root=tmp_path).report


def test_gc_frees_what_is_damaged_or_old_and_nothing_that_is_open(tmp_path: Path) -> None:
    folder = one_table(tmp_path)
    assert collect_features(tmp_path).folders == []
    kept = FeatureFolder(tmp_path).find(folder.name)
    assert collect_features(tmp_path, days=0, dry_run=False).in_use == [folder] and folder.is_dir()
    del kept
    report = collect_features(tmp_path, days=0)
    assert report.folders == [folder] and report.freed_bytes > 0 and folder.is_dir(), "a dry run"
    rows = sorted(folder.glob("*-0.rows"))[0]
    rows.write_bytes(bytes(rows.stat().st_size))
    assert collect_features(tmp_path, dry_run=False).folders == [folder]
    assert not folder.exists()
    assert collect_features(tmp_path / "nowhere").folders == []


def test_gc_frees_what_a_killed_writer_left_beside_a_whole_table(tmp_path: Path) -> None:
    folder = one_table(tmp_path)
    whole = sorted(folder.iterdir())
    old, new = folder / "00000000-0.rows", folder / "11111111-0.rows"
    for path in (old, new):
        path.write_bytes(b"0" * 100)
    os.utime(old, (0, 0))
    report = collect_features(tmp_path, dry_run=False)
    assert (report.folders, report.leftovers, report.leftover_bytes) == ([], [old], 100)
    assert sorted(folder.iterdir()) == sorted([*whole, new]), "what may be being written stays"


def test_more_than_the_memory_may_take_lies_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_MEMORY_SHARE", "0")
    with pytest.raises(FeatureCacheError, match="there is no root"):
        cache_features(model(), DataLoader(samples(), 5))
    found = cache_features(model(), DataLoader(samples(), 5), root=tmp_path)
    assert found.cache.table.is_mapped and "in a file" in found.report
    assert torch.equal(next(iter(found.loader))[0], model()[:2](samples()[:5][0]))


@pytest.mark.parametrize(
    "other",
    [
        lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), samples(), 5),
        lambda: (model(), samples(19), 5),
        lambda: (model(), samples(), 4),
        lambda: (nn.Sequential(model()[0], nn.LeakyReLU(0.2), nn.Linear(6, 3)), samples(), 5),
        lambda: (nn.Sequential(model()[0], nn.LeakyReLU(0.3), nn.Linear(6, 3)), samples(), 5),
    ],
)
def test_the_key_tells_what_differs(other: Any, tmp_path: Path) -> None:
    folder = one_table(tmp_path)
    made, dataset, batch = other()
    relume.freeze(made, "0")
    assert "computed in" in cache_features(made, DataLoader(dataset, batch), root=tmp_path).report
    assert len(list(folder.parent.iterdir())) == 2


def test_a_head_of_another_shape_shares_the_features(tmp_path: Path) -> None:
    one_table(tmp_path)
    made = nn.Sequential(model()[0], nn.ReLU(), nn.Linear(6, 9), nn.Linear(9, 3))
    relume.freeze(made, "0")
    assert "found on the disk" in cache_features(made, DataLoader(samples(), 5), root=tmp_path).report


SIZE = 3


def uses_a_global(x: int) -> int:
    return x * SIZE


def test_fingerprints_tell_code_settings_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint_of(uses_a_global)
    assert first == fingerprint_of(uses_a_global)
    monkeypatch.setattr("test_features_refused.SIZE", 4, raising=False)
    monkeypatch.setitem(uses_a_global.__globals__, "SIZE", 4)
    assert first != fingerprint_of(uses_a_global)
    file = tmp_path / "a.png"
    file.write_bytes(b"1")
    before = fingerprint_of([str(file)])
    file.write_bytes(b"12")
    assert before != fingerprint_of([str(file)])
    assert fingerprint_of(lambda x: x + 1) != fingerprint_of(lambda x: x + 2)
    assert fingerprint_of({"a": [1, 2.5, None]}) != fingerprint_of({"a": [1, 2.5, 0]})
    loop: list[Any] = []
    loop.append(loop)
    fingerprint_of(loop)
    with file.open() as opened, pytest.raises(NoFingerprint, match=r"\[0\]\[0\] is a TextIOWrapper"):
        fingerprint_of([opened])


def reads_a_folder(number: int) -> bytes:
    return Path(f"photos/{number}").read_bytes()


def test_fingerprints_tell_files_however_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("elsewhere.png").write_bytes(b"1")
    Path("photos", "0").symlink_to(tmp_path / "elsewhere.png")
    named = ("photos", Path("photos"), reads_a_folder)
    before = [fingerprint_of(one) for one in named]
    assert before == [fingerprint_of(one) for one in named]
    Path("elsewhere.png").write_bytes(b"12")
    assert all(old != fingerprint_of(one) for old, one in zip(before, named, strict=True))


@pytest.mark.parametrize("in_package", [False, True])
def test_fingerprints_tell_modules_of_the_users_own(
    in_package: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ("project_of_mine/labels.py" if in_package else "project_of_mine.py")
    if in_package:
        file.parent.mkdir()
        (file.parent / "__init__.py").write_text("__version__ = '1'\n")
    name = "project_of_mine.labels" if in_package else "project_of_mine"
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for body in ("return 1", "return 1 + 1"):
        file.write_text(f"__version__ = '1'\ndef label(): {body}\n")
        for loaded in [one for one in sys.modules if one.startswith("project_of_mine")]:
            del sys.modules[loaded]
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        found.append(
            (fingerprint_of(module), fingerprint_of(sys.modules["project_of_mine"]), fingerprint_of(module.label))
        )
    assert all(one != other for one, other in zip(*found, strict=True))


# ------------------------------------------------------------------------------------------------------------ many heads


def heads() -> dict[str, Any]:
    torch.manual_seed(2)
    return {
        "one": nn.Linear(6, 3),
        "two": {
            "head": lambda: nn.Linear(6, 3),
            "optimizer": lambda p: torch.optim.SGD(p, lr=0.5),
            "config": {"lr": 0.5},
        },
        "deep": nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    }


def test_heads_of_another_backbone_are_not_gone_on_with(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"loss": nn.CrossEntropyLoss(), "epochs": 1, "root": tmp_path, "quiet": True}
    loader = DataLoader(samples(), 4)
    first, second = (model() for _ in range(2))
    nn.init.normal_(second[0].weight)
    nn.init.normal_(first[2].weight)  # the classifier is exchanged: it may be any
    before = second[0].weight.clone()
    fit_heads(first, {"a": 4}, loader, **settings)
    fit_heads(first, {"a": 4}, loader, **settings)
    with pytest.raises(ConfigurationError, match="the run 'a' in .* was trained on a backbone with other weights"):
        fit_heads(second, {"a": 4}, loader, **settings)
    assert second[0].weight.equal(before), "the backbone given is not changed"
    fit_heads(second, {"b": 4}, loader, **settings)


def test_many_heads_share_one_table_and_each_is_a_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    loader = DataLoader(samples(), 5, shuffle=True)
    settings: dict[str, Any] = {"loss": nn.CrossEntropyLoss(), "epochs": 2, "root": tmp_path, "quiet": True}
    models: dict[str, nn.Module] = {}
    found = fit_heads(
        backbone, heads(), loader, loader, place="behind", cache_features=True, on=models.__setitem__, **settings
    )
    assert list(found) == ["one", "two", "deep"] and all(result.steps == 8 for result in found.values())
    assert {path.name for path in tmp_path.iterdir()} >= {"one", "two", "deep"}
    assert len(list((tmp_path / "store" / "features").iterdir())) == 1
    assert all(value.equal(before[name]) for name, value in backbone.state_dict().items())
    assert all(p.requires_grad for p in backbone.parameters()), "the backbone given is left as it is"
    places = {one[0][0].weight.data_ptr() for one in models.values()}
    assert places == {backbone[0].weight.data_ptr()}, "in one memory"
    again = fit_heads(backbone, heads(), loader, loader, place="behind", cache_features=True, **settings)
    assert [result.steps for result in again.values()] == [8, 8, 8]
    alone = fit_heads(
        backbone,
        {"deep": heads()["deep"]},
        loader,
        loader,
        place="behind",
        cache_features=False,
        **settings | {"root": tmp_path / "b"},
    )
    assert alone["deep"].last == pytest.approx(found["deep"].last, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "at least one"),
        ({"a": "x"}, "head 'a' is 'x'"),
        ({"a": 0}, "head 'a' is 0"),
        ({"a": {"head": nn.Linear(6, 3), "optimiser": 1}}, "head 'a' has optimiser: known are config, head, optimizer"),
        ({"a": {"head": nn.Linear(6, 3), "optimizer": 1}}, "optimizer is a int"),
        ({"a": nn.Linear(5, 3)}, "fits neither behind the backbone nor"),
    ],
)
def test_heads_that_make_no_sense(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit_heads(
            nn.Sequential(nn.Linear(4, 6), nn.ReLU()), given, DataLoader(samples(), 5), loss=nn.CrossEntropyLoss(), epochs=1,
            root=tmp_path, quiet=True,
        )  # fmt: skip
