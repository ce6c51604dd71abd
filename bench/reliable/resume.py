"""Killed in the middle of an epoch and resumed: does the training end where it would have ended undisturbed?"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from reliable import forks

SAMPLES, BATCH, EPOCHS, SEED = 1500, 16, 3, 7
PER_EPOCH = -(-SAMPLES // BATCH)  # 94
STEPS = PER_EPOCH * EPOCHS
EVERY = PER_EPOCH // 2  # 47: a checkpoint at half of each epoch and at its end
KILL = 160  # the newest checkpoint is of step 141, in the middle of the second epoch
Batch = dict[str, torch.Tensor]


class Augmented(Dataset[Any]):
    """Samples that draw from all three global generators."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(123)
        self.x = torch.randn(SAMPLES, 32, generator=generator)
        self.labels = torch.randint(0, 4, (SAMPLES,), generator=generator)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = self.x[index] + 0.1 * torch.randn(32)
        x = x * float(np.random.uniform(0.8, 1.2))
        if random.random() < 0.5:
            x = x.flip(0)
        return {"x": x, "labels": self.labels[index], "index": index}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 4))


def parts(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=STEPS)


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["labels"])


@dataclass
class Job:
    """One start of a training: what it must tell, and where it is killed.

    ``start`` is 0 for the first start in a folder and 1 for the one that resumes.
    """

    folder: Path
    workers: int
    start: int
    kill_at: int | None

    @property
    def resumes(self) -> bool:
        return self.start > 0

    def loader(self, stateful: bool = False) -> Any:
        kind: Any = DataLoader
        if stateful:
            from torchdata import stateful_dataloader

            kind = stateful_dataloader.StatefulDataLoader
        return kind(Augmented(), batch_size=BATCH, shuffle=True, num_workers=self.workers)

    def seen(self, step: int, batch: Batch) -> None:
        """Before the update ``step``: what this start is trained on, for the comparison only."""
        pixels = hashlib.sha1(batch["x"].numpy().tobytes()).hexdigest()
        line = json.dumps([int(step), batch["index"].tolist(), pixels])
        with (self.folder / f"seen-{self.start}").open("a") as file:
            file.write(line + "\n")

    def append(self, step: int, loss: torch.Tensor) -> None:
        """The log of those who bring none that writes files: a line for each step, appended."""
        with (self.folder / "log").open("a") as file:
            file.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")

    def done(self, step: int) -> None:
        """After the update and whatever the library does at its end."""
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def appended_steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "log").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------- relume


