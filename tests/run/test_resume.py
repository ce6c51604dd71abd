"""Starting again: where a run goes on, what it says, and what it never loses."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run import trainings
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import relume
from relume.checkpoint import Keep, Store
from relume.errors import (
    ConfigurationError,
    MismatchError,
    RelumeWarning,
    RunError,
    UnknownCheckpointError,
    UnknownNameError,
    UnstorableError,
)
from relume.monitor import RunRecord, columns, status_of
from relume.monitor.journal import segments


def checkpoints(root: Path, run: str = "line") -> list[str]:
    return [checkpoint.name for checkpoint in Store(root).list(f"{run}/checkpoints")]


class Line:
    """A small training, made anew for each start."""

    def __init__(self, root: Path, name: str = "line", *, lr: float = 0.01, shape: int = 3, **options: Any) -> None:
        torch.manual_seed(2)
        self.model = nn.Sequential(nn.Linear(2, shape), nn.Dropout(0.5), nn.Linear(shape, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
        self.loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 4, shuffle=True)
        self.run = relume.Run(
            name, model=self.model, optimizer=self.optimizer, root=root, quiet=options.pop("quiet", True), **options
        )

    def train(self, epochs: int, each_batch: Any = None, val: Any = None) -> Line:
        with self.run as run:
            for epoch in run.epochs(epochs):
                for x, y in run.batches(self.loader):
                    loss = nn.functional.mse_loss(self.model(x), y)
                    loss.backward()
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                    run.log({"train/loss": loss})
                    if each_batch is not None:
                        each_batch(run)
                run.log({"val/loss": val(epoch) if val else 1 / (1 + epoch)})
        return self

    def weights(self) -> list[float]:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()]).tolist()


def test_a_finished_run_restores_its_objects_and_trains_no_more(tmp_path: Path) -> None:
    first = Line(tmp_path).train(3)
    again = Line(tmp_path).train(3, each_batch=lambda run: pytest.fail("it trained"))
    assert again.weights() == first.weights() and again.run.last == first.run.last
    assert (again.run.cursor, again.run.reason, again.run.status) == (first.run.cursor, "3 epochs done", "finished")
    assert len(columns(tmp_path / "line")["step"]) == 15
    assert again.optimizer.state_dict()["state"] is not None


def test_more_epochs_extend_it_as_if_it_had_never_ended(tmp_path: Path) -> None:
    whole = Line(tmp_path / "whole").train(5)
    for epochs in (1, 3, 5):
        parts = Line(tmp_path / "parts").train(epochs)
    assert parts.weights() == whole.weights()
    assert trainings.logged(tmp_path / "parts", "line") == trainings.logged(tmp_path / "whole", "line")


def test_resume_false_starts_a_new_run_beside_it(tmp_path: Path) -> None:
    Line(tmp_path).train(1)
    assert Line(tmp_path, resume=False).train(1).run.name == "line-2"
    assert checkpoints(tmp_path)[-1].startswith("000001-epoch=1-step=5-val_loss=1.0000")


@pytest.mark.parametrize("how", ["000002", 2, "name", "path"])
def test_going_on_from_a_chosen_checkpoint(how: Any, tmp_path: Path) -> None:
    whole = Line(tmp_path, keep=Keep(last=9)).train(4)
    name = checkpoints(tmp_path)[1]
    chosen = {"name": name, "path": tmp_path / "line" / "checkpoints" / f"{name}.json"}.get(how, how)
    again = Line(tmp_path, keep=Keep(last=9), resume=chosen)
    with again.run as run:
        assert (run.cursor.epoch, run.cursor.step) == (2, 10)
    again = Line(tmp_path, keep=Keep(last=9), resume=chosen).train(4)
    assert again.weights() == whole.weights()
    assert len(columns(tmp_path / "line")["step"]) == 20  # the dead branch is not counted
    with pytest.raises(UnknownCheckpointError, match=r"000001-epoch=1.*000004-epoch=4"):
        Line(tmp_path, resume="77").train(1)


def test_number_one_is_a_checkpoint_and_no_true(tmp_path: Path) -> None:
    Line(tmp_path, keep=Keep(last=9)).train(3)
    with Line(tmp_path, keep=Keep(last=9), resume=1).run as run:
        assert (run.cursor.epoch, run.cursor.step) == (1, 5)


def test_a_fork_keeps_its_lineage(tmp_path: Path) -> None:
    parent = Line(tmp_path, keep=Keep(last=9, monitor="val/loss")).train(3)
    fork = Line(tmp_path, "fork", from_checkpoint="line:2").train(3)
    assert fork.weights() == parent.weights() and fork.run.cursor.step == 15
    record = RunRecord.load(tmp_path / "fork")
    assert record.lineage is not None
    assert record.lineage["checkpoint"].startswith("line@000002") and record.lineage["run"] == "line"
    assert record.id != RunRecord.load(tmp_path / "line").id
    best = Line(tmp_path, "best", from_checkpoint="line@best")
    with best.run as run:
        assert run.cursor.epoch == 3
    again = Line(tmp_path, "fork", from_checkpoint="line:2").train(4)  # now it has checkpoints of its own
    assert again.run.cursor.step == 20 and RunRecord.load(tmp_path / "fork").lineage == record.lineage
    with pytest.raises(UnknownNameError, match="there is no run 'nobody'"):
        Line(tmp_path, "other", from_checkpoint="nobody").train(1)
    assert not (tmp_path / "other").exists()


def test_an_old_training_goes_on_from_its_classic_file(tmp_path: Path) -> None:
    """Half of it by plain torch, saved as the tutorials do; the other half as a run."""
    old = Line(tmp_path)
    old.model.eval()
    x = torch.ones(4, 2)
    for _ in range(3):
        old.model(x).sum().backward()
        old.optimizer.step()
        old.optimizer.zero_grad()
    state = {"model_state_dict": old.model.state_dict(), "optimizer_state_dict": old.optimizer.state_dict()}
    torch.save({"epoch": 2, "loss": 0.5, **state}, tmp_path / "old.pt")
    new = Line(tmp_path, from_checkpoint=tmp_path / "old.pt")
    with new.run as run:
        assert new.weights() == old.weights() and run.cursor.epoch == 2
        with pytest.warns(RelumeWarning, match="is trained in evaluation mode"):
            for one in (old, new):
                one.model.eval()
                one.model(x).sum().backward()
                one.optimizer.step()
        assert new.weights() == old.weights()
    record = RunRecord.load(tmp_path / "line")
    assert record.lineage is not None and record.lineage["checkpoint"].endswith("old.pt")


# ------------------------------------------------------------------------------------------------------------- signals


def signalled(root: Path, number: int, at_step: int = 7, **options: Any) -> int:
    def job() -> None:
        Line(root, **options).train(3, lambda run: os.kill(os.getpid(), number) if run.cursor.step == at_step else None)

    return trainings.in_process(job)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 1)])
def test_signals_save_after_the_step_and_end(name: str, code: int, tmp_path: Path) -> None:
    status = signalled(tmp_path / "cut", getattr(signal, name), every=False)
    assert os.waitstatus_to_exitcode(status) == code
    assert status_of(tmp_path / "cut" / "line")[0] == "interrupted"
    meta = Store(tmp_path / "cut").meta(1, folder="line/checkpoints")
    assert meta["reason"] == name and meta["cursor"] == {"epoch": 1, "batch": 2, "step": 7, "samples": 28}
    whole, parts = Line(tmp_path / "whole").train(3), Line(tmp_path / "cut").train(3)
    assert parts.weights() == whole.weights()
    assert trainings.logged(tmp_path / "cut", "line") == trainings.logged(tmp_path / "whole", "line")


def test_usr1_saves_and_goes_on(tmp_path: Path) -> None:
    assert signalled(tmp_path, signal.SIGUSR1, every=False, keep=Keep(last=5)) == 0
    reasons = [Store(tmp_path).meta(n, folder="line/checkpoints")["reason"] for n in (1, 2)]
    assert reasons == ["SIGUSR1", "end"] and status_of(tmp_path / "line")[0] == "finished"


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def job() -> None:
        def twice(run: relume.Run) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)

        Line(tmp_path, every=False).train(3, twice)

    started = time.monotonic()
    assert os.waitstatus_to_exitcode(trainings.in_process(job)) == 1
    assert time.monotonic() - started < 20
    assert status_of(tmp_path / "line")[0] == "interrupted" and checkpoints(tmp_path) == []


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    Line(tmp_path).train(1)
    with pytest.raises(ZeroDivisionError):
        Line(tmp_path, "other").train(1, lambda run: 1 / 0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def test_max_time_saves_and_asks_to_be_started_again(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        Line(tmp_path, max_time=0.2, every=False).train(1000, lambda run: time.sleep(0.02))
    assert end.value.code == 75 and status_of(tmp_path / "line")[0] == "interrupted"
    assert status_of(tmp_path / "line")[1]["reason"] == "max_time"
    assert len(checkpoints(tmp_path)) == 1


def test_every_some_seconds(tmp_path: Path) -> None:
    Line(tmp_path, every="0.1 s", keep=Keep(last=99)).train(5, lambda run: time.sleep(0.03))
    reasons = {Store(tmp_path).meta(c)["reason"] for c in Store(tmp_path).list("line/checkpoints")}
    assert "0.1 s" in reasons and len(checkpoints(tmp_path)) >= 3


# ------------------------------------------------------------------------------------------------- two at the same time


def test_the_second_process_on_a_run_gets_a_clear_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    go_on, let_go = os.pipe()

    def job() -> None:
        def wait(run: relume.Run) -> None:
            if run.cursor.step == 2:
                os.write(write, b"x")
                os.read(go_on, 1)

        Line(tmp_path).train(1, wait)

    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(trainings.in_process(job)))
    thread.start()
    os.read(read, 1)
    try:
        with pytest.raises(RunError, match=r"process \d+ on .* is writing to the run 'line'.*resume=False"):
            Line(tmp_path).train(1)
        assert len(segments(tmp_path / "line")) == 1
    finally:
        os.write(let_go, b"x")
        thread.join()
    assert found == [0] and Line(tmp_path).train(2).run.cursor.step == 10


# ------------------------------------------------------------------------------------------------------- what is wrong


def test_a_damaged_newest_checkpoint_is_passed_over_and_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Line(tmp_path).train(3)
    manifest = sorted((tmp_path / "line" / "checkpoints").iterdir())[-1]
    manifest.write_bytes(manifest.read_bytes()[:-100])
    again = Line(tmp_path, quiet=False).train(3)
    assert again.weights() == whole.weights()
    said = capsys.readouterr().out
    assert "000003" in said and "passed over" in said and "resumes from line@000002" in said and "epoch 3" in said


def test_the_report_names_what_differs_and_the_checkpoint_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Line(tmp_path, config={"lr": 0.01, "depth": 2}).train(2)
    again = Line(tmp_path, lr=0.5, config={"lr": 0.5, "width": 3}, quiet=False)
    with again.run:
        said = capsys.readouterr().out
        assert again.optimizer.param_groups[0]["lr"] == 0.01
    for text in ("config lr: 0.01 before, 0.5 now", "config depth: 2 before, (not set) now", "width"):
        assert text in said
    assert "lr" in said and "0.5" in said
    again = Line(tmp_path, lr=0.5, override="lr")
    with again.run:
        assert again.optimizer.param_groups[0]["lr"] == 0.5


def test_another_number_of_threads_or_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    Line(tmp_path).train(1)
    torch.set_num_threads(2)
    with Line(tmp_path, quiet=False).run:
        pass
    assert "threads: 1 before, 2 now: the last bits may differ" in capsys.readouterr().out
    torch.set_num_threads(1)
    for root, workers in (("whole", (0, 0)), ("parts", (2, 1))):
        for epochs, count in zip((2, 3), workers, strict=True):
            trainings.by_trainer(tmp_path / root, workers=count, epochs=epochs)
    assert trainings.logged(tmp_path / "parts", "hard") == trainings.logged(tmp_path / "whole", "hard")


def test_shapes_that_do_not_fit_are_all_named_and_nothing_is_lost(tmp_path: Path) -> None:
    whole = Line(tmp_path).train(2)
    with pytest.raises(MismatchError, match=r"0\.weight(.|\n)*0\.bias(.|\n)*2\.weight"):
        Line(tmp_path, shape=5).train(3)
    assert Line(tmp_path).train(2).weights() == whole.weights()


def test_what_cannot_be_stored_is_found_before_the_training(tmp_path: Path) -> None:
    class Counter:
        def state_dict(self) -> dict[str, Any]:
            return {"seen": object()}

        def load_state_dict(self, state: Any) -> None: ...

    with pytest.raises(UnstorableError, match=r"counter.*seen"):
        Line(tmp_path, track={"counter": Counter()}).train(1, lambda run: pytest.fail("it trained"))
    with pytest.raises(ConfigurationError, match="thing"):
        Line(tmp_path, "other", track={"thing": 5}).train(1)


def test_a_store_that_cannot_be_written_costs_only_checkpoints(tmp_path: Path) -> None:
    def spoil(run: relume.Run) -> None:
        if run.cursor.step == 2:
            (tmp_path / "store").rename(tmp_path / "store-away")
            (tmp_path / "store").write_text("in the way")
        if run.cursor.step == 12:
            (tmp_path / "store").unlink()
            (tmp_path / "store-away").rename(tmp_path / "store")

    (tmp_path / "store").mkdir()
    with pytest.warns(RelumeWarning, match=r"a checkpoint was not saved: .*Training goes on"):
        line = Line(tmp_path).train(4, spoil)
    assert line.run.status == "finished" and line.run.cursor.step == 20
    assert [name.split("-")[1] for name in checkpoints(tmp_path)] == ["epoch=3", "epoch=4"]


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    for arguments, text in [
        ({"every": "soon"}, "every='soon'"),
        ({"stop": 3}, "stop must be a relume.EarlyStopping"),
        ({"keep": 3}, "keep must be a relume.Keep"),
        ({"max_time": "x"}, "max_time='x'"),
        ({"resume": "000001"}, "there is no run 'line'"),
    ]:
        with pytest.raises(ConfigurationError, match=text):
            Line(tmp_path, **arguments).train(1)


# ------------------------------------------------------------------------------------------------------------ the loop


def test_nothing_is_loaded_for_what_is_skipped(tmp_path: Path) -> None:
    class Counting(Dataset[Any]):
        fetched = 0

        def __len__(self) -> int:
            return 400

        def __getitem__(self, index: int) -> torch.Tensor:
            Counting.fetched += 1
            return torch.randn(2)

    def train(at_batch: int | None) -> None:
        loader = DataLoader(Counting(), 4, shuffle=True)
        model = nn.Linear(2, 1)
        with relume.Run(
            "skip", model=model, root=tmp_path, quiet=True, every=False, in_memory=False, resume=None
        ) as run:
            for _ in run.epochs(1):
                for number, _batch in enumerate(run.batches(loader)):
                    if at_batch is not None and number == at_batch:
                        run.checkpoint()
                        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        train(89)
    Counting.fetched = 0
    train(None)
    assert Counting.fetched == 10 * 4


@pytest.mark.parametrize("step", [3, 4, 5, 6, 9])
def test_two_loaders_side_by_side_and_one_after_the_other(step: int, tmp_path: Path) -> None:
    def train(root: Path, stop_at: int | None) -> list[float]:
        torch.manual_seed(4)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        data = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
        one, two, three = (DataLoader(TensorDataset(data + k), size, shuffle=True) for k, size in enumerate((5, 4, 10)))
        with relume.Run("two", model=model, optimizer=optimizer, root=root, quiet=True, seed=1, every="1 step") as run:
            for _ in run.epochs(2):
                pairs = zip(run.batches(one), run.batches(two), strict=False)
                for group in [pairs, ((a, a) for a in run.batches(three))]:
                    for (x,), (z,) in group:
                        loss = model(x).pow(2).mean() + (model(z) * torch.rand(1)).mean()
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        run.log({"train/loss": loss})
                        if run.cursor.step == stop_at:
                            os.kill(os.getpid(), signal.SIGINT)
        return [p.item() for p in model.parameters() for p in p.flatten()]

    expected = train(tmp_path / "whole", None)
    with contextlib.suppress(KeyboardInterrupt):
        train(tmp_path / "cut", step)
        pytest.fail("it was not interrupted")
    assert train(tmp_path / "cut", None) == expected
    assert trainings.logged(tmp_path / "cut", "two") == trainings.logged(tmp_path / "whole", "two")


def test_gradients_that_are_cleared_are_not_stored_and_those_that_go_on_are(tmp_path: Path) -> None:
    def gradients(root: Path, style: str) -> int:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(torch.randn(40, 2)), 4)
        with (
            relume.Run("g", model=model, optimizer=optimizer, root=root, quiet=True, every="5 steps") as run,
            pytest.warns(RelumeWarning, match="are not cleared between its steps")
            if style in ("accumulate", "never")
            else contextlib.nullcontext(),
        ):
            for _ in run.epochs(1):
                for number, (x,) in enumerate(run.batches(loader)):
                    if style == "before":
                        optimizer.zero_grad()
                    model(x).sum().backward()
                    if style != "accumulate" or number % 2:
                        optimizer.step()
                    if style == "after":
                        optimizer.zero_grad()
                    if style == "in place":
                        optimizer.zero_grad(set_to_none=False)
        return len(trainings.final_state(root, "g")["gradients"])

    found = {s: gradients(tmp_path / s, s) for s in ("before", "after", "accumulate", "in place", "never")}
    assert found == {"before": 0, "after": 0, "accumulate": 2, "in place": 2, "never": 2}


def test_without_epochs_the_calls_of_batches_are_counted(tmp_path: Path) -> None:
    def train(root: Path, stop_at: int | None) -> list[float]:
        line = Line(root, every="1 step")
        with line.run as run:
            for _ in range(3):
                for x, y in run.batches(line.loader):
                    nn.functional.mse_loss(line.model(x), y).backward()
                    line.optimizer.step()
                    line.optimizer.zero_grad()
                    if run.cursor.step == stop_at:
                        os.kill(os.getpid(), signal.SIGINT)
        return line.weights()

    expected = train(tmp_path / "whole", None)
    with contextlib.suppress(KeyboardInterrupt):
        train(tmp_path / "cut", 8)
        pytest.fail("it was not interrupted")
    assert train(tmp_path / "cut", None) == expected


def test_a_run_without_objects_starts_a_new_one(tmp_path: Path) -> None:
    for name in ("notes", "notes-2"):
        with relume.Run("notes", root=tmp_path, quiet=True) as run:
            run.log({"x": 1.0})
        assert run.name == name


def test_a_run_that_was_killed_before_it_had_a_record_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "line" / "journal").mkdir(parents=True)
    (tmp_path / "line" / ".run.json.123").write_text("half of")
    assert Line(tmp_path).train(1).run.name == "line"


def test_a_lost_record_costs_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Line(tmp_path).train(2).run
    (tmp_path / "line" / "run.json").unlink()
    after = Line(tmp_path, quiet=False).train(3).run
    assert after.name == "line" and after.cursor.epoch == 3
    assert RunRecord.load(tmp_path / "line").seed == before.seed
    said = capsys.readouterr().out
    assert "resumes from line@" in said and "run.json was gone" in said


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "line").mkdir()
    (tmp_path / "line" / "thesis.tex").write_text("precious")
    assert Line(tmp_path).train(1).run.name == "line-2"


def test_parameters_that_are_in_no_model_go_on_too(tmp_path: Path) -> None:
    def train(epochs: int) -> tuple[float, relume.Run]:
        scale = nn.Parameter(torch.tensor(5.0))
        optimizer = torch.optim.Adam([scale], lr=0.1)
        with relume.Run("loose", optimizer=optimizer, root=tmp_path, quiet=True) as run:
            for _ in run.epochs(epochs):
                for (x,) in run.batches(DataLoader(TensorDataset(torch.ones(4)), 1)):
                    (scale * x).pow(2).sum().backward()
                    optimizer.step()
                    optimizer.zero_grad()
        return scale.item(), run

    first, _ = train(1)
    assert train(1)[0] == first < 5.0
    assert train(2)[1].cursor.step == 8


# ------------------------------------------------------------------------------------------------- retention, stopping


def test_last_and_best_are_kept(tmp_path: Path) -> None:
    values = [3.0, 1.0, 2.0, 2.5, 2.2, 2.1]
    Line(tmp_path, keep=Keep(last=2, best=1, monitor="val/loss", every=3)).train(6, val=lambda epoch: values[epoch])
    assert [name[:14] for name in checkpoints(tmp_path)] == [
        "000002-epoch=2",
        "000003-epoch=3",
        "000005-epoch=5",
        "000006-epoch=6",
    ]
    assert Store(tmp_path).verify().ok and Store(tmp_path).gc().freed_bytes == 0


def test_early_stopping_ends_the_run_and_restores_the_best(tmp_path: Path) -> None:
    values = [3.0, 1.0, 2.0, 2.5, 2.2, 2.1]

    def stop() -> relume.EarlyStopping:
        return relume.EarlyStopping("val/loss", patience=2, restore_best=True)

    at_two = Line(tmp_path / "two").train(2, val=lambda epoch: values[epoch]).weights()
    line = Line(tmp_path / "all", stop=stop()).train(6, val=lambda epoch: values[epoch])
    assert line.run.cursor.epoch == 4 and line.weights() == at_two
    assert line.run.reason == "val/loss has not improved for 2 evaluations (best 1)"
    assert checkpoints(tmp_path / "all")[-1].startswith("000004-epoch=4")
    again = Line(tmp_path / "all", stop=stop()).train(6, lambda run: pytest.fail("it trained"))
    assert again.weights() == at_two and again.run.reason == line.run.reason


def test_early_stopping_waits_for_a_metric_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(RelumeWarning, match=r"waits for 'val/los', .*did you mean 'val/loss'"):
        Line(tmp_path, stop=relume.EarlyStopping("val/los", mode="min")).train(2)


def test_random_numbers_go_on(tmp_path: Path) -> None:
    def train(root: Path, stop_at: int | None) -> list[float]:
        drawn = []
        line = Line(root, seed=7, every="1 step")
        with line.run as run:
            random.random(), torch.rand(3)  # before the loop
            for _ in run.epochs(2):
                for x, _ in run.batches(line.loader):
                    line.model(x).sum().backward()
                    line.optimizer.step()
                    line.optimizer.zero_grad()
                    drawn.append((run.cursor.step, random.random(), torch.rand(1).item()))
                    if run.cursor.step == stop_at:
                        raise KeyboardInterrupt
        return drawn

    whole = train(tmp_path / "whole", None)
    with contextlib.suppress(KeyboardInterrupt):
        train(tmp_path / "cut", 6)
    rest = train(tmp_path / "cut", None)
    assert rest and rest == whole[-len(rest) :]


# -------------------------------------------------------------------------------------------------------------- mirror


def test_a_new_machine_with_only_the_mirror_goes_on(tmp_path: Path) -> None:
    whole = Line(tmp_path / "whole").train(4)
    (tmp_path / "drive").mkdir()
    Line(tmp_path / "one", mirror=tmp_path / "drive" / "runs").train(2)
    there = Line(tmp_path / "two", mirror=tmp_path / "drive" / "runs").train(4)
    assert there.weights() == whole.weights()
    assert trainings.logged(tmp_path / "two", "line") == trainings.logged(tmp_path / "whole", "line")
    assert RunRecord.load(tmp_path / "two" / "line").id == RunRecord.load(tmp_path / "one" / "line").id
    third = Line(tmp_path / "three", mirror=tmp_path / "drive" / "runs").train(4, lambda run: pytest.fail("it trained"))
    assert third.weights() == whole.weights()


def test_a_new_run_takes_a_name_that_is_free_on_the_mirror_too(tmp_path: Path) -> None:
    Line(tmp_path / "one", mirror=tmp_path / "drive").train(1)
    assert Line(tmp_path / "two", mirror=tmp_path / "drive", resume=False).train(1).run.name == "line-2"


def test_a_mirror_that_is_not_there_stops_no_training(tmp_path: Path) -> None:
    with pytest.warns(RelumeWarning, match="mirror"):
        assert Line(tmp_path / "runs", mirror=tmp_path / "unmounted" / "runs").train(1).run.status == "finished"
