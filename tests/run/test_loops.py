"""Loops as people write them: stopped anywhere and started again, each ends as if it had never been stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run import trainings
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import relume

pytest.importorskip("torch._dynamo")  # imported once, here, and not in each of the processes that are forked

mse = nn.functional.mse_loss


def parts() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    relume.seed_everything(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    return (
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 4, shuffle=True),
    )


class Stop:
    """Sends a signal to this process at one batch of the first start."""

    def __init__(self, at: int | None, number: int) -> None:
        self.at, self.number, self.batches = at, number, 0

    def __call__(self) -> None:
        self.batches += 1
        if self.batches == self.at:
            os.kill(os.getpid(), self.number)


Loop = Callable[[Path, Stop], None]


def counted_accumulation(root: Path, stop: Stop) -> None:
    model, optimizer, loader = parts()
    with relume.Run("r", model=model, optimizer=optimizer, root=root, quiet=True, every=False) as run:
        for _ in run.epochs(3):
            optimizer.zero_grad()
            for number, (x, y) in enumerate(run.batches(loader)):
                loss = mse(model(x), y) / 5
                loss.backward()
                if (number + 1) % 5 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                run.log({"train/loss": loss})
                stop()


def scheduler_first(root: Path, stop: Stop) -> None:
    model, optimizer, loader = parts()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    with relume.Run(
        "r", model=model, optimizer=optimizer, scheduler=schedule, root=root, quiet=True, every="3 steps"
    ) as run:
        for epoch in run.epochs(3):
            if epoch:
                schedule.step()
            run.log({"lr": optimizer.param_groups[0]["lr"], "draw": torch.rand(1)})
            for x, y in run.batches(loader):
                optimizer.zero_grad()
                loss = mse(model(x), y)
                loss.backward()
                optimizer.step()
                run.log({"train/loss": loss})
                stop()


def checkpoint_at_the_end_of_the_body(root: Path, stop: Stop) -> None:
    model, optimizer, loader = parts()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    with relume.Run(
        "r", model=model, optimizer=optimizer, scheduler=schedule, root=root, quiet=True, every=False
    ) as run:
        for _ in run.epochs(3):
            for x, y in run.batches(loader):
                loss = mse(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                stop()
            run.log({"last": loss.item()})
            run.checkpoint()
            schedule.step()


def without_epochs(root: Path, stop: Stop) -> None:
    model, optimizer, loader = parts()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    with relume.Run("r", model=model, optimizer=optimizer, scheduler=schedule, root=root, quiet=True) as run:
        for _ in range(3):
            for x, y in run.batches(loader):
                loss = mse(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({"train/loss": loss})
                stop()
            schedule.step()
            run.log({"val/draw": torch.rand(1)})


def codebook(root: Path, stop: Stop) -> None:
    """A frozen parameter that the forward pass writes to, past its version counter."""
    model, optimizer, loader = parts()
    model.register_parameter("code", nn.Parameter(torch.ones(300), requires_grad=False))
    with relume.Run("r", model=model, optimizer=optimizer, root=root, quiet=True, every="3 steps") as run:
        for _ in run.epochs(3):
            for x, y in run.batches(loader):
                loss = mse(model(x) + model.code[0], y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                model.code.data.mul_(0.9).add_(float(x.mean()))
                run.log({"train/loss": loss})
                stop()


def unfreezing(root: Path, stop: Stop) -> None:
    model, _, loader = parts()
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[3].parameters(), lr=0.01)
    with relume.Run("r", model=model, optimizer=optimizer, root=root, quiet=True, every="3 steps") as run:
        for epoch in run.epochs(3):
            if epoch == 1 and not model[0].weight.requires_grad:
                model[0].requires_grad_(True)
                optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.003})
            for x, y in run.batches(loader):
                loss = mse(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({"train/loss": loss})
                stop()


class Endless(IterableDataset[Any]):
    """Goes on where it stood, over epochs."""

    position = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.position += 1
            yield torch.full((4,), float(self.position)) + torch.rand(4), torch.ones(1)
            if self.position % 32 == 0:
                return

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def stateful_stream(root: Path, stop: Stop) -> None:
    model, optimizer, _ = parts()
    loader: DataLoader[Any] = DataLoader(Endless(), 4)
    with relume.Run("r", model=model, optimizer=optimizer, root=root, quiet=True) as run:
        for _ in run.epochs(4):
            for x, y in run.batches(loader):
                loss = mse(model(x / 100), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({"x": x[0, 0]})
                stop()


def closure(root: Path, stop: Stop) -> None:
    model, _, loader = parts()
    model[2] = nn.Identity()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=4)
    with relume.Run("r", model=model, optimizer=optimizer, root=root, quiet=True, every="2 steps") as run:
        for _ in run.epochs(2):
            for x, y in run.batches(loader):

                def again(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = mse(model(x), y)
                    loss.backward()
                    return loss

                run.log({"train/loss": optimizer.step(again)})
                stop()


LOOPS: list[Loop] = [
    counted_accumulation, scheduler_first, checkpoint_at_the_end_of_the_body, without_epochs, codebook, unfreezing,
    stateful_stream, closure,
]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "at"),
    [
        ("SIGKILL", 14),
        ("SIGTERM", 7),
        *(pytest.param("SIGKILL", at, marks=pytest.mark.long) for at in (7, 11, 19)),
        *(pytest.param("SIGTERM", at, marks=pytest.mark.long) for at in (1, 14, 19)),
    ],
)
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
@pytest.mark.filterwarnings("ignore::relume.RelumeWarning")
def test_a_loop_goes_on_exactly(loop: Loop, how: str, at: int, tmp_path: Path) -> None:
    assert trainings.in_process(lambda: loop(tmp_path / "whole", Stop(None, 0))) == 0
    assert trainings.in_process(lambda: loop(tmp_path / "cut", Stop(at, getattr(signal, how)))) != 0
    assert trainings.in_process(lambda: loop(tmp_path / "cut", Stop(None, 0))) == 0
    expected, found = (trainings.final_state(tmp_path / name, "r") for name in ("whole", "cut"))
    for state in (expected, found):
        state.pop("gradients")  # spent ones may be left, of which a process that made one update only cannot know
    assert trainings.differing(found, expected) == []
    assert trainings.logged(tmp_path / "cut", "r") == trainings.logged(tmp_path / "whole", "r")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_to_the_whole_process_group_leave_workers_alone(name: str, tmp_path: Path) -> None:
    def job() -> None:
        class All(relume.Callback):
            def on_step_end(self, trainer: relume.Trainer) -> None:
                if trainer.run is not None and trainer.run.cursor.step == 7:
                    os.killpg(os.getpgrp(), getattr(signal, name))

        model, optimizer, _ = parts()
        data = TensorDataset(torch.randn(80, 4), torch.randn(80, 1))
        loader = DataLoader(data, 4, num_workers=2, persistent_workers=True)
        trainer = relume.Trainer(
            model, loss=nn.MSELoss(), optimizer=optimizer, quiet=True, in_memory=False, callbacks=[All()], device="cpu"
        )
        trainer.fit(loader, epochs=2, run="r", root=tmp_path, every=False)

    status = os.waitstatus_to_exitcode(trainings.in_process(job))
    assert status == {"SIGTERM": 143, "SIGINT": 1, "SIGUSR1": 0}[name]
    loaded = relume.Store(tmp_path).list("r/checkpoints")
    assert relume.Store(tmp_path).meta(loaded[0])["reason"] == name


def test_evaluating_the_loader_that_is_being_read_takes_nothing_from_it(tmp_path: Path) -> None:
    model, _, _ = parts()
    data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
    loader = DataLoader(data, 4, num_workers=2, persistent_workers=True)
    with relume.Run("r", model=model, root=tmp_path, quiet=True, in_memory=False) as run:
        for _ in run.epochs(1):
            seen = 0
            for _batch in run.batches(loader):
                seen += 1
                if seen == 3:
                    relume.evaluate(model, loader, loss=nn.MSELoss(), in_memory=False)
    assert seen == 10


def test_adding_a_scheduler_to_a_resumed_run_leaves_its_weights_alone(tmp_path: Path) -> None:
    for _ in range(2):
        model, optimizer, loader = parts()
        with relume.Run("r", model=model, optimizer=optimizer, root=tmp_path, quiet=True) as run:
            model[0].weight.data.fill_(7.0)
            run.add(scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))
            assert model[0].weight[0, 0] == 7.0
            for _ in run.epochs(1):
                for _batch in run.batches(loader):
                    sum(p.sum() for p in model.parameters()).backward()
                    optimizer.step()
                    optimizer.zero_grad()
