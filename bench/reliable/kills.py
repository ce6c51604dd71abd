"""SIGKILL at random moments of a training that does nothing but save: what is left of its checkpoints?"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reliable import forks

WIDTH, DEPTH = 640, 5  # 2.05 million parameters: 24.6 MB with Adam's two moments
FIRST = 3  # whole saves before a kill: deleting old checkpoints has then begun
Tell = Callable[[str, int], None]
Training = tuple[nn.Module, torch.optim.Optimizer]


@dataclass(frozen=True)
class Found:
    """What a checkpoint gave: every different value in it. One value is one generation; more are a mixture.

    ``random``: whether Python's generator has the state of that generation; None where it is not saved.
    """

    values: list[float]
    random: bool | None = None

    @property
    def is_whole(self) -> bool:
        return len(self.values) == 1 and self.values[0] >= 1 and self.random is not False

    @property
    def generation(self) -> float:
        return self.values[0]


class CapturedError(Exception):
    """Ends a library's own loop."""


def fresh() -> Training:
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1)
    return model, optimizer


def fill(training: Training, generation: int) -> None:
    """Every number of the model and of Adam's state becomes ``generation``; so does the seed."""
    model, optimizer = training
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(generation)
            state = optimizer.state[parameter]
            if "exp_avg" not in state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            for tensor in state.values():
                tensor.fill_(generation)
    random.seed(generation)


def look(training: Training, with_random: bool = False) -> Found:
    model, optimizer = training
    here = random.getstate()
    tensors = list(model.parameters())
    for parameter in model.parameters():
        tensors += optimizer.state.get(parameter, {"none": torch.tensor(-2.0)}).values()
    values = sorted({float(extreme) for tensor in tensors for extreme in (tensor.min(), tensor.max())})
    random.seed(int(values[-1]))
    return Found(values, here == random.getstate() if with_random else None)


class Way:
    """One way to save again and again, and what its checkpoints are afterwards."""

    def save(self, folder: Path, tell: Tell) -> None:
        """Save for ever; ``tell("begin", generation)`` before each save and ``tell("done", generation)`` after it."""
        raise NotImplementedError

    def places(self, folder: Path) -> list[Any]:
        """The checkpoints that are there by name, newest first."""
        raise NotImplementedError

    def load(self, folder: Path, place: Any) -> Found:
        raise NotImplementedError

    def restart(self, folder: Path) -> Found:
        """What the library, or the recipe, does when the training is started again."""
        return self.load(folder, self.places(folder)[0])


class RelumeRun(Way):
    def _run(self, folder: Path, training: Training) -> Any:
        import relume

        return relume.Run("kill", model=training[0], optimizer=training[1], root=folder, every=False, quiet=True)

    def save(self, folder: Path, tell: Tell) -> None:
        training = fresh()
        with self._run(folder, training) as run:
            for generation in itertools.count(1):
                fill(training, generation)
                tell("begin", generation)
                run.checkpoint()
                run.wait()
                tell("done", generation)

    def places(self, folder: Path) -> list[Any]:
        from relume.checkpoint import Store

        return Store(folder).list("kill/checkpoints")[::-1]

    def load(self, folder: Path, place: Any) -> Found:
        from relume.checkpoint import Store

        saved = Store(folder).load(place)
        model = saved["models"]["model"].values()
        states = saved["optimizers"]["optimizer"]["state"].values()
        tensors = [*model, *(tensor for state in states for tensor in state.values())]
        return Found(sorted({float(extreme) for tensor in tensors for extreme in (tensor.min(), tensor.max())}))

    def restart(self, folder: Path) -> Found:
        training = fresh()
        run = self._run(folder, training)
        run.__enter__()  # and no exit: that would save
        return look(training, with_random=True)


