"""Real runs with real processes: killed, resumed, with trackers that raise, hang and fill their disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import torch
from tests.run.trainings import in_process
from tests.trackers.kits import KITS, TENSORBOARD, board_numbers
from tests.trackers.recording import Mine, ToFile, begin, deliver, end, end_process, log, seen, segment
from tests.trackers.services import mlflow_server

import relume
from relume.errors import ConfigurationError, MissingPackageError, RelumeWarning, UnknownNameError
from relume.monitor.journal import live_lines
from relume.monitor.record import status_of
from relume.trackers.delivery import Delivery
from relume.trackers.mlflow import MLflow
from relume.trackers.packages import require
from relume.trackers.rebuilding import rebuild, spec_of, trackers_of, without_secrets
from relume.trackers.state import State, held, state_path
from relume.trackers.sync import sync
from relume.trackers.tensorboard import TensorBoard
from relume.trackers.tracker import Tracker
from relume.trackers.wandb import WandB


@pytest.fixture
def workers() -> Iterator[list[Path]]:
    """Folders of runs whose workers are to be ended, by the process ids in their states, should they still be there."""
    folders: list[Path] = []
    yield folders
    for folder in folders:
        for path in (folder / "trackers").glob("*.json"):
            state = State.load(path)
            if state.is_alive() and state.process is not None and state.process["pid"] != os.getpid():
                end_process(state.process["pid"])


def train(
    root: Path, trackers: object, *, epochs: int = 3, name: str = "run", pause: float = 0.0, every: object = None
) -> relume.Run:
    torch.manual_seed(1)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = [torch.full((4, 2), float(n)) for n in range(10)]
    with relume.Run(
        name,
        model=model,
        optimizer=optimizer,
        root=root,
        every=every or "1 epoch",
        quiet=True,
        trackers=trackers,
        config={"lr": 0.01},
    ) as run:
        for _ in run.epochs(epochs):
            for x in run.batches(data):
                loss = model(x).pow(2).mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({"loss": loss})
                time.sleep(pause)
            run.log({"val/loss": 1.0 / run.cursor.step})
    return run


def logged(folder: Path, name: str) -> list[tuple[int, float]]:
    """What the journal says."""
    return [
        (line["step"], line["values"][name])
        for line in live_lines(folder)
        if "values" in line and name in line["values"]
    ]


def until(holds: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def near(a: list[tuple[int, float]], b: list[tuple[int, float]]) -> bool:
    return [s for s, _ in a] == [s for s, _ in b] and all(
        abs(x - y) <= 1e-6 * abs(y) for (_, x), (_, y) in zip(a, b, strict=True)
    )


def test_one_call_feeds_all_and_the_end_waits_for_them(tmp_path: Path) -> None:
    mine = Mine()
    run = train(tmp_path, ["tensorboard", ToFile(), mine])
    assert run.status == "finished"
    expected = logged(run.folder, "loss")
    assert len(expected) == 30
    assert near(board_numbers(run.folder)["loss"], expected)
    assert mine.numbers() == expected and mine.calls[-1] == ("close", "finished")
    lines = seen(run.folder / "seen.jsonl")
    assert [
        (line["step"], float(line["values"]["loss"])) for line in lines if "loss" in line.get("values", ())
    ] == expected
    assert lines[-1]["status"] == "finished"
    assert (
        lines[-1]["best"]["loss"] == min(value for _, value in expected)
        and lines[-1]["last"]["loss"] == expected[-1][1]
    )
    assert {State.load(state_path(run.folder, name)).stage for name in ("tensorboard", "tofile", "mine")} == {"done"}


def test_the_trainer_takes_trackers_too(tmp_path: Path, model: torch.nn.Module, loader: object) -> None:
    mine = Mine()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = relume.Trainer(model, optimizer=optimizer, loss=torch.nn.CrossEntropyLoss(), quiet=True, device="cpu")
    result = trainer.fit(loader, epochs=1, root=tmp_path, run="t", trackers=[mine])
    assert len(mine.numbers("train/loss")) == 4 and mine.calls[-1] == ("close", "finished")
    assert result.status == "finished"
    with (
        relume.Run("open", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="trackers belong to the Run"),
    ):
        trainer.fit(loader, epochs=1, run=run, trackers=[mine])


def test_the_environment_adds_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_TRACKERS", " tensorboard,,")
    run = train(tmp_path, None)
    assert near(board_numbers(run.folder)["loss"], logged(run.folder, "loss"))
    monkeypatch.setenv("RELUME_TRACKERS", "tensorbord")
    with pytest.raises(
        UnknownNameError,
        match=r"variable RELUME_TRACKERS: there is no tracker 'tensorbord': did you mean 'tensorboard'\?",
    ):
        train(tmp_path, None)


def test_a_failed_run_is_closed_as_failed(tmp_path: Path) -> None:
    mine = Mine()
    with pytest.raises(ZeroDivisionError), relume.Run("run", root=tmp_path, quiet=True, trackers=[mine]) as run:
        run.log({"loss": 1.0})
        raise ZeroDivisionError
    assert mine.calls[-1] == ("close", "failed") and mine.numbers() == [(0, 1.0)]


# ----------------------------------------------------------------------------------------------------- kill and resume


def two_trackers() -> list[Tracker]:
    return [TensorBoard(), ToFile()]


def kill_and_resume(
    root: Path, cycles: int, *, with_workers: bool, trackers: Callable[[], list[Tracker]] = two_trackers
) -> Path:
    """Kill the training again and again, somewhere in its third epoch from the last checkpoint, and let it end at last."""
    folder = root / "run"
    for cycle in range(cycles):
        goal = 10 * cycle + 13
        in_process(
            lambda goal=goal: train(root, trackers(), epochs=cycles + 2, pause=0.005),
            kill_when=lambda goal=goal: len(logged_quickly(folder)) >= goal,
        )
        assert status_of(folder)[0] == "killed"
        if with_workers:
            for name in [tracker.name for tracker in trackers()]:
                state = State.load(state_path(folder, name))
                if state.is_alive() and state.process is not None:
                    end_process(state.process["pid"])
    assert in_process(lambda: train(root, trackers(), epochs=cycles + 2)) == 0
    return folder


def logged_quickly(folder: Path) -> list[object]:
    time.sleep(0.02)
    try:
        return logged(folder, "loss")
    except (OSError, KeyError):
        return []


@pytest.mark.parametrize(
    ("cycles", "with_workers"),
    [
        (3, True),
        pytest.param(30, False, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
        pytest.param(30, True, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_kill_and_resume_leaves_each_step_once_and_in_order(cycles: int, with_workers: bool, tmp_path: Path) -> None:
    folder = kill_and_resume(tmp_path, cycles, with_workers=with_workers)
    for synced in sync(folder):
        assert synced.is_complete, synced
    expected = logged(folder, "loss")
    assert [step for step, _ in expected] == list(range(1, 10 * (cycles + 2) + 1))
    assert near(board_numbers(folder)["loss"], expected)
    assert near(board_numbers(folder)["val/loss"], logged(folder, "val/loss"))
    lines = [line for line in seen(folder / "seen.jsonl") if "loss" in line.get("values", ())]
    assert [(line["step"], float(line["values"]["loss"])) for line in lines] == expected
    assert TENSORBOARD.ended(folder) == "STATUS_SUCCESS"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("with_workers", [False, True])
def test_thirty_kills_leave_each_step_once_and_in_order_in_the_services_too(with_workers: bool, tmp_path: Path) -> None:
    mlflow = MLflow(mlflow_server(), experiment=f"thirty kills {with_workers}")
    trackers = lambda: [*two_trackers(), WandB(mode="offline", artifacts=False), mlflow]  # noqa: E731
    folder = kill_and_resume(tmp_path, 30, with_workers=with_workers, trackers=trackers)
    for synced in sync(folder):
        assert synced.is_complete, synced
    expected = logged(folder, "loss")
    assert [step for step, _ in expected] == list(range(1, 321))
    for kit in KITS:
        if kit.name != "mine":
            found = kit.numbers(folder)["loss"]
            assert (found == expected) if kit.is_exact else near(found, expected), kit.name


def test_when_the_training_is_killed_its_workers_deliver_the_rest(tmp_path: Path, workers: list[Path]) -> None:
    folder = tmp_path / "run"
    workers.append(folder)

    def job() -> None:
        with relume.Run("run", root=tmp_path, quiet=True, trackers=[ToFile()]) as run:
            for step in range(5000):
                run.log({"loss": float(step)}, step=step)
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_process(job)) == signal.SIGKILL
    until(lambda: State.load(state_path(folder, "tofile")).stage == "done")
    lines = seen(folder / "seen.jsonl")
    assert [line["step"] for line in lines if line["call"] == "values"] == list(range(5000))
    assert lines[-1]["status"] == "killed"


def test_sync_delivers_what_is_left_when_training_and_workers_were_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def job() -> None:
        with relume.Run("run", root=tmp_path, quiet=True, trackers=["tensorboard", ToFile()]) as run:
            for step in range(3000):
                run.log({"loss": float(step)}, step=step)
            os.kill(os.getpid(), signal.SIGKILL)

    in_process(job)
    for name in ("tensorboard", "tofile"):  # wherever they are: at their start, in the middle of a line, or done
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[-2:] == [str(folder.absolute()), name]:
                end_process(process.pid)
                process.wait(10)
    done = sync(folder, to=["tensorboard"])
    assert all(synced.is_complete for synced in done)
    assert [step for step, _ in board_numbers(folder)["loss"]] == list(range(3000))
    again = sync(folder)
    assert [(synced.is_complete, synced.delivered) for synced in again] == [(True, 0)] * len(again)


@pytest.mark.parametrize("make", [TensorBoard, ToFile])
def test_a_worker_killed_in_the_middle_of_a_batch_gives_nothing_twice(make: type, tmp_path: Path) -> None:
    """Killed behind the flush and before the place is kept, which is the worst moment."""
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(50))
        child = os.fork()
        if child == 0:
            tracker = make()
            real = type(tracker).flush

            def flush() -> None:
                real(tracker)
                if State.load(state_path(folder, tracker.name)).until:
                    os.kill(os.getpid(), signal.SIGKILL)

            tracker.flush = flush
            deliver(folder, tracker)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        log(journal, range(50, 60))
        end(journal)
    deliver(folder, make())
    found = (
        board_numbers(folder)["loss"]
        if make is TensorBoard
        else [(line["step"], 0.0) for line in seen(folder / "seen.jsonl") if line["call"] == "values"]
    )
    assert [step for step, _ in found] == list(range(60))


# -------------------------------------------------------------------------------------- trackers that do not work


def test_a_tracker_that_raises_loses_only_that_line(tmp_path: Path) -> None:
    with pytest.warns(RelumeWarning, match=r"tofile could not take 1 line \(ValueError: I do not like step 17\)"):
        run = train(tmp_path, [ToFile(fail_at=17)])
    steps = [line["step"] for line in seen(run.folder / "seen.jsonl") if "loss" in line.get("values", ())]
    assert steps == [step for step in range(1, 31) if step != 17]
    assert len(logged(run.folder, "loss")) == 30


def test_a_tracker_that_raises_always_is_given_up_with_one_warning(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        raise RuntimeError("broken")

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = train(tmp_path, [Mine(fail)])
    assert run.status == "finished" and len(logged(run.folder, "loss")) == 30
    texts = [str(w.message) for w in said if issubclass(w.category, RelumeWarning)]
    assert len(texts) == 1 and "mine fails (RuntimeError: broken)" in texts[0] and "relume sync run" in texts[0]


def test_a_tracker_that_hangs_holds_nothing_up_and_one_that_works_is_not_held_up_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELUME_TRACKERS_WAIT", "1.5")
    workers.append(tmp_path / "run")
    leave = threading.Event()
    run = train(tmp_path, [ToFile(hang_at=5), Mine(lambda step: leave.wait() and None), TensorBoard()])
    leave.set()
    assert run.status == "finished" and len(logged(run.folder, "loss")) == 30
    until(lambda: State.load(state_path(run.folder, "tensorboard")).stage == "done")
    assert len(board_numbers(run.folder)["loss"]) == 30
    state = State.load(state_path(run.folder, "tofile"))
    assert state.is_alive() and state.stuck_seconds() > 0
    (busy,) = [synced for synced in sync(run.folder) if synced.tracker == "tofile"]
    assert not busy.is_complete and "is being fed by process" in busy.text


def test_what_did_not_arrive_in_time_is_said_and_delivered_by_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELUME_TRACKERS_WAIT", "0")
    with relume.Run("run", root=tmp_path, trackers=[ToFile()]) as run:
        run.log({"loss": 1.0})
    assert "tofile has not taken everything: a process of its own goes on with it" in capsys.readouterr().out
    until(lambda: State.load(state_path(run.folder, "tofile")).stage == "done")
    assert seen(run.folder / "seen.jsonl")[-1]["status"] == "finished"


@pytest.mark.parametrize("make", [TensorBoard, ToFile])
def test_a_full_disk_of_the_tracker_is_waited_for_and_nothing_is_lost_or_twice(make: type, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", is_alive=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    said: list[str] = []

    def pause(seconds: float) -> bool:
        state = State.load(state_path(folder, make().name))
        said.append(state.error or "")
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))  # there is room again
        return not state.error

    with segment(folder) as journal:
        log(journal, range(300))
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        try:
            state = deliver(folder, make(), pause)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        end(journal)
    assert "File too large" in said[0] and state.error is None
    deliver(folder, make())
    if make is TensorBoard:
        assert [step for step, _ in board_numbers(folder)["loss"]] == list(range(300))
    else:
        steps = [line["step"] for line in seen(folder / "seen.jsonl") if line["call"] == "values"]
        assert sorted(set(steps)) == list(range(300))


def test_a_worker_that_dies_is_started_again(tmp_path: Path, workers: list[Path]) -> None:
    workers.append(tmp_path / "run")
    with relume.Run("run", root=tmp_path, quiet=True, trackers=[ToFile()]) as run:
        run.log({"loss": 0.0}, step=0)
        path = state_path(run.folder, "tofile")
        given = lambda: [line["step"] for line in seen(run.folder / "seen.jsonl") if line["call"] == "values"]  # noqa: E731
        until(lambda: given() == [0])
        process = State.load(path).process
        assert process is not None
        end_process(process["pid"])
        run.log({"loss": 1.0}, step=1)
        until(lambda: given() == [0, 1])
    lines = seen(run.folder / "seen.jsonl")
    assert [line["step"] for line in lines if line["call"] == "values"] == [0, 1] and lines[-1]["status"] == "finished"


def test_a_process_that_cannot_be_started_is_said_and_does_not_cost_the_other_trackers(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with segment(folder) as journal:
        log(journal, range(3))
        end(journal)
    (folder / "trackers" / "tofile.log").mkdir()  # where its output should go
    said: list[str] = []
    delivery = Delivery([ToFile(), TensorBoard()], wait_seconds=60.0)
    delivery.start(folder)
    delivery.wait(said.append)
    delivery.look(said.append, said.append)
    assert [step for step, _ in board_numbers(folder)["loss"]] == [0, 1, 2]
    (text,) = [text for text in said if "tofile" in text]
    assert "feeds tofile cannot be started (IsADirectoryError" in text and "relume sync run" in text


def test_a_kind_that_a_tracker_cannot_show_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with relume.Run("run", root=tmp_path, trackers=[Mine()]) as run:
        for step in range(3):
            content = {"kind": "confusion_matrix", "classes": ["a"], "counts": [[1]]}
            run.journal.write({"step": step, "epoch": 1, "time": 1.0, "media": {"confused": content}})
    assert capsys.readouterr().out.count("mine cannot show: confusion matrix") == 1


def test_a_worker_leaves_when_the_runs_folder_is_gone(tmp_path: Path) -> None:
    import shutil

    folder = begin(tmp_path / "run", is_alive=True)
    with segment(folder) as journal:
        log(journal, range(3))
        command = [sys.executable, "-m", "relume.trackers.worker", str(folder), "tofile"]
        spec = json.dumps(spec_of(ToFile())).encode()
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert worker.stdin is not None and worker.stderr is not None
        with worker.stdin as pipe:
            pipe.write(spec)
        until(lambda: State.load(state_path(folder, "tofile")).delivered == 3)
        shutil.rmtree(folder)
        with worker.stderr:
            assert worker.wait(30) == 0, worker.stderr.read()


def test_only_one_at_a_time_delivers(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    with held(folder, "x") as first, held(folder, "x") as second:
        assert first and not second
    with held(folder, "x") as third:
        assert third


# -------------------------------------------------------------------------------------------------- wrong arguments


class Nameless(Mine):
    name = "no/name"


class Wrong(Mine):
    name = "wrong"
    kinds = frozenset(("picture",))


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (5, "trackers must be a list of names and relume.Tracker objects, not int"),
        ({"tensorboard": 1}, "not dict"),
        ([None], "each must be a name or a relume.Tracker object, not None"),
        ([TensorBoard], r"not its class: TensorBoard\(\)"),
        (["tensorboard", TensorBoard()], "two of them are called 'tensorboard'"),
        ([Nameless()], "Nameless.name is 'no/name'"),
        ([Wrong()], "Wrong.kinds has"),
    ],
)
def test_what_is_no_tracker_is_refused_before_the_run_begins(wanted: object, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=text):
        relume.Run("run", root=tmp_path, trackers=wanted)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_wait_must_be_a_number_of_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_TRACKERS_WAIT", "soon")
    with pytest.raises(ConfigurationError, match="RELUME_TRACKERS_WAIT is 'soon'"):
        relume.Run("run", root=tmp_path, trackers=[Mine()])


def test_what_can_be_built_in_another_process_is(tmp_path: Path) -> None:
    assert spec_of(Mine()) is None
    spec = spec_of(ToFile(fail_at=3))
    assert spec is not None and rebuild(json.loads(json.dumps(spec))) == ToFile(fail_at=3)
    assert spec_of(ToFile(file=tmp_path)) is None  # type: ignore[arg-type] # a field that JSON does not hold
    with_state = ToFile()
    with_state.extra = 1  # type: ignore[attr-defined]
    assert spec_of(with_state) is None
    with pytest.raises(relume.RelumeError, match=r"nowhere:X cannot be built again \(ModuleNotFoundError"):
        rebuild({"class": "nowhere:X"})
    assert trackers_of("tensorboard") == [TensorBoard()]


@pytest.mark.parametrize(
    ("rank", "asked", "has"), [("0", "", True), ("", "", True), ("1", "", False), ("1", "all", True)]
)
def test_of_several_ranks_the_first_alone_has_trackers_unless_asked(
    rank: str, asked: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("RELUME_TRACKERS_RANKS", asked)
    mine = Mine()
    train(tmp_path, mine, epochs=1)
    assert bool(mine.calls) == has


def test_which_ranks_have_trackers_is_said_by_known_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_TRACKERS_RANKS", "1,2")
    with pytest.raises(ConfigurationError, match='RELUME_TRACKERS_RANKS is .1,2.: it is "0"'):
        train(tmp_path, Mine(), epochs=1)


def test_a_rehearsal_has_no_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_REHEARSAL", "1")
    mine = Mine()
    with relume.Run("run", root=tmp_path, quiet=True, trackers=[mine]) as run:
        run.log({"loss": 1.0})
    assert mine.calls == []


# ------------------------------------------------------------------------------------------------------------ secrets


@dataclass
class WithToken(ToFile):
    api_token: str = ""
    address: str = ""

    def flush(self) -> None:
        if self.api_token:
            raise ValueError(f"403 from {self.address}, token={self.api_token}")
        super().flush()


def test_a_trackers_secrets_are_kept_nowhere_below_the_root(tmp_path: Path) -> None:
    password, token = "".join(["hunter2", "secret"]), "".join(["s3cr3t", "value99"])  # not as such in this file
    mlflow = MLflow(tracking_uri=f"http://me:{password}@127.0.0.1:9/")
    own = WithToken(api_token=token, address=f"https://me:{password}@example.org/x")
    assert spec_of(own) is not None
    with pytest.warns(RelumeWarning) as said:
        run = train(tmp_path, [mlflow, own])
    for worker in [State.load(state_path(run.folder, name)) for name in ("mlflow", "tofile")]:
        if worker.is_alive() and worker.process is not None:
            end_process(worker.process["pid"])
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    texts += [str(warning.message).encode() for warning in said]
    assert any(b"mlflow" in text for text in texts)
    assert not [text for text in texts if password.encode() in text or token.encode() in text]
    state = State.load(state_path(run.folder, "tofile"))
    assert state.spec is not None and state.spec["hidden"] == ["api_token"]
    (synced,) = [synced for synced in sync(run.folder) if synced.tracker == "tofile"]
    assert synced.is_complete, synced  # without the token it works


def test_a_tracker_that_cannot_do_without_its_secret_says_so() -> None:
    spec = without_secrets({"class": f"{__name__}:Demanding", "fields": {"password": "hunter2secret"}})
    with pytest.raises(relume.RelumeError, match="Not kept, because they look like secrets: password; let it read"):
        rebuild(spec)


@dataclass
class Demanding(ToFile):
    password: str = field(kw_only=True)


# ------------------------------------------------------------------------------------------------------- the packages


def test_a_folder_of_a_packages_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "likewandb").mkdir()  # as W&B's offline files lie in ./wandb
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=r'pip install "relume\[likewandb\]"'):
        require("likewandb")


def test_a_package_that_a_finder_hides_is_named(tmp_path: Path) -> None:
    script = (
        "import sys, relume\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('tensorboard', 'wandb', 'mlflow'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "for name in ('tensorboard', 'wandb', 'mlflow'):\n"
        "    try: relume.Run('run', trackers=[name])\n"
        "    except relume.errors.MissingPackageError as error: print(name, 'pip install' in str(error))\n"
        "relume.Run('run', quiet=True).__enter__().log({'loss': 1.0})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "tensorboard True\nwandb True\nmlflow True\n", done.stderr