def relume_run(job: Job) -> nn.Module:
    import relume

    forks.seed(SEED)
    model = network()
    optimizer, scheduler = parts(model)
    loader = job.loader()
    with relume.Run(
        "exact",
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        root=job.folder,
        seed=SEED,
        every=f"{EVERY} steps",
        quiet=True,
    ) as run:
        for _ in run.epochs(EPOCHS):
            for batch in run.batches(loader):
                job.seen(run.cursor.step + 1, batch)
                loss = loss_of(model, batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                run.log({"train/loss": loss})
                job.done(run.cursor.step)
    return model


def relume_trainer(job: Job) -> nn.Module:
    import relume

    def step(trainer: Any, batch: Batch) -> torch.Tensor:
        job.seen(trainer.run.cursor.step + 1, batch)
        return loss_of(trainer.model, batch)

    class Kill(relume.Callback):
        def on_step_end(self, trainer: Any) -> None:
            job.done(trainer.run.cursor.step)

    forks.seed(SEED)
    model = network()
    optimizer, scheduler = parts(model)
    trainer = relume.Trainer(
        model,
        step=step,
        optimizer=optimizer,
        scheduler=scheduler,
        schedule_every="step",
        device="cpu",
        seed=SEED,
        quiet=True,
        callbacks=[Kill()],
    )
    trainer.fit(job.loader(), epochs=EPOCHS, run="exact", root=job.folder, every=f"{EVERY} steps")
    return model


def relume_steps(folder: Path) -> list[int]:
    """The lines that all readers of the journal get: ``relume.history`` would show each step once in any case."""
    from relume.monitor.journal import live_lines

    return [line["step"] for line in live_lines(folder / "exact") if "train/loss" in line.get("values", {})]


# ------------------------------------------------------------------------------------------------------------ by hand


def by_hand(job: Job, middle: bool, generators: bool) -> nn.Module:
    """The usual recipe: a dict through torch.save.

    At the end of each epoch; or (``middle``) every 47 steps with the place, to which the resumed start skips in a loop;
    with the states of the three generators (``generators``), put back before that loop.
    """
    forks.seed(SEED)
    model = network()
    optimizer, scheduler = parts(model)
    loader = job.loader()
    path, first, skip, step = job.folder / "last.pt", 0, 0, 0
    if job.resumes:
        saved = torch.load(path, weights_only=False)
        model.load_state_dict(saved["model_state_dict"])
        optimizer.load_state_dict(saved["optimizer_state_dict"])
        scheduler.load_state_dict(saved["scheduler_state_dict"])
        first, skip, step = saved["epoch"], saved["batch"], saved["step"]
        if generators:
            random.setstate(saved["python"])
            np.random.set_state(saved["numpy"])
            torch.set_rng_state(saved["torch"])

    def save(epoch: int, batch: int) -> None:
        states = {f"{name}_state_dict": thing.state_dict() for name, thing in things.items()}
        place = {"epoch": epoch, "batch": batch, "step": step}
        drawn = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
        torch.save(states | place | drawn, path)

    things = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    for epoch in range(first, EPOCHS):
        for number, batch in enumerate(loader):
            if epoch == first and number < skip:
                continue
            step += 1
            job.seen(step, batch)
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            job.append(step, loss)
            if middle and step % EVERY == 0:
                save(epoch, number + 1)
            job.done(step)
        if not middle:
            save(epoch + 1, 0)
    return model


# -------------------------------------------------------------------------------------------------------------- peers


def lightning(job: Job, stateful: bool) -> nn.Module:
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    L.seed_everything(SEED, workers=True, verbose=False)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Batch, number: int) -> torch.Tensor:
            job.seen(self.trainer.global_step + 1, batch)
            loss = loss_of(self.net, batch)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer, scheduler = parts(self.net)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

        def on_train_batch_start(self, batch: Batch, number: int) -> None:
            job.done(self.trainer.global_step)  # all of the batch before has been done, its checkpoint too

    module = Module()
    folder = job.folder / "checkpoints"
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=CSVLogger(job.folder, name="csv"),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=folder, every_n_train_steps=EVERY, save_last=True)],
    )
    trainer.fit(module, job.loader(stateful), ckpt_path="last" if job.resumes else None)
    return module.net


def lightning_steps(folder: Path) -> list[int]:
    """Lightning counts logged steps from 0, and each start writes a table of its own."""
    import csv

    steps = []
    for path in sorted(folder.glob("csv/version_*/metrics.csv")):
        with path.open() as file:
            steps += [int(row["step"]) + 1 for row in csv.DictReader(file) if row.get("train_loss")]
    return steps


