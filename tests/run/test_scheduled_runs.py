"""Freeze schedules at work: what is frozen does not move, what changed is reported, and mistakes are named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run import frozen_trainings, trainings
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.errors import ConfigurationError, MismatchError, NoMatchError, OptimizerError, RelumeWarning
from relume.transfer import held_modules
from relume.transfer.groups import parameter_groups
from relume.transfer.phases import Phase, Stall
from relume.transfer.schedule import FreezeSchedule

OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    "RMSprop": {"momentum": 0.9, "weight_decay": 0.1},
    "ASGD": {"weight_decay": 0.1, "t0": 1},
    "LBFGS": {"max_iter": 3},
    "SparseAdam": {},
    "Rprop": {},
}
OPTIMIZERS = sorted(
    name
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
)


def layers(sparse: bool = False) -> nn.Module:
    torch.manual_seed(0)
    if sparse:
        return nn.ModuleDict({"0": nn.Embedding(5, 4, sparse=True), "1": nn.Embedding(5, 4, sparse=True)})
    return nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))


def loss_of(model: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(model, nn.ModuleDict):
        index = x[:, 0].abs().mul(10).long() % 5
        return (model["0"](index) + model["1"](index)).square().mean()
    return (model(x) - x.flip(1)).square().mean()


@pytest.mark.parametrize("state", ["keep", "drop"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_moves_what_is_frozen(name: str, state: Any, tmp_path: Path) -> None:
    model = layers(sparse=name == "SparseAdam")
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.05, **OPTIONS.get(name, {"weight_decay": 0.1}))
    schedule = FreezeSchedule.alternate({"a": "0", "b": "1"}, every="3 steps", state=state)
    loader = DataLoader(TensorDataset(torch.randn(48, 4)), 4)
    moved: list[tuple[int, bool, bool]] = []
    with relume.Run("x", model=model, optimizer=optimizer, root=tmp_path, quiet=True, freeze=schedule) as run:
        for _ in run.epochs(1):
            for (x,) in run.batches(loader):
                before = [p.detach().clone() for p in model.parameters()]

                def closure(x: torch.Tensor = x) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = loss_of(model, x)
                    loss.backward()
                    return loss

                step = run.cursor.step
                optimizer.step(closure)
                moved.append((step, *(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))))
                held = [p in optimizer.state for p in model.parameters()]
                if state == "drop" and name not in ("LBFGS", "Adagrad"):
                    assert held == [step // 3 % 2 == 0, step // 3 % 2 == 1], "the state of what is frozen is dropped"
    assert moved == [(step, step // 3 % 2 == 0, step // 3 % 2 == 1) for step in range(12)]


def test_adagrad_begins_anew_after_its_state_was_dropped(tmp_path: Path) -> None:
    model = layers()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1, initial_accumulator_value=0.5)
    schedule = FreezeSchedule([Phase("0", steps=2), Phase("1", state="drop")])
    with relume.Run("x", model=model, optimizer=optimizer, root=tmp_path, quiet=True, freeze=schedule) as run:
        for (x,) in run.batches(DataLoader(TensorDataset(torch.randn(12, 4)), 4)):
            optimizer.zero_grad()
            loss_of(model, x).backward()
            optimizer.step()
    first, second = (optimizer.state[p] for p in model.parameters())
    assert bool((first["sum"] == 0.5).all()) and first["step"] == 0 and second["step"] == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_gets_the_gradients_of_its_phase(backend: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    compiled = torch.compile(model, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    schedule = FreezeSchedule.alternate({"body": ["0", "1"], "head": "3"}, every="2 steps")
    seen = []
    with relume.Run("x", model=compiled, optimizer=optimizer, root=tmp_path, quiet=True, freeze=schedule) as run:
        for (x,) in run.batches(DataLoader(TensorDataset(torch.randn(48, 4)), 4)):
            mean = model[1].running_mean.clone()
            optimizer.zero_grad()
            compiled(x).square().mean().backward()
            seen.append([p.grad is not None for p in model.parameters()])
            assert torch.equal(mean, model[1].running_mean) is (model[3].weight.requires_grad), "statistics"
            optimizer.step()
    assert seen == [[turn == 0] * 4 + [turn == 1] * 2 for turn in (0, 0, 1, 1) * 3]


def rates(
    schedule: FreezeSchedule, tmp_path: Path, *, epochs: int = 1, lr: Any = 0.1, factor: float = 0.5, **more: Any
) -> list[list[float]]:
    model = layers()
    groups = parameter_groups(model, 0.1, factor=factor)
    for group in groups:
        group["lr"] = torch.tensor(group["lr"]) if isinstance(lr, torch.Tensor) else group["lr"]
    optimizer = torch.optim.Adam(groups, capturable=False, foreach=False)
    found = []
    with relume.Run("x", model=model, optimizer=optimizer, root=tmp_path, quiet=True, freeze=schedule, **more) as run:
        for _ in run.epochs(epochs):
            for (x,) in run.batches(DataLoader(TensorDataset(torch.randn(16, 4)), 4)):
                optimizer.zero_grad()
                loss_of(model, x).backward()
                optimizer.step()
                found.append([round(float(group["lr"]), 6) for group in optimizer.param_groups])
    return found


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
def test_rates_keep_their_proportion_and_rise_in_a_warm_up(lr: Any, tmp_path: Path) -> None:
    schedule = FreezeSchedule([Phase("1", steps=2), Phase(lr=0.01, warmup=4, epochs=1), Phase("1")])
    # The second phase begins within the first epoch and has the whole second one.
    assert rates(schedule, tmp_path, epochs=3, lr=lr) == [
        [0.1, 0.05], [0.1, 0.05], [0.0025, 0.00125], [0.005, 0.0025],
        [0.0075, 0.00375], [0.01, 0.005], [0.01, 0.005], [0.01, 0.005],
        *[[0.1, 0.05]] * 4,
    ]  # fmt: skip


def test_a_warm_up_of_epochs(tmp_path: Path) -> None:
    schedule = FreezeSchedule([Phase(lr=0.8, warmup="2 epochs")])
    assert [first for first, _ in rates(schedule, tmp_path, epochs=3)] == [
        *(round(0.1 * n, 6) for n in range(1, 9)), 0.8, 0.8, 0.8, 0.8
    ]  # fmt: skip


def test_an_overridden_rate_holds_in_the_phase_that_goes_on(tmp_path: Path) -> None:
    schedule = FreezeSchedule([Phase("1", epochs=1, lr=0.2), Phase()])
    assert rates(schedule, tmp_path)[-1] == [0.2, 0.1]
    assert rates(schedule, tmp_path, epochs=2, factor=0.1)[-1] == [0.1, 0.05], "the checkpoint's rates hold"
    assert rates(schedule, tmp_path, epochs=3, factor=0.1, override="lr")[-1] == [0.1, 0.01]


def test_rates_that_the_schedule_no_longer_sets_are_the_optimizers_own_again(tmp_path: Path) -> None:
    slow = FreezeSchedule([Phase("1", warmup=1000)])
    assert rates(slow, tmp_path)[-1][0] < 0.1
    assert rates(FreezeSchedule([Phase("1")]), tmp_path, epochs=2)[-1] == [0.1, 0.05]
    assert rates(FreezeSchedule([Phase("1")]), tmp_path, epochs=3)[-1] == [0.1, 0.05]


def notes_of(root: Path, kind: FreezeSchedule | None, capsys: pytest.CaptureFixture[str], **more: Any) -> str:
    line(root, kind, **more)
    return capsys.readouterr().out


def line(
    root: Path, freeze: FreezeSchedule | None, *, epochs: int = 1, model: Any = None, quiet: bool = False, **more: Any
) -> Any:
    torch.manual_seed(1)
    model = frozen_trainings.network() if model is None else model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.randn(24, 1, 8, 8)
    loader = DataLoader(TensorDataset(x, (x.mean((1, 2, 3)) > 0).long()), 6)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, quiet=quiet, device="cpu", seed=0)
    trainer.fit(loader, loader, epochs=epochs, run="line", root=root, freeze=freeze, **more)
    return model


def trained(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


def test_a_lengthened_phase_goes_on_and_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = FreezeSchedule([Phase("8", epochs=1), Phase("4", epochs=1), Phase("0")])
    line(tmp_path, first, epochs=2)
    capsys.readouterr()
    longer = FreezeSchedule([Phase("8", epochs=1), Phase("4", epochs=2), Phase("0")])
    model = line(tmp_path, longer, epochs=3)
    said = capsys.readouterr().out
    assert trained(model) == {"4"}
    assert "freeze: the schedule was '8: 1 epoch; 4: 1 epoch; 0' and is '8: 1 epoch; 4: 2 epochs; 0'" in said
    assert "phase 2 (4: 2 epochs) holds at epoch 3, step 8" in said
    assert trained(line(tmp_path, longer, epochs=4)) == {"0"}


def test_a_run_that_goes_on_says_which_phase_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule = FreezeSchedule([Phase("8", epochs=1), Phase("4", epochs=2), Phase("0")])
    line(tmp_path, schedule, epochs=2)
    capsys.readouterr()
    line(tmp_path, schedule, epochs=3)
    assert "freeze: phase 2 (4: 2 epochs) holds at epoch 3, step 8" in capsys.readouterr().out


def test_a_schedule_that_comes_or_goes_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line(tmp_path, None)
    schedule = FreezeSchedule([Phase("8", epochs=1), Phase("4")])
    assert trained(line(tmp_path, schedule, epochs=2)) == {"4"}
    assert (
        "freeze: the checkpoint was made without this schedule: phase 2 (4) holds at epoch 2, step 4"
        in capsys.readouterr().out
    )
    assert trained(line(tmp_path, None, epochs=3)) == {"4"}
    assert (
        "the script has no schedule any more (it was '8: 1 epoch; 4'): what was frozen stays so"
        in capsys.readouterr().out
    )


def test_rates_of_a_schedule_that_is_gone_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line(tmp_path, FreezeSchedule([Phase("8", lr=0.002)]))
    line(tmp_path, None, epochs=2)
    assert "stays so, and so do the learning rates that it has set (override='lr' takes" in capsys.readouterr().out


def test_an_added_layer_and_a_resized_head_resume_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule = FreezeSchedule([Phase(["4", "8"], epochs=1), Phase("8")])
    before = line(tmp_path, schedule, epochs=2)
    torch.manual_seed(9)
    grown = frozen_trainings.network().append(nn.Linear(2, 2))
    capsys.readouterr()
    line(tmp_path, schedule, epochs=3, model=grown)
    said = capsys.readouterr().out
    assert "2 tensors of the model keep their present values: 9.weight, 9.bias" in said
    assert trained(grown) == {"8"}, "a layer that is new follows the phase too"
    assert torch.equal(grown[4].weight, before[4].weight)
    line(tmp_path / "other", schedule, epochs=2)
    resized = frozen_trainings.network()
    resized[8] = nn.Linear(64, 3)
    line(tmp_path / "other", schedule, epochs=3, model=resized)
    said = capsys.readouterr().out
    assert "model: 8.weight has shape (2, 64) where the model has (3, 64): it keeps its present value" in said
    assert (
        "of another shape than in the checkpoint: they start with empty state: model.8.weight, model.8.bias" in said
    ), said
    assert torch.equal(resized[4].weight, before[4].weight)


def test_too_little_that_fits_is_an_error(tmp_path: Path) -> None:
    line(tmp_path, None)
    other = frozen_trainings.network()
    other[4], other[5], other[8] = nn.Conv2d(4, 9, 3), nn.BatchNorm2d(9), nn.Linear(144, 2)
    with pytest.raises(MismatchError, match=r"4\.weight has shape \(4, 4, 3, 3\) where the model has \(9, 4, 3, 3\)"):
        line(tmp_path, None, epochs=2, model=other)


def test_a_run_that_was_unfrozen_by_hand_goes_on_so(tmp_path: Path) -> None:
    class Unfreeze(relume.Callback):
        def on_epoch_start(self, trainer: relume.Trainer) -> None:
            assert trainer.run is not None
            if trainer.run.cursor.epoch == 1:
                trainer.run.wait()  # what is being written reads frozen tensors where they lie
                relume.unfreeze(trainer.model, "4", "5", batchnorm="eval")

    def train(root: Path, *epochs: int) -> nn.Module:
        for count in epochs:
            torch.manual_seed(0)
            model = frozen_trainings.network()
            relume.freeze(model, trainable="8")
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            trainer = relume.Trainer(
                model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, callbacks=[Unfreeze()], seed=0, quiet=True
            )
            trainer.fit(DataLoader(trainings.Augmented(24), 6), epochs=count, run="hand", root=root)
        return model

    whole, parts = train(tmp_path / "whole", 4), train(tmp_path / "parts", 1, 3, 4)
    assert held_modules(parts) == held_modules(whole) == ["0", "1", "2", "3", "5"]
    found, expected = (trainings.final_state(tmp_path / name, "hand") for name in ("parts", "whole"))
    differing = trainings.differing(found, expected)
    said = ("state.run.", "state.trainable.", "state.held.", trainings.DECISIONS)
    assert [place for place in differing if not place.startswith(said)] == []


def test_frozen_layers_are_written_once(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    backbone_writes(torchvision.models.vgg11(num_classes=10), tmp_path, "classifier.6")


@pytest.mark.long
def test_a_frozen_vgg19_is_written_once(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    backbone_writes(torchvision.models.vgg19(num_classes=10), tmp_path, "classifier.6")


def backbone_writes(model: nn.Module, root: Path, head: str) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=0.1)
    loader = DataLoader(TensorDataset(torch.randn(4, 3, 32, 32), torch.arange(4)), 2)
    sizes: list[int] = []
    schedule = FreezeSchedule([Phase(head, state="drop")])
    with relume.Run("vgg", model=model, optimizer=optimizer, root=root, quiet=True, freeze=schedule) as run:
        run.observe_saves(lambda moment, _: sizes.append(stored(root)) if moment == "end" else None)
        for _ in run.epochs(3):
            for x, y in run.batches(loader):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            run.checkpoint()
            run.wait()
    written = [after - before for before, after in zip([0, *sizes], sizes, strict=False)]
    head_bytes = sum(p.nbytes for name, p in model.named_parameters() if name.startswith(head))
    total = sum(p.nbytes for p in model.parameters())
    print(
        f"{type(model).__name__}: {total:,} bytes, written at each checkpoint: {written}; the head has {head_bytes:,}"
    )
    assert len(written) >= 2 and written[0] >= total
    assert all(later < 4 * head_bytes + 50_000 for later in written[1:]), "head, two moments, small things"


def stored(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "store" / "packs").rglob("*.safetensors"))


def test_a_checkpoint_that_is_being_written_is_finished_before_a_change(tmp_path: Path) -> None:
    """Frozen tensors are not copied for it, so that they must not move meanwhile; a warning would be an error here."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1500, 1500), nn.Linear(1500, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    schedule = FreezeSchedule.alternate({"head": "1", "body": "0"}, every="2 steps")
    with relume.Run(
        "x", model=model, optimizer=optimizer, root=tmp_path, quiet=True, freeze=schedule, every="2 steps",
        keep=relume.Keep(last=9),
    ) as run:  # fmt: skip
        weights = []
        for (x,) in run.batches(DataLoader(TensorDataset(torch.randn(24, 1500)), 2)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            weights.append(model[0].weight.detach().clone())
    store = relume.checkpoint.Store(tmp_path)
    for checkpoint in store.list("x/checkpoints"):
        step = store.meta(checkpoint)["cursor"]["step"]
        assert torch.equal(store.load(checkpoint)["models"]["model"]["0.weight"], weights[step - 1])


@pytest.mark.parametrize(
    ("schedule", "options", "error", "message"),
    [
        (lambda: FreezeSchedule([Phase("8", epochs=1), Phase("9")]), {}, NoMatchError, r"phase 2 of the freeze schedule: '9' matches"),
        (lambda: FreezeSchedule([Phase("2")]), {}, ConfigurationError, r"phase 1 .* trains nothing"),
        (lambda: "8", {}, ConfigurationError, r"freeze must be a relume.FreezeSchedule, not str.*relume.freeze\(model"),
        (lambda: FreezeSchedule([Phase("8", lr=0.1)]), {"schedule": True}, ConfigurationError, "sets the learning rate, and so does"),
        (lambda: FreezeSchedule([Phase("8", epochs=1), Phase("4")]), {"holds": "8"}, OptimizerError, r"phase 2 .*\(4\) trains 2 parameters that no optimizer holds: 4.weight, 4.bias"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("by", ["Trainer", "Run"])
def test_mistakes_are_named_before_anything_is_trained(
    by: str, schedule: Callable[[], Any], options: dict[str, Any], error: Any, message: str, tmp_path: Path
) -> None:
    model = frozen_trainings.network()
    held = model[int(options["holds"])] if "holds" in options else model
    optimizer = torch.optim.Adam(held.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1) if options.get("schedule") else None
    with pytest.raises(error, match=message):
        if by == "Run":
            with relume.Run(
                "x", model=model, optimizer=optimizer, scheduler=scheduler, freeze=schedule(), root=tmp_path
            ):
                pass
        else:
            trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, scheduler=scheduler)
            trainer.fit(DataLoader(trainings.Augmented(), 6), epochs=1, root=tmp_path, freeze=schedule())
    assert all(p.requires_grad for p in model.parameters()) and not (tmp_path / "x").exists()


def test_a_scheduler_that_the_run_does_not_know_is_found_too(tmp_path: Path) -> None:
    model = layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(ConfigurationError, match="so does a scheduler of optimizer"):
        relume.Run(
            "x", model=model, optimizer=optimizer, root=tmp_path, freeze=FreezeSchedule([Phase(lr=1)])
        ).__enter__()
    assert scheduler.last_epoch == 0


def test_a_schedule_without_a_model_or_an_optimizer_is_an_error(tmp_path: Path) -> None:
    schedule = FreezeSchedule([Phase("0")])
    with (
        pytest.raises(ConfigurationError, match="freeze= needs the model"),
        relume.Run("x", root=tmp_path, freeze=schedule, quiet=True) as run,
    ):
        next(run.batches([1]))
    with pytest.raises(OptimizerError, match="freeze= needs the optimizer"):
        relume.Run("y", model=layers(), root=tmp_path, freeze=schedule).__enter__()


def test_a_loop_of_ones_own_is_told_that_nothing_changes_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run("x", model=model, optimizer=optimizer, root=tmp_path, freeze=FreezeSchedule([Phase("1")])):
        loss_of(model, torch.randn(4, 4)).backward()
        optimizer.step()
    assert "does not use run.batches(loader): the schedule stayed in its first phase" in capsys.readouterr().out


def test_a_rate_of_zero_and_what_is_no_optimizer(tmp_path: Path) -> None:
    model = layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with relume.Run(
        "x", model=model, optimizer=optimizer, root=tmp_path, quiet=True, freeze=FreezeSchedule([Phase(lr=0.1)])
    ):
        assert optimizer.param_groups[0]["lr"] == 0.1
    trainer = relume.Trainer(model, loss=nn.MSELoss(), optimizer="adam", quiet=True)
    with pytest.raises(OptimizerError, match="optimizer must be a torch.optim.Optimizer, not str"):
        trainer.fit([], epochs=1, root=tmp_path, freeze=FreezeSchedule([Phase("1")]))


class Endless(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(torch.ones(4),)] * 8)


def test_a_warm_up_of_epochs_of_unknown_length_is_an_error(tmp_path: Path) -> None:
    model = layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = FreezeSchedule([Phase(warmup="1 epoch")])
    with (
        relume.Run("x", model=model, optimizer=optimizer, root=tmp_path, quiet=True, freeze=schedule) as run,
        pytest.raises(
            ConfigurationError, match="does not say how many batches an epoch has: give the warm-up in steps"
        ),
    ):
        next(run.batches(DataLoader(Endless(), 4)))


def test_an_open_run_brings_its_own_schedule(tmp_path: Path) -> None:
    model = frozen_trainings.network()
    optimizer = torch.optim.Adam(model.parameters())
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, quiet=True)
    schedule = FreezeSchedule([Phase("8", steps=2), Phase("4")])
    with relume.Run("x", root=tmp_path, quiet=True, freeze=schedule) as run:
        with pytest.raises(ConfigurationError, match="belong to the Run that is open"):
            trainer.fit(DataLoader(trainings.Augmented(24), 6), epochs=1, run=run, freeze=schedule)
        trainer.fit(DataLoader(trainings.Augmented(24), 6), epochs=1, run=run)
    assert trained(model) == {"4"} and run.last["freeze/phase"] == 2


def test_a_metric_that_is_not_there_is_said(tmp_path: Path) -> None:
    schedule = FreezeSchedule([Phase("8", until=Stall("val/accuracy")), Phase("4")])
    with pytest.warns(RelumeWarning, match="waits for 'val/accuracy' to stall.*'val/loss'|waits for 'val/accuracy'"):
        line(tmp_path, schedule, quiet=True)


def test_the_same_script_twice_in_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = frozen_trainings.network()
    schedule = FreezeSchedule([Phase("8", epochs=2, lr=0.1), Phase("4")])
    line(tmp_path, schedule, model=model)
    line(tmp_path, schedule, model=model, epochs=3)
    assert trained(model) == {"4"}
    assert "in the script now" not in capsys.readouterr().out


def test_changes_wait_for_the_end_of_an_accumulation(tmp_path: Path) -> None:
    """A loop that gathers gradients over 3 batches, of which an epoch has 4: the group goes on in the next epoch."""
    model = layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    schedule = FreezeSchedule([Phase("0", epochs=1), Phase("1")])
    with relume.Run("x", model=model, optimizer=optimizer, root=tmp_path, quiet=True, freeze=schedule) as run:
        count = 0
        for _ in run.epochs(2):
            for (x,) in run.batches(DataLoader(TensorDataset(torch.randn(16, 4)), 4)):
                loss_of(model, x).backward()
                seen.append([p.requires_grad for p in model.parameters()].index(True))
                count += 1
                if count % 3 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
    assert seen == [0, 0, 0, 0, 0, 0, 1, 1]


def test_a_checkpoint_that_does_not_say_what_is_held_loads() -> None:
    from relume.run.objects import Objects

    model = frozen_trainings.network()
    relume.freeze(model, trainable="8")
    objects = Objects(model, torch.optim.Adam(model.parameters()), None, None, None)
    objects.note_initial()
    saved = objects.capture(with_gradients=False)
    assert saved["held"]["model"]["now"] == held_modules(model) == ["0", "1", "2", "3", "4", "5"]
    relume.unfreeze(model)
    assert objects.load(saved, None, frozenset()) == []
    assert held_modules(model) == ["0", "1", "2", "3", "4", "5"] and trained(model) == {"8"}
    del saved["held"]
    relume.unfreeze(model, batchnorm="eval")
    assert objects.load(saved, None, frozenset()) == []
    assert held_modules(model) == ["1", "5"] and trained(model) == {"8"}
