"""Classic torch files: read without pickle, turned into relume's state and back without losing a bit."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relume
from relume.checkpoint import Store
from relume.errors import ClassicFileError, MismatchError, OptimizerError
from relume.models.classic import read_classic
from relume.run.classic import from_state, to_state
from relume.run.export import export
from relume.saved import find_checkpoint
from saved_runs import describe, state_of, train

OPTIMIZERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "Adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=0.01),
}


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 3))


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """The head before the rest, with a rate of its own: positions are not the model's order."""
    return [
        {"params": list(model[3].parameters()), "lr": 0.02},
        {"params": [*model[0].parameters(), *model[1].parameters()]},
    ]


def _save_classic(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> None:
    """As PyTorch's tutorial does."""
    torch.save(
        {
            "epoch": 5,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "loss": 0.4,
            **more,
        },
        path,
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_old_training_continues_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = _model()
    optimizer = OPTIMIZERS[name](_groups(model))
    train(model, optimizer, 5)
    _save_classic(tmp_path / "old.pt", model, optimizer)
    expected = train(model, optimizer, 5, first=5)

    torch.manual_seed(1)
    fresh = _model()
    other = OPTIMIZERS[name](_groups(fresh))
    state, meta = to_state(read_classic(tmp_path / "old.pt"), {"model": fresh}, {"optimizer": other})
    assert meta["cursor"] == {"epoch": 5, "batch": 0, "step": 0 if "SGD" in name else 5, "samples": 0}
    store = Store(tmp_path)
    loaded = store.load(store.save(state, meta))
    classic = from_state(loaded, meta)
    fresh.load_state_dict(classic["model_state_dict"])
    other.load_state_dict(classic["optimizer_state_dict"])
    assert train(fresh, other, 5, first=5) == expected
    for one, two in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_optimizer_state_is_named_by_the_live_optimizers_groups(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.Adam(_groups(model), lr=0.01)
    train(model, optimizer, 1)
    _save_classic(tmp_path / "old.pt", model, optimizer)
    state, _ = to_state(read_classic(tmp_path / "old.pt"), {"net": model}, {"adam": optimizer})
    named = state["optimizers"]["adam"]
    assert named["class"] == "Adam"
    assert [group["names"] for group in named["groups"]] == [
        ["net.3.weight", "net.3.bias"],
        ["net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias"],
    ]
    assert [group["lr"] for group in named["groups"]] == [0.02, 0.01]
    assert torch.equal(named["state"]["net.0.weight"]["exp_avg"], optimizer.state[model[0].weight]["exp_avg"])


def test_the_dictionary_is_what_was_saved(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.Adam(_groups(model))
    train(model, optimizer, 3)
    state = state_of({"model": model}, {"optimizer": optimizer})
    classic = from_state(state, describe(2, 3, {"val/loss": 0.5, "train/loss": 0.25}))
    assert list(classic) == [
        "epoch",
        "step",
        "model_state_dict",
        "optimizer_state_dict",
        "loss",
        "metrics",
        "config",
    ]
    assert (classic["epoch"], classic["step"], classic["loss"]) == (2, 3, 0.25)
    expected = optimizer.state_dict()
    assert classic["optimizer_state_dict"]["param_groups"] == expected["param_groups"]
    assert list(classic["optimizer_state_dict"]["state"]) == list(expected["state"])
    torch.save(classic, tmp_path / "new.pt")
    found = read_classic(tmp_path / "new.pt")
    assert (found.epoch, found.step, found.loss, found.config) == (2, 3, 0.25, {"lr": 0.1})
    assert found.metrics == {"val/loss": 0.5, "train/loss": 0.25} and not found.unused


def test_several_models_and_optimizers_go_by_name(tmp_path: Path) -> None:
    models = {"generator": _model(), "critic": _model()}
    optimizers = {name: torch.optim.Adam(model.parameters()) for name, model in models.items()}
    for name in models:
        train(models[name], optimizers[name], 2)
    meta = describe(1, 2, {})
    torch.save(from_state(state_of(models, optimizers), meta), tmp_path / "gan.pt")
    content = torch.load(tmp_path / "gan.pt", weights_only=True)
    assert list(content["model_state_dicts"]) == ["generator", "critic"]
    assert torch.equal(content["model_state_dict"]["0.weight"], models["generator"][0].weight)
    found = read_classic(tmp_path / "gan.pt")
    assert list(found.models) == list(found.optimizers) == ["generator", "critic"]
    state, _ = to_state(found, models, optimizers)
    assert next(iter(state["optimizers"]["critic"]["state"])) == "critic.0.weight"
    with pytest.raises(
        MismatchError, match=r"models generator, critic, and here there are left, right: left, right is not"
    ):
        to_state(found, {"left": _model(), "right": _model()}, {})


def test_synonyms_and_single_numbers_are_understood(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6])
    content = {
        "start_epoch": 4,
        "global_step": 70,
        "state_dict": nn.DataParallel(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "best_acc1": np.float64(0.75),
        "val_loss": torch.tensor(0.5),
        "args": argparse.Namespace(lr=0.1, arch="mlp", nested=[1, (2, None)]),
        "arch": "mlp",
    }
    torch.save(content, tmp_path / "old.pth")
    found = read_classic(tmp_path / "old.pth")
    assert (found.epoch, found.step, found.unused) == (4, 70, ["arch"])
    assert found.metrics == {"best_acc1": 0.75, "val_loss": 0.5}
    assert found.config == {"lr": 0.1, "arch": "mlp", "nested": [1, (2, None)]}
    assert found.schedulers["scheduler"] == scheduler.state_dict()
    state, meta = to_state(found, {"net": model}, {"sgd": optimizer}, {"steps": scheduler}, epochs_done=5)
    assert state["schedulers"] == {"steps": {"class": "MultiStepLR", "state": scheduler.state_dict()}}
    assert list(state["models"]["net"]) == list(model.state_dict())
    assert meta["cursor"]["epoch"] == 5 and meta["metrics"] == found.metrics


def test_a_bare_state_dict_and_lightnings_form_are_understood(tmp_path: Path) -> None:
    model = _model()
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    torch.save(model.state_dict(), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    optimizer = torch.optim.Adam(model.parameters())
    content = {
        "epoch": 3,
        "global_step": 9,
        "state_dict": {f"net.{name}": value for name, value in model.state_dict().items()},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
    }
    torch.save(content, tmp_path / "lightning.ckpt")
    for name in ("bare.pt", "legacy.pt", "lightning.ckpt"):
        state, meta = to_state(read_classic(tmp_path / name), {"model": model}, {"optimizer": optimizer})
        assert list(state["models"]["model"]) == list(model.state_dict())
        assert list(state["optimizers"]) == (["optimizer"] if name == "lightning.ckpt" else [])
    assert meta["cursor"]["step"] == 9


def test_an_optimizer_that_does_not_fit_is_named_with_both_sides(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 1)
    _save_classic(tmp_path / "old.pt", model, optimizer)
    classic = read_classic(tmp_path / "old.pt")

    def convert(live: nn.Module, other: torch.optim.Optimizer) -> None:
        to_state(classic, {"model": live}, {"optimizer": other})

    with pytest.raises(
        MismatchError,
        match=r"old.pt: the optimizer 'optimizer' has 1 group of 6 parameters, and this Adam 2 groups of 2 \+ 4",
    ):
        convert(model, torch.optim.Adam(_groups(model)))
    with pytest.raises(
        MismatchError, match=r"another kind than this SGD: its group 0 has .*betas.*where the SGD has .*momentum"
    ):
        convert(model, torch.optim.SGD(model.parameters(), lr=0.1))
    wider = nn.Sequential(nn.Linear(20, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
    with pytest.raises(MismatchError, match=r"exp_avg of shape \(30, 20\) where model.0.weight has \(40, 20\)"):
        convert(wider, torch.optim.Adam(wider.parameters()))
    with pytest.raises(
        OptimizerError, match="parameter 0 of group 0 of the Adam, of shape \\(30, 20\\), belongs to no model"
    ):
        convert(model, torch.optim.Adam(_model().parameters()))
    with pytest.raises(MismatchError, match="nothing in common with the model 'model', a Embedding"):
        convert(nn.Embedding(3, 3).requires_grad_(), optimizer)


def test_schedulers_go_out_as_their_own_state_dicts(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for scheduler in (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 100),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6]),
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
    ):
        state = state_of({"model": model}, {"optimizer": optimizer}, {"scheduler": scheduler})
        torch.save(from_state(state, {}), tmp_path / "new.pt")
        saved = torch.load(tmp_path / "new.pt", weights_only=True)["scheduler_state_dict"]
        assert saved.items() >= {k: v for k, v in scheduler.state_dict().items() if k in saved}.items()
        assert {"last_epoch", "_last_lr"} <= saved.keys()
        scheduler.load_state_dict(saved)


def test_a_run_begins_from_a_classic_file_and_exports_one(tmp_path: Path, loader: Any, model: nn.Module) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    torch.save(
        {
            "epoch": 1,
            "global_step": 1,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
        },
        tmp_path / "old.pt",
    )
    fresh = copy.deepcopy(model)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    other = torch.optim.Adam(fresh.parameters(), lr=0.05)
    start: list[torch.Tensor] = []
    with relume.Run(
        "new", model=fresh, optimizer=other, root=tmp_path, from_checkpoint=tmp_path / "old.pt", quiet=True
    ) as run:
        start = [parameter.detach().clone() for parameter in fresh.parameters()]
        moments = [other.state[parameter]["exp_avg"].clone() for parameter in fresh.parameters()]
        for _ in run.epochs(2):
            for x, y in run.batches(loader):
                nn.functional.cross_entropy(fresh(x), y).backward()
                other.step()
                other.zero_grad()
    assert all(torch.equal(one, two) for one, two in zip(start, model.parameters(), strict=True))
    expected = [optimizer.state[parameter]["exp_avg"] for parameter in model.parameters()]
    assert all(torch.equal(one, two) for one, two in zip(moments, expected, strict=True))
    export(*find_checkpoint("new", tmp_path), tmp_path / "new.pt")
    content = torch.load(tmp_path / "new.pt", weights_only=True)
    assert content["epoch"] == run.cursor.epoch and content["step"] == run.cursor.step
    assert all(
        torch.equal(one, two) for one, two in zip(content["model_state_dict"].values(), fresh.parameters(), strict=True)
    )
    assert str(content["optimizer_state_dict"]) == str(other.state_dict())


def test_tied_weights_stay_one_tensor(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    model[1].weight = model[0].weight
    store = Store(tmp_path)
    state = store.load(store.save(state_of({"model": model}, {})))
    torch.save(from_state(state, {}), tmp_path / "tied.pt")
    loaded = torch.load(tmp_path / "tied.pt", weights_only=True)["model_state_dict"]
    assert loaded["0.weight"].data_ptr() == loaded["1.weight"].data_ptr()


def test_a_checkpoint_without_models_is_refused() -> None:
    with pytest.raises(ClassicFileError, match="has no models in it, only: weight"):
        from_state({"weight": torch.ones(2)}, {})
