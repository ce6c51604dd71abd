"""Runs as they are stored: what one did, as an object; several as a table. Both show themselves in a notebook."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from relume.direction import mode_of
from relume.errors import RelumeError, RootError
from relume.monitor.curves import Curve, curve_of, drawing
from relume.monitor.index import columns, metric_summary
from relume.monitor.pace import duration, number
from relume.monitor.record import RunRecord, find_run, runs_in, status_of
from relume.monitor.reported import report
from relume.page import Block, Cell, Folded, Grid, Page, Shown, Styled, dot, heading, line, text_of
from relume.text import counted, printable

STATUS_STYLES = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "killed": "red"}
_MOST_RUNS, _MOST_METRICS, _MOST_COLUMNS = 50, 12, 3
_MOST_SETTINGS, _SETTING = 60, 300
_DAMAGE = (RelumeError, OSError, ValueError, TypeError, ArithmeticError)  # what a damaged folder may lead to


@dataclass(frozen=True)
class Metric:
    """One metric of a run: its newest and best value, and where these were (epochs are counted from 1)."""

    last: float
    best: float
    best_epoch: int
    best_step: int
    count: int


@dataclass
class StoredRun(Shown):
    """A run in its folder, seen from outside: while it goes on, or afterwards. In a notebook it shows itself.

    Each look reads anew what the run has written since.

    Example:
        >>> import tempfile, relume
        >>> with relume.Run("line", root=tempfile.mkdtemp(), quiet=True) as run:
        ...     run.log({"train/loss": 0.5})
        >>> stored = StoredRun(run.folder)
        >>> stored.name, stored.status, stored.metrics["train/loss"].best
        ('line', 'finished', 0.5)
    """

    folder: Path

    @classmethod
    def find(cls, run: str | Path, root: str | Path = "runs") -> StoredRun:
        """The run of this name below ``root``, or at this path.

        Raises:
            UnknownNameError: there is no such run; lists the closest names.
        """
        return cls(find_run(run, root))

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def record(self) -> RunRecord:
        """What run.json says.

        Raises:
            RunError: there is none, or it is damaged.
        """
        return RunRecord.load(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        return self.record.config

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``interrupted``, ``failed`` or ``killed``."""
        return status_of(self.folder)[0]

    @property
    def metrics(self) -> dict[str, Metric]:
        """All metrics, the best by what their names say (smaller where they say nothing)."""
        return {name: _metric(name, entry) for name, entry in metric_summary(self.folder).items()}

    @property
    def history(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was logged, as columns: see :func:`relume.history`."""
        return columns(self.folder)

    def report(self, path: str | os.PathLike[str] | None = None, height: int = 800, **options: Any) -> Path | None:
        """All of the run in one HTML file that opens anywhere, offline: charts, checkpoints, settings, pictures.

        Args:
            path: the file. Without it a notebook shows the report below the cell, and needs no server for it; elsewhere
                ``NAME.html`` is written to the current folder.
            height: of the frame in the notebook, in pixels.
            options: ``title``, ``images`` (at most so many, 64), ``max_mb`` (20) and ``force``, see ``relume report --help``.

        Returns:
            The path, where a file was written. An earlier report in its place is replaced, another file is not.

        Raises:
            ConfigurationError: the file cannot be written there, or an option makes no sense.
            StorageError: the disk is full, read-only or fails.
        """
        return report([self.folder], path, height, **options)

    def page(self) -> Page:
        """What is shown: how it went, its metrics with their curves, its settings."""
        try:
            record, (status, end) = self.record, status_of(self.folder)
            headline = dot(_headline(record, status, end), STATUS_STYLES[status])
            blocks = _metric_blocks(self.folder, self.metrics)
        except _DAMAGE as error:
            return [heading(self.name), line(f"damaged: {error}", "red")]
        return [heading(self.name), headline, *blocks, _settings(record), line(self.folder, "dim")]

    def __repr__(self) -> str:
        return f"StoredRun({str(self.folder)!r})"


class StoredRuns(Shown, Sequence[StoredRun]):
    """Runs as a table, newest last: ``relume.runs()``. An index, a slice or a name gives of them."""

    def __init__(self, runs: Sequence[StoredRun], root: Path, *, best_first: bool = False) -> None:
        self._runs = list(runs)
        self.root = root
        self._best_first = best_first

    @overload
    def __getitem__(self, which: int | str) -> StoredRun: ...
    @overload
    def __getitem__(self, which: slice) -> StoredRuns: ...
    def __getitem__(self, which: int | str | slice) -> StoredRun | StoredRuns:
        if isinstance(which, str):
            return StoredRun.find(which, self.root)
        if isinstance(which, slice):
            return StoredRuns(self._runs[which], self.root, best_first=self._best_first)
        return self._runs[which]

    def __iter__(self) -> Iterator[StoredRun]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def report(self, path: str | os.PathLike[str] | None = None, height: int = 800, **options: Any) -> Path | None:
        """These runs side by side in one HTML file: see :meth:`StoredRun.report`; of several it is ``report.html``."""
        return report([run.folder for run in self._runs], path, height, **options)

    def page(self) -> Page:
        """The table: of each run how it stands, its best values and the course of the first of them."""
        if not self._runs:
            return [line(f"There are no runs in {self.root}.", "dim")]
        shown = self._runs[:_MOST_RUNS] if self._best_first else self._runs[-_MOST_RUNS:]
        rows = [_Row(run) for run in shown]
        names = _compared([row.metrics for row in rows])
        grid = Grid(
            ["run", "status", "epoch", "step", "time", *names[:1], *(["curve"] if names else []), *names[1:], "started"]
        )
        grid.rows = [row.cells(names) for row in rows]
        left_out = len(self._runs) - len(rows)
        notes = ["metrics: the best value of each run"] if names else []
        notes += [f"{counted(left_out, 'more run')} not shown"] if left_out else []
        grid.note = ", ".join(notes)
        return [grid]

    def __str__(self) -> str:
        return text_of(self.page(), 120)

    def __repr__(self) -> str:
        return f"<{counted(len(self._runs), 'run')} in {self.root}>"


def runs(root: str | Path = "runs") -> StoredRuns:
    """The runs below ``root``, oldest first. In a notebook they are a table with small curves.

    Raises:
        RootError: ``root`` is a file.

    Example:
        >>> import tempfile
        >>> len(runs(tempfile.mkdtemp()))
        0
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise RootError(f"{root} is a file: root= is the folder that holds the runs.")
    return StoredRuns([StoredRun(folder) for folder in runs_in(root)], root)


class _Row:
    """A run's row in the table; a damaged one says so and hides no other."""

    def __init__(self, run: StoredRun) -> None:
        self.run = run
        self.status, self.started = "damaged", ""
        self.metrics: dict[str, Metric] = {}
        self.places = ["", "", ""]
        try:
            record, (status, end), self.metrics = run.record, status_of(run.folder), run.metrics
            self.places = [str(end.get("epoch", 0)), str(end.get("step", 0)), duration(_seconds(record, status, end))]
        except _DAMAGE:
            return
        self.status, self.started = status, moment(record.created)

    def cells(self, names: Sequence[str]) -> list[Cell]:
        style = STATUS_STYLES.get(self.status, "red")
        bests = [Styled(number(self.metrics[n].best)) if n in self.metrics else Styled("") for n in names]
        curve = []
        if names:
            has_it = names[0] in self.metrics
            curve = [drawing(curve_of(self.run.folder, names[0]) if has_it else Curve.of([]), names[0])]
        return [
            Styled(self.run.name, "bold"),
            dot(self.status, style),
            *self.places,
            *bests[:1],
            *curve,
            *bests[1:],
            self.started,
        ]


def _metric(name: str, entry: dict[str, float]) -> Metric:
    side = mode_of(name) or "min"
    epoch, step = int(entry[f"{side}_epoch"]), int(entry[f"{side}_step"])
    return Metric(entry["last"], entry[side], epoch, step, int(entry["count"]))


def moment(seconds: float) -> str:
    """A Unix time as a short date; nothing where no calendar has it."""
    try:
        return time.strftime("%b %d %H:%M", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return ""


def _seconds(record: RunRecord, status: str, end: dict[str, Any]) -> float:
    now = time.time() if status == "running" else float(end.get("time", record.created))
    seconds = float(end.get("seconds", now - record.created))
    return seconds if math.isfinite(seconds) else 0.0


def _headline(record: RunRecord, status: str, end: dict[str, Any]) -> str:
    reason = f" ({end['reason']})" if end.get("reason") else ""
    place = f"epoch {end.get('epoch', 0)}, step {end.get('step', 0)}"
    return f"{status}{reason} · {place} · {duration(_seconds(record, status, end))} · started {moment(record.created)}"


def _compared(found: Sequence[dict[str, Metric]]) -> list[str]:
    """The metrics that a table of runs shows: of the validation, or of the training where there is none."""
    names = list(dict.fromkeys(name for metrics in found for name in metrics))
    for is_wanted in (lambda n: n.startswith("val/"), lambda n: n.endswith("_epoch"), lambda n: not _is_system(n)):
        wanted = [name for name in names if is_wanted(name)]
        if wanted:
            return sorted(wanted, key=lambda name: mode_of(name) != "max")[:_MOST_COLUMNS]
    return []


def _is_system(name: str) -> bool:
    return name.startswith(("system/", "freeze/"))


def _metric_blocks(folder: Path, metrics: dict[str, Metric]) -> list[Block]:
    if not metrics:
        return [line("nothing was logged yet", "dim")]
    names = sorted(metrics, key=lambda n: (_is_system(n), not n.startswith("val/")))
    shown = [name for name in names if not _is_system(name)][:_MOST_METRICS] or names[:_MOST_METRICS]
    rest = [name for name in names if name not in shown]
    blocks: list[Block] = [_metric_grid(folder, metrics, shown)]
    if rest:
        more = _metric_grid(folder, metrics, rest[:_MOST_METRICS])
        left_out = len(rest) - _MOST_METRICS
        more.note = f"and {left_out:,} more: run.history has all" if left_out > 0 else ""
        blocks.append(Folded(counted(len(rest), "more metric"), [more]))
    return blocks


def result_page(
    headline: str,
    status: str,
    folder: Path,
    last: Mapping[str, float],
    best: Mapping[str, float],
    epochs: Mapping[str, int],
) -> Page:
    """What a training gave back; its curves are there as long as its folder is."""
    metrics = {n: Metric(last[n], best.get(n, math.nan), epochs.get(n, 0), -1, 0) for n in last if not _is_system(n)}
    blocks = [_metric_grid(folder, metrics, list(metrics)[:_MOST_METRICS])] if metrics else []
    return [dot(headline, STATUS_STYLES.get(status, "red")), *blocks, line(f"stored in {folder}", "dim")]


def _metric_grid(folder: Path, metrics: dict[str, Metric], names: Sequence[str]) -> Grid:
    has_steps = any(metrics[name].best_step >= 0 for name in names)
    grid = Grid(["metric", "curve", "last", "best", "at epoch", *(["at step"] if has_steps else [])])
    for name in names:
        metric = metrics[name]
        best = Styled(number(metric.best), "bold" if mode_of(name) else "")
        places = [str(metric.best_epoch), str(metric.best_step)] if metric.count else [str(metric.best_epoch or "")]
        grid.rows.append([name, drawing(_curve(folder, name), name), number(metric.last), best, *places])
    return grid


def _curve(folder: Path, name: str) -> Curve:
    try:
        return curve_of(folder, name)
    except _DAMAGE:  # the folder is gone, or the metric's index
        return Curve.of([])


def record_page(record: RunRecord) -> Page:
    """What is known of a run when it starts."""
    begun = f"started {moment(record.created)} by process {record.process.pid} on {record.process.host}"
    return [heading(record.name), line(begun, "dim"), *_settings(record).blocks]


def _settings(record: RunRecord) -> Folded:
    grid = Grid(["setting", "value"])
    values = {**record.config, "seed": record.seed}
    for key, value in list(values.items())[:_MOST_SETTINGS]:
        grid.rows.append([key, printable(value if isinstance(value, str) else json.dumps(value), _SETTING)])
    if len(values) > _MOST_SETTINGS:
        grid.note = f"and {len(values) - _MOST_SETTINGS:,} more"
    if record.lineage:
        grid.rows.append(["from", str(record.lineage.get("checkpoint", ""))])
    grid.rows.append(["versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())])
    return Folded("settings", [grid])
