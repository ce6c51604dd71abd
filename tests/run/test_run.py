"""The hand-written loop on a Run."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume import Run
from relume.errors import ConfigurationError, EmptyLoaderError
from relume.monitor.journal import read_lines


def train(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, epochs: int) -> list[int]:
    seen = []
    for epoch in run.epochs(epochs):
        seen.append(epoch)
        for x, y in run.batches(loader):
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log({"train/loss": loss})
    return seen


@pytest.fixture
def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_the_loop_counts_epochs_batches_steps_and_samples(tmp_path: Path, model, optimizer, loader) -> None:
    with Run("a", model=model, optimizer=optimizer, root=tmp_path, quiet=True) as run:
        assert train(run, model, optimizer, loader, 3) == [0, 1, 2]
    assert (run.cursor.epoch, run.cursor.step, run.cursor.samples) == (3, 12, 150)
    assert (run.status, run.reason) == ("finished", "3 epochs done")
    table = relume.history("a", root=tmp_path)
    assert table["step"].tolist() == list(range(1, 13))
    assert table["epoch"].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert table["train/loss"][-1] == run.last["train/loss"]


def test_stop_ends_after_the_epoch_with_its_reason(tmp_path: Path, model, optimizer, loader) -> None:
    with Run("a", model=model, optimizer=optimizer, root=tmp_path, quiet=True) as run:
        for epoch in run.epochs(10):
            for _ in run.batches(loader):
                pass
            if epoch == 1:
                run.stop("good enough")
                assert run.is_stopping
    assert (run.cursor.epoch, run.reason) == (2, "good enough")


def test_an_epoch_count_below_one_is_refused(tmp_path: Path) -> None:
    for wrong in (0, -1, 2.5, True, "3"):
        with (
            pytest.raises(ConfigurationError, match="epochs must be a whole number of at least 1"),
            Run("a", root=tmp_path, quiet=True) as run,
        ):
            next(run.epochs(wrong))


def test_a_run_is_used_while_it_is_open_and_once(tmp_path: Path) -> None:
    run = Run("a", root=tmp_path, quiet=True)
    with pytest.raises(ConfigurationError, match=r"is not open \(new\)"):
        run.log({"a": 1})
    with run:
        run.log({"a": 1})
    with pytest.raises(ConfigurationError, match=r"is not open \(finished\)"):
        run.log({"a": 1})
    with pytest.raises(ConfigurationError, match="was started before"), run:
        pass


def test_an_empty_loader_fails_and_the_run_stays_readable(tmp_path: Path) -> None:
    with pytest.raises(EmptyLoaderError, match="has 0 samples"), Run("a", root=tmp_path, quiet=True) as run:
        run.log({"before": 1.0})
        for _ in run.epochs(1):
            list(run.batches(DataLoader(TensorDataset(torch.empty(0, 2)), batch_size=2)))
    assert run.status == "failed"
    assert relume.history(run.folder)["before"].tolist() == [1.0]


def test_seed_covers_torch_numpy_random_and_the_data(tmp_path: Path, loader) -> None:
    def draw() -> tuple:
        with Run("a", root=tmp_path, seed=5, quiet=True) as run:
            numbers = (torch.rand(1).item(), np.random.rand(), random.random())
            return *numbers, [x.sum().item() for _ in run.epochs(2) for x, _ in run.batches(loader)]

    first = draw()
    torch.rand(3), np.random.rand(), random.random()
    assert draw() == first


def test_without_a_seed_torch_manual_seed_decides(tmp_path: Path, loader) -> None:
    def order(seed: int) -> list:
        torch.manual_seed(seed)
        with Run("a", root=tmp_path, quiet=True) as run:
            assert run.seed == seed
            return [x.sum().item() for _ in run.epochs(1) for x, _ in run.batches(loader)]

    assert order(1) == order(1) != order(2)


def test_epochs_differ_also_in_a_loop_without_run_epochs(tmp_path: Path, loader) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        first, second = ([x.sum().item() for x, _ in run.batches(loader)] for _ in range(2))
    assert first != second


# ------------------------------------------------------------------------------------------------------------------ steps


def two(model: nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (model[0], model[2])]


@pytest.mark.parametrize(
    ("updates", "steps"),
    [([(0, 1)], 4), ([(0,)], 4), ([(0, 0, 0)], 12), ([(0,), (1,)], 4), ([(0, 1, 1)], 8), ([()], 0)],
)
def test_updates_between_two_batches_are_counted_once_an_optimizer(
    tmp_path: Path, model, loader, updates, steps
) -> None:
    optimizers = two(model)
    with Run("a", model=model, optimizer=optimizers, root=tmp_path, quiet=True) as run:
        for _ in run.epochs(1):
            for number, (x, y) in enumerate(run.batches(loader)):
                nn.functional.cross_entropy(model(x), y).backward()
                for which in updates[number % len(updates)]:
                    optimizers[which].step()
                model.zero_grad()
    assert run.cursor.step == steps


def test_lbfgs_with_many_evaluations_is_one_step(tmp_path: Path, model, loader) -> None:
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    with Run("a", model=model, optimizer=optimizer, root=tmp_path, quiet=True) as run:
        for _ in run.epochs(1):
            for x, y in run.batches(loader):

                def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(x), y)
                    loss.backward()
                    return loss

                optimizer.step(closure)
    assert run.cursor.step == 4


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_the_scaler_skips_is_no_step(tmp_path: Path, model, loader, fused: bool) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu")
    with Run("a", model=model, optimizer=optimizer, scaler=scaler, root=tmp_path, quiet=True) as run:
        for _ in run.epochs(1):
            for number, (x, y) in enumerate(run.batches(loader)):
                loss = nn.functional.cross_entropy(model(x), y) * (float("inf") if number == 1 else 1.0)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    assert run.cursor.step == 3


def test_the_hooks_are_gone_after_the_run(tmp_path: Path, model, optimizer, loader) -> None:
    with Run("a", model=model, optimizer=optimizer, root=tmp_path, quiet=True) as run:
        train(run, model, optimizer, loader, 1)
    optimizer.step()
    assert run.cursor.step == 4 and not optimizer._optimizer_step_post_hooks


# ---------------------------------------------------------------------------------------------------------------- logging


def test_best_and_last_follow_the_direction_of_the_metric(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for number, _ in enumerate(run.epochs(3)):
            run.log({"val/loss": (3.0, 1.0, 2.0)[number], "val/accuracy": (0.1, 0.3, float("nan"))[number]})
    assert run.best == {"val/loss": 1.0, "val/accuracy": 0.3}
    assert run.best_epoch == {"val/loss": 2, "val/accuracy": 2}
    assert run.last["val/loss"] == 2.0


def test_an_observer_sees_each_line_with_its_step_and_epoch(tmp_path: Path) -> None:
    seen: list = []
    with Run("a", root=tmp_path, quiet=True) as run:
        run.observe(lambda step, epoch, values: seen.append((step, epoch, dict(values))))
        for _ in run.epochs(2):
            run.log({"x": 1.0}, step=run.cursor.epoch * 10)
    assert seen == [(0, 1, {"x": 1.0}), (10, 2, {"x": 1.0})]


def test_a_step_can_be_given_in_any_order(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for step in (5, 1, 3):
            run.log({"x": float(step)}, step=step)
    assert relume.history("a", root=tmp_path)["x"].tolist() == [1.0, 3.0, 5.0]


def test_the_history_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for step in range(3):
            run.log({"x": step}, step=step)
            assert len(relume.history("a", root=tmp_path)["x"]) == step + 1


def test_a_note_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run("a", root=tmp_path) as run:
        run.note("the learning rate was changed")
    assert "the learning rate was changed\n" in capsys.readouterr().out
    events = [
        line for _, line in read_lines(run.folder / "journal" / "0001.jsonl") if line and line.get("event") == "note"
    ]
    assert events[0]["text"] == "the learning rate was changed"


def test_a_full_disk_does_not_stop_the_training(tmp_path: Path, model, optimizer, loader) -> None:
    import os

    warned = pytest.warns(relume.RelumeWarning, match="Training goes on|are lost")
    with warned, Run("a", model=model, optimizer=optimizer, root=tmp_path, quiet=True) as run:
        run.log({"before": 1.0})
        real = os.dup(run.journal._descriptor)
        os.dup2(os.open("/dev/full", os.O_WRONLY), run.journal._descriptor)
        train(run, model, optimizer, loader, 1)
        os.dup2(real, run.journal._descriptor)  # room again
    assert run.cursor.step == 4
    table = relume.history("a", root=tmp_path)
    assert table["step"].tolist() == [0, 1, 2, 3, 4] and table["before"][0] == 1.0


# ----------------------------------------------------------------------------------- found by attacking it, and mended


def test_several_loaders_in_one_epoch_each_begin_at_their_beginning(tmp_path: Path) -> None:
    first, second = (DataLoader(TensorDataset(torch.arange(n)), 4) for n in (12, 20))
    with Run("a", root=tmp_path, quiet=True) as run:
        assert [(len(list(run.batches(first))), len(list(run.batches(second)))) for _ in run.epochs(2)] == [(3, 5)] * 2


def test_a_batch_that_is_none_does_not_end_the_epoch(tmp_path: Path) -> None:
    loader = DataLoader(list(range(8)), 2, collate_fn=lambda items: None if 0 in items else torch.tensor(items))  # type: ignore[arg-type]
    with Run("a", root=tmp_path, quiet=True) as run:
        assert [len(list(run.batches(loader))) for _ in run.epochs(1)] == [4]


def test_without_optimizers_batches_are_steps(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        for _ in run.epochs(1):
            for number, _ in enumerate(run.batches([torch.ones(2)] * 5)):
                run.log({"x": number})
    assert relume.history("a", root=tmp_path)["x"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({1: 1.0}, "the name of a metric must be text, not 1"),
        ({"x": torch.tensor(1 + 2j)}, "cannot log 'x': a complex is no number"),
        ({"x": 10**400}, "cannot log 'x': the number has 401 digits"),
    ],
)
def test_values_that_would_break_the_journal_are_refused(tmp_path: Path, values: dict, message: str) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({"loss": 1.0})
        with pytest.raises(ConfigurationError, match=message):
            run.log(values)
    assert relume.history("a", root=tmp_path)["loss"].tolist() == [1.0]


def test_odd_values_and_names_come_back(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        run.log(
            {"ok": torch.tensor(True), "big": 2**70, "größe \n\"'": 1.0, "c\ud800": 2.0, "epoch": 3, "time": 4},
            step=np.int64(7),
        )
    table = relume.history("a", root=tmp_path)
    assert (table["ok"][0], table["big"][0], table["größe \n\"'"][0], table["c?"][0]) == (1.0, 2.0**70, 1.0, 2.0)
    assert (table["step"][0], table["logged/epoch"][0], table["logged/time"][0]) == (7, 3, 4)


@pytest.mark.parametrize("step", [1.5, "3", True, -1, 2**63, torch.tensor(3)])
def test_a_step_that_is_no_whole_number_is_refused(tmp_path: Path, step: object) -> None:
    with (
        Run("a", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="step must be a whole number from 0"),
    ):
        run.log({"x": 1.0}, step=step)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", ["abc", 1.7, 2**70, -1, True])
def test_a_seed_that_is_no_whole_number_is_refused(seed: object) -> None:
    with pytest.raises(ConfigurationError, match="seed must be a whole number from 0"):
        Run("a", seed=seed)  # type: ignore[arg-type]


def test_a_forked_child_does_not_end_its_parents_run(tmp_path: Path) -> None:
    import os

    from relume.monitor import status_of

    with Run("a", root=tmp_path, quiet=True) as run:
        child = os.fork()
        if child == 0:
            run.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        assert status_of(run.folder)[0] == "running"
        run.log({"x": 1.0})
    assert status_of(run.folder)[0] == "finished"
