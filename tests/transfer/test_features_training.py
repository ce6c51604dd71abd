"""Training on features gives the losses of training on samples, and goes on after a kill as if nothing had been."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume import Callback, Trainer
from relume.transfer.features import build, collect_features

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def _no_tables() -> None:
    build.open_tables.clear()


class Seen(Callback):
    """The losses of all steps; stops the process's training at a step, as a kill would."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.losses: list[float] = []
        self.kill_at = kill_at
        self.rows: list[tuple[int, ...]] = []

    def on_step_end(self, trainer: Trainer) -> None:
        self.losses.append(float(trainer.loss))
        batch = trainer.batch
        self.rows.append(tuple((next(iter(batch.values())) if isinstance(batch, dict) else batch[0]).shape))
        if self.kill_at is not None and len(self.losses) == self.kill_at:
            raise RuntimeError("killed")


def data(count: int = 40, size: int = 32) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(
        torch.randn(count, 3, size, size, generator=generator), torch.randint(0, 4, (count,), generator=generator)
    )


def small(dropout: float = 0.0, norm: bool = False) -> nn.Module:
    torch.manual_seed(5)
    head: list[nn.Module] = [nn.Dropout(dropout), nn.Linear(6, 8)]
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        nn.Sequential(*head, nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU(), nn.Linear(8, 4)),
    )


def frozen_small(**more: Any) -> nn.Module:
    model = small(**more)
    relume.freeze(model, "0")
    return model


def fit(
    model: nn.Module,
    root: Path,
    cache: Any,
    *,
    name: str = "a",
    shuffle: bool = True,
    epochs: int = 3,
    dataset: Any = None,
    val: Any = None,
    kill_at: int | None = None,
    fit: dict[str, Any] | None = None,
    batch: int = 8,
    **more: Any,
) -> tuple[Seen, relume.Result | None]:
    seen = Seen(kill_at)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    settings = {"metrics": {"accuracy": relume.accuracy}, "device": "cpu", "seed": 1, "quiet": True} | more
    trainer = Trainer(
        model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, cache_features=cache, callbacks=[seen], **settings
    )
    loader = DataLoader(dataset if dataset is not None else data(), batch, shuffle=shuffle)
    result = None
    try:
        result = trainer.fit(loader, val, epochs=epochs, run=name, root=root, **(fit or {}))
    except RuntimeError as error:
        if str(error) != "killed":
            raise
    return seen, result


def said(root: Path, name: str = "a") -> str:
    lines = [
        json.loads(line)
        for path in sorted((root / name / "journal").iterdir())
        for line in path.read_text().splitlines()
    ]
    return "\n".join(
        line["text"] for line in lines if line.get("event") == "note" and "features:" in line.get("text", "")
    )


def close(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= 1e-5 * abs(a) for a, b in zip(one, other, strict=True))


ARCHITECTURES = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=4), "fc"),
    "vgg11_bn": (lambda: torchvision.models.vgg11_bn(num_classes=4), "classifier.6"),
    "mobilenet_v3": (lambda: torchvision.models.mobilenet_v3_small(num_classes=4), "classifier"),
    "vit": (lambda: torchvision.models.VisionTransformer(32, 16, 2, 4, 32, 64, dropout=0.1, num_classes=4), "heads"),
    "convnext": (lambda: torchvision.models.convnext_tiny(num_classes=4), "classifier"),
    "swin_t": (lambda: torchvision.models.swin_t(num_classes=4), "head"),
    "efficientnet_b0": (lambda: torchvision.models.efficientnet_b0(num_classes=4), "classifier"),
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32, drop_rate=0.1), "head"),
    "timm resnet18": (lambda: timm.create_model("resnet18", num_classes=4), ["layer4", "fc"]),
    "timm lite0": (lambda: timm.create_model("tf_efficientnet_lite0", num_classes=4), "classifier"),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_curve_is_that_of_training_without_features(name: str, tmp_path: Path) -> None:
    make, trainable = ARCHITECTURES[name]
    curves = []
    for cache in (False, True):
        torch.manual_seed(11)
        model = make()
        relume.freeze(model, trainable=trainable)
        seen, _ = fit(model, tmp_path, cache, name=str(cache), dataset=data(6), epochs=2, batch=2, shuffle=False)
        curves.append(seen.losses)
    assert len(curves[0]) == 6
    assert curves[0] == curves[1], "with fixed batches: bit for bit"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"accumulate": 2},
        {"clip_norm": 0.1},
        {"precision": "bf16"},
        {"metrics": {"accuracy": relume.accuracy, "one": lambda output, target: output.mean()}},
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_what_a_trainer_does_besides_stays_the_same(more: dict[str, Any], shuffle: bool, tmp_path: Path) -> None:
    found = []
    for cache in (False, True):
        val = DataLoader(data(12), 5)
        model = frozen_small(dropout=0.3, norm=True)
        seen, result = fit(model, tmp_path, cache, name=f"{cache}", shuffle=shuffle, val=val, **more)
        assert result is not None
        found.append((seen.losses, result.last, model.state_dict()))
        assert (seen.rows[0][1:] == (6,)) is cache
    (one, last, state), (other, other_last, other_state) = found
    tolerance = 2e-2 if "precision" in more else 1e-5
    if not shuffle:
        assert one == other and last == other_last
    assert one == pytest.approx(other, rel=tolerance)
    assert last == pytest.approx(other_last, rel=tolerance)
    assert state["0.1.running_mean"].equal(other_state["0.1.running_mean"])
    assert not state["1.2.running_mean"].eq(0).any(), "the norm of the head moves"
    if not shuffle:
        assert all(value.equal(other_state[name]) for name, value in state.items())