class RelumeStore(RelumeRun):
    """The store alone, two checkpoints kept and the garbage of each older one collected at once."""

    def save(self, folder: Path, tell: Tell) -> None:
        from relume.checkpoint import Store

        training, store = fresh(), Store(folder)
        for generation in itertools.count(1):
            fill(training, generation)
            tell("begin", generation)
            store.save(states(training), folder="kill/checkpoints")
            for old in store.list("kill/checkpoints")[:-2]:
                store.delete(old)
            store.gc(dry_run=False)
            tell("done", generation)

    def load(self, folder: Path, place: Any) -> Found:
        from relume.checkpoint import Store

        return _loaded(Store(folder).load(place))

    def restart(self, folder: Path) -> Found:
        from relume.checkpoint import Store

        newest = Store(folder).load_newest("kill/checkpoints")
        if newest is None:
            raise FileNotFoundError("no checkpoint")
        return _loaded(newest.state)


class ByHand(Way):
    """torch.save over the file that is there."""

    def save(self, folder: Path, tell: Tell) -> None:
        training = fresh()
        for generation in itertools.count(1):
            fill(training, generation)
            tell("begin", generation)
            self.write(states(training), folder, generation)
            tell("done", generation)

    def write(self, saved: dict[str, Any], folder: Path, generation: int) -> None:
        torch.save(saved, folder / "last.pt")

    def places(self, folder: Path) -> list[Any]:
        return sorted(folder.glob("*.pt"), reverse=True)

    def load(self, folder: Path, place: Any) -> Found:
        return _loaded(torch.load(place, weights_only=True))


