"""Learning rates, speed, the machine's load, dead units, gradients that explode or vanish, and where NaN came from."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run.trainings import in_process
from tests.watch.watched import data, logged, network, notes, train
from torch import nn
from torch.utils.data import DataLoader, Dataset

import relume
from relume.errors import NonFiniteLossError, RelumeWarning
from relume.monitor import columns
from relume.monitor.journal import live_lines
from relume.watch import DeadUnits, GradientHealth, LearningRates, NonFinite, Speed, System, Watch

# ---------------------------------------------------------------------------------------------------- learning rates


def test_learning_rates_are_those_that_the_update_used_by_the_names_of_the_groups(tmp_path: Path) -> None:
    model = network()
    groups = relume.parameter_groups(model, 0.1, groups={"head": "2", "body": "0"})
    optimizer = torch.optim.SGD(groups)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    train(
        tmp_path,
        LearningRates("1 step"),
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        schedule_every="step",
        epochs=1,
    )
    found = logged(tmp_path / "watched")
    assert found["lr/head"] == pytest.approx({1: 0.1, 2: 0.1, 3: 0.05, 4: 0.05, 5: 0.025, 6: 0.025})
    assert found["lr/body"][6] == pytest.approx(0.0125)


def test_a_rate_that_is_a_tensor_is_the_one_of_its_step(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.25), capturable=False, foreach=False)
    with relume.Run(
        "watched", model=model, optimizer=optimizer, root=tmp_path, seed=1, quiet=True, watch=[LearningRates("1 step")]
    ) as run:
        for x, y in run.batches(data()):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"].mul_(0.5)
    assert logged(run.folder)["lr"] == {step: 0.25 * 0.5 ** (step - 1) for step in range(1, 7)}


def test_groups_with_the_same_or_odd_names_are_told_apart(tmp_path: Path) -> None:
    model = network()
    for layer in (model[0], model[2]):
        layer.bias.requires_grad_(False)
    a, b = [{"params": [p], "name": "a/\n\x1b[31m"} for p in (model[0].weight, model[2].weight)]
    train(tmp_path, LearningRates("6 steps"), model=model, optimizer=torch.optim.SGD([a, b], lr=0.5), epochs=1)
    assert {name for name in logged(tmp_path / "watched") if name.startswith("lr")} == {
        "lr/a/\n\x1b[31m", "lr/a/\n\x1b[31m (1)",
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- speed


class Slow(Dataset[Any]):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(self.seconds)
        return torch.ones(6), index % 3


def test_waiting_for_data_and_computing_are_told_apart(tmp_path: Path) -> None:
    for name, wait, compute in (("data", 0.01, 0.0), ("compute", 0.0, 0.03)):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with relume.Run(
            "watched",
            model=model,
            optimizer=optimizer,
            root=tmp_path / name,
            in_memory=False,
            quiet=True,
            watch=Speed("2 steps"),
        ) as run:
            for _ in run.epochs(1):
                for x, y in run.batches(DataLoader(Slow(wait), 3)):
                    nn.functional.cross_entropy(model(x), y).backward()
                    time.sleep(compute)
                    optimizer.step()
                    optimizer.zero_grad()
        found = logged(run.folder)
        assert set(found["speed/step_seconds"]) == {1, 2, 4}
        step, waited = found["speed/step_seconds"][4], found["speed/data_seconds"][4]
        assert waited <= step
        assert step >= 0.03
        assert waited >= 0.03 if name == "data" else step - waited >= 0.03
        assert found["speed/samples_per_second"][4] == pytest.approx(3 / step)


def test_evaluation_and_the_time_between_epochs_are_no_part_of_a_step(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run(
        "watched", model=model, optimizer=optimizer, root=tmp_path, seed=1, quiet=True, watch=Speed("12 steps")
    ) as run:
        for _ in run.epochs(2):
            for x, y in run.batches(data()):
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
            time.sleep(1.2)
    assert logged(run.folder)["speed/step_seconds"][12] * 11 < 1.2


def test_speed_says_when_the_loop_is_not_seen(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run(
        "watched",
        model=model,
        optimizer=optimizer,
        root=tmp_path,
        quiet=True,
        watch=[Speed("1 step"), Watch(every="2 steps")],
    ) as run:
        for x, y in data():
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert sum(text.startswith("speed: this loop does not use run.batches") for text in notes(run.folder)) == 1
    assert set(logged(run.folder)["gradient_norm"]) == {1, 2, 4, 6}


# --------------------------------------------------------------------------------------------------------- the machine


def test_the_machine_is_measured_behind_the_training_once_a_step_and_beside_its_rows(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run(
        "watched", model=model, optimizer=optimizer, root=tmp_path, seed=1, quiet=True, watch=System(0.01)
    ) as run:
        system = run._watchers[0]
        for x, y in run.batches(data()):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            system.look(run)  # as the keeper does it every two seconds
            time.sleep(0.02)
            system.look(run)
            system.look(run)
            run.log({"train/loss": 1.0})
    found = logged(run.folder)  # which finds that no step has them twice
    assert 0 < found["system/memory_percent"][6] < 100
    assert found["system/process_memory_bytes"][6] > 1e7
    assert 0 < found["system/disk_percent"][6] <= 100
    assert len(found["system/cpu_percent"]) == 6
    assert not [name for name in (*run.last, *run.best) if name.startswith("system/")]
    assert list(columns(run.folder)) == ["step", "epoch", "time", "train/loss"]
    assert relume.history(run.folder, metrics=["system/cpu_percent"])["system/cpu_percent"].shape == (6,)


def test_each_run_is_given_the_machine_unless_told_otherwise(tmp_path: Path) -> None:
    given = {
        None: [System], True: [System], False: [], (): [System], (Speed("1 step"),): [System, Speed], (System(60),): [System],
    }  # fmt: skip
    for watch, kinds in given.items():
        assert [type(one) for one in relume.Run("x", watch=watch)._watchers] == kinds
    with relume.Run("watched", root=tmp_path, quiet=True) as run:
        pass
    assert not any("values" in line for line in live_lines(run.folder))  # a short one has no line of it


# ---------------------------------------------------------------------------------------------------------- dead units


def test_dead_units_are_those_that_are_zero_for_every_sample_of_the_window(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4, 6))
        model[0].bias.copy_(torch.tensor([-50.0, 0.0, -50.0, -50.0]))
    with pytest.warns(
        RelumeWarning, match=r"dead units in 1: 3 of 4 were zero for all 8 samples up to step 3\. .*LeakyReLU"
    ):
        train(tmp_path, DeadUnits(every="3 steps", over="2 steps"), model=model, lr=1e-4)
    assert logged(tmp_path / "watched")["dead_units/1"] == {3: 0.75, 6: 0.75, 9: 0.75, 12: 0.75}
    assert sum("dead units" in text for text in notes(tmp_path / "watched")) == 1


@pytest.mark.parametrize(
    ("shape", "expected", "is_row"),
    [((5, 4), 0.25, False), ((5, 4, 3, 3), 0.25, False), ((5, 3, 4), 0.25, False), ((5, 4, 3), 0.25, True)],
)
def test_a_unit_is_a_channel_or_a_feature(
    tmp_path: Path, shape: tuple[int, ...], expected: float, is_row: bool
) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.relu = nn.ReLU(inplace=True)
            if is_row:
                self.unused = nn.Conv1d(1, 1, 1).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(x * self.scale).sum()

    axis = len(shape) - 1 if len(shape) == 3 and not is_row else 1
    x = torch.full(shape, -1.0)
    x.select(axis, 0).fill_(1.0)
    x.select(axis, 1)[0, ...] = 1.0  # in one sample only
    x.select(axis, 2)[-1].view(-1)[-1] = 1.0  # at one place only
    model = Scaled()
    optimizer = torch.optim.SGD([model.scale], lr=1e-9)
    with relume.Run(
        "watched",
        model=model,
        optimizer=optimizer,
        root=tmp_path,
        quiet=True,
        watch=DeadUnits(every="1 step", over="1 step"),
    ) as run:
        for batch in run.batches([x.clone()]):
            model(batch).backward()
            optimizer.step()
    assert logged(run.folder)["dead_units/relu"] == {1: expected}


def test_relus_that_are_functions_are_said_not_to_be_seen(tmp_path: Path) -> None:
    train(tmp_path, DeadUnits(), model=nn.Linear(6, 3))
    assert any(text.startswith("dead units: the model has no nn.ReLU") for text in notes(tmp_path / "watched"))


# ----------------------------------------------------------------------------------------------------- gradients' health


def test_exploding_gradients_are_warned_of_once_with_the_layer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    with (
        pytest.warns(
            RelumeWarning, match=r"exploding gradients at step 8: .*times its usual .*largest is that of 1.weight"
        ) as said,
        relume.Run(
            "watched", model=model, optimizer=optimizer, root=tmp_path, quiet=True, watch=GradientHealth("1 step")
        ) as run,
    ):
        model[0].weight.data.fill_(5.0)
        model[1].weight.data.fill_(1.0)
        for number, x in enumerate(run.batches([torch.ones(1, 1)] * 12)):
            (model(x).sum() * (1e4 if number >= 7 else 1.0)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(said) == 1
    assert sum("clip_norm" in text for text in notes(run.folder)) == 1


def test_clipped_gradients_are_judged_by_their_norm_before_clipping(tmp_path: Path) -> None:
    class Bursts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = network(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            return self.inner(x) * (1e5 if self.calls == 9 else 1.0)

    with pytest.warns(RelumeWarning, match="exploding gradients at step 9"):
        train(tmp_path, GradientHealth("1 step"), model=Bursts(), clip_norm=0.1, lr=1e-5)


def test_vanishing_gradients_are_warned_of_once_with_the_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(14):
        layers += [nn.Linear(6, 6), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(6, 3))
    with pytest.warns(
        RelumeWarning, match=r"vanishing gradients at step 3: that of 0\.weight \(and \d+ more\) .* 28\.weight"
    ) as said:
        train(tmp_path, GradientHealth("1 step"), model=model)
    assert len(said) == 1


def test_ordinary_trainings_are_not_warned_of(tmp_path: Path) -> None:
    train(tmp_path, [GradientHealth("1 step"), DeadUnits(every="5 steps")], epochs=8, lr=0.05)


# ------------------------------------------------------------------------------------------------- NaN and infinity


class Breaks(nn.Module):
    """Gives ``make(x)`` in training from its ``call``-th call on."""

    def __init__(self, call: int, make: Any) -> None:
        super().__init__()
        self.call, self.make, self.calls = call, make, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.make(x) if self.calls >= self.call else x


def test_the_error_names_the_module_whose_output_was_not_finite_first(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), Breaks(4, lambda x: (x - 100).log()), nn.Linear(8, 3))
    text = r"loss is nan at step 4 .*At step 4, the output of 2 was the first that was not finite: its input was finite"
    with pytest.raises(NonFiniteLossError, match=text):
        train(tmp_path, NonFinite(), model=model)
    assert any(note.startswith("not finite: At step 4, the output of 2") for note in notes(tmp_path / "watched"))


def test_weights_and_data_that_were_so_already_are_told(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[2].bias[1] = float("inf")
    with pytest.raises(
        NonFiniteLossError, match=r"the output of 2 was the first.*its input was finite, its bias had NaN or infinity"
    ):
        train(tmp_path / "weights", NonFinite(), model=model)
    loader = [(torch.full((4, 6), float("nan")), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(
        NonFiniteLossError,
        match=r"what 0 was given was the first that was not finite \(the batch itself\); its weights were f",
    ):
        train(tmp_path / "data", NonFinite(), loader=loader)


def test_a_module_that_makes_it_behind_those_that_it_holds_is_named(tmp_path: Path) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) / 0.0

    with pytest.raises(NonFiniteLossError, match="the output of 0 was the first that was not finite"):
        train(tmp_path, NonFinite(), model=nn.Sequential(Block()))


def test_a_loss_function_that_makes_it_is_told(tmp_path: Path) -> None:
    trainer = relume.Trainer(
        (model := network()), loss=lambda output, y: output.sum() * float("nan"), device="cpu", quiet=True,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match=r"outputs of all modules were finite: the loss function made it"):
        trainer.fit(data(), epochs=1, run="watched", root=tmp_path, watch=NonFinite())


def test_a_gradient_that_was_the_first_is_told_with_the_module_that_got_it(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), Breaks(3, lambda x: x + 0.0 * (x - x.detach()).abs().sqrt()), nn.Linear(8, 3)
    )
    text = r"At step 3 all outputs were finite, and the gradient of the output of 1 was the first in the backward pass"
    with pytest.raises(NonFiniteLossError, match=text):
        train(tmp_path, NonFinite(), model=model)


def test_an_update_that_made_it_is_told(tmp_path: Path) -> None:
    class Blows(relume.Callback):
        def on_step_end(self, trainer: relume.Trainer) -> None:
            if trainer.run is not None and trainer.run.cursor.step == 5:
                with torch.no_grad():
                    next(trainer.model.parameters())[0, 0] = float("inf")

    with pytest.raises(NonFiniteLossError, match=r"At step 6, the output of 0 was the first"):
        train(tmp_path, NonFinite(), callbacks=[Blows()])


def test_a_loop_of_ones_own_finds_it_noted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), Breaks(2, lambda x: x / 0.0), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run(
        "watched", model=model, optimizer=optimizer, root=tmp_path, seed=1, quiet=True, watch=NonFinite()
    ) as run:
        for x, y in run.batches(data()):
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log({"train/loss": loss, "other": float("nan")})
    said = [note for note in notes(run.folder) if note.startswith("not finite")]
    assert said == [
        "not finite: At step 2, the output of 1 was the first that was not finite: its input was finite, its weights were finite."
    ]


def test_without_the_watcher_the_error_says_that_there_is_one(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 3), Breaks(1, lambda x: x / 0.0))
    with pytest.raises(NonFiniteLossError, match=r"watch=relume\.NonFinite\(\) names the layer"):
        train(tmp_path, None, model=model)


# ---------------------------------------------------------------------------------------------------- killed in the midst


def test_a_killed_run_has_each_watched_step_once_and_the_numbers_of_the_undisturbed_one(tmp_path: Path) -> None:
    class Kills(relume.Callback):
        def __init__(self, step: int | None) -> None:
            self.step = step

        def on_step_end(self, trainer: relume.Trainer) -> None:
            if trainer.run is not None and trainer.run.cursor.step == self.step:
                os.kill(os.getpid(), signal.SIGKILL)

    for name, kills in (("whole", [None]), ("killed", [7, 10, None])):
        for step in kills:
            watch = [Watch(activations=True, every="3 steps"), LearningRates("1 step")]
            job = functools.partial(
                train, tmp_path / name, watch, epochs=3, callbacks=[Kills(step)], fit={"every": "2 steps"}
            )
            assert in_process(job) == (0 if step is None else signal.SIGKILL)
    found = [logged(tmp_path / name / "watched") for name in ("whole", "killed")]
    assert found[0] == found[1]
    assert set(found[0]["gradient_norm"]) == {1, 3, 6, 9, 12, 15, 18}
    assert len(found[0]["lr"]) == 18


class _Shared(nn.Module):
    """One ReLU for two layers of different width; of the first one, the units 0 and 1 never fire."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(6, 4), nn.Linear(4, 8), nn.ReLU()
        with torch.no_grad():
            self.first.weight.zero_()
            self.first.bias.copy_(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
            self.second.weight.zero_()
            self.second.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.one_hot(x[:, 0].long(), 8)
        return self.relu(self.second(self.relu(self.first(x))) + unit).sum(1)


@pytest.mark.filterwarnings("ignore:the gradient of 2 parameters was zero", "ignore:the learning rate of group 0")
def test_a_relu_that_several_layers_share_is_judged_by_all_steps_and_layers(tmp_path: Path) -> None:
    model = _Shared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = relume.DeadUnits(every="8 steps", over="8 steps", share=1.0)
    with relume.Run("r", root=tmp_path, model=model, optimizer=optimizer, watch=watch, quiet=True):
        for step in range(8):  # each step another unit of the second layer
            model(torch.full((2, 6), float(step))).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert logged(tmp_path / "r")["dead_units/relu"] == {8: 2 / 12}


class _Prompt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.vector


class _Prompted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.prompt, self.head = _Prompt(), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.prompt(x))  # type: ignore[no-any-return]


def test_a_parameter_that_a_module_gives_back_has_no_hook_left_on_it(tmp_path: Path) -> None:
    model = _Prompted()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run("r", root=tmp_path, model=model, optimizer=optimizer, watch=relume.NonFinite(), quiet=True):
        for _ in range(3):
            model(torch.ones(2, 6)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not model.prompt.vector._backward_hooks