@pytest.mark.parametrize("kill_at", [2, 6, 5, 12])
def test_a_killed_run_goes_on_bit_for_bit(kill_at: int, tmp_path: Path) -> None:
    whole, _ = fit(frozen_small(dropout=0.5), tmp_path / "whole", True)
    more = {"fit": {"every": "1 steps"}}
    first, _ = fit(frozen_small(dropout=0.5), tmp_path / "cut", True, kill_at=kill_at, **more)
    build.open_tables.clear()
    second, result = fit(frozen_small(dropout=0.5), tmp_path / "cut", True, **more)
    assert result is not None and result.steps == 15
    assert len(second.losses) < 15, "it began anew"
    assert whole.losses[-len(second.losses) :] == second.losses
    assert whole.losses[: len(first.losses)] == first.losses
    assert said(tmp_path / "cut").count("found on the disk") == 1


def test_a_killed_run_goes_on_bit_for_bit_when_the_features_are_gone(tmp_path: Path) -> None:
    whole, _ = fit(frozen_small(), tmp_path / "whole", True)
    fit(frozen_small(), tmp_path / "cut", True, kill_at=7, fit={"every": "1 steps"})
    build.open_tables.clear()
    gone = collect_features(tmp_path / "cut", dry_run=False, days=0)
    assert len(gone.folders) == 1 and gone.freed_bytes > 40 * 6 * 4
    second, _ = fit(frozen_small(), tmp_path / "cut", True)
    assert whole.losses[-len(second.losses) :] == second.losses and second.losses


class Long(nn.Module):
    """Takes so much time, or so little, that features are worth it, or not."""

    seconds = 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return x


