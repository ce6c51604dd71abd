"""Run: one tracked execution. A hand-written loop uses it directly; the Trainer is written on it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch

from relume import determinism, tree
from relume.checkpoint import Checkpoint, Keep, Mirror, Store, encode
from relume.data import Stream
from relume.determinism import Deterministic
from relume.errors import CheckpointError, ConfigurationError, RootError, closest, warn
from relume.monitor import (
    Journal,
    Reporter,
    RunRecord,
    fold,
    reporter,
)
from relume.monitor.journal import next_segment
from relume.monitor.kinds import Media, Predictions
from relume.monitor.launch import redirected
from relume.monitor.record import check_name
from relume.monitor.stored import StoredRun
from relume.monitor.values import split
from relume.provenance.secrets import process_redactor
from relume.run import resuming, state
from relume.run.arguments import as_config, check_epochs, check_notes, check_seed, check_step, check_tags, versions
from relume.run.blocks import frozen_from_the_start
from relume.run.companions import Companion, Companions
from relume.run.cursor import Cursor, StepCounter
from relume.run.delivering import Wanted, delivering
from relume.run.due import Due, ending_of
from relume.run.every import Every, read_duration
from relume.run.keeper import Keeper
from relume.run.loaders import Loaders
from relume.run.lock import hold
from relume.run.logged import LoggedMedia
from relume.run.objects import Objects
from relume.run.opening import choose_folder, chosen_of, new_record, small_files, stored_record
from relume.run.passes import Passes
from relume.run.planned import Planned
from relume.run.provenance import CapturedProvenance
from relume.run.resuming import Origin
from relume.run.saving import Checkpoints, keep_from, label_of
from relume.run.schedulechecks import check_schedule
from relume.run.scheduled import NAME as FREEZE
from relume.run.scheduled import Change, ScheduledFreezing, left_behind
from relume.run.seen import Observer, Seen, shown
from relume.run.signals import TRY_AGAIN, RunEnded, Signals
from relume.run.stopping import EarlyStopping
from relume.run.system import watchers
from relume.seeds import seed_everything
from relume.trackers.board import open_tensorboard
from relume.transfer.findings import Problem
from relume.transfer.ledger import Ledger
from relume.transfer.schedule import FreezeSchedule

SaveObserver = Callable[[str, Checkpoint | None], None]
_KEEPER_SECONDS = 2.0


class Run(AbstractContextManager["Run"]):
    """One tracked execution, stored as a folder below ``root``.

    Started again, the same script goes on from the newest good checkpoint, bit for bit; a finished run restores its
    objects and has no epochs left; more epochs extend it.

    Args:
        name: the folder's name below ``root``.
        model, optimizer, scheduler, scaler: what is trained: single objects, lists, or mappings by name.
        track: further objects with ``state_dict`` and ``load_state_dict``, by name.
        config: hyperparameters to store: a dict, a dataclass, an ``argparse.Namespace`` or a pydantic model.
        seed: seeds torch, numpy and random when the run starts, and the data; ``None`` takes ``torch.initial_seed()``
            and seeds nothing. A run that goes on keeps its own.
        every: when checkpoints are made: ``"1 epoch"`` (the default), ``"500 steps"``, ``"10 min"``, a list of such, or
            ``False``: then only at the end, by :meth:`checkpoint` and on signals.
        keep: which checkpoints stay; by default the last two and the best by ``stop``'s metric or ``val/loss``.
        stop: early stopping.
        mirror: a second folder, perhaps slow and unreliable, to which checkpoints are copied; a new machine that has only
            that goes on from it.
        resume: ``False`` starts a new run beside it (``name-2``); a checkpoint's number, name or path goes on from there.
        from_checkpoint: where a new run begins: ``"RUN"``, ``"RUN@12"``, ``"RUN@best"``, a manifest's path, or a classic
            ``.pt`` file with ``model_state_dict`` and so on.
        override: hyperparameters of the optimizer (such as ``"lr"``) that are taken from the script, not the checkpoint.
        max_time: when it is over, the run saves and ends with exit status 75, to be started again: seconds, ``"11 h"``.
        deterministic: ``True`` turns torch's deterministic algorithms on while the run is open (see `relume.determinism`): an
            operation that has none is an error that names it, or, with ``"warn"``, a warning. On the same machine and with
            the same number of threads, the same run then has the same bits, on CUDA too. Some operations are slower.
        in_memory: whether deterministic datasets are kept in memory: ``None`` where it is proven, ``False``, ``True``.
        freeze: what of the model is trained when, see :class:`relume.FreezeSchedule`.
        tags: words to find the run by; those of earlier starts stay.
        notes: a text about it; ``None`` keeps that of an earlier start.
        trackers: what else shows the run: names (``"tensorboard"``, ``"wandb"``, ``"mlflow"``) and :class:`relume.Tracker`
            objects. ``RELUME_TRACKERS`` adds some. None of them can slow or stop the training.
        watch: watchers, such as :class:`relume.Watch` or :class:`relume.Speed`. The machine's own load is watched each 10 s
            (:class:`relume.System`); ``False`` leaves that out, too.
        quiet: show nothing.

    SIGTERM and Ctrl-C let the present step finish, save and end; SIGUSR1 saves and goes on. A second Ctrl-C ends at once.
    The environment variable ``RELUME_ROOT`` takes the place of ``root``, ``RELUME_EVERY`` that of ``every``.

    Attributes:
        cursor: where the run stands.
        last, best: for each metric its newest and its best value (smaller or larger by its name; NaN is never best).
        folder: where the run is stored.
        ledger: what each parameter does in training: ``print(run.ledger.report())`` after the first step.

    Raises:
        RunNameError: the name cannot be a folder's name.
        RootError: the root cannot be written.
        DeterminismError: with ``deterministic=True``, at the end of the ``with``: an operation has no deterministic form.

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
        deterministic: Deterministic = False,
        root: str | Path = "runs",
        every: str | Iterable[str] | bool | None = None,
        keep: Keep | None = None,
        stop: EarlyStopping | None = None,
        mirror: str | Path | None = None,
        resume: bool | str | int | Path | None = None,
        from_checkpoint: str | Path | None = None,
        override: str | Iterable[str] = (),
        max_time: float | str | None = None,
        in_memory: bool | None = None,
        freeze: FreezeSchedule | None = None,
        tags: str | Iterable[str] = (),
        notes: str | None = None,
        trackers: Wanted = None,
        watch: Iterable[Companion] | Companion | bool | None = None,
        quiet: bool = False,
    ) -> None:
        self.asked_name = check_name(name)
        wanted = redirected(name)
        self.name = wanted or name
        check_schedule(freeze)
        self.freeze = freeze
        self._freezing = None if freeze is None else ScheduledFreezing(freeze, self._await_writing)
        own = {} if self._freezing is None else {FREEZE: self._freezing}
        self._objects = Objects(model, optimizer, scheduler, scaler, dict(track or {}) | own)
        self.models, self.optimizers = self._objects.models, self._objects.optimizers
        self.schedulers, self.scaler, self.tracked = self._objects.schedulers, scaler, self._objects.tracked
        self.config = as_config(config)
        self.tags, self.notes = check_tags(tags), check_notes(notes)
        self.seed = torch.initial_seed() if seed is None else check_seed(seed)
        self._seeds_process = seed is not None
        self.deterministic = determinism.checked(deterministic)
        self.root = Path(os.environ.get("RELUME_ROOT") or root)
        self.every = Every.read(os.environ.get("RELUME_EVERY") or every)
        if stop is not None and not isinstance(stop, EarlyStopping):
            raise ConfigurationError(f"stop must be a relume.EarlyStopping, not {type(stop).__name__}.")
        if keep is not None and not isinstance(keep, Keep):
            raise ConfigurationError(f"keep must be a relume.Keep, not {type(keep).__name__}.")
        self.stopping = stop
        self.keep = keep_from(keep, stop.monitor if stop else None, stop.mode if stop else None)
        self.mirror = None if os.environ.get("RELUME_REHEARSAL") else mirror
        self.override = frozenset([override] if isinstance(override, str) else override)
        self.max_seconds = read_duration(max_time)
        self.in_memory = in_memory
        self.cursor = Cursor()
        self._seen = Seen()
        self.status: Literal["new", "running", "forked", "finished", "interrupted", "failed"] = "new"
        self.reason = ""
        self.folder = self.root / self.name
        self._quiet = quiet
        self._stop_reason: str | None = None
        self._epochs_total = 0
        self._in_epochs = False
        self._loaders = Loaders(in_memory)
        self._said: set[str] = set()
        self.norm_before_clipping: torch.Tensor | None = None
        self._save_observers: list[SaveObserver] = []
        self._resume = None if wanted and resume is False else resume
        self._from_checkpoint = from_checkpoint
        self._trackers = trackers
        self._watchers = watchers(watch)
        self._media = LoggedMedia()
        self._companions = Companions(self._accompanied(), self)
        self._init_saving()

    def _accompanied(self) -> Iterator[Companion]:
        """What goes along with this run, in the order in which it is told of its moments."""
        yield CapturedProvenance()
        yield from self._watchers
        yield self._media  # behind those that log
        yield from delivering(self._trackers)

    def _init_saving(self) -> None:
        self._origin: Origin | None = None
        self._made_folder = False
        self._opened: set[str] = set()
        self._seconds_before = 0.0
        self._passes = Passes()
        self._planned = Planned()
        self._stops_now = False
        self._stopped_early = False
        self._mirroring: Mirror | None = None
        self._is_replaying = False  # from the start to the checkpoint's place: what the script does was done before
        self._has_looped = False
        self._due = Due(self.every, self.max_seconds)
        self._saved_at: tuple[int, ...] | None = None
        self._loops = 0

    # ------------------------------------------------------------------------------------------------------ how it looks

    def __repr__(self) -> str:
        return (
            f"<Run {self.name!r}: {self.status}, epoch {self.cursor.epoch}, step {self.cursor.step}, in {self.folder}>"
        )

    def _repr_html_(self) -> str | None:
        return None if self.status == "new" else StoredRun(self.folder)._repr_html_()

    def tensorboard(self, height: int = 800, port: int | None = None) -> None:
        """Open TensorBoard on this run: in the cell of a notebook, or with its address on a terminal.

        Args:
            height: of the frame, in pixels.
            port: where its server listens on this machine; by default a free one from 6006 on.

        A server that shows the run already is used again. It ends with the machine, or by ``kill``, as that of
        ``%tensorboard`` does.

        Raises:
            MissingPackageError: TensorBoard is not installed.
            ConfigurationError: its server did not start; what it said.
        """
        open_tensorboard([self.folder], height=height, port=port)

    def report(self, path: str | os.PathLike[str] | None = None, height: int = 800, **options: Any) -> Path | None:
        """All of the run so far in one HTML file that opens anywhere: see :meth:`relume.StoredRun.report`."""
        if self.status == "new":
            raise ConfigurationError(f"run {self.name!r} has not begun: there is nothing to report.")
        return StoredRun(self.folder).report(path, height, **options)

    # ------------------------------------------------------------------------------------------------ start and end

    def __enter__(self) -> Run:
        if self.status != "new":
            raise ConfigurationError(f"run {self.name!r} was started before: make a new Run for a new execution.")
        self.started = time.perf_counter()
        self._opening = ExitStack()
        try:
            self._open()
        except BaseException as error:
            self._abandon(error)
            raise
        return self

    def _abandon(self, error: BaseException) -> None:
        """The run could not begin: what is new leaves nothing behind, and what was there is as it was."""
        if self.status == "running":
            self.status, self.reason = "failed", _in_a_line(error)
            self._companions.close()
            end = {"event": "end", "status": self.status, "reason": self.reason, "seconds": 0.0}
            self.journal.write(end | self._place())
            self.journal.close()
            self._steps.close()
            self.ledger.close()
            self._companions.ended()
        self._opening.close()
        if self._made_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self) -> None:
        self._numerics_problem = self._opening.enter_context(determinism.held(self.deterministic))
        before = self._open_folder()
        self._origin = self._find_origin()
        self._adopt(before)
        if self._seeds_process:
            seed_everything(self.seed)
        self._versions = versions()
        record = self._record(before)
        self._id = record.id
        self.console: Reporter = reporter(quiet=self._quiet, folder=self.folder)
        self._checkpoints = Checkpoints(
            self.store, self.name, self.keep, self._committed, lambda: self._due.ask("retry")
        )
        self._opening.callback(self._checkpoints.close)
        self._documents = self._objects.documents()
        self._bind_freezing()
        self._objects.note_initial()
        notes = self._restore(before)
        self._begin_freezing()
        self._objects.constants()
        self._check_storable()
        if self.mirror is not None:
            folder = f"{self.name}/checkpoints"
            extra = lambda: small_files(self.root, self.folder, self.name)  # noqa: E731
            self._mirroring = Mirror(self.store, self.mirror, folder, extra=extra)
            self._opening.callback(self._mirroring.close)
        segment = next_segment(self.folder)
        header = {"run": self.name, "id": record.id, "segment": segment, "resumed": resuming.resumed_from(self._origin)}
        try:
            record.save(self.folder)
            (self.folder / "journal").mkdir(exist_ok=True)
            self.journal = Journal(self.folder / "journal" / f"{segment:04d}.jsonl", header)
        except OSError as error:
            raise RootError(f"{self.folder} cannot be written: {error.strerror}.") from error
        self._segment = segment
        self._steps = StepCounter(self.cursor, self.optimizers.values(), self._checkpoints.before_update)
        self.ledger = Ledger(self.models, self.optimizers, self._warn, has_phases=self.freeze is not None)
        self.status = "running"
        self._process = os.getpid()
        _open_runs.add(self)
        self._report(notes, before)
        self._due.begin(self.cursor.step)
        wait_seconds = min(_KEEPER_SECONDS, *(s / 2 for s in (self.every.seconds, self.max_seconds) if s), 60.0)
        self._keeper = Keeper(self.folder, self.journal, self._on_time, wait_seconds)
        self._companions.open()
        self._keeper.start()
        self._signals = Signals(self._due.ask, lambda: self._loops > 0)
        self._signals.install()

    def _open_folder(self) -> RunRecord | None:
        """Make the run's folder, or enter the one that is there; returns what it says of itself."""
        self.store = Store(self.root)
        if self._resume is None and not self._objects and not self.store.list(f"{self.name}/checkpoints"):
            self._resume = False  # there is nothing to restore: a second execution is another run
        self.folder, self._made_folder = choose_folder(self.store, self.root, self.name, self._resume, self.mirror)
        self.name = self.folder.name
        record = None if self._made_folder else stored_record(self.folder)
        self._opening.enter_context(hold(self.folder, record.process if record else None))
        return None if self._made_folder else stored_record(self.folder)  # what the one before wrote last

    def _find_origin(self) -> Origin | None:
        if not self._made_folder:
            chosen = chosen_of(self._resume)
            if chosen is not None:
                return resuming.chosen(self.store, self.name, chosen)
            own = resuming.newest(self.store, self.name)
            if own is not None:
                return own
        if self._from_checkpoint is None:
            return None
        return resuming.foreign(self.root, self._from_checkpoint, self.models, self.optimizers, self.schedulers)

    def _adopt(self, before: RunRecord | None) -> None:
        """A run that goes on keeps its seed; where it has none of its own yet, the present one holds."""
        origin = self._origin
        if before is not None and (origin is not None or self._seeds_process is False):
            self._given_seed = self.seed if self._seeds_process else None
            self.seed = before.seed
        elif origin is not None and origin.meta.get("seed") is not None and not self._seeds_process:
            self.seed = int(origin.meta["seed"])

    def _record(self, before: RunRecord | None) -> RunRecord:
        if before is not None:
            self.tags = tuple(dict.fromkeys((*before.tags, *self.tags)))
            self.notes = before.notes if self.notes is None else self.notes
        return new_record(
            before,
            self._origin,
            name=self.name,
            asked_name=self.asked_name,
            seed=self.seed,
            config=self.config,
            versions=self._versions,
            tags=self.tags,
            notes=self.notes,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status != "running" or os.getpid() != self._process:  # a forked child does not end its parent's run
            return
        self._signals.remove()
        self.ledger.explain(error)
        lacking = determinism.understood(error) if self.deterministic else None
        if self._freezing is not None and self.cursor.step and not self._has_looped and kind is None:
            self.note("freeze: this loop does not use run.batches(loader): the schedule stayed in its first phase")
        is_good = kind is None or (kind is SystemExit and not getattr(error, "code", None))
        status: Literal["finished", "interrupted", "failed"]
        if is_good:
            status, self.reason = "finished", self._stop_reason or self.reason or "all done"
        elif kind is not None and issubclass(kind, KeyboardInterrupt):
            status, self.reason = "interrupted", "Ctrl-C"
        elif isinstance(error, RunEnded):
            status, self.reason = "interrupted", error.reason
        else:
            assert kind is not None
            status, self.reason = "failed", _in_a_line(lacking or error)
        self._seen.observers = []  # what they could say comes too late
        self._settle()
        try:
            if self._is_replaying:
                self._end_replay()  # nothing was left to do
            self._passes.closed = self._passes.count
            if is_good:
                self.ledger.end()
            if is_good or (status != "failed" and ("by hand" in self._due.requests or self._signals.came_outside)):
                self._save("end" if is_good else self.reason)
                if not self._checkpoints.settle() or "retry" in self._due.requests:  # once more
                    self._saved_at = None
                    self._save("end" if is_good else self.reason)
            self._checkpoints.close()
            self._tell_saved()
        except CheckpointError as failure:
            warn(f"the last checkpoint was not saved: {failure}")
        finally:
            self._close(status)
        if lacking is not None:
            raise lacking

    def _close(self, status: Literal["finished", "interrupted", "failed"]) -> None:
        self._companions.close()
        self._planned.end()
        self.status = status
        seconds = time.perf_counter() - self.started
        total = round(seconds + self._seconds_before, 3)
        self.journal.write(
            {"event": "end", "status": self.status, "reason": self.reason, "seconds": total} | self._place()
        )
        self.journal.close()
        self._steps.close()
        self.ledger.close()
        self._loaders.close()
        self._keeper.stop()
        self._companions.ended()
        try:
            fold(self.folder)
        except Exception:  # an index can be made again
            pass
        self._opening.close()
        self.console.finish(self._seen.summary(status, self.reason, seconds, str(self.folder)))

    def _place(self) -> dict[str, Any]:
        cursor = self.cursor
        return {"step": cursor.step, "epoch": cursor.epoch, "samples": cursor.samples, "time": round(time.time(), 4)}

    # ------------------------------------------------------------------------------------------------------- the loop

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that remain of ``count``, counted from 0; ends early after :meth:`stop`.

        Raises:
            ConfigurationError: ``count`` is no whole number, or below 1.
        """
        self._require_running()
        check_epochs(count)
        if count > self._epochs_total and not self._stops_now:
            self._stop_reason = None  # it ended before; more epochs extend it
        self._epochs_total = count
        self._in_epochs = self._has_looped = True
        self._loops += 1
        if self.cursor.epoch < count and self._stop_reason is None:
            self._planned.epochs(self.journal, count, self._place(), self.cursor.batch)
        try:
            while self.cursor.epoch < count and self._stop_reason is None:
                if not self._passes.progress:
                    self._end_replay()
                yield self.cursor.epoch
                self._is_replaying = False
                self.cursor.epoch += 1
                self.cursor.batch = 0
                self._passes.end_epoch()
                self._epoch_done()
        finally:
            self._in_epochs = False
            self._loops -= 1
            self._planned.end()
        self._end_replay()
        if self._origin is not None and not self._origin.is_own and self.cursor.step == self._origin.cursor["step"]:
            self.note(f"nothing was trained: {self._origin.name} has {self.cursor.epoch} epochs behind it already")
        if self._stop_reason is None:
            self.reason = f"{count} {'epoch' if count == 1 else 'epochs'} done"
        if self.stopping is not None and self.stopping.restore_best:
            self.restore_best()

    def _epoch_done(self) -> None:
        if self._passes.are_open and "open" not in self._said:
            self._said.add("open")
            self.note("a loader is read across epochs: after a resume it begins anew, so a resume is not exact")
        self._settle()
        self.ledger.epoch_done()
        self._companions.epoch_done()
        values = self._seen.end_epoch()
        self._look_at_stopping(values)
        if self._freezing is not None:
            self._freezing.epoch_done(values, self.last)
        self.journal.write({"event": "epoch_end", **self._place()})
        self.console.epoch_end(shown(values))
        if self.every.is_due_after(self.cursor.epoch):
            self._save(f"{self.every.epochs} {'epoch' if self.every.epochs == 1 else 'epochs'}")
        if self._due.is_wanted or self.cursor.step >= self._due.next_step:
            self._pause()

    def _look_at_stopping(self, values: Mapping[str, float]) -> None:
        stopping = self.stopping
        if stopping is None:
            return
        value = values.get(stopping.monitor)
        if value is not None:
            reason = stopping.update(value)
            if reason is not None:
                self._stopped_early = True
                self.stop(reason)
        elif stopping.monitor not in self.last and stopping.monitor not in self._said:
            self._said.add(stopping.monitor)
            warn(
                f"early stopping waits for {stopping.monitor!r}, which was not logged in this epoch: "
                f"{closest(stopping.monitor, self.last)}"
            )

    def batches(self, loader: Any) -> Iterator[Any]:
        """The batches of this epoch that remain, as the loader gives them, on the CPU.

        Which samples are in a batch, and how they were augmented, depends on (seed, epoch, batch number) alone.
        Outside of :meth:`epochs`, each call is the next epoch. Between two batches checkpoints are made and signals
        handled; of several loaders that are read side by side, those of the one that began first count.

        Raises:
            EmptyLoaderError: the loader yields no batch.
        """
        self._require_running()
        stream = self._loaders.read(loader, self.seed)
        number = self._passes.begin()
        epoch = self.cursor.epoch if self._in_epochs else number
        self._has_looped = True
        return self._batches(stream, epoch, number)

    def _batches(self, stream: Stream, epoch: int, number: int) -> Iterator[Any]:
        # Hot path: at most 50 microseconds a batch over the plain DataLoader, memory aside.
        passes, due, steps = self._passes, self._due, self._steps
        leads = passes.leader is None
        progress, cursor, console = passes.progress, self.cursor, self.console
        done = progress.get(number, 0)
        state_there, before = passes.take_state(number), passes.take_length(number, stream.length)
        if before != stream.length:
            self.note(
                f"the loader had {before} batches when this epoch began and has {stream.length} now: not the same samples"
            )
        if leads:
            passes.leader, cursor.batch = number, done
            passes.closed = max(passes.closed, number)
            if not self._in_epochs and number and not self._is_replaying and self.every.is_due_after(number):
                self._save(f"{self.every.epochs} {'epoch' if self.every.epochs == 1 else 'epochs'}")
            if due.is_wanted and not self._is_replaying:
                self._pause()
        self._loops += 1
        passes.enter(number, stream)
        try:
            batches = stream.epoch(epoch, done, state_there)
            if leads:
                batches = self._companions.batches(batches)
            for batch in itertools.islice(batches, 1):
                for text in self._loaders.decisions(stream):
                    self.note(text)
                if leads:
                    self._planned.batches = stream.length
                    console.epoch_start(epoch + 1, self._epochs_total or epoch + 1, stream.length, done)
                batches = itertools.chain((batch,), batches)
                self._end_replay()
            length = stream.length if self._in_epochs else None
            next_batch, freezing = steps.next_batch, self._freezing
            for batch in batches:
                if leads:
                    if freezing is not None:
                        change = freezing.before_batch(epoch, done, cursor.step, stream.length)
                        if change is not None:
                            self._say_change(change)
                    next_batch()
                samples = tree.samples(batch)
                progress[number] = done = done + 1
                yield batch
                cursor.samples += samples
                console.batch(samples)
                if leads:
                    cursor.batch = done
                    is_due = due.is_wanted or cursor.step >= due.next_step
                    if is_due and due.may_pause(done == length, steps.has_just_updated):
                        self._pause()
                if self._stop_reason is not None and not self._in_epochs:
                    return
            if leads:
                steps.batch_done()
            if passes.is_newest(number):
                self._end_replay()
        finally:
            self._loops -= 1
            passes.leave(number, leads)

    def add(
        self,
        *,
        model: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        scaler: Any = None,
        track: Mapping[str, Any] | None = None,
    ) -> None:
        """Add objects to a run that is open: they become part of each checkpoint, and go on from the present one."""
        self._require_running()
        new = self._objects.add(model, optimizer, scheduler, scaler, track)
        self.scaler = self._objects.scaler
        self._bind_freezing()
        if self._origin is not None:
            for text in self._objects.load(self._origin.state, new, self.override):
                self.note(text)
        self._steps.add(new.optimizers.values())
        self._begin_freezing()
        self.ledger.again()
        self._companions.added()

    def _bind_freezing(self) -> None:
        if self._freezing is not None and self.models and not self._freezing.is_bound:
            has_updated = lambda: self.status != "running" or self._steps.has_just_updated  # noqa: E731
            self._freezing.bind(self.models, self.optimizers, self.schedulers, has_updated)

    def _begin_freezing(self) -> None:
        """The phase of a run that begins; one that goes on has it from its checkpoint."""
        freezing = self._freezing
        if freezing is not None and freezing.is_bound and freezing.number is None and not freezing.was_loaded:
            freezing.apply_now(self.cursor.epoch, self.cursor.batch, self.cursor.step)

    def _await_writing(self) -> None:
        """Frozen tensors are not copied for a checkpoint: it must be written before they change."""
        if not self._checkpoints.settle():
            self._saved_at = None

    def _say_change(self, change: Change) -> None:
        if change.text:
            self.note(change.text)
        if change.blocks is not None:
            self.journal.write({"event": "freeze", **change.blocks, **self._place()})
        self.log(change.values)
        self.ledger.again(change.values["freeze/phase"])

    def stream(self, loader: Any) -> Stream:
        """The exact, seekable form of a loader under this run's seed; made once a loader."""
        return self._loaders.stream(loader, self.seed)

    def read_instead(self, loader: Any, stream: Stream | None) -> None:
        """Let :meth:`batches` of ``loader`` give those of ``stream`` (see `Stream.over`); ``None`` ends that."""
        self._loaders.put_instead(loader, stream)

    def stop(self, reason: str) -> None:
        """End :meth:`epochs` after the present epoch, with this reason."""
        self._stop_reason = reason
        self._stops_now = True

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop_reason is not None

    # -------------------------------------------------------------------------------------------------- checkpoints

    def checkpoint(self) -> None:
        """Make a checkpoint at the next place from which a resume is exact. Training goes on while it is written.

        That is when the code of this batch, or behind the last batch that of this epoch, is done; outside of loops, at once.

        Raises:
            UnstorableError: the path to an object that cannot be stored.
        """
        self._require_running()
        if self._has_looped:
            self._due.ask("by hand")
        else:
            self._save("by hand")

    def wait(self) -> None:
        """Wait until the last checkpoint is safe on the disk."""
        self._require_running()
        self._checkpoints.settle()
        self._tell_saved()

    def restore_best(self) -> Checkpoint | None:
        """Give the models the values of the best checkpoint that is kept; returns it, or None when there is none."""
        self._require_running()
        if self._saved_at != self._position():
            self._save("end")
        best = self._checkpoints.best()
        if best is None:
            return None
        models = self.store.load(best, part=("models",))
        for name, model in self.models.items():
            if name in models:
                state.load_model_state(model, models[name], what=name)
        self.ledger.forget()
        value = self._checkpoints.value_of(best)
        self.note(f"the model has the weights of its best checkpoint, {best.name} ({self.keep.monitor} {value:.6g})")
        return best

    def observe_saves(self, observer: SaveObserver) -> None:
        """Call ``observer("start", None)`` before a checkpoint is made, and ``observer("end", checkpoint)`` when it is safe.

        The end is told in the training's thread, some batches later.
        """
        self._save_observers.append(observer)

    def _on_time(self) -> None:
        """Called by the keeper every now and then."""
        self._companions.look()
        self._planned.look(self.journal, self._place(), self.cursor.batch)
        if self.cursor.step > 0 and not self._has_looped and "unlooped" not in self._said:
            self._said.add("unlooped")
            self.note(
                "this loop does not use run.batches(loader): nothing is saved between its steps, and no signal is waited for. "
                "Use it, or call run.checkpoint() when a step is complete."
            )
        self._due.look_at_the_clock(self.started)

    def _pause(self) -> None:
        """Between two steps: make the checkpoint that is due, and end when that was asked for."""
        requests = self._due.take()
        self._tell_saved()
        ending = ending_of(requests)
        if "retry" in requests:
            self._saved_at = None
        reason = self._due.reason(requests, self.cursor.step)
        if reason is None:
            return
        self._save(reason)
        if ending is None:
            return
        is_saved = self._checkpoints.settle()
        if "retry" in self._due.requests:
            self._saved_at = None
            self._save(reason)
            is_saved = self._checkpoints.settle()
        what = (
            "saved; the same command goes on from here"
            if is_saved
            else "not saved; the checkpoint before this one is there"
        )
        self.note(f"{'Ctrl-C' if ending == 'SIGINT' else ending}: {what}.")
        if ending == "SIGINT":
            raise KeyboardInterrupt
        raise RunEnded(ending, 128 + signal.SIGTERM if ending == "SIGTERM" else TRY_AGAIN)

    def _position(self) -> tuple[int, ...]:
        cursor = self.cursor
        return (cursor.epoch, cursor.step, cursor.samples, cursor.batch)

    def _save(self, reason: str) -> None:
        """Take a snapshot; writing goes on in the background. A failure is a warning."""
        self._settle()
        if not self._checkpoints.settle():
            self._saved_at = None
        if self._saved_at == self._position() or not self._objects:
            return
        for observer in self._save_observers:
            observer("start", None)
        self._settle()
        self._companions.settle()
        metrics = self._seen.at(self.cursor.step)
        is_best = self.keep.monitor is not None and metrics.get(self.keep.monitor) == self.best.get(
            self.keep.monitor, 0
        )
        meta = self._meta(reason, metrics)
        try:
            begun = self._checkpoints.save(
                self._state(),
                meta,
                label_of(meta["cursor"], metrics),
                self._objects.constants(),
                is_best or reason == "end",
                self.journal.sync,
            )
        except CheckpointError as error:  # an object got a state that cannot be stored
            self._checkpoints.failed(error)
            begun = False
        self._due.saved()
        if begun:
            self._saved_at = self._position()

    def _meta(self, reason: str, metrics: dict[str, float]) -> dict[str, Any]:
        return {
            "kind": "training",
            "run": self.name,
            "run_id": self._id,
            "cursor": self.cursor.as_dict(),
            "metrics": metrics,
            "best": dict(self.best),
            "config": self.config,
            "seed": self.seed,
            "reason": reason,
            "journal": {"segment": self._segment, "position_bytes": self.journal.position_bytes},
            "versions": self._versions,
            "device": self._objects.device(),
            "threads": torch.get_num_threads(),
            "numerics": determinism.numerics(),
            "models": self._documents,
        }

    def _state(self) -> dict[str, Any]:
        """Everything that the training consists of. Nothing is copied here."""
        return {
            **self._objects.capture(with_gradients=not self._gradients_are_spent()),
            "stopping": None if self.stopping is None else self.stopping.state_dict(),
            "loaders": self._loaders.state(),
            "streams": self._passes.streams(),
            "run": {
                **self._seen.state(),
                "progress": self._passes.progress,
                "closed": self._passes.closed,
                "has_looped": self._has_looped,
                "stop_reason": self._stop_reason,
                "stopped_early": self._stopped_early,
                "lengths": self._passes.lengths(),
                "epochs_total": self._epochs_total,
                "seconds": self._seconds_before + time.perf_counter() - self.started,
            },
        }

    def _gradients_are_spent(self) -> bool:
        return self.status == "running" and self._steps.gradients_are_spent

    def _committed(self, checkpoint: Checkpoint) -> None:
        if self._mirroring is not None:
            self._mirroring.notify()
        if self._save_observers:
            self._due.is_wanted = True

    def _tell_saved(self) -> None:
        while self._checkpoints.done:
            checkpoint = self._checkpoints.done.popleft()
            for observer in self._save_observers:
                observer("end", checkpoint)

    # ------------------------------------------------------------------------------------------------------- resuming

    def _restore(self, before: RunRecord | None) -> list[str]:
        """Load what the checkpoint holds into the objects that are here; returns what there is to say of it."""
        origin = self._origin
        if origin is None:
            return [] if before is None else [f"{self.name} was started before and has no checkpoint: it starts anew."]
        saved = origin.state
        notes = self._objects.load(saved, None, self.override) + self._objects.missing(saved)
        if self.stopping is not None and saved.get("stopping"):
            self.stopping.load_state_dict(saved["stopping"])
        inner = saved.get("run") or {}
        self._seen.load(inner)
        self._passes.load(inner, saved.get("streams") or {})
        self._is_replaying = bool(inner.get("has_looped"))
        self._loaders.load(saved.get("loaders") or [])
        self._stop_reason = inner.get("stop_reason") if origin.is_own else None
        if inner.get("stopped_early"):
            self._stop_reason = self.stopping.reason if self.stopping is not None else None
            self._stopped_early = self._stop_reason is not None
        self._epochs_total = int(inner.get("epochs_total", 0)) if origin.is_own else 0
        self._seconds_before = float(inner.get("seconds", 0.0)) if origin.is_own else 0.0
        for name, value in origin.cursor.items():
            setattr(self.cursor, name, value)
        if origin.is_own:
            self._saved_at = self._position()
        if self._freezing is not None:
            notes += self._freezing.differences(self.cursor.epoch, self.cursor.batch, self.cursor.step)
        else:
            notes += left_behind(saved)
        if saved.get("random"):
            notes += state.load_random_state(saved["random"])
        return notes

    def _end_replay(self) -> None:
        """Here the checkpoint was made. What the script has done on its way was done before: all is put back once more.

        A scheduler that is stepped, gradients that are cleared, numbers that are drawn before the first batch: these
        count once. What was logged on the way was not written again.
        """
        if self._is_replaying and self._origin is not None:
            self._is_replaying = False
            self._objects.load(self._origin.state, None, self.override)
            if self._freezing is not None:
                self._freezing.put_back()
            if self._origin.state.get("random"):
                state.load_random_state(self._origin.state["random"])

    def _report(self, notes: list[str], before: RunRecord | None) -> None:
        """Say where the run goes on, what fits and what differs since."""
        origin = self._origin
        lines = list(notes)
        if origin is not None:
            lines = resuming.beginning(origin, self.cursor) + notes
            if before is None and origin.is_own:
                lines.append("its run.json was gone and is made anew")
            if before is not None:
                lines += resuming.differences(before, self.config, self._versions)
            lines += resuming.machine_differences(origin.meta, self._objects.device())
            if chosen_of(self._resume) is not None:
                lines.append(
                    f"resume={str(self._resume)!r} goes back to this checkpoint at each start: take it out now"
                )
            given = getattr(self, "_given_seed", None)
            if given is not None and given != self.seed:
                lines.append(f"seed: the run keeps its own, {self.seed}; the script says {given}")
        lines += self._objects.unknown_schedulers()
        if self.deterministic:
            lines += [self._numerics_problem or determinism.SAID]
        for text in lines:
            self.console.note(text)
        if lines:
            self.journal.write({"event": "resume" if origin else "note", "text": "\n".join(lines), **self._place()})
        frozen = None if self._freezing is not None else frozen_from_the_start(self.models, self.optimizers.values())
        if frozen is not None:
            self.journal.write({"event": "freeze", "phase": 0, "text": "", **frozen, **self._place()})

    def _check_storable(self) -> None:
        """An object that no checkpoint can hold is found now, and not after the first epoch.

        Raises:
            UnstorableError: names the path to it.
        """
        encode(self._state())

    # -------------------------------------------------------------------------------------------------------- logging

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers, and images, texts, histograms and other kinds, at the present step or at ``step``.

        Numbers stand in the journal when this returns. Other kinds are copied in this call, and encoded and written behind
        the training's back, before the next checkpoint and the end of the run.

        Args:
            values: names to numbers, or to tensors with one element: a tensor on a device is not waited for. Nested mappings
                become names with slashes. What is no number has a kind: :class:`relume.Image`, :class:`relume.Histogram`,
                :class:`relume.Text`, :class:`relume.Table`, :class:`relume.Figure`, :class:`relume.Mesh`,
                :class:`relume.Graph`, :class:`relume.PRCurve`, :class:`relume.ConfusionMatrix`. A ``str``, an image of
                Pillow or a list of them, a figure of matplotlib, a DataFrame and a :class:`relume.ClassReport` are
                understood as they are.
            step: any, in any order: tables are sorted by it, and of two values of one metric at one step the later counts.

        What else may happen:

        - NaN and infinity are kept as what they are; NaN is never the best value.
        - A name is any text, and there may be many thousands of them; each is a metric of its own.
        - A name that is a number now and something else later is kept as both, and one note says so.
        - A file that cannot be encoded or written is one warning and a note in the journal; numbers wait for room.
        - Threads may log at the same time: each call is one line. Several runs may be open in one process.
        - What is logged again on the way to the place where a run goes on stands in the journal already and is left out.

        Raises:
            ConfigurationError: a value that is neither a number nor of a known kind (names it; nothing of this call is
                recorded); a step that is no whole number; a run that has not begun or is over, or is that of the parent of
                this process (a forked worker gives its values back to the training instead).

        Example:
            >>> import relume, tempfile
            >>> with relume.Run("a", root=tempfile.mkdtemp(), quiet=True) as run:
            ...     run.log({"loss": 0.5, "sample": "three cats", "val": {"loss": float("nan")}}, step=3)
            >>> sorted(run.last)
            ['loss', 'val/loss']
        """
        # Hot path: 7 microseconds for ten numbers, the write to the journal included.
        if self.status != "running":
            self._require_running()
        media: dict[str, Media] = {}
        ready, arriving = split(values, media)
        if self._is_replaying:
            return  # it stands in the journal already
        cursor = self.cursor
        step = cursor.step if step is None else check_step(step)
        epoch = cursor.epoch + 1 if self._in_epochs else cursor.epoch
        if media:
            self._media.put(self, step, epoch, media)
        if not ready and arriving is None:
            return
        for written in self.journal.values(step, epoch, ready, arriving):
            self._note_values(*written)

    def log_predictions(
        self,
        images: Any,
        predicted: Any,
        true: Any,
        class_names: Sequence[str] | None = None,
        *,
        name: str = "predictions",
        count: int = 16,
        step: int | None = None,
    ) -> None:
        """Keep predicted against true classes, the worst first: as a picture, as text and as a table.

        The worst are those whose true class was given the smallest probability; without probabilities, those that are
        wrong. They are drawn behind the training's back.

        Args:
            images: of shape (N, C, H, W), (N, H, W, C) or (N, H, W), or a list; or N texts, which no picture is drawn of.
            predicted: shape (N,), numbers of classes, or (N, classes), logits or probabilities.
            true: shape (N,), numbers of classes; samples below 0 are left out.
            class_names: the names; the label is the position.
            name: of the picture; the text and the table are called ``name/text`` and ``name/table``.
            count: how many are drawn; the text and the table have at most 100 rows.

        Raises:
            ConfigurationError: these do not belong together, or the run is not open.

        Example:
            >>> import relume, tempfile
            >>> with relume.Run("a", root=tempfile.mkdtemp(), quiet=True) as run:
            ...     run.log_predictions(torch.rand(2, 1, 8, 8), torch.eye(2), torch.tensor([0, 0]), ["cat", "dog"])
        """
        self.log({name: Predictions(images, predicted, true, class_names, count=count)}, step)

    def observe(self, observer: Observer) -> None:
        """Call ``observer(step, epoch, values)`` with each line of metrics as soon as its values are at hand.

        For what comes from a device that is some steps after :meth:`log`; ``step`` and ``epoch`` (counted from 1) are those
        of the call.
        """
        self._seen.observers.append(observer)

    def _settle(self) -> None:
        """Wait for what devices still compute."""
        for written in self.journal.settle():
            self._note_values(*written)

    def _note_values(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._seen.take(step, epoch, values)
        self.console.values(values)
        for observer in self._seen.observers:
            observer(step, epoch, values)

    @property
    def last(self) -> dict[str, float]:
        """The newest value of each metric."""
        return self._seen.last

    @property
    def best(self) -> dict[str, float]:
        """The best value of each metric: smaller or larger by its name; NaN is never best."""
        return self._seen.best

    @property
    def best_epoch(self) -> dict[str, int]:
        """The epoch of each metric's best value, counted from 1."""
        return self._seen.best_epoch

    def moment(self, step: int | None = None) -> dict[str, Any]:
        """For companions: what a line of the journal begins with, at the present step or at ``step``."""
        epoch = self.cursor.epoch + 1 if self._in_epochs else self.cursor.epoch
        return {"step": self.cursor.step if step is None else step, "epoch": epoch, "time": round(time.time(), 4)}

    @property
    def is_replaying(self) -> bool:
        """Whether the script is on its way to the place of the checkpoint: what it does was done, and logged, before."""
        return self._is_replaying

    def next_step(self, optimizer: torch.optim.Optimizer) -> int:
        """The number of the step that the next update of ``optimizer``, one of this run's, makes."""
        return self._steps.next_step(optimizer)

    def why_not_finite(self) -> str | None:
        """Where NaN or infinity came from first, if a watcher such as :class:`relume.NonFinite` knows it."""
        return self._companions.why_not_finite()

    def note(self, text: str) -> None:
        """Say something on the console and keep it in the journal."""
        self._require_running()
        self.console.note(text)
        self.journal.write({"event": "note", "text": text, **self._place()})

    def _warn(self, problem: Problem) -> None:
        """A mistake that the ledger has found, as a warning and in the journal."""
        self.journal.write({"event": "note", "text": problem.text, **self._place()})
        warn(problem.text)

    def __reduce__(self) -> Any:
        raise ConfigurationError(
            f"run {self.name!r} cannot be copied or sent to another process, such as a worker of a DataLoader. Give the "
            "worker's values back to the training, and log them there."
        )

    def _require_running(self) -> None:
        if self.status == "forked":
            raise ConfigurationError(
                f"run {self.name!r} belongs to process {self._process}, and this is a forked one ({os.getpid()}), such as a "
                "worker of a DataLoader. Give its values back to the training, and log them there."
            )
        if self.status != "running":
            raise ConfigurationError(
                f'run {self.name!r} is not open ({self.status}): use it inside "with relume.Run(...) as run:".'
            )


_open_runs: weakref.WeakSet[Run] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """In a forked process: the runs that were open are those of its parent, journals and threads included."""
    for run in _open_runs:
        if run.status == "running":
            run.status = "forked"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


def _in_a_line(error: BaseException | None) -> str:
    """An error as a run's reason, without what looks like a secret."""
    return process_redactor().text(f"{type(error).__name__}: {error}".splitlines()[0][:500])
