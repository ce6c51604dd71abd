"""A training with everything that makes resuming hard, and processes that run it, are killed, and start again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.checkpoint.same import same
from torch import nn
from torch.utils.data import DataLoader, Dataset

import relume
from relume.checkpoint import Store
from relume.monitor.journal import live_lines, segments


class Augmented(Dataset[Any]):
    """Samples that draw from all three global generators, each draw in each sample."""

    def __init__(self, count: int = 90) -> None:
        self.x = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        self.y = (self.x.mean((1, 2, 3)) > 0).long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x[index]
        if random.random() < 0.5:
            x = x.flip(-1)
        x = x + 0.1 * float(np.random.randn()) + 0.1 * torch.randn(1) + 0.01 * random.gauss(0, 1)
        return x, self.y[index]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 2)
    )


def by_trainer(
    root: Path, *, workers: int = 0, optimizer: str = "adam", epochs: int = 4, every: Any = None, **options: Any
) -> relume.Result:
    """Dropout, batch norm, a scheduler, accumulation over 3 batches with an incomplete last group, early stopping."""
    torch.manual_seed(5)
    model = network()
    chosen: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if optimizer == "momentum":
        chosen = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    trainer = relume.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=chosen,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(chosen, T_max=24),
        schedule_every="step",
        metrics={"accuracy": relume.accuracy},
        accumulate=3,
        clip_norm=1.0,
        device="cpu",
        seed=5,
        quiet=True,
    )
    train = DataLoader(Augmented(), 6, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return trainer.fit(
        train,
        DataLoader(Augmented(30), 10),
        epochs=epochs,
        run="hard",
        root=root,
        every=every or ["1 epoch", "2 steps"],
        stop=relume.EarlyStopping("val/loss", patience=50, restore_best=False),
        **options,
    )


def by_hand(root: Path, *, epochs: int = 4, every: Any = None, **options: Any) -> relume.Run:
    """A hand-written loop with two models, two optimizers, an exponential average and draws of its own."""
    torch.manual_seed(3)
    one, two = network(), nn.Linear(144, 3)
    average = torch.optim.swa_utils.AveragedModel(one, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizers = {
        "one": torch.optim.AdamW(one.parameters(), lr=0.01),
        "two": torch.optim.RMSprop(two.parameters(), lr=0.001, momentum=0.5),
    }
    schedule = torch.optim.lr_scheduler.StepLR(optimizers["one"], 2, 0.5)
    loader = DataLoader(Augmented(), 6, shuffle=True)
    with relume.Run(
        "hand",
        model={"one": one, "two": two},
        optimizer=optimizers,
        scheduler=schedule,
        track={"average": average},
        root=root,
        quiet=True,
        seed=11,
        every=every or "4 steps",
        **options,
    ) as run:
        for _ in run.epochs(epochs):
            for x, y in run.batches(loader):
                mixed = x * float(np.random.beta(2, 2)) + 0.05 * random.gauss(0, 1)
                loss = nn.functional.cross_entropy(one(mixed), y) + two(one[:5](x)).pow(2).mean()
                loss.backward()
                for optimizer in optimizers.values():
                    optimizer.step()
                    optimizer.zero_grad()
                average.update_parameters(one)
                run.log({"train/loss": loss, "train/draw": random.random()})
            schedule.step()
            run.log(relume.evaluate(one, DataLoader(Augmented(30), 10), loss=nn.CrossEntropyLoss(), prefix="val/"))
    return run


def in_process(job: Callable[[], Any], kill_when: Callable[[], bool] = lambda: False) -> int:
    """Run ``job`` in a forked process group, and kill all of it as soon as ``kill_when()``. Returns the wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgrp()
            torch.set_num_threads(1)  # the threads that the parent had are not here
            job()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if kill_when():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.001)


def killed_again_and_again(job: Callable[[], Any], run_folder: Path, lines: int, kills: int, seed: int) -> list[int]:
    """Start ``job``, kill it at a random place of its journal, start it again, ``kills`` times; then let it end.

    Returns how many lines there were at each kill.
    """
    moments = random.Random(seed)
    places = sorted(moments.sample(range(1, lines - 1), kills))
    done = []
    for place in places:
        delay = moments.uniform(0.0, 0.02)

        def is_time(place: int = place, delay: float = delay, before: int = len(segments(run_folder))) -> bool:
            if len(segments(run_folder)) == before or sum(1 for _ in live_lines(run_folder)) < place:
                return False
            time.sleep(delay)
            return True

        if os.WIFSIGNALED(in_process(job, is_time)):
            done.append(place)
    assert in_process(job) == 0
    return done


def final_state(root: Path, run: str) -> Any:
    loaded = Store(root).load_newest(f"{run}/checkpoints")
    assert loaded is not None and not loaded.skipped
    state = loaded.state
    state["run"].pop("seconds")
    return state


def logged(root: Path, run: str) -> list[tuple[int, int, dict[str, float]]]:
    return [(line["step"], line["epoch"], line["values"]) for line in live_lines(root / run) if "values" in line]


def metric_steps(root: Path, run: str, name: str) -> Iterator[int]:
    return (step for step, _, values in logged(root, run) if name in values)


DECISIONS = "state.tracked.relume/trainer.state.features"
"""What was decided about the cache of features, and for how many epochs: that depends on where a process began."""


def differing(found: Any, expected: Any, path: str = "state") -> list[str]:
    """The paths of everything that is not the same to the last bit."""
    if isinstance(expected, dict) and isinstance(found, dict) and list(found) == list(expected):
        return [place for key in expected for place in differing(found[key], expected[key], f"{path}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [place for number, (a, b) in pairs for place in differing(a, b, f"{path}.{number}")]
    return [] if same(found, expected) else [path]
