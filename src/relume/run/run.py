"""Run: one tracked execution. A hand-written loop uses it directly; the Trainer is written on it."""

from __future__ import annotations

import itertools
import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch

from relume import tree
from relume.data import Stream, stream_of
from relume.direction import improves
from relume.errors import ConfigurationError, RootError
from relume.monitor import (
    Journal,
    Process,
    Reporter,
    RunRecord,
    Summary,
    beat,
    fold,
    jsonable,
    make_run_folder,
    reporter,
)
from relume.monitor.record import check_name
from relume.monitor.values import split
from relume.run.cursor import Cursor, StepCounter, as_named
from relume.seeds import seed_everything

Observer = Callable[[int, int, Mapping[str, float]], None]
_KEEPER_SECONDS = 2.0
_FOLD_SECONDS = 10.0


class Run(AbstractContextManager["Run"]):
    """One tracked execution, stored as a folder below ``root``.

    Args:
        name: the folder's name; when it is taken, ``name-2`` and so on is used.
        model, optimizer, scheduler, scaler: what is trained: single objects, lists, or mappings by name.
        track: further objects with ``state_dict`` and ``load_state_dict``, by name.
        config: hyperparameters to store: a dict, a dataclass, an ``argparse.Namespace`` or a pydantic model.
        seed: seeds torch, numpy and random when the run starts, and the data; ``None`` takes ``torch.initial_seed()``
            and seeds nothing.
        in_memory: whether deterministic datasets are kept in memory: ``None`` where it is proven, ``False``, ``True``.
        quiet: show nothing.

    Attributes:
        cursor: where the run stands.
        last, best: for each metric its newest and its best value (smaller or larger by its name; NaN is never best).
        folder: where the run is stored.

    Raises:
        RunNameError: the name cannot be a folder's name.
        RootError: the root cannot be written.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> loader = DataLoader(TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), batch_size=4)
        >>> with Run("line", model=model, optimizer=optimizer, root=tempfile.mkdtemp(), quiet=True) as run:
        ...     for epoch in run.epochs(3):
        ...         for x, y in run.batches(loader):
        ...             loss = nn.functional.mse_loss(model(x), y)
        ...             loss.backward(); optimizer.step(); optimizer.zero_grad()
        ...             run.log({"train/loss": loss})
        >>> run.cursor.step, run.status
        (6, 'finished')
    """

    def __init__(
        self,
        name: str,
        *,
        model: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        scaler: Any = None,
        track: Mapping[str, Any] | None = None,
        config: Any = None,
        seed: int | None = None,
        root: str | Path = "runs",
        in_memory: bool | None = None,
        quiet: bool = False,
    ) -> None:
        self.name = check_name(name)
        self.models = as_named(model, "model")
        self.optimizers: dict[str, torch.optim.Optimizer] = as_named(optimizer, "optimizer")
        self.schedulers = as_named(scheduler, "scheduler")
        self.scaler = scaler
        self.tracked = dict(track or {})
        self.config = as_config(config)
        self.seed = torch.initial_seed() if seed is None else check_seed(seed)
        self._seeds_process = seed is not None
        self.root = Path(root)
        self.in_memory = in_memory
        self.cursor = Cursor()
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.best_epoch: dict[str, int] = {}
        self.status: Literal["new", "running", "finished", "interrupted", "failed"] = "new"
        self.reason = ""
        self.folder = self.root / self.name
        self._quiet = quiet
        self._stop_reason: str | None = None
        self._epochs_total = 0
        self._in_epochs = False
        self._epoch_values: dict[str, float] = {}
        self._passes: dict[int, int] = {}
        self._streams: dict[int, tuple[Any, Stream]] = {}
        self._said: set[str] = set()
        self._observers: list[Observer] = []

    # ------------------------------------------------------------------------------------------------ start and end

    def __enter__(self) -> Run:
        if self.status != "new":
            raise ConfigurationError(f"run {self.name!r} was started before: make a new Run for a new execution.")
        if self._seeds_process:
            seed_everything(self.seed)
        self.folder = make_run_folder(self.root, self.name)
        self.name = self.folder.name
        now = time.time()
        self.started = time.perf_counter()
        record = RunRecord(
            name=self.name,
            id=secrets.token_hex(8),
            created=now,
            seed=self.seed,
            config=self.config,
            argv=jsonable(sys.argv),
            versions=_versions(),
            process=Process.current(),
        )
        try:
            record.save(self.folder)
            self.journal = Journal(
                self.folder / "journal" / "0001.jsonl", {"run": self.name, "id": record.id, "segment": 1}
            )
        except OSError as error:
            raise RootError(f"{self.folder} cannot be written: {error.strerror}.") from error
        self.console: Reporter = reporter(quiet=self._quiet)
        self._steps = StepCounter(self.cursor, self.optimizers.values())
        self.status = "running"
        self._process = os.getpid()
        self._keeper = _Keeper(self.folder, self.journal)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status != "running" or os.getpid() != self._process:  # a forked child does not end its parent's run
            return
        if kind is None or (kind is SystemExit and not getattr(error, "code", None)):
            self.status, self.reason = "finished", self._stop_reason or self.reason or "all done"
        elif issubclass(kind, KeyboardInterrupt):
            self.status, self.reason = "interrupted", "Ctrl-C"
        else:
            self.status, self.reason = "failed", f"{kind.__name__}: {error}".splitlines()[0][:500]
        self._observers = []  # what they could say comes too late
        self._settle()
        seconds = time.perf_counter() - self.started
        end = {"event": "end", "status": self.status, "reason": self.reason, "seconds": round(seconds, 3)}
        self.journal.write(end | self._place())
        self.journal.close()
        self._steps.close()
        for _, stream in self._streams.values():
            stream.close()
        self._keeper.stop()
        try:
            fold(self.folder)
        except Exception:  # an index can be made again
            pass
        self.console.finish(self._summary(seconds))

    def _place(self) -> dict[str, Any]:
        cursor = self.cursor
        return {"step": cursor.step, "epoch": cursor.epoch, "samples": cursor.samples, "time": round(time.time(), 4)}

    def _summary(self, seconds: float) -> Summary:
        names = [n for n in self.last if f"{n}_epoch" not in self.last]
        rows = [(n, self.last[n], self.best.get(n, math.nan), self.best_epoch.get(n, 0)) for n in names]
        return Summary(self.status, self.reason, seconds, str(self.folder), rows)

    # ------------------------------------------------------------------------------------------------------- the loop

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that remain of ``count``, counted from 0; ends early after :meth:`stop`.

        Raises:
            ConfigurationError: ``count`` is no whole number, or below 1.
        """
        self._require_running()
        check_epochs(count)
        self._epochs_total = count
        self._in_epochs = True
        try:
            while self.cursor.epoch < count and self._stop_reason is None:
                self._epoch_values = {}
                yield self.cursor.epoch
                self.cursor.epoch += 1
                self.cursor.batch = 0
                self._epoch_done()
        finally:
            self._in_epochs = False
        if self._stop_reason is None:
            self.reason = f"{count} {'epoch' if count == 1 else 'epochs'} done"

    def _epoch_done(self) -> None:
        self._settle()
        self.journal.write({"event": "epoch_end", **self._place()})
        values = self._epoch_values
        self.console.epoch_end({n: v for n, v in values.items() if f"{n}_epoch" not in values})

    def batches(self, loader: Any) -> Iterator[Any]:
        """The batches of this epoch that remain, as the loader gives them, on the CPU.

        Which samples are in a batch, and how they were augmented, depends on (seed, epoch, batch number) alone.
        Outside of :meth:`epochs`, each call is the next epoch.

        Raises:
            EmptyLoaderError: the loader yields no batch.
        """
        # Hot path: at most 50 microseconds a batch over the plain DataLoader, memory aside.
        self._require_running()
        stream = self.stream(loader)
        if self._in_epochs:
            epoch = self.cursor.epoch
        else:
            epoch = self._passes.get(id(loader), 0)
            self._passes[id(loader)] = epoch + 1
        cursor, console, boundary = self.cursor, self.console, self._steps.boundary
        cursor.batch = 0
        iterator = stream.epoch(epoch)
        batch = next(iterator)  # raises EmptyLoaderError where there is none
        self._say_decision(stream)
        console.epoch_start(epoch + 1, self._epochs_total or epoch + 1, stream.length)
        for batch in itertools.chain((batch,), iterator):
            boundary()
            samples = tree.samples(batch)
            yield batch
            cursor.batch += 1
            cursor.samples += samples
            console.batch(samples)
            if self._stop_reason is not None and not self._in_epochs:
                return
        boundary()

    def count_steps_of(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Count the updates of these optimizers too, for a Run that was opened without them."""
        known = {id(optimizer) for optimizer in self.optimizers.values()}
        new = {name: optimizer for name, optimizer in optimizers.items() if id(optimizer) not in known}
        self.optimizers |= new
        self._steps.add(new.values())

    def stream(self, loader: Any) -> Stream:
        """The exact, seekable form of a loader under this run's seed; made once a loader."""
        known = self._streams.get(id(loader))
        if known is None:
            known = self._streams[id(loader)] = (loader, stream_of(loader, self.seed, self.in_memory))
        return known[1]

    def _say_decision(self, stream: Stream) -> None:
        for text in (stream.decision, *stream.notes):
            if text is not None and text not in self._said:
                self._said.add(text)
                self.note(f"data: {text}" if text is stream.decision else text)

    def stop(self, reason: str) -> None:
        """End :meth:`epochs` after the present epoch, with this reason."""
        self._stop_reason = reason

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop_reason is not None

    # -------------------------------------------------------------------------------------------------------- logging

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers, at the present step or at ``step`` (any order of steps is fine).

        Args:
            values: metric names to numbers or tensors with one element; nested mappings become names with slashes. A
                tensor on a device is not waited for.

        Raises:
            ConfigurationError: a value that is no number; names the key.
        """
        # Hot path: 12 microseconds for one metric, the write to the journal included.
        self._require_running()
        ready, arriving = split(values)
        cursor = self.cursor
        if step is not None:
            step = _check_step(step)
        epoch = cursor.epoch + 1 if self._in_epochs else cursor.epoch
        for written in self.journal.values(cursor.step if step is None else step, epoch, ready, arriving):
            self._note_values(*written)

    def observe(self, observer: Observer) -> None:
        """Call ``observer(step, epoch, values)`` with each line of metrics as soon as its values are at hand.

        For what comes from a device that is some steps after :meth:`log`; ``step`` and ``epoch`` (counted from 1) are those
        of the call.
        """
        self._observers.append(observer)

    def _settle(self) -> None:
        """Wait for what devices still compute."""
        for written in self.journal.settle():
            self._note_values(*written)

    def _note_values(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self.last.update(values)
        self._epoch_values.update(values)
        best = self.best
        for name, value in values.items():
            if improves(name, value, best.get(name)):
                best[name] = value
                self.best_epoch[name] = epoch
        self.console.values(values)
        for observer in self._observers:
            observer(step, epoch, values)

    def note(self, text: str) -> None:
        """Say something on the console and keep it in the journal."""
        self.console.note(text)
        self.journal.write({"event": "note", "text": text, **self._place()})

    def _require_running(self) -> None:
        if self.status != "running":
            raise ConfigurationError(
                f'run {self.name!r} is not open ({self.status}): use it inside "with relume.Run(...) as run:".'
            )


class _Keeper(threading.Thread):
    """Behind the training's back: heartbeat, lines that wait for room, and the index."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        super().__init__(name="relume-keeper", daemon=True)
        self._folder = folder
        self._journal = journal
        self._ended = threading.Event()

    def run(self) -> None:
        next_fold = time.monotonic() + _FOLD_SECONDS
        beat(self._folder)
        while not self._ended.wait(_KEEPER_SECONDS):
            beat(self._folder)
            self._attempt(self._journal.flush_waiting)
            if time.monotonic() >= next_fold:
                self._attempt(lambda: fold(self._folder))
                next_fold = time.monotonic() + _FOLD_SECONDS

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # monitoring must never end a training; the index can be made again
            pass

    def stop(self) -> None:
        self._ended.set()
        self.join()


def check_seed(seed: Any) -> int:
    """The seed as a number; raises ConfigurationError unless it is a whole number from 0 to 2**63 - 1."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**63:
        raise ConfigurationError(f"seed must be a whole number from 0 to 2**63 - 1, not {seed!r}.")
    return int(seed)


def _check_step(step: Any) -> int:
    if isinstance(step, (bool, torch.Tensor)) or not hasattr(step, "__index__") or not 0 <= int(step) < 2**63:
        raise ConfigurationError(f"step must be a whole number from 0 to 2**63 - 1, not {step!r}.")
    return int(step)


def check_epochs(count: Any) -> None:
    """Raise ConfigurationError unless ``count`` is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"epochs must be a whole number of at least 1, not {count!r}.")


def as_config(config: Any) -> dict[str, Any]:
    plain = jsonable(config) if config is not None else {}
    if not isinstance(plain, dict):
        raise ConfigurationError(
            f"config must be a mapping, a dataclass, a Namespace or a pydantic model, not {type(config).__name__}."
        )
    return plain


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("relume", "torch", "torchvision", "timm", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