class ByHandReplaced(ByHand):
    def write(self, saved: dict[str, Any], folder: Path, generation: int) -> None:
        with (folder / "temporary").open("wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        (folder / "temporary").replace(folder / "last.pt")


class ByHandNumbered(ByHand):
    """A new file for each save, the last two kept."""

    def write(self, saved: dict[str, Any], folder: Path, generation: int) -> None:
        torch.save(saved, folder / f"{generation:06d}.pt")
        for old in self.places(folder)[2:]:
            old.unlink()


class Distributed(Way):
    def save(self, folder: Path, tell: Tell) -> None:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict

        training = fresh()
        for generation in itertools.count(1):
            fill(training, generation)
            model, optimizer = get_state_dict(*training)
            tell("begin", generation)
            dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder / "last", no_dist=True)
            tell("done", generation)

    def places(self, folder: Path) -> list[Any]:
        return list(folder.glob("last"))

    def load(self, folder: Path, place: Any) -> Found:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

        training = fresh()
        model, optimizer = get_state_dict(*training)
        saved = {"model": model, "optimizer": optimizer}
        dcp.load(saved, checkpoint_id=place, no_dist=True)
        set_state_dict(*training, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
        return look(training)


class Lightning(Way):
    """``ModelCheckpoint(save_last=True)``: the newest step's file, and last.ckpt."""

    def _fit(self, folder: Path, tell: Tell | None, path: Any) -> Found | None:
        import lightning as L
        from lightning.pytorch.callbacks import ModelCheckpoint

        found: list[Found] = []

        class Module(L.LightningModule):
            automatic_optimization = False

            def __init__(self) -> None:
                super().__init__()
                self.net = fresh()[0]

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(self.net.parameters(), lr=0.0)

            def on_train_start(self) -> None:
                if tell is None:
                    found.append(look((self.net, self.optimizers().optimizer)))
                    raise CapturedError

            def training_step(self, batch: Any, number: int) -> None:
                generation = self.trainer.global_step + 1
                if generation > 1:
                    tell("done", generation - 1)
                wrapped = self.optimizers()
                wrapped.step()
                fill((self.net, wrapped.optimizer), generation)
                tell("begin", generation)

        trainer = L.Trainer(
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[ModelCheckpoint(dirpath=folder / "checkpoints", save_last=True, every_n_train_steps=1)],
        )
        try:
            trainer.fit(Module(), torch.utils.data.DataLoader(torch.zeros(10**6, 1)), ckpt_path=path)
        except CapturedError:
            pass
        return found[0] if found else None

    def save(self, folder: Path, tell: Tell) -> None:
        self._fit(folder, tell, None)

    def places(self, folder: Path) -> list[Any]:
        return sorted(folder.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)

    def load(self, folder: Path, place: Any) -> Found:
        found = self._fit(folder, None, str(place))
        assert found is not None
        return found

    def restart(self, folder: Path) -> Found:
        return self.load(folder, "last")


class Accelerate(Way):
    """``automatic_checkpoint_naming`` with ``total_limit=2``."""

    def _prepared(self, folder: Path) -> tuple[Any, Training]:
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration

        configuration = ProjectConfiguration(str(folder), automatic_checkpoint_naming=True, total_limit=2)
        accelerator = Accelerator(cpu=True, project_config=configuration)
        model, optimizer = accelerator.prepare(*fresh())
        return accelerator, (model, optimizer.optimizer)

    def save(self, folder: Path, tell: Tell) -> None:
        accelerator, training = self._prepared(folder)
        for generation in itertools.count(1):
            fill(training, generation)
            tell("begin", generation)
            accelerator.save_state()
            tell("done", generation)

    def places(self, folder: Path) -> list[Any]:
        return sorted(folder.glob("checkpoints/checkpoint_*"), key=lambda path: int(path.name[11:]), reverse=True)

    def load(self, folder: Path, place: Any) -> Found:
        accelerator, training = self._prepared(folder)
        accelerator.load_state(None if place is None else str(place))
        return look(training, with_random=True)

    def restart(self, folder: Path) -> Found:
        return self.load(folder, None)


class Ignite(Way):
    """``Checkpoint`` with its ``DiskSaver`` and ``n_saved=2``."""

    def save(self, folder: Path, tell: Tell) -> None:
        from ignite.engine import Engine
        from ignite.handlers import Checkpoint, DiskSaver

        training = fresh()
        engine = Engine(lambda *_: None)
        saver = DiskSaver(str(folder / "ignite"), create_dir=True, require_empty=False)
        handler = Checkpoint({"model": training[0], "optimizer": training[1]}, saver, n_saved=2)
        for generation in itertools.count(1):
            fill(training, generation)
            engine.state.iteration = engine.state.epoch = generation
            tell("begin", generation)
            handler(engine)
            tell("done", generation)

    def places(self, folder: Path) -> list[Any]:
        return sorted(folder.glob("ignite/*.pt"), key=lambda path: int(path.stem.rpartition("_")[2]), reverse=True)

    def load(self, folder: Path, place: Any) -> Found:
        from ignite.handlers import Checkpoint

        training = fresh()
        Checkpoint.load_objects({"model": training[0], "optimizer": training[1]}, checkpoint=str(place))
        return look(training)


def states(training: Training) -> dict[str, Any]:
    return {"model": training[0].state_dict(), "optimizer": training[1].state_dict()}


def _loaded(saved: dict[str, Any]) -> Found:
    training = fresh()
    training[0].load_state_dict(saved["model"])
    training[1].load_state_dict(saved["optimizer"])
    return look(training)


# ----------------------------------------------------------------------------------------------------------- the test


@dataclass(frozen=True)
class Contestant:
    """A row of the table. ``packages`` are imported before the forks."""

    key: str
    label: str
    packages: tuple[str, ...]
    way: type[Way] | None


ALL = [
    Contestant("run", "relume Run", ("relume.run",), RelumeRun),
    Contestant("store", "relume Store, gc after each save", ("relume.checkpoint",), RelumeStore),
    Contestant("hand", "torch.save over last.pt", ("torch",), ByHand),
    Contestant("hand-numbered", "torch.save, numbered, 2 kept", ("torch",), ByHandNumbered),
    Contestant("hand-replaced", "torch.save, fsync, rename", ("torch",), ByHandReplaced),
    Contestant("dcp", "DCP save", ("torch.distributed.checkpoint.state_dict",), Distributed),
    Contestant("lightning", "Lightning, save_last", ("lightning.pytorch.callbacks",), Lightning),
    Contestant("accelerate", "Accelerate, total_limit=2", ("accelerate.utils",), Accelerate),
    Contestant("ignite", "Ignite, n_saved=2", ("ignite.handlers",), Ignite),
    Contestant("fastai", "fastai", ("fastai",), None),
]


def measure(contestant: Contestant, options: Any) -> dict[str, Any]:
    assert contestant.way is not None
    way, moments = contestant.way(), random.Random(11)
    trials: list[dict[str, Any]] = []
    cycle = 1.0
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        temporary = Path(scratch, "tmp")  # some write there first: on the same disk, please, and gone afterwards
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        for number in range(options.kills + 1):
            folder = Path(scratch, f"run{number}")
            folder.mkdir()
            wait_seconds = moments.uniform(0, 2 * cycle) if number else cycle
            begun, done, seconds = _kill(way, folder, wait_seconds)
            if number == 0:  # tells how long a save takes, and is not counted
                cycle = seconds
            else:
                trials.append(_look_at(way, folder) | {"begun": begun, "done": done})
            shutil.rmtree(folder)
    return {"trials": trials, "cycle_seconds": cycle} | _counts(trials)


def _kill(way: Way, folder: Path, wait_seconds: float) -> tuple[int, int, float]:
    """The last generations of which saving was begun and done, and the seconds from one save to the next."""
    child, lines = forks.start(functools.partial(way.save, folder))
    told = {"begin": 0, "done": 0}
    try:
        for line in lines:
            what, number = json.loads(line)
            if what == "error":
                raise RuntimeError(f"saving failed: {number}")
            told[what] = number
            if what == "done" and number >= FIRST:
                break
        begin = time.perf_counter()
        time.sleep(wait_seconds)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    seconds = time.perf_counter() - begin
    with lines:
        for line in lines:
            if line.endswith("\n"):
                what, number = json.loads(line)
                told[what] = number
    return told["begin"], told["done"], seconds / max(told["done"] - FIRST, 1)


def _look_at(way: Way, folder: Path) -> dict[str, Any]:
    places = way.places(folder)
    answers = [forks.ask(functools.partial(way.load, folder, place)) for place in places]
    restarted = forks.ask(functools.partial(way.restart, folder))
    return {"places": [_told(answer) for answer in answers], "restart": _told(restarted)}


def _told(answer: forks.Answer) -> dict[str, Any]:
    if answer.is_good:
        found: Found = answer.value
        return {"values": found.values, "random": found.random, "is_whole": found.is_whole}
    return {"error": answer.error, "signal": answer.signal, "is_whole": False}


def _counts(trials: list[dict[str, Any]]) -> dict[str, Any]:
    def count(is_so: Callable[[dict[str, Any]], bool]) -> int:
        return sum(map(is_so, trials))

    def best(trial: dict[str, Any]) -> float:
        return max((place["values"][0] for place in trial["places"] if place["is_whole"]), default=0.0)

    restarts = [trial["restart"] for trial in trials]
    return {
        "kills": len(trials),
        "in_a_save": count(lambda trial: trial["begun"] > trial["done"]),
        "newest_unreadable": count(lambda trial: bool(trial["places"]) and not trial["places"][0]["is_whole"]),
        "nothing_loadable": count(lambda trial: best(trial) == 0),
        "finished_save_lost": count(lambda trial: best(trial) < trial["done"]),
        "restart_fails": sum("values" not in found for found in restarts),
        "restart_older": sum(
            trial["restart"]["is_whole"] and trial["restart"]["values"][0] < trial["done"] for trial in trials
        ),
        "restart_silently_wrong": sum("values" in found and not found["is_whole"] for found in restarts),
        "errors": sorted({found["error"] or f"signal {found['signal']}" for found in restarts if "error" in found}),
    }