@pytest.mark.parametrize("is_slow", [True, False])
def test_what_was_decided_by_the_clock_holds_for_a_resumed_run(
    is_slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model() -> nn.Module:
        made = frozen_small()
        made[0].append(Long())
        return made

    monkeypatch.setattr(Long, "seconds", 0.1 if is_slow else 0.0)
    odd = data(41)  # the last sample is computed alone, which is another arithmetic
    whole, _ = fit(model(), tmp_path / "whole", "auto", dataset=odd)
    fit(model(), tmp_path / "cut", "auto", kill_at=14, fit={"every": "1 steps"}, dataset=odd)
    build.open_tables.clear()
    collect_features(tmp_path / "cut", dry_run=False, days=0)
    monkeypatch.setattr(Long, "seconds", 0.0 if is_slow else 0.1)
    second, _ = fit(model(), tmp_path / "cut", "auto", dataset=odd)
    assert whole.losses[-len(second.losses) :] == second.losses and second.losses
    assert {row[1:] for row in whole.rows} == {row[1:] for row in second.rows} == {(6,) if is_slow else (3, 32, 32)}


def test_a_run_may_change_between_features_and_samples(tmp_path: Path) -> None:
    whole, _ = fit(frozen_small(), tmp_path / "whole", False, shuffle=False)
    fit(frozen_small(), tmp_path / "cut", True, kill_at=7, fit={"every": "1 steps"}, shuffle=False)
    second, _ = fit(frozen_small(), tmp_path / "cut", False, shuffle=False)
    assert whole.losses[-len(second.losses) :] == second.losses and second.losses


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    fit(frozen_small(), tmp_path, True, name="a")
    build.open_tables.clear()
    fit(frozen_small(), tmp_path, True, name="b")
    fit(frozen_small(), tmp_path, True, name="c")
    assert "computed in" in said(tmp_path, "a")
    assert "found on the disk, nothing is computed" in said(tmp_path, "b")
    assert "kept from before, nothing is computed" in said(tmp_path, "c") or "found on the disk" in said(tmp_path, "c")
    assert len(list((tmp_path / "store" / "features").iterdir())) == 1


class Between(Callback):
    """Does something at the start of an epoch."""

    def __init__(self, epoch: int, function: Any) -> None:
        self.epoch, self.function = epoch, function

    def on_epoch_start(self, trainer: Trainer) -> None:
        assert trainer.run is not None
        if trainer.run.cursor.epoch == self.epoch:
            self.function(trainer)


def move_body(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.model[0][0].weight.mul_(1.5)


def move_body_behind_its_back(trainer: Trainer) -> None:
    trainer.model[0][0].weight.data.mul_(1.5)


class Warm(nn.Module):
    """A body and a head with a number between them that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.temperature = small(), 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts(x) * self.temperature


def test_a_number_in_the_forward_pass_that_changes_is_noticed(tmp_path: Path) -> None:
    curves = []
    for cache in (False, True):
        model = Warm()
        relume.freeze(model, "parts.0")
        seen, between = Seen(), Between(1, lambda trainer: setattr(trainer.model, "temperature", 2.0))
        optimizer = torch.optim.SGD(model.parts[1].parameters(), lr=0.1)
        trainer = Trainer(
            model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, cache_features=cache, callbacks=[seen, between],
            device="cpu", seed=1, quiet=True,
        )  # fmt: skip
        trainer.fit(DataLoader(data(), 8), epochs=2, run=str(cache), root=tmp_path)
        curves.append(seen.losses)
    assert curves[0] == curves[1]
    assert "the forward pass is another one now" in said(tmp_path, "True")


def thaw(trainer: Trainer) -> None:
    relume.unfreeze(trainer.model, "0")
    trainer.optimizers["optimizer"].add_param_group({"params": list(trainer.model[0].parameters()), "lr": 1e-3})


def freeze_more(trainer: Trainer) -> None:
    relume.freeze(trainer.model, "1.1")


@pytest.mark.filterwarnings("ignore:1 frozen parameter changed")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (move_body, "computed again: the frozen part has changed"),
        (move_body_behind_its_back, "computed again: the frozen part has changed"),
        (thaw, "not cached: nothing is constant: 0.0.weight is trained"),
        (freeze_more, "cached after 1.3 "),
    ],
)
def test_what_changes_the_frozen_part_is_noticed(change: Any, text: str, tmp_path: Path) -> None:
    curves = []
    for cache in (False, True):
        model = frozen_small()
        seen, between = Seen(), Between(1, change)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        trainer = Trainer(
            model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, cache_features=cache, callbacks=[seen, between],
            device="cpu", seed=1, quiet=True,
        )  # fmt: skip
        loader = DataLoader(data(), 8, shuffle=False)
        trainer.fit(loader, epochs=3, run=str(cache), root=tmp_path, every=False)
        curves.append(seen.losses)
    assert text in said(tmp_path, "True")
    assert curves[0] == curves[1]


def test_a_compiled_model_trains_on_features(tmp_path: Path) -> None:
    curves = []
    for cache in (False, True):
        model = frozen_small()
        compiled = torch.compile(model, backend="eager")
        seen, optimizer = Seen(), torch.optim.SGD(model[1].parameters(), lr=0.1)
        trainer = Trainer(
            compiled, loss=nn.CrossEntropyLoss(), optimizer=optimizer, cache_features=cache, callbacks=[seen],
            device="cpu", seed=1, quiet=True,
        )  # fmt: skip
        loader = DataLoader(data(16), 8)
        trainer.fit(loader, loader, epochs=2, run=str(cache), root=tmp_path)
        curves.append(seen.losses)
    assert curves[0] == curves[1]


class Scaled(nn.Linear):
    """Its frozen part has a number that is no tensor, and that tracing does not meet."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


def test_a_number_inside_a_frozen_module_is_noticed_at_once(tmp_path: Path) -> None:
    curves = []
    for cache in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(Scaled(), nn.ReLU(), nn.Linear(3, 2))
        relume.freeze(model, "0")
        seen = Seen()
        change = Between(1, lambda trainer: setattr(trainer.model[0], "scale", 3.0))
        trainer = Trainer(
            model, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model[2].parameters(), lr=0.1),
            cache_features=cache, callbacks=[seen, change], device="cpu", seed=1, quiet=True,
        )  # fmt: skip
        samples = TensorDataset(torch.randn(16, 4), torch.zeros(16, dtype=torch.long))
        trainer.fit(DataLoader(samples, 8), epochs=3, run=str(cache), root=tmp_path, every=False)
        curves.append(seen.losses)
    assert curves[0] == curves[1]