def accelerate(job: Job, stateful: bool) -> nn.Module:
    """The default with ``skip_first_batches``; or its stateful loader with its seedable sampler."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration, set_seed

    set_seed(SEED)
    configuration = DataLoaderConfiguration(use_seedable_sampler=stateful, use_stateful_dataloader=stateful)
    accelerator = Accelerator(cpu=True, dataloader_config=configuration)
    plain = network()
    model, optimizer, loader, scheduler = accelerator.prepare(plain, *_with_loader(plain, job))
    step, first, skip = 0, 0, 0
    if job.resumes:
        newest = max(job.folder.glob("step_*"), key=lambda path: int(path.name[5:]))
        accelerator.load_state(str(newest))
        step = int(newest.name[5:])
        first, skip = divmod(step, PER_EPOCH)
    for epoch in range(first, EPOCHS):
        if stateful:
            loader.set_epoch(epoch)
        remaining = loader
        if epoch == first and skip and not stateful:
            remaining = accelerator.skip_first_batches(loader, skip)
        for batch in remaining:
            step += 1
            job.seen(step, batch)
            loss = loss_of(model, batch)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            job.append(step, loss)
            if step % EVERY == 0:
                accelerator.save_state(str(job.folder / f"step_{step}"))
            job.done(step)
    return accelerator.unwrap_model(model)


def _with_loader(model: nn.Module, job: Job) -> tuple[Any, Any, Any]:
    optimizer, scheduler = parts(model)
    return optimizer, job.loader(), scheduler


def ignite(job: Job, deterministic: bool) -> nn.Module:
    from ignite.engine import DeterministicEngine, Engine, Events
    from ignite.handlers import Checkpoint, DiskSaver

    forks.seed(SEED)
    model = network()
    optimizer, scheduler = parts(model)

    def update(engine: Any, batch: Batch) -> torch.Tensor:
        job.seen(engine.state.iteration, batch)
        model.train()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        job.append(engine.state.iteration, loss)
        return loss

    trainer = (DeterministicEngine if deterministic else Engine)(update)
    objects = {"trainer": trainer, "model": model, "optimizer": optimizer, "scheduler": scheduler}
    saver = DiskSaver(str(job.folder / "ignite"), create_dir=True, require_empty=False)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=EVERY), Checkpoint(objects, saver, n_saved=2))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: job.done(engine.state.iteration))
    if job.resumes:
        newest = max((job.folder / "ignite").glob("*.pt"), key=lambda path: int(path.stem.rpartition("_")[2]))
        # Given the path, it reads with weights_only=True, which refuses what its DeterministicEngine has saved.
        Checkpoint.load_objects(objects, checkpoint=torch.load(newest, weights_only=False))
    trainer.run(job.loader(), max_epochs=EPOCHS)
    return model


# ----------------------------------------------------------------------------------------------------------- the test


@dataclass(frozen=True)
class Contestant:
    """A row of the table. ``packages`` are imported before the forks."""

    key: str
    label: str
    packages: tuple[str, ...]
    train: Callable[[Job], nn.Module] | None
    steps: Callable[[Path], list[int]] = appended_steps


_hand, _lightning, _accelerate, _ignite = by_hand, lightning, accelerate, ignite
ALL = [
    Contestant("run", "relume Run", ("relume.train",), relume_run, relume_steps),
    Contestant("trainer", "relume Trainer", ("relume.train",), relume_trainer, relume_steps),
    Contestant("hand", "by hand, each epoch", ("torch",), functools.partial(_hand, middle=False, generators=False)),
    Contestant(
        "hand-middle", "by hand, skips batches", ("torch",), functools.partial(_hand, middle=True, generators=False)
    ),
    Contestant(
        "hand-generators",
        "by hand, generators too",
        ("torch",),
        functools.partial(_hand, middle=True, generators=True),
    ),
    Contestant(
        "lightning",
        "Lightning",
        ("lightning.pytorch.callbacks",),
        functools.partial(_lightning, stateful=False),
        lightning_steps,
    ),
    Contestant(
        "lightning-stateful",
        "Lightning, stateful",
        ("lightning.pytorch.callbacks", "torchdata.stateful_dataloader"),
        functools.partial(_lightning, stateful=True),
        lightning_steps,
    ),
    Contestant("accelerate", "Accelerate", ("accelerate.utils",), functools.partial(_accelerate, stateful=False)),
    Contestant(
        "accelerate-stateful",
        "Accelerate, stateful",
        ("accelerate.utils", "torchdata.stateful_dataloader"),
        functools.partial(_accelerate, stateful=True),
    ),
    Contestant("ignite", "Ignite Engine", ("ignite.handlers",), functools.partial(_ignite, deterministic=False)),
    Contestant(
        "ignite-deterministic",
        "Ignite, deterministic",
        ("ignite.handlers",),
        functools.partial(_ignite, deterministic=True),
    ),
    Contestant("fastai", "fastai", ("fastai",), None),
]


def measure(contestant: Contestant, options: Any) -> dict[str, Any]:
    """For each number of workers what the resumed training differs in."""
    return {str(workers): measure_one(contestant, workers) for workers in options.workers}


def measure_one(contestant: Contestant, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        whole, again, killed = (Path(scratch, name) for name in ("whole", "again", "killed"))
        for folder in (whole, again, killed):
            folder.mkdir()
        ends = {folder.name: _start(contestant, Job(folder, workers, 0, None)) for folder in (whole, again)}
        first = _start(contestant, Job(killed, workers, 0, KILL))
        if first.signal != signal.SIGKILL:
            raise RuntimeError(f"{contestant.key} was to be killed: {first}")
        last = _start(contestant, Job(killed, workers, 1, None))
        for answer in ends.values():
            if not answer.is_good:
                raise RuntimeError(f"{contestant.key}, undisturbed: {answer}")
        expected = ends["whole"].value
        found: dict[str, Any] = {"repeatable": _differing_bits(expected, ends["again"].value) == 0}
        if not last.is_good:
            return found | {"failed": str(last.error or last.signal)}
        return found | _weights(expected, last.value) | _batches(whole, killed) | _logged(contestant.steps(killed))


def _start(contestant: Contestant, job: Job) -> forks.Answer:
    assert contestant.train is not None
    train = contestant.train

    def work() -> dict[str, np.ndarray[Any, Any]]:
        return {name: tensor.detach().numpy() for name, tensor in train(job).state_dict().items()}

    return forks.ask(work, 300)


def _weights(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    differences = [np.abs(found[name].astype("f8") - expected[name].astype("f8")).max() for name in expected]
    bits = sum(array.nbytes * 8 for array in expected.values())
    return {
        "bits": bits,
        "differing_bits": _differing_bits(expected, found),
        "max_difference": float(max(differences)),
    }


def _differing_bits(expected: dict[str, Any], found: dict[str, Any]) -> int:
    return sum(
        int(np.unpackbits(np.frombuffer(expected[n].tobytes(), "u1") ^ np.frombuffer(found[n].tobytes(), "u1")).sum())
        for n in expected
    )


def _seen(path: Path) -> Iterator[tuple[int, list[int], str]]:
    return ((step, indices, pixels) for step, indices, pixels in map(json.loads, path.read_text().splitlines()))


def _batches(whole: Path, killed: Path) -> dict[str, Any]:
    """Of the batches after the place of the checkpoint, those that have other samples, or the same seen otherwise."""
    expected = {step: rest for step, *rest in _seen(whole / "seen-0")}
    found = {step: rest for step, *rest in _seen(killed / "seen-1")}
    resumed_at = min(found) - 1
    epoch = resumed_at // PER_EPOCH
    kept = {step: rest for step, *rest in _seen(killed / "seen-0") if step <= resumed_at}
    of_epoch = Counter(
        index
        for step, (indices, _) in (kept | found).items()
        if epoch * PER_EPOCH < step <= (epoch + 1) * PER_EPOCH
        for index in indices
    )
    return {
        "resumed_at": resumed_at,
        "batches": len(found),
        "missing_batches": len(expected.keys() - kept.keys() - found.keys()),
        "other_samples": sum(found[step][0] != expected.get(step, [None])[0] for step in found),
        "other_pixels": sum(
            found[step][0] == expected[step][0] and found[step] != expected[step] for step in found if step in expected
        ),
        "samples_repeated": sum(times > 1 for times in of_epoch.values()),
        "samples_missed": SAMPLES - len(of_epoch),
    }


def _logged(steps: list[int]) -> dict[str, int]:
    counted = Counter(steps)
    return {
        "steps_missing": STEPS - len(counted.keys() & set(range(1, STEPS + 1))),
        "steps_twice": sum(times > 1 for times in counted.values()),
    }
